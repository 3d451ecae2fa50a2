//! `checkpoint.json`: what makes a directory a whole checkpoint.

use super::CheckpointError;
use coda_shards::commit::write_atomic;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, io, path::Path};

/// The file that is written last.
pub const CHECKPOINT_FILE: &str = "checkpoint.json";
/// The value of `format`.
const FORMAT: &str = "coda-checkpoint";
/// The version that is written and read.
const VERSION: u32 = 1;

/// The files of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointManifest {
    /// Always `coda-checkpoint`.
    pub format: String,
    /// Always 1.
    pub version: u32,
    /// Optimizer steps done.
    pub step: u64,
    /// Every other file of the directory by name.
    pub files: BTreeMap<String, FileRecord>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its BLAKE3, hex.
    pub blake3: String,
}

impl FileRecord {
    /// Measures a file.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        let bytes = io::copy(&mut fs::File::open(path)?, &mut hasher)?;
        Ok(Self { bytes, blake3: hasher.finalize().to_hex().to_string() })
    }
}

impl CheckpointManifest {
    /// Measures every file of `dir` and writes the manifest beside them.
    pub(crate) fn write(dir: &Path, step: u64) -> Result<(), CheckpointError> {
        let read = |error| CheckpointError::file("read", dir, error);
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(read)? {
            let path = entry.map_err(read)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let record = FileRecord::of(&path)
                .map_err(|error| CheckpointError::file("read", &path, error))?;
            files.insert(name, record);
        }
        let manifest = Self { format: FORMAT.to_owned(), version: VERSION, step, files };
        let mut text = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
        text.push(b'\n');
        write_atomic(&dir.join(CHECKPOINT_FILE), |out| out.write_all(&text))?;
        Ok(())
    }

    /// Reads the manifest of `dir`.
    ///
    /// # Errors
    /// If it is missing, not a manifest, of another version, or names a path.
    pub fn read(dir: &Path) -> Result<Self, CheckpointError> {
        let path = dir.join(CHECKPOINT_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CheckpointError::NotOne {
                    dir: dir.to_path_buf(),
                    missing: CHECKPOINT_FILE.to_owned(),
                });
            }
            Err(error) => return Err(CheckpointError::file("read", &path, error)),
        };
        let manifest: Self = serde_json::from_slice(&text)
            .map_err(|error| CheckpointError::damaged(&path, error.to_string()))?;
        if manifest.format != FORMAT || manifest.version != VERSION {
            return Err(CheckpointError::misfit(
                &path,
                format!("it is {} version {}", manifest.format, manifest.version),
                format!("this build reads {FORMAT} version {VERSION}"),
            ));
        }
        if let Some(name) = manifest.files.keys().find(|name| !is_plain_name(name)) {
            return Err(CheckpointError::damaged(&path, format!("{name:?} is not a file name")));
        }
        Ok(manifest)
    }

    /// Reads every file of `dir` and holds it against the manifest.
    ///
    /// # Errors
    /// The first file that is missing, surplus or not what was written.
    pub fn verify(dir: &Path) -> Result<Self, CheckpointError> {
        let manifest = Self::read(dir)?;
        for (name, expected) in &manifest.files {
            let path = dir.join(name);
            let found = match FileRecord::of(&path) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(CheckpointError::damaged(dir, format!("{name} is missing")));
                }
                Err(error) => return Err(CheckpointError::file("read", &path, error)),
            };
            if found.bytes != expected.bytes {
                let problem = format!("{} bytes, {} were written", found.bytes, expected.bytes);
                return Err(CheckpointError::damaged(&path, problem));
            }
            if found.blake3 != expected.blake3 {
                let problem = "its BLAKE3 is not the one that checkpoint.json records";
                return Err(CheckpointError::damaged(&path, problem));
            }
        }
        let read = |error| CheckpointError::file("read", dir, error);
        for entry in fs::read_dir(dir).map_err(read)? {
            let name = entry.map_err(read)?.file_name().to_string_lossy().into_owned();
            if name != CHECKPOINT_FILE && !manifest.files.contains_key(&name) {
                return Err(CheckpointError::damaged(dir, format!("{name} does not belong to it")));
            }
        }
        Ok(manifest)
    }
}

/// Whether a name from a file names something in the same directory, and nothing else.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0', ':'])
}

#[cfg(test)]
mod tests {
    use super::{CHECKPOINT_FILE, CheckpointManifest};
    use std::fs;

    #[test]
    fn every_flipped_bit_every_truncation_and_every_missing_file_is_found() {
        let dir = tempfile::tempdir().expect("dir");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a.bin"), [7; 40]).expect("write");
        fs::write(at("b.json"), "{}").expect("write");
        CheckpointManifest::write(dir.path(), 12).expect("manifest");
        assert_eq!(CheckpointManifest::verify(dir.path()).expect("whole").step, 12);
        for name in ["a.bin", "b.json"] {
            let good = fs::read(at(name)).expect("read");
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                fs::write(at(name), &bad).expect("write");
                let error = CheckpointManifest::verify(dir.path()).expect_err("damaged");
                assert!(error.to_string().contains(name), "{error}");
            }
            for length in 0..good.len() {
                fs::write(at(name), &good[..length]).expect("write");
                assert!(CheckpointManifest::verify(dir.path()).is_err());
            }
            fs::remove_file(at(name)).expect("remove");
            let error = CheckpointManifest::verify(dir.path()).expect_err("missing").to_string();
            assert!(error.contains(&format!("{name} is missing")), "{error}");
            fs::write(at(name), &good).expect("write");
        }
        fs::write(at("surplus"), "x").expect("write");
        assert!(CheckpointManifest::verify(dir.path()).is_err());
    }

    #[test]
    fn a_manifest_that_names_paths_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        for name in ["../x", "/etc/passwd", "a/b", "..", "c:x", ""] {
            let text = serde_json::json!({
                "format": "coda-checkpoint", "version": 1, "step": 0,
                "files": {name: {"bytes": 0, "blake3": ""}},
            });
            fs::write(dir.path().join(CHECKPOINT_FILE), text.to_string()).expect("write");
            let error = CheckpointManifest::read(dir.path()).expect_err("refused").to_string();
            assert!(error.contains("is not a file name"), "{error}");
        }
    }
}
