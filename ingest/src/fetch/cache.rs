//! Where fetched files lie, and how they get there whole.

use super::{
    Origin,
    address::Address,
    error::{FetchError, Problem},
};
use coda_shards::commit::{self, FileError};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

/// What the hub says about a file's content, and what its cache calls the file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Sum {
    /// SHA-256 of the content, in hex: large files.
    Sha256(String),
    /// SHA-1 of the content as a git blob, in hex: small files.
    Git(String),
}

impl Sum {
    /// The hex digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::Git(hex) => hex,
        }
    }
}

/// Where the parts of one fetched file lie.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// What is written to while it comes.
    pub(super) part: PathBuf,
    /// The whole file.
    pub(super) whole: PathBuf,
    /// A link to it under the name that readers open, when that is another.
    pub(super) link: Option<PathBuf>,
    /// Kept locked while it comes; the part itself when there is nothing here.
    pub(super) lock: Option<PathBuf>,
    /// What is noted beside it.
    pub(super) note: Option<PathBuf>,
}

/// The place of a file in our own cache: a folder for each address, version and size, so that a file
/// that changes at its source becomes another file here.
pub(super) fn own_place(cache: &Path, address: &Address, origin: &Origin, bytes: u64) -> Place {
    let mut hasher = blake3::Hasher::new();
    for part in [&address.to_string(), origin.version.as_deref().unwrap_or("")] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    if let Address::Web { url } = address {
        hasher.update(url.as_bytes());
    }
    hasher.update(&bytes.to_le_bytes());
    let folder = cache.join("files").join(&hasher.finalize().to_hex()[..32]);
    let name = file_name(address.file_name());
    Place {
        part: folder.join(format!("{name}.part")),
        whole: folder.join(&name),
        link: None,
        lock: None,
        note: Some(folder.join(".origin.json")),
    }
}

/// A name that any file system takes, with the extensions of the original.
fn file_name(name: &str) -> String {
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let plain: String = name.chars().map(|c| if known(c) { c } else { '_' }).collect();
    let tail = plain.len().saturating_sub(120);
    let name = &plain[tail..];
    // Hidden names are our own notes.
    if name.is_empty() || name.starts_with('.') { format!("f{name}") } else { name.to_owned() }
}

/// A file on its way: what was written so far, and the sums over it.
pub(super) struct Part {
    place: Place,
    file: File,
    _lock: Option<File>,
    pub(super) length: u64,
    sums: Sums,
}

struct Sums {
    blake3: blake3::Hasher,
    wanted: Option<(Sum, Context)>,
}

impl Sums {
    fn new(origin: &Origin, bytes: u64) -> Self {
        let wanted = origin.sum.clone().map(|sum| {
            let context = match &sum {
                Sum::Sha256(_) => Context::new(&SHA256),
                Sum::Git(_) => {
                    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                    context.update(format!("blob {bytes}\0").as_bytes());
                    context
                }
            };
            (sum, context)
        });
        Self { blake3: blake3::Hasher::new(), wanted }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.blake3.update(bytes);
        if let Some((_, context)) = &mut self.wanted {
            context.update(bytes);
        }
    }
}

impl Part {
    /// Opens the part, waiting for another process that fetches the same file. Nothing when that
    /// process has finished it meanwhile.
    pub(super) fn open(
        place: &Place,
        origin: &Origin,
        bytes: u64,
    ) -> Result<Option<Self>, FetchError> {
        for path in [Some(&place.part), place.lock.as_ref()].into_iter().flatten() {
            let folder = path.parent().unwrap_or(path);
            fs::create_dir_all(folder).map_err(|e| FileError::new("create", folder, e))?;
        }
        let open = |path: &Path| {
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(path)
                .map_err(|e| FileError::new("open", path, e))
        };
        let lock = place.lock.as_deref().map(open).transpose()?;
        let mut file = open(&place.part)?;
        lock.as_ref()
            .unwrap_or(&file)
            .lock()
            .map_err(|e| FileError::new("lock", &place.part, e))?;
        if is_whole(&place.whole, bytes) {
            if !place.part.exists() || fs::remove_file(&place.part).is_ok() {
                return Ok(None);
            }
        } else if !place.part.exists() {
            // The one before us failed and took its part away.
            file = open(&place.part)?;
        }
        let mut part = Self {
            place: place.clone(),
            file,
            _lock: lock,
            length: 0,
            sums: Sums::new(origin, bytes),
        };
        // Without a version nothing says that the rest belongs to what is there.
        let resumable = origin.version.is_some() || origin.sum.is_some();
        part.take_up(bytes, resumable).map_err(|e| FileError::new("read", &place.part, e))?;
        Ok(Some(part))
    }

