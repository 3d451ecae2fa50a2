//! What can be wrong with an input.

use std::{io, path::PathBuf};

/// Something wrong with a record or a file: the reason code that rejects are counted by, and a
/// sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Stable code, `snake_case`.
    pub reason: &'static str,
    /// What was found, and what was expected.
    pub message: String,
    /// Where in the record or file, in bytes from the record's start, when it is known.
    pub at: Option<u64>,
}

impl Fault {
    /// A fault without a place.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), at: None }
    }

    /// Adds the place, in bytes from the start of the record.
    #[must_use]
    pub fn at(mut self, offset: usize) -> Self {
        self.at = Some(offset as u64);
        self
    }
}

/// Why decoding a file ended.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The file is damaged: one reject, the run goes on.
    #[error("{}", .0.message)]
    Damaged(Fault),
    /// The system could not read it: the run ends.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The other side wants no more records (a token budget is full, or the run is over).
    #[error("no more records are wanted")]
    Closed,
}

impl DecodeError {
    /// Sorts an error from a decompressing reader: what the system reports is [`DecodeError::Read`],
    /// everything else is the data's fault.
    pub(super) fn from_stream(path: &std::path::Path, error: io::Error) -> Self {
        if error.raw_os_error().is_some() {
            return Self::Read { path: path.to_owned(), source: error };
        }
        if let Some(cap) = error.get_ref().and_then(|inner| inner.downcast_ref::<CapExceeded>()) {
            return Self::Damaged(cap.fault());
        }
        let text = error.to_string();
        Self::Damaged(match error.kind() {
            _ if text.contains("too much memory") => Fault::new(
                "zstd_window",
                "the zstd frame asks for a window above 2^27 bytes; recompress it with a smaller \
                 window (`zstd --long=27` at most)",
            ),
            io::ErrorKind::UnexpectedEof => {
                Fault::new("truncated", format!("the compressed stream ends too early: {text}"))
            }
            _ => Fault::new("corrupt", format!("the compressed stream is damaged: {text}")),
        })
    }
}

/// A decompressed stream has passed one of its caps.
#[derive(Debug)]
pub(super) enum CapExceeded {
    Output { cap: u64 },
    Ratio { cap: u64, output: u64, input: u64 },
}

impl CapExceeded {
    fn fault(&self) -> Fault {
        Fault::new("decompression_bomb", self.to_string())
    }
}

impl std::fmt::Display for CapExceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Output { cap } => write!(f, "the file decompresses to more than {cap} bytes"),
            Self::Ratio { cap, output, input } => write!(
                f,
                "the file decompresses to {output} bytes from {input}, more than {cap} to 1"
            ),
        }
    }
}

impl std::error::Error for CapExceeded {}
