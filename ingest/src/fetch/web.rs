//! Files over HTTP: one client for web addresses and for the hub.

use super::{
    FetchOptions,
    error::{FetchError, Problem, told},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderMap, LAST_MODIFIED, RANGE,
        RETRY_AFTER,
    },
    redirect,
};
use std::{net::IpAddr, time::Duration};

/// An answer that delivers a file from some place on.
pub(super) struct Opened {
    /// Where the body begins in the file.
    pub(super) offset: u64,
    /// Size of the whole file, when the server says it.
    pub(super) total: Option<u64>,
    /// What distinguishes this content from others at the same address.
    pub(super) version: Option<String>,
    pub(super) body: BoxStream<'static, Result<Bytes, Problem>>,
}

/// The client.
pub(super) struct Web {
    client: Client,
    stall: Duration,
    allow_http: bool,
}

impl Web {
    pub(super) fn new(options: &FetchOptions) -> Result<Self, FetchError> {
        let allow_http = options.allow_http;
        let policy = redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > 10 {
                attempt.error("more than 10 redirections")
            } else if is_allowed(attempt.url(), allow_http) {
                attempt.follow()
            } else {
                attempt.error("a redirection to an address without encryption")
            }
        });
        let client = Client::builder()
            .user_agent(concat!("coda-ingest/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.stall.min(Duration::from_secs(15)))
            .redirect(policy)
            .build()
            .map_err(|e| {
                FetchError::Setup(format!("cannot start the HTTP client: {}", chain(&e)))
            })?;
        Ok(Self { client, stall: options.stall, allow_http })
    }

    /// Asks for a file from `offset` on.
    pub(super) async fn open(
        &self,
        url: &str,
        offset: u64,
        token: Option<&str>,
    ) -> Result<Opened, Problem> {
        let mut headers = HeaderMap::new();
        if offset > 0 {
            headers.insert(RANGE, header(&format!("bytes={offset}-"))?);
        }
        let response = self.get(url, headers, token).await?;
        let version = version(response.headers());
        let (offset, total) = if response.status() == StatusCode::PARTIAL_CONTENT {
            content_range(response.headers())
                .ok_or_else(|| Problem::passing("the answer does not say which part it is"))?
        } else {
            (0, response.content_length())
        };
        let body = response.bytes_stream().map(|part| part.map_err(failed)).boxed();
        Ok(Opened { offset, total, version, body })
    }

    /// Size and version of a file, from an answer whose body is not read.
    pub(super) async fn look(&self, url: &str) -> Result<(Option<u64>, Option<String>), Problem> {
        let mut headers = HeaderMap::new();
        // Signed addresses are often valid for GET only.
        headers.insert(RANGE, header("bytes=0-0")?);
        let response = match self.get(url, headers, None).await {
            // An empty file has no first byte.
            Err(Problem::Changed(_)) => self.get(url, HeaderMap::new(), None).await?,
            other => other?,
        };
        let version = version(response.headers());
        let total = if response.status() == StatusCode::PARTIAL_CONTENT {
            content_range(response.headers()).and_then(|(_, total)| total)
        } else {
            response.content_length()
        };
        Ok((total, version))
    }

    /// A whole small answer, with the address of the page that follows it.
    pub(super) async fn page(
        &self,
        url: &str,
        token: Option<&str>,
        most: usize,
    ) -> Result<(Vec<u8>, Option<String>), Problem> {
        let response = self.get(url, HeaderMap::new(), token).await?;
        let next = response
            .headers()
            .get("link")
            .and_then(|link| next_page(link.to_str().ok()?))
            .map(str::to_owned);
        let mut body = response.bytes_stream();
        let mut bytes = Vec::new();
        while let Some(part) = self.timely(body.next()).await? {
            bytes.extend_from_slice(&part.map_err(failed)?);
            if bytes.len() > most {
                return Err(Problem::Lasting(format!("the answer has more than {most} bytes")));
            }
        }
        Ok((bytes, next))
    }

    async fn get(
        &self,
        url: &str,
        mut headers: HeaderMap,
        token: Option<&str>,
    ) -> Result<Response, Problem> {
        let url = Url::parse(url).map_err(|e| Problem::Lasting(format!("no valid URL: {e}")))?;
        if !is_allowed(&url, self.allow_http) {
            let message = "it is not encrypted: use https, or set data.allow_http".to_owned();
            return Err(Problem::Lasting(message));
        }
        headers.insert(ACCEPT_ENCODING, header("identity")?);
        if let Some(token) = token {
            let mut value = header(&format!("Bearer {token}"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let request = self.client.get(url).headers(headers).send();
        let response = self.timely(request).await?.map_err(failed)?;
        let status = response.status();
        if status == StatusCode::OK || status == StatusCode::PARTIAL_CONTENT {
            return Ok(response);
        }
        let after = retry_after(response.headers());
        Err(Problem::of_status(status.as_u16(), after, status.canonical_reason().unwrap_or("")))
    }

    async fn timely<T>(&self, answer: impl Future<Output = T>) -> Result<T, Problem> {
        let late = |_| Problem::passing(format!("nothing came for {:?}", self.stall));
        tokio::time::timeout(self.stall, answer).await.map_err(late)
    }
}

/// Without encryption only this machine is asked, unless the manifest allows more.
fn is_allowed(url: &Url, allow_http: bool) -> bool {
    let local = |host: &str| {
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    };
    match url.scheme() {
        "https" => true,
        "http" => allow_http || url.host_str().is_some_and(local),
        _ => false,
    }
}

fn header(text: &str) -> Result<reqwest::header::HeaderValue, Problem> {
    text.parse().map_err(|_| Problem::Lasting("a token or header has odd characters".to_owned()))
}

fn failed(error: reqwest::Error) -> Problem {
    let lasting = error.is_builder() || error.is_redirect();
    let message = told(&chain(&error.without_url()));
    if lasting { Problem::Lasting(message) } else { Problem::passing(message) }
}

/// An error with its causes.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

fn version(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let etag = text(ETAG).map(plain_tag);
    etag.or_else(|| text(LAST_MODIFIED).map(|time| format!("modified {time}")))
}

/// A tag as it is compared. Azure lists tags without the quotes that it answers with; and a weak one
/// is better than none.
pub(super) fn plain_tag(tag: &str) -> String {
    tag.trim_start_matches("W/").trim_matches('"').to_owned()
}

/// `bytes 7-99/100` as the first byte and the size.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    let start = range.split_once('-')?.0.trim().parse().ok()?;
    Some((start, total.trim().parse().ok()))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The address behind `rel="next"` of a Link header.
fn next_page(link: &str) -> Option<&str> {
    link.split(',').find_map(|part| {
        let (address, relation) = part.split_once('>')?;
        relation.contains("rel=\"next\"").then(|| address.trim().trim_start_matches('<'))
    })
}

#[cfg(test)]
mod tests {
    use super::{content_range, is_allowed, next_page, plain_tag, retry_after};
    use reqwest::{Url, header::HeaderMap};
    use std::time::Duration;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().expect("a name"), value.parse().expect("a value"))])
    }

    #[test]
    fn headers_are_read() {
        let range = |text| content_range(&headers("content-range", text));
        assert_eq!(range("bytes 7-99/100"), Some((7, Some(100))));
        assert_eq!(range("bytes 7-99/*"), Some((7, None)));
        assert_eq!(range("bytes */100"), None);
        assert_eq!(range("items 7-99/100"), None);
        assert_eq!(["\"v\"", "W/\"v\"", "v"].map(plain_tag), ["v", "v", "v"]);
        let after = |text| retry_after(&headers("retry-after", text));
        assert_eq!(after("3"), Some(Duration::from_secs(3)));
        assert_eq!(after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(
            next_page("<http://h/2>; rel=\"next\", <http://h/9>; rel=\"last\""),
            Some("http://h/2")
        );
        assert_eq!(next_page("<http://h/9>; rel=\"last\""), None);
    }

    #[test]
    fn only_this_machine_is_asked_without_encryption() {
        let allowed = |text: &str, allow| is_allowed(&Url::parse(text).expect("a URL"), allow);
        for text in ["https://h/", "http://127.0.0.1:9/", "http://[::1]/", "http://localhost/"] {
            assert!(allowed(text, false), "{text}");
        }
        for text in ["http://h/", "http://10.0.0.1/", "http://localhost.h/"] {
            assert!(!allowed(text, false) && allowed(text, true), "{text}");
        }
        assert!(!allowed("file:///etc/passwd", true));
    }
}