    /// Hashes what an earlier run left.
    fn take_up(&mut self, bytes: u64, resumable: bool) -> io::Result<()> {
        let there = self.file.metadata()?.len();
        if !resumable || there > bytes {
            return self.restart();
        }
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = self.file.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            self.sums.update(&buffer[..n]);
            self.length += n as u64;
        }
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.length = 0;
        Ok(())
    }

    /// Begins again: the server sends the file from its start.
    pub(super) fn start_over(&mut self, origin: &Origin, bytes: u64) -> Result<(), FetchError> {
        self.sums = Sums::new(origin, bytes);
        self.restart().map_err(|e| FileError::new("write", &self.place.part, e).into())
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.file.write_all(bytes).map_err(|e| FileError::new("write", &self.place.part, e))?;
        self.sums.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Takes the part away: it belongs to a file that is no longer there.
    pub(super) fn discard(self) {
        // Best effort: what stays is noticed by its sum or version, or begun again.
        let _ = fs::remove_file(&self.place.part);
    }

    /// Checks the sums, forces the file to disk and gives it its name.
    pub(super) fn finish(self, address: &Address, origin: &Origin) -> Result<(), FetchError> {
        let Self { place, file, _lock, length, sums } = self;
        if let Some((sum, context)) = sums.wanted {
            let found = hex(context.finish().as_ref());
            if found != sum.hex() {
                let _ = fs::remove_file(&place.part);
                let message = format!("its content hashes to {found}, expected {}", sum.hex());
                return Err(Problem::Changed(message).at(address));
            }
        }
        file.sync_all().map_err(|e| FileError::new("force to disk", &place.part, e))?;
        if let Some(note) = &place.note {
            let origin = serde_json::json!({
                "address": address.to_string(),
                "version": origin.version,
                "bytes": length,
                "blake3": sums.blake3.finalize().to_hex().as_str(),
            });
            commit::write_atomic(note, |out| writeln!(out, "{origin:#}"))?;
        }
        fs::rename(&place.part, &place.whole)
            .map_err(|e| FileError::new("rename", &place.part, e))?;
        commit::sync_dir(place.whole.parent().unwrap_or(&place.whole))?;
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether a file of this size is there. Files appear by a rename when they are whole.
pub(super) fn is_whole(path: &Path, bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == bytes)
}

/// Makes the name that readers open lead to the whole file.
pub(super) fn link(place: &Place) -> Result<(), FetchError> {
    let Some(link) = &place.link else { return Ok(()) };
    if link.exists() {
        return Ok(());
    }
    let folder = link.parent().unwrap_or(link);
    fs::create_dir_all(folder).map_err(|e| FileError::new("create", folder, e))?;
    // A link whose target is not there.
    if link.symlink_metadata().is_ok() {
        fs::remove_file(link).map_err(|e| FileError::new("remove", link, e))?;
    }
    let made = make_link(&place.whole, link);
    match made {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(FileError::new("create", link, e).into())
        }
        _ => Ok(()),
    }
}

/// As the hub's own library does: a relative link, so that the cache can be moved.
#[cfg(unix)]
fn make_link(whole: &Path, link: &Path) -> io::Result<()> {
    let mut from = link.parent().into_iter().flat_map(Path::components).peekable();
    let mut to = whole.components().peekable();
    while from.peek().is_some() && from.peek() == to.peek() {
        from.next();
        to.next();
    }
    let mut relative: PathBuf = from.map(|_| "..").collect();
    relative.extend(to);
    std::os::unix::fs::symlink(relative, link)
}

/// Links need a privilege there.
#[cfg(not(unix))]
fn make_link(whole: &Path, link: &Path) -> io::Result<()> {
    fs::copy(whole, link).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::{Sum, file_name, own_place};
    use crate::fetch::{Address, Origin};
    use proptest::prelude::*;
    use std::path::Path;

    #[test]
    fn other_versions_lie_elsewhere() {
        let place = |text: &str, version: Option<&str>, bytes| {
            let address = Address::parse(text).expect("an address");
            let origin = Origin {
                address: address.clone(),
                version: version.map(str::to_owned),
                sum: None::<Sum>,
            };
            own_place(Path::new("cache"), &address, &origin, bytes).whole
        };
        let first = place("s3://b/k.jsonl.zst", Some("1"), 7);
        assert_eq!(first, place("s3://b/k.jsonl.zst", Some("1"), 7));
        for other in [
            place("s3://b/k.jsonl.zst", Some("2"), 7),
            place("s3://b/k.jsonl.zst", None, 7),
            place("s3://b/k.jsonl.zst", Some("1"), 8),
            place("gs://b/k.jsonl.zst", Some("1"), 7),
        ] {
            assert_ne!(first, other);
        }
        let query = |q| place(&format!("https://h/x.gz?{q}"), None, 1);
        assert_ne!(query("a=1"), query("a=2"));
    }

    proptest! {
        #[test]
        fn names_stay_inside_their_folder_and_keep_their_extension(name in "\\PC{0,300}") {
            let safe = file_name(&format!("{name}.jsonl.gz"));
            prop_assert!(safe.ends_with(".jsonl.gz") && safe.len() <= 122);
            prop_assert!(!safe.contains(['/', '\\', '\0']) && !safe.starts_with('.'));
        }
    }
}
