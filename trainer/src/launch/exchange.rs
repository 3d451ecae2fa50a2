//! What the processes of a run tell each other while it runs: rounds that all of them take part in, in
//! the same order.
//!
//! In a round every process puts its part into the store, and process 0 takes all of them out. In
//! [`Group::exchange`] it then puts them back as one value that the others read. So a round costs two
//! messages a process, and the store never holds more than a round.
//!
//! A process that fails says so ([`Group::fail`]), and a process that ends is missed by process 0: whoever
//! waits in a round learns of either within seconds.

use super::{Group, LaunchError};
use coda_pjrt::ErrorCode;
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// How often somebody who waits looks whether it is in vain.
const LOOK: Duration = Duration::from_secs(1);
/// The longest that processes which live and do not fail may be apart: while process 0 writes a
/// checkpoint, the others wait.
const PATIENCE: Duration = Duration::from_hours(1);
/// How long process 0 stays so that the others see why they are refused.
const GRACE: Duration = Duration::from_secs(10);
/// Longer values travel in pieces of this size; the wire takes 64 MiB.
const PIECE: usize = 32 << 20;
/// Where a process that fails leaves its last words.
const FAILED: &[u8] = b"coda/failed";

impl Group {
    /// Gives every process what each has given, in their order.
    ///
    /// # Errors
    /// If a process is in another round, fails, ends, or does not come.
    pub fn exchange(&self, what: &str, own: &[u8]) -> Result<Vec<Vec<u8>>, LaunchError> {
        if self.is_alone() {
            return Ok(vec![own.to_vec()]);
        }
        let round = self.rounds.load(Ordering::Relaxed);
        let all = format!("coda/round/{round}/all");
        if let Some(parts) = self.gather(what, own)? {
            let mut value = Vec::new();
            for part in &parts {
                value.extend((part.len() as u64).to_le_bytes());
                value.extend_from_slice(part);
            }
            self.send(what, &all, &value)?;
            return Ok(parts);
        }
        let value = self.receive(what, &all)?;
        let mut rest = value.as_slice();
        let mut parts = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk() {
            let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
            let Some((part, after)) = after.split_at_checked(length) else { break };
            parts.push(part.to_vec());
            rest = after;
        }
        if rest.is_empty() && parts.len() == self.launch().count {
            return Ok(parts);
        }
        Err(self.apart(what, "process 0 sent something else"))
    }

    /// Gives process 0 what each process has given, in their order; nothing to the others, which do not
    /// wait.
    ///
    /// # Errors
    /// As [`Group::exchange`].
    pub fn gather(&self, what: &str, own: &[u8]) -> Result<Option<Vec<Vec<u8>>>, LaunchError> {
        if self.is_alone() {
            return Ok(Some(vec![own.to_vec()]));
        }
        let round = self.rounds.fetch_add(1, Ordering::Relaxed);
        let key = |process: usize| format!("coda/round/{round}/{process}");
        let Some(served) = &self.served else {
            let mut value = (what.len() as u64).to_le_bytes().to_vec();
            value.extend(what.bytes());
            value.extend_from_slice(own);
            self.send(what, &key(self.launch().process), &value)?;
            return Ok(None);
        };
        let mut parts = vec![own.to_vec()];
        for process in 1..self.launch().count {
            let value = self.receive(what, &key(process))?;
            let (place, part) = split_name(&value).ok_or_else(|| {
                self.apart(what, &format!("process {process} sent something else"))
            })?;
            if place != what.as_bytes() {
                let place = String::from_utf8_lossy(place);
                return Err(self.apart(what, &format!("process {process} is at `{place}`")));
            }
            parts.push(part.to_vec());
        }
        // Who has come to this round has read what the last one gave.
        if let Some(last) = round.checked_sub(1) {
            remove(&served.store, &format!("coda/round/{last}/all"));
        }
        Ok(Some(parts))
    }

