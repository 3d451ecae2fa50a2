//! Files fetched before the reader wants them, in the order in which it will.

use super::{Fetcher, Inner, Origin, download::download, error::FetchError};
use crate::source::InputFile;
use std::{collections::VecDeque, fs, sync::Arc, time::Duration};
use tokio::{runtime::Handle, task::JoinHandle};

/// How often a waiting reader looks whether a signal came.
const LOOK: Duration = Duration::from_millis(100);

/// What hears of bytes as they come.
pub type Came = Arc<dyn Fn(u64) + Send + Sync>;

/// The remote files of a list, on their way. Dropped, it stops them; what has come stays for later.
pub struct Ahead {
    inner: Arc<Inner>,
    runtime: Handle,
    waiting: VecDeque<Option<(Origin, u64)>>,
    running: VecDeque<Option<JoinHandle<Result<(), FetchError>>>>,
    came: Came,
}

impl Fetcher {
    /// Starts to fetch the remote ones of `files`.
    #[must_use]
    pub fn ahead(&self, files: &[InputFile], came: Came) -> Ahead {
        let waiting =
            files.iter().map(|file| Some((file.origin.as_deref()?.clone(), file.bytes))).collect();
        let mut ahead = Ahead {
            inner: Arc::clone(&self.inner),
            runtime: self.runtime.handle().clone(),
            waiting,
            running: VecDeque::new(),
            came,
        };
        ahead.start();
        ahead
    }
}

impl Ahead {
    /// Waits until the next file of the list is there.
    ///
    /// # Errors
    /// If it cannot be fetched, or `stop` says so meanwhile.
    pub fn next(&mut self, stop: &dyn Fn() -> bool) -> Result<(), FetchError> {
        self.start();
        let Some(mut task) = self.running.pop_front().flatten() else { return Ok(()) };
        self.runtime.block_on(async {
            loop {
                if let Ok(done) = tokio::time::timeout(LOOK, &mut task).await {
                    return done.map_err(|e| FetchError::Setup(e.to_string()))?;
                }
                if stop() {
                    task.abort();
                    return Err(FetchError::Stopped);
                }
            }
        })
    }

    /// A file was read to its end: where they are not kept, it is removed from our own cache. Only best
    /// effort is made, as nothing depends on it but room.
    pub fn has_read(&self, file: &InputFile) {
        let Some(origin) = file.origin.as_deref().filter(|_| !self.inner.options.keep) else {
            return;
        };
        let place = self.inner.place(origin, file.bytes);
        if let (Some(note), None) = (&place.note, &place.link) {
            let _ = fs::remove_file(&place.whole).and_then(|()| fs::remove_file(note));
            let _ = place.whole.parent().map(fs::remove_dir);
        }
    }

    /// Keeps as many on their way as may be.
    fn start(&mut self) {
        let busy = |running: &VecDeque<Option<_>>| running.iter().flatten().count();
        while self.running.is_empty() || busy(&self.running) < self.inner.options.parallel {
            let Some(file) = self.waiting.pop_front() else { return };
            let task = file.map(|(origin, bytes)| {
                let (inner, came) = (Arc::clone(&self.inner), Arc::clone(&self.came));
                self.runtime.spawn(async move {
                    let place = inner.place(&origin, bytes);
                    download(&inner, &origin, bytes, &place, &*came).await
                })
            });
            self.running.push_back(task);
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        for task in self.running.iter().flatten() {
            task.abort();
        }
    }
}
