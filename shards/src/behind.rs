//! Forcing to disk behind the writer's back, in the writer's order.
//!
//! A disk takes tens of milliseconds to say that a shard is safe. The writer goes on with the next one
//! meanwhile: what has to be on disk before what is a list of tasks that one thread works off, one after
//! the other. After a task that fails none of those behind it is done, so that no note ever counts on a
//! shard that is not there.

use crate::commit::FileError;
use std::{
    panic,
    path::Path,
    sync::mpsc::{SyncSender, sync_channel},
    thread::{Builder, JoinHandle},
};

/// Tasks that wait at most: a disk that is slower than the writer holds it up, so that never more than
/// about one shard is waiting for the disk.
const WAITING: usize = 4;

type Task = Box<dyn FnOnce() -> Result<(), FileError> + Send>;

/// The thread and its list.
pub(crate) struct Behind {
    tasks: Option<SyncSender<Task>>,
    thread: Option<JoinHandle<Result<(), FileError>>>,
}

impl Behind {
    /// Starts the thread, for files in `dir` (which only messages want to know).
    pub(crate) fn start(dir: &Path) -> Result<Self, FileError> {
        let (tasks, list) = sync_channel::<Task>(WAITING);
        let thread = Builder::new()
            .name("coda-sync".to_owned())
            .spawn(move || list.into_iter().try_for_each(|task| task()))
            .map_err(|error| FileError::new("start a thread that writes to", dir, error))?;
        Ok(Self { tasks: Some(tasks), thread: Some(thread) })
    }

    /// Puts a task at the end of the list. An error is that of an earlier one; then this one is not done.
    pub(crate) fn then(
        &mut self,
        task: impl FnOnce() -> Result<(), FileError> + Send + 'static,
    ) -> Result<(), FileError> {
        match &self.tasks {
            Some(tasks) if tasks.send(Box::new(task)).is_ok() => Ok(()),
            _ => self.wait(),
        }
    }

    /// Waits until all tasks are done.
    pub(crate) fn wait(&mut self) -> Result<(), FileError> {
        self.tasks = None;
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(outcome) => outcome.unwrap_or_else(|panic| panic::resume_unwind(panic)),
        }
    }
}

impl Drop for Behind {
    /// What was begun is finished also where the writer is given up, and nothing is written to the
    /// folder after its lock is gone.
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // The error that made the writer end is the one to report.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Behind;
    use crate::commit::FileError;
    use std::{
        io,
        path::Path,
        sync::{Arc, Mutex},
    };

    #[test]
    fn tasks_keep_their_order_and_none_is_done_behind_one_that_fails() {
        let done: Arc<Mutex<Vec<u32>>> = Arc::default();
        let task = |number: u32| {
            let done = Arc::clone(&done);
            move || {
                if number == 20 {
                    return Err(FileError::new("write", Path::new("x"), io::Error::other("full")));
                }
                done.lock().unwrap().push(number);
                Ok(())
            }
        };
        let mut behind = Behind::start(Path::new("x")).unwrap();
        let mut outcome = Ok(());
        for number in 0..100 {
            outcome = behind.then(task(number));
            if outcome.is_err() {
                break;
            }
        }
        let error = outcome.expect_err("the list is shorter than the tasks behind the failure");
        assert!(error.to_string().contains("write x"), "{error}");
        assert_eq!(*done.lock().unwrap(), (0..20).collect::<Vec<_>>());

        done.lock().unwrap().clear();
        let mut behind = Behind::start(Path::new("x")).unwrap();
        behind.then(task(1)).unwrap();
        behind.then(task(20)).unwrap();
        behind.wait().expect_err("the failure");
        assert_eq!(*done.lock().unwrap(), [1]);

        done.lock().unwrap().clear();
        let mut behind = Behind::start(Path::new("x")).unwrap();
        (1..4).for_each(|number| behind.then(task(number)).unwrap());
        drop(behind);
        assert_eq!(*done.lock().unwrap(), [1, 2, 3], "given up, it still finishes what was begun");
    }
}
