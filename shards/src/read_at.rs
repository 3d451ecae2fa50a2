//! Reads at a place in a file, which several threads can do at once.

use std::{fs::File, io};

/// Fills the buffer from `offset` on. The file's own position has no say; on Windows it moves.
///
/// # Errors
/// If reading fails, or the file ends before the buffer is full.
#[cfg(unix)]
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Fills the buffer from `offset` on. The file's own position has no say; on Windows it moves.
///
/// # Errors
/// If reading fails, or the file ends before the buffer is full.
#[cfg(windows)]
pub fn read_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[n..];
        offset += n as u64;
    }
    Ok(())
}
