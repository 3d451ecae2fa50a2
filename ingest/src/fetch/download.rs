//! One file from a server to its place, through faults on the way.

use super::{
    Inner, Origin,
    address::Address,
    cache::{Part, Place, is_whole, link},
    error::{FetchError, Problem},
    web::Opened,
};
use futures_util::StreamExt as _;
use std::time::Duration;

/// A pause never grows above this, unless the server asks for more.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A server that asks for more than this is asked for too much.
const LONGEST_ASKED: Duration = Duration::from_mins(2);
/// So many bytes without a fault, and the faults before are forgotten.
const PROGRESS: u64 = 256 << 10;

/// Faults in a row, and what to do about the next one.
pub(super) struct Faults {
    seen: u32,
    most: u32,
    pause: Duration,
}

impl Faults {
    pub(super) const fn new(most: u32, pause: Duration) -> Self {
        Self { seen: 0, most, pause }
    }

    const fn forget(&mut self) {
        self.seen = 0;
    }

    /// Waits before the next attempt, or gives the problem back when it is no use.
    pub(super) async fn wait(&mut self, problem: Problem) -> Result<(), Problem> {
        let Problem::Passing { message, after } = problem else { return Err(problem) };
        self.seen += 1;
        if self.seen >= self.most || after.is_some_and(|after| after > LONGEST_ASKED) {
            let message = format!("{message} (after {} attempts)", self.seen);
            return Err(Problem::Passing { message, after });
        }
        let grown = self.pause.saturating_mul(1 << (self.seen - 1).min(16)).min(LONGEST_PAUSE);
        tokio::time::sleep(after.unwrap_or(grown)).await;
        Ok(())
    }
}

/// Fetches one file to its place. `came` hears of every byte, and of those that an earlier run left.
pub(super) async fn download(
    inner: &Inner,
    origin: &Origin,
    bytes: u64,
    place: &Place,
    came: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), FetchError> {
    if is_whole(&place.whole, bytes) {
        came(bytes);
        return link(place);
    }
    let (of, at) = (origin.clone(), place.clone());
    // Waits for a lock and hashes what is there.
    let part = tokio::task::spawn_blocking(move || Part::open(&at, &of, bytes)).await;
    let Some(mut part) = part.map_err(|e| FetchError::Setup(e.to_string()))?? else {
        came(bytes);
        return link(place);
    };
    came(part.length);
    let address = &origin.address;
    let mut faults = Faults::new(inner.options.attempts, inner.options.pause);
    while part.length < bytes {
        let outcome = match inner.open(address, part.length).await {
            Ok(opened) => pour(inner, opened, origin, bytes, &mut part, &mut faults, came).await,
            Err(problem) => Err(Ended::Problem(problem)),
        };
        match outcome {
            Ok(()) => {}
            Err(Ended::File(error)) => return Err(error),
            Err(Ended::Problem(problem)) => {
                if matches!(problem, Problem::Changed(_)) {
                    part.discard();
                    return Err(problem.at(address));
                }
                faults.wait(problem).await.map_err(|problem| problem.at(address))?;
            }
        }
    }
    let (address, of) = (address.clone(), origin.clone());
    let finished = tokio::task::spawn_blocking(move || part.finish(&address, &of)).await;
    finished.map_err(|e| FetchError::Setup(e.to_string()))??;
    link(place)
}

enum Ended {
    Problem(Problem),
    File(FetchError),
}

/// One answer into the part, until it ends or breaks.
async fn pour(
    inner: &Inner,
    mut opened: Opened,
    origin: &Origin,
    bytes: u64,
    part: &mut Part,
    faults: &mut Faults,
    came: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), Ended> {
    let changed = |what: String| Ended::Problem(Problem::Changed(what));
    if let Some(total) = opened.total.filter(|&total| total != bytes) {
        return Err(changed(format!("it has {total} bytes, expected {bytes}")));
    }
    // Mirrors and content networks have tags of their own; the hub's files are held to their sums.
    let by_version = origin.sum.is_none();
    if let (true, Some(expected), Some(found)) = (by_version, &origin.version, &opened.version)
        && expected != found
    {
        return Err(changed(format!("its version is {found}, expected {expected}")));
    }
    if opened.offset != part.length {
        if opened.offset != 0 {
            let message = format!("asked for byte {}, got {}", part.length, opened.offset);
            return Err(Ended::Problem(Problem::passing(message)));
        }
        // The server cannot send the rest alone.
        part.start_over(origin, bytes).map_err(Ended::File)?;
    }
    let mut fresh = 0;
    let stall = inner.options.stall;
    loop {
        let next = tokio::time::timeout(stall, opened.body.next())
            .await
            .map_err(|_| Ended::Problem(Problem::passing(format!("nothing came for {stall:?}"))))?;
        let Some(bytes_come) = next else { break };
        let come = bytes_come.map_err(Ended::Problem)?;
        if part.length + come.len() as u64 > bytes {
            return Err(changed(format!("more than the expected {bytes} bytes came")));
        }
        part.write(&come).map_err(Ended::File)?;
        came(come.len() as u64);
        fresh += come.len() as u64;
        if fresh >= PROGRESS {
            faults.forget();
        }
    }
    if part.length < bytes {
        let message = format!("the connection ended after {} of {bytes} bytes", part.length);
        return Err(Ended::Problem(Problem::passing(message)));
    }
    Ok(())
}

/// A small file as a whole: asked again until it comes or the problem lasts.
pub(super) async fn small(
    inner: &Inner,
    address: &Address,
    most: usize,
) -> Result<Vec<u8>, Problem> {
    let mut faults = Faults::new(inner.options.attempts, inner.options.pause);
    loop {
        match once(inner, address, most).await {
            Ok(bytes) => return Ok(bytes),
            Err(problem) => faults.wait(problem).await?,
        }
    }
}

async fn once(inner: &Inner, address: &Address, most: usize) -> Result<Vec<u8>, Problem> {
    let mut opened = inner.open(address, 0).await?;
    let stall = inner.options.stall;
    let mut bytes = Vec::new();
    loop {
        let next = tokio::time::timeout(stall, opened.body.next()).await;
        let next = next.map_err(|_| Problem::passing(format!("nothing came for {stall:?}")))?;
        let Some(part) = next else { break };
        bytes.extend_from_slice(&part?);
        if bytes.len() > most {
            return Err(Problem::Lasting(format!("it has more than {most} bytes")));
        }
    }
    if opened.total.is_some_and(|total| total != bytes.len() as u64) {
        return Err(Problem::passing(format!("the connection ended after {} bytes", bytes.len())));
    }
    Ok(bytes)
}
