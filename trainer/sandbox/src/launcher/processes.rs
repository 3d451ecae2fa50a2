//! Waiting, and ending what was left running.

use super::{
    failed,
    system::{self, Ended, Pid},
};
use crate::program::End;
use std::{
    fs,
    io::{PipeReader, Read as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    process,
    time::{Duration, Instant},
};

/// Runs `child` in a child of this process, which ends with what it gives.
pub(super) fn fork(child: impl FnOnce() -> i32) -> Result<Pid, String> {
    // SAFETY: a launcher has one thread: `enter` has counted them, and nothing here starts one.
    unsafe { system::fork(child) }.map_err(failed("cannot fork"))
}

/// From now on this process is killed when its parent ends.
pub(super) fn die_with_the_parent() -> Result<(), String> {
    system::set(libc::PR_SET_PDEATHSIG, libc::SIGKILL)
        .map_err(failed("cannot tie a process to its parent"))
}

/// From now on this process is the parent of orphans among its descendants.
pub(super) fn become_the_reaper() -> Result<(), String> {
    system::set(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(failed("cannot become the reaper"))
}

/// Waits until `program` has ended, and takes leave of whoever else ends before.
pub(super) fn wait_for(program: Pid) -> Result<End, String> {
    loop {
        let (pid, ended) = system::wait(-1).map_err(failed("cannot wait for the program"))?;
        if pid == program {
            return Ok(match ended {
                Ended::Exited(code) => End::Exited(code),
                Ended::Signalled(signal) => End::Signalled(signal),
            });
        }
    }
}

/// A child that says in a pipe how what it looks after has ended.
pub(super) struct Child {
    pid: Pid,
    report: PipeReader,
}

impl Child {
    pub(super) const fn new(pid: Pid, report: PipeReader) -> Self {
        Self { pid, report }
    }

    /// Waits for the report, for the end of `wall`, or for the other end of `socket` to be closed; then
    /// the child is no more. The outer error is ours, the inner one the child's.
    pub(super) fn wait(
        mut self,
        socket: &UnixStream,
        wall: Duration,
    ) -> Result<Result<End, String>, String> {
        let deadline = Instant::now() + wall;
        let early = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break Some(End::WallTime);
            }
            // One more millisecond, lest the last one is spent in a busy loop.
            let timeout = left + Duration::from_millis(1);
            let ready = system::readable([self.report.as_fd(), socket.as_fd()], timeout);
            match ready.map_err(failed("cannot wait"))? {
                [true, _] => break None,
                [false, true] => break Some(End::Output),
                [false, false] => {}
            }
        };
        let mut line = String::new();
        if early.is_some() {
            system::kill(self.pid);
        } else {
            let read = self.report.read_to_string(&mut line);
            read.map_err(failed("cannot read how the program ended"))?;
        }
        system::wait(self.pid).map_err(failed("cannot wait for the keeper"))?;
        let said = || {
            serde_json::from_str(&line).unwrap_or_else(|_| Err("its keeper was killed".to_owned()))
        };
        Ok(early.map_or_else(said, Ok))
    }
}

/// Kills every descendant of this process, which is their reaper.
pub(super) fn sweep() {
    let children = format!("/proc/self/task/{}/children", process::id());
    loop {
        let listed = fs::read_to_string(&children).unwrap_or_default();
        listed.split_whitespace().filter_map(|pid| pid.parse().ok()).for_each(system::kill);
        // Children of those who died come to us, and are in the list of the next round.
        if system::wait(-1).is_err() {
            return;
        }
    }
}
