//! A small HTTP server on loopback that misbehaves as it is told.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// What happens instead of a whole answer. One is used up by each request for content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Only a status, with `Retry-After` when it is given.
    Status(u16, Option<u32>),
    /// So many bytes come, then the connection ends.
    Cut(usize),
    /// So many bytes come, then nothing until the client goes away.
    Stall(usize),
    /// The whole file comes, whatever part was asked for.
    IgnoreRange,
    /// Another version of the file comes.
    OtherTag,
    /// The right part, with a wrong size of the whole.
    OtherSize,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Request {
    fn range(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
    }
}

/// Clients of buckets want to see one.
const MODIFIED: &str = "Last-Modified: Tue, 24 Nov 2026 20:00:00 GMT";

/// What the server gives under a path.
#[derive(Clone, Debug)]
pub(crate) enum Page {
    /// Content with an `ETag`.
    File(Vec<u8>, &'static str),
    /// Content without a tag, and without parts.
    Plain(Vec<u8>),
    /// JSON, with the path of the next page.
    Json(String, Option<String>),
    /// Another address.
    Redirect(String),
}

#[derive(Default)]
struct State {
    pages: BTreeMap<String, Page>,
    faults: VecDeque<Fault>,
    requests: Vec<Request>,
    stalled: usize,
}

/// The server; it ends with the value.
pub(crate) struct Server {
    port: u16,
    shared: Arc<(Mutex<State>, Condvar)>,
    over: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (state, done) = (Arc::clone(&shared), Arc::clone(&over));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let state = Arc::clone(&state);
                // A client that goes away in the middle is what the tests are about.
                std::thread::spawn(move || {
                    let _ = answer(&stream.expect("a connection"), &state);
                });
            }
        });
        Self { port, shared, over }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn page(&self, path: &str, page: Page) -> &Self {
        self.shared.0.lock().expect("no panic").pages.insert(path.to_owned(), page);
        self
    }

    pub(crate) fn faults(&self, faults: &[Fault]) -> &Self {
        self.shared.0.lock().expect("no panic").faults = faults.iter().cloned().collect();
        self
    }

    /// The requests since the last call.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.shared.0.lock().expect("no panic").requests)
    }

    /// Waits until a connection stalls.
    pub(crate) fn wait_for_stall(&self) {
        let state = self.shared.0.lock().expect("no panic");
        let state = self.shared.1.wait_while(state, |state| state.stalled == 0);
        state.expect("no panic").stalled -= 1;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn answer(stream: &TcpStream, shared: &(Mutex<State>, Condvar)) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut request = Request { path, headers: BTreeMap::new() };
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(": ") else { break };
            request.headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let plain = unquoted(request.path.split('?').next().unwrap_or_default());
        let (page, fault) = {
            let mut state = shared.0.lock().expect("no panic");
            let page = state.pages.get(&request.path).or_else(|| state.pages.get(&plain)).cloned();
            // Listings and looks are answered: the faults are for content.
            let look = request.headers.get("range").is_some_and(|range| range == "bytes=0-0");
            let content = matches!(page, Some(Page::File(..) | Page::Plain(_))) && !look;
            let fault = if content { state.faults.pop_front() } else { None };
            state.requests.push(request.clone());
            (page, fault)
        };
        if !reply(stream, &request, page.as_ref(), fault.as_ref(), shared)? {
            return Ok(());
        }
    }
}

/// A path without its escapes: clients of buckets write `%2E` for a dot.
fn unquoted(path: &str) -> String {
    let mut parts = path.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at(2);
        text.push(char::from(u8::from_str_radix(code, 16).expect("two digits")));
        text.push_str(rest);
    }
    text
}

/// Writes one answer; false when the connection ends with it.
fn reply(
    mut stream: &TcpStream,
    request: &Request,
    page: Option<&Page>,
    fault: Option<&Fault>,
    shared: &(Mutex<State>, Condvar),
) -> std::io::Result<bool> {
    let mut head = String::new();
    let (status, body): (u16, &[u8]) = match (page, fault) {
        (_, Some(Fault::Status(status, after))) => {
            if let Some(after) = after {
                let _ = write!(head, "Retry-After: {after}\r\n");
            }
            (*status, b"")
        }
        (None, _) => (404, b""),
        (Some(Page::Json(text, next)), _) => {
            if let Some(next) = next {
                let _ = write!(head, "Link: <{next}>; rel=\"next\"\r\n");
            }
            (200, text.as_bytes())
        }
        (Some(Page::Redirect(to)), _) => {
            let _ = write!(head, "Location: {to}\r\n");
            (302, b"")
        }
        (Some(Page::Plain(content)), _) => (200, content),
        (Some(Page::File(content, tag)), fault) => {
            let tag = if fault == Some(&Fault::OtherTag) { "other" } else { tag };
            let _ = write!(head, "ETag: \"{tag}\"\r\n{MODIFIED}\r\n");
            match request.range().filter(|_| fault != Some(&Fault::IgnoreRange)) {
                Some(start) if start >= content.len() => (416, b""),
                Some(start) => {
                    let one = request.headers["range"] == "bytes=0-0";
                    let end = if one { 1 } else { content.len() };
                    let total = content.len() + usize::from(fault == Some(&Fault::OtherSize));
                    let _ = write!(head, "Content-Range: bytes {start}-{}/{total}\r\n", end - 1);
                    (206, &content[start..end])
                }
                None => (200, content),
            }
        }
    };
    let length = body.len() + usize::from(status == 200 && fault == Some(&Fault::OtherSize));
    write!(stream, "HTTP/1.1 {status} Told\r\n{head}Content-Length: {length}\r\n\r\n")?;
    let sent = match fault {
        Some(Fault::Cut(bytes) | Fault::Stall(bytes)) => &body[..body.len().min(*bytes)],
        _ => body,
    };
    stream.write_all(sent)?;
    stream.flush()?;
    match fault {
        Some(Fault::Stall(_)) => {
            shared.0.lock().expect("no panic").stalled += 1;
            shared.1.notify_all();
            // Until the client goes away.
            let _ = stream.read(&mut [0]);
            Ok(false)
        }
        Some(Fault::Cut(_) | Fault::OtherSize) => {
            stream.shutdown(std::net::Shutdown::Both)?;
            Ok(false)
        }
        _ => Ok(true),
    }
}
