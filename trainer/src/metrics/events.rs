//! `TensorBoard` event files: `TFRecord` frames around hand-encoded `Event` messages.
//!
//! A frame is the length (u64), its masked CRC-32C, the message, the message's masked CRC-32C, all
//! little endian. Of the protocol buffer `tensorflow.Event` four fields are written: `wall_time` (1,
//! double), `step` (2, varint), `file_version` (3, string) and `summary` (5) with values of `tag` (1)
//! and `simple_value` (2, float); and once `session_log` (7) with status START, by which `TensorBoard`
//! drops what an interrupted run wrote beyond the resumed step.

use coda_shards::commit::FileError;
use std::{
    borrow::Cow,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// An event file that is being written.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Starts a new event file in `dir`, which is created. Training goes on after `step`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn start(dir: &Path, step: u64) -> Result<Self, FileError> {
        let error = |error| FileError::new("write", dir, error);
        fs::create_dir_all(dir).map_err(error)?;
        let now = now();
        let seconds = now.trunc();
        // The process id keeps two files of the same second apart.
        let name = format!("events.out.tfevents.{seconds:010}.{}.coda", std::process::id());
        let path = dir.join(name);
        let file = File::options().append(true).create(true).open(&path).map_err(error)?;
        let mut writer = Self { path, file };
        writer.write(&event(now, 0, Content::FileVersion))?;
        if step > 0 {
            writer.write(&event(now, step + 1, Content::SessionStart))?;
        }
        Ok(writer)
    }

    /// Writes numbers of one step.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn scalars(
        &mut self,
        step: u64,
        scalars: &[(Cow<'static, str>, f64)],
    ) -> Result<(), FileError> {
        self.write(&event(now(), step, Content::Scalars(scalars)))
    }

    fn write(&mut self, message: &[u8]) -> Result<(), FileError> {
        let error = |error| FileError::new("write", &self.path, error);
        self.file.write_all(&frame(message)).map_err(error)
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[derive(Clone, Copy)]
enum Content<'a> {
    FileVersion,
    SessionStart,
    Scalars(&'a [(Cow<'static, str>, f64)]),
}

fn frame(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(message.len() + 16);
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&masked_crc(&length).to_le_bytes());
    bytes.extend_from_slice(message);
    bytes.extend_from_slice(&masked_crc(message).to_le_bytes());
    bytes
}

/// CRC-32C, rotated and shifted as `TFRecord` wants it.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn event(wall_time: f64, step: u64, content: Content<'_>) -> Vec<u8> {
    let mut out = vec![0x09];
    out.extend_from_slice(&wall_time.to_le_bytes());
    if step > 0 {
        out.push(0x10);
        varint(&mut out, step);
    }
    match content {
        Content::FileVersion => field(&mut out, 0x1a, b"brain.Event:2"),
        Content::SessionStart => field(&mut out, 0x3a, &[0x08, 0x01]),
        Content::Scalars(scalars) => {
            let mut summary = Vec::new();
            for (tag, value) in scalars {
                let mut entry = Vec::new();
                field(&mut entry, 0x0a, tag.as_bytes());
                entry.push(0x15);
                #[allow(clippy::cast_possible_truncation, reason = "simple_value is a float")]
                entry.extend_from_slice(&(*value as f32).to_le_bytes());
                field(&mut summary, 0x0a, &entry);
            }
            field(&mut out, 0x2a, &summary);
        }
    }
    out
}

/// A length-delimited field.
fn field(out: &mut Vec<u8>, key: u8, bytes: &[u8]) {
    out.push(key);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, event, frame};
    use std::fmt::Write as _;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The head of every event file, here at time 1.5; its CRCs by a bitwise CRC-32C in Python:
    /// length 24, its masked CRC, the message, its masked CRC.
    #[test]
    fn the_head_of_a_file() {
        let bytes = frame(&event(1.5, 0, Content::FileVersion));
        assert_eq!(
            hex(&bytes),
            "1800000000000000a37f4b22\
             09000000000000f83f1a0d627261696e2e4576656e743a32\
             2a28646c"
                .replace(' ', "")
        );
    }

    #[test]
    fn a_scalar() {
        let message = event(1.5, 300, Content::Scalars(&[("loss".into(), 2.5)]));
        assert_eq!(hex(&message), "09000000000000f83f10ac022a0d0a0b0a046c6f73731500002040");
        assert_eq!(hex(&event(0.0, 8, Content::SessionStart)), "09000000000000000010083a020801");
    }
}