    /// Refuses processes that do not have the same. `own` are names and values; the error names the
    /// first that differs, and the process.
    ///
    /// # Errors
    /// If one differs, or as [`Group::exchange`].
    pub fn agree(&self, what: &str, own: &[(String, String)]) -> Result<(), LaunchError> {
        let own: Vec<String> = own.iter().map(|(name, value)| format!("{name}\t{value}")).collect();
        let all = self.exchange(what, own.join("\n").as_bytes())?;
        let lines = |part: &[u8]| -> Vec<String> {
            String::from_utf8_lossy(part).lines().map(str::to_owned).collect()
        };
        let right = lines(&all[0]);
        for (process, part) in all.iter().enumerate().skip(1) {
            let found = lines(part);
            let longest = right.len().max(found.len());
            let line = |list: &[String], at: usize| {
                list.get(at).map_or("nothing".to_owned(), |line| line.replacen('\t', " ", 1))
            };
            if let Some(at) = (0..longest).find(|&at| right.get(at) != found.get(at)) {
                // Process 0 ends with this too, and takes the store away. Who does not come knows no less.
                let _ = self.barrier(&format!("{what} differs"), GRACE);
                return Err(LaunchError::Apart {
                    what: what.to_owned(),
                    process,
                    found: line(&found, at),
                    first: line(&right, at),
                });
            }
        }
        Ok(())
    }

    /// Tells the others that this process ends with an error, so that nobody waits for it.
    pub fn fail(&self, message: &str) {
        let message = format!("process {}: {message}", self.launch().process);
        // Whoever cannot be told sees that the connection has ended.
        if !self.is_alone() && matches!(self.store().try_get(FAILED), Ok(None)) {
            let _ = self.store().put(FAILED, message.as_bytes());
        }
    }

    fn send(&self, what: &str, key: &str, value: &[u8]) -> Result<(), LaunchError> {
        let put = |name: String, bytes: &[u8]| {
            let put = self.store().put(name.as_bytes(), bytes);
            put.map_err(|failure| self.apart(what, &failure.message))
        };
        let mut first = (value.len() as u64).to_le_bytes().to_vec();
        first.extend_from_slice(&value[..value.len().min(PIECE)]);
        for (number, piece) in value.chunks(PIECE).enumerate().skip(1) {
            put(format!("{key}/{number}"), piece)?;
        }
        // The first comes last: who sees it sees all.
        put(format!("{key}/0"), &first)
    }

    fn receive(&self, what: &str, key: &str) -> Result<Vec<u8>, LaunchError> {
        let first = self.wait(what, &format!("{key}/0"))?;
        let Some((length, start)) = first.split_first_chunk() else {
            return Err(self.apart(what, "a message of no length"));
        };
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let mut value = start.to_vec();
        for number in 1..length.div_ceil(PIECE) {
            value.extend(self.wait(what, &format!("{key}/{number}"))?);
        }
        if let Some(served) = &self.served {
            remove(&served.store, key);
        }
        if value.len() == length {
            return Ok(value);
        }
        Err(self.apart(what, "a message was cut"))
    }

    /// Waits for a key as long as nobody has failed and everybody is there.
    fn wait(&self, what: &str, key: &str) -> Result<Vec<u8>, LaunchError> {
        let end = Instant::now() + PATIENCE;
        let store = self.store();
        loop {
            match store.get(key.as_bytes(), LOOK) {
                Ok(value) => return Ok(value),
                Err(failure) if failure.code != ErrorCode::DeadlineExceeded => {
                    return Err(self.apart(what, &failure.message));
                }
                Err(_) => {}
            }
            if let Ok(Some(words)) = store.try_get(FAILED) {
                let words = String::from_utf8_lossy(&words).into_owned();
                return Err(self.apart(what, &words));
            }
            let server = self.served.as_ref().and_then(|served| served.server.as_ref());
            let gone = |process: &usize| server.is_some_and(|server| server.is_gone(*process));
            if let Some(process) = (1..self.launch().count).find(gone) {
                return Err(self.apart(what, &format!("process {process} has ended")));
            }
            if Instant::now() >= end {
                return Err(self.apart(what, &format!("nothing came within {PATIENCE:?}")));
            }
        }
    }

    fn apart(&self, what: &str, problem: &str) -> LaunchError {
        self.launch().failed(format!("at `{what}`: {problem}"))
    }
}

/// The name of a round and the part that was given to it.
fn split_name(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = value.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
}

/// Takes a value and its further pieces out of the store.
fn remove(store: &coda_pjrt::MemoryStore, key: &str) {
    for number in 0.. {
        if store.remove(format!("{key}/{number}").as_bytes()).is_none() {
            return;
        }
    }
}
