//! SIGINT and SIGTERM: finish the step at hand, save, leave.

use crate::{Exit, Failure};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Whether somebody has asked this process to stop.
#[derive(Clone, Debug)]
pub struct Stop {
    interrupted: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
}

impl Stop {
    /// Installs the handlers. The first SIGINT or SIGTERM only sets a flag; a second SIGINT ends the
    /// process at once with exit code 130.
    ///
    /// # Errors
    /// If the system refuses the handlers.
    pub fn install() -> Result<Self, Failure> {
        let stop = Self::never();
        let failed = |e| Failure::io(format!("cannot install signal handlers: {e}"));
        // Order matters: the conditional exit reads the flag that the second registration sets, so
        // it must run first and see the state before this signal.
        let exit = i32::from(Exit::Interrupted as u8);
        flag::register_conditional_shutdown(SIGINT, exit, Arc::clone(&stop.interrupted))
            .map_err(failed)?;
        flag::register(SIGINT, Arc::clone(&stop.interrupted)).map_err(failed)?;
        flag::register(SIGTERM, Arc::clone(&stop.terminated)).map_err(failed)?;
        Ok(stop)
    }

    /// A flag that no signal sets: for use as a library and in tests.
    #[must_use]
    pub fn never() -> Self {
        Self { interrupted: Arc::default(), terminated: Arc::default() }
    }

    /// The exit code to leave with when a signal has come, otherwise nothing.
    #[must_use]
    pub fn requested(&self) -> Option<Exit> {
        if self.terminated.load(Ordering::Relaxed) {
            Some(Exit::Terminated)
        } else if self.interrupted.load(Ordering::Relaxed) {
            Some(Exit::Interrupted)
        } else {
            None
        }
    }

    /// Asks for a stop as SIGTERM would.
    pub fn request(&self) {
        self.terminated.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::Stop;
    use crate::Exit;

    #[test]
    fn a_signal_sets_the_flag_and_the_process_goes_on() {
        let stop = Stop::install().expect("handlers can be installed");
        assert_eq!(stop.requested(), None);
        signal_hook::low_level::raise(signal_hook::consts::SIGINT).expect("raise");
        assert_eq!(stop.requested(), Some(Exit::Interrupted));
        signal_hook::low_level::raise(signal_hook::consts::SIGTERM).expect("raise");
        assert_eq!(stop.requested(), Some(Exit::Terminated));
    }
}
