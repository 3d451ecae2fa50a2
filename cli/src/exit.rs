//! Exit codes, and the error that a binary ends with.

use std::{error::Error, fmt::Write as _, process::ExitCode};

/// How a run ended. The numbers are a contract: people script against them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// Done, but with more rejects than allowed, or a check failed.
    CheckFailed = 1,
    /// The command line or the manifest is wrong; nothing was started.
    Usage = 2,
    /// A file could not be read or written.
    Io = 3,
    /// An artefact (shard set, checkpoint, tokenizer) is damaged or does not fit.
    Incompatible = 4,
    /// Stopped by SIGINT after saving.
    Interrupted = 130,
    /// Stopped by SIGTERM after saving.
    Terminated = 143,
}

/// An error as a user sees it: what happened, the chain of causes, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    exit: Exit,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    /// A failure with any exit code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// A check failed, or rejects are over the allowance (exit code 1).
    pub fn check_failed(message: impl Into<String>) -> Self {
        Self::new(Exit::CheckFailed, message)
    }

    /// The command line or the manifest is wrong (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Reading or writing failed (exit code 3).
    pub fn io(message: impl Into<String>) -> Self {
        Self::new(Exit::Io, message)
    }

    /// An artefact is damaged or does not fit (exit code 4).
    pub fn incompatible(message: impl Into<String>) -> Self {
        Self::new(Exit::Incompatible, message)
    }

    /// An error with its chain of sources. A source whose text the message before it already
    /// contains is left out.
    pub fn from_error(exit: Exit, error: &dyn Error) -> Self {
        let mut failure = Self::new(exit, error.to_string());
        let mut last = failure.message.clone();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !last.contains(&text) {
                failure.causes.push(text.clone());
                last = text;
            }
            source = cause.source();
        }
        failure
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        self.maybe_hint(Some(hint.into()))
    }

    /// Adds a hint when there is one.
    #[must_use]
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// The exit code of this failure.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        self.exit
    }

    /// The message as it goes to stderr: `error:`, `caused by:` and `hint:` lines.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!("error: {}\n", self.message);
        for cause in &self.causes {
            let _ = writeln!(text, "  caused by: {cause}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        text
    }
}

/// Runs a binary's main function and turns its outcome into an exit code.
pub fn run(main: impl FnOnce() -> Result<Exit, Failure>) -> ExitCode {
    match main() {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => {
            eprint!("{}", failure.render());
            ExitCode::from(failure.exit as u8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Exit, Failure};
    use std::{error::Error, fmt, io};

    #[derive(Debug)]
    struct Outer(io::Error);
    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("cannot read rows.jsonl")
        }
    }
    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn an_error_shows_its_causes_and_a_hint() {
        let error = Outer(io::Error::other("the disk is full"));
        let failure = Failure::from_error(Exit::Io, &error).hint("free some space");
        assert_eq!(failure.exit() as u8, 3);
        assert_eq!(
            failure.render(),
            "error: cannot read rows.jsonl\n  caused by: the disk is full\nhint: free some space\n"
        );
    }

    #[test]
    fn a_cause_that_says_nothing_new_is_left_out() {
        #[derive(Debug)]
        struct Verbose(io::Error);
        impl fmt::Display for Verbose {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "writing failed: {}", self.0)
            }
        }
        impl Error for Verbose {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }
        let failure = Failure::from_error(Exit::Io, &Verbose(io::Error::other("full")));
        assert_eq!(failure.render(), "error: writing failed: full\n");
    }
}
