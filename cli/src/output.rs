//! Results on stdout.

use crate::Failure;
use serde::Serialize;
use std::io::{self, ErrorKind, Write as _};

/// Prints one JSON object, pretty on several lines, on stdout.
///
/// # Errors
/// If stdout cannot be written. A reader that has gone away (a closed pipe) is not an error.
pub fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::io(format!("cannot write the result as JSON: {e}")))?;
    text.push('\n');
    print_text(&text)
}

/// Prints text on stdout as it is.
///
/// # Errors
/// If stdout cannot be written. A reader that has gone away (a closed pipe) is not an error.
pub fn print_text(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::io(format!("cannot write to stdout: {e}")))
        }
        _ => Ok(()),
    }
}
