//! What the inputs are, as one hash: the part of "the same shard set would come out" that the
//! manifest does not say.

use super::InputFile;
use rayon::prelude::*;
use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

/// Files up to this size are hashed whole.
const WHOLE: u64 = 4 << 20;
/// Of larger files, this many windows are hashed, evenly spaced from the first byte to the last…
const WINDOWS: u64 = 32;
/// …each of this size.
const WINDOW: u64 = 128 << 10;

/// A file that could not be hashed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct DigestError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// BLAKE3 over names, sizes and contents of `files`, in their order. Of remote files, what identifies
/// their content (a tag, a hash, a version) stands for it, so that nothing is fetched.
///
/// Files above 4 MiB are sampled (32 windows of 128 KiB): a terabyte is recognised in seconds, and any
/// change of a compressed file shifts what follows it. Only a change that keeps the size of a large
/// uncompressed file and lies between two windows goes unseen.
///
/// # Errors
/// If a file cannot be read.
pub fn digest(files: &[InputFile]) -> Result<blake3::Hash, DigestError> {
    let hashes = files
        .par_iter()
        .map(|file| {
            digest_file(file).map_err(|source| DigestError { path: file.path.clone(), source })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut all = blake3::Hasher::new();
    for (file, hash) in files.iter().zip(hashes) {
        all.update(&(file.name.len() as u64).to_le_bytes());
        all.update(file.name.as_bytes());
        all.update(&file.bytes.to_le_bytes());
        all.update(hash.as_bytes());
    }
    Ok(all.finalize())
}

fn digest_file(file: &InputFile) -> io::Result<blake3::Hash> {
    if let Some(origin) = &file.origin {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"remote ").update(origin.identity().as_bytes());
        return Ok(hasher.finalize());
    }
    let mut reader = File::open(&file.path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = Vec::new();
    if file.bytes <= WHOLE {
        reader.read_to_end(&mut buffer)?;
        hasher.update(&buffer);
        return Ok(hasher.finalize());
    }
    let last = file.bytes - WINDOW;
    for window in 0..WINDOWS {
        let start = u128::from(last) * u128::from(window) / u128::from(WINDOWS - 1);
        reader.seek(SeekFrom::Start(u64::try_from(start).unwrap_or(last)))?;
        buffer.clear();
        (&mut reader).take(WINDOW).read_to_end(&mut buffer)?;
        hasher.update(&buffer);
    }
    Ok(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::{WHOLE, digest};
    use crate::source::{Container, InputFile};
    use std::path::Path;

    fn file(path: &Path, name: &str) -> InputFile {
        let bytes = std::fs::metadata(path).expect("exists").len();
        InputFile {
            path: path.into(),
            name: name.into(),
            container: Container::Jsonl,
            bytes,
            origin: None,
            vendored: false,
        }
    }

    #[test]
    fn names_sizes_and_contents_count() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        let of = |content: &[u8], name| {
            std::fs::write(&path, content).expect("written");
            digest(&[file(&path, name)]).expect("readable")
        };
        let first = of(b"abc", "a");
        assert_eq!(first, of(b"abc", "a"));
        assert_ne!(first, of(b"abd", "a"));
        assert_ne!(first, of(b"abc", "b"));
        let size = usize::try_from(WHOLE).expect("fits") + 1;
        let mut large = vec![0; size];
        let before = of(&large, "a");
        large[size - 1] = 1;
        let after = of(&large, "a");
        assert_ne!(before, after, "the last byte is in a window");
        large.push(0);
        assert_ne!(after, of(&large, "a"));
    }
}
