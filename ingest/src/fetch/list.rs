//! What an address names: one file, a folder, or what a pattern matches.

use super::{
    Asking, Inner, Origin,
    address::{Address, is_clean, is_pattern},
    cache::Sum,
    download::Faults,
    error::{FetchError, Problem},
    hub,
};
use coda_shards::commit::{self, FileError};
use globset::GlobBuilder;
use serde::{Deserialize, Serialize};
use std::{fs, io, path::PathBuf};

/// A remote file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its path below the folder, or below the fixed part of the pattern; its name when it was named
    /// itself.
    pub relative: String,
    /// Whether it was named itself.
    pub named: bool,
    /// Where it comes from.
    pub origin: Origin,
    /// Its size.
    pub bytes: u64,
    /// Where it lies once it was fetched.
    pub path: PathBuf,
}

/// A file as any of the servers lists it.
struct Listed {
    path: String,
    bytes: u64,
    origin: Origin,
}

/// A found file as it is noted in the cache: without its address, in which signatures may be.
#[derive(Serialize, Deserialize)]
struct Noted {
    relative: String,
    named: bool,
    bytes: u64,
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sum: Option<Sum>,
}

impl Noted {
    fn of(found: &Found) -> Self {
        let Found { relative, named, origin, bytes, .. } = found;
        let commit = match &origin.address {
            Address::Hub { revision, .. } => Some(revision.clone()),
            Address::Object { .. } | Address::Web { .. } => None,
        };
        Self {
            relative: relative.clone(),
            named: *named,
            bytes: *bytes,
            path: origin.address.pattern().unwrap_or_default().to_owned(),
            commit,
            version: origin.version.clone(),
            sum: origin.sum.clone(),
        }
    }

    fn found(self, inner: &Inner, asked: &Address) -> Found {
        let mut address = asked.with_path(&self.path);
        if let (Address::Hub { revision, .. }, Some(commit)) = (&mut address, self.commit) {
            *revision = commit;
        }
        let origin = Origin { address, version: self.version, sum: self.sum };
        found(inner, &self.relative, self.named, origin, self.bytes)
    }
}

/// Where the listing of an address is noted.
fn note(inner: &Inner, address: &Address) -> PathBuf {
    let asked = match address {
        Address::Web { url } => url.clone(),
        address => address.to_string(),
    };
    let name = blake3::hash(asked.as_bytes()).to_hex();
    inner.cache.join("listings").join(format!("{}.json", &name[..32]))
}

/// The listing that was noted before.
fn noted(inner: &Inner, address: &Address) -> Option<Vec<Found>> {
    let text = fs::read(note(inner, address)).ok()?;
    let files: Vec<Noted> = serde_json::from_slice(&text).ok()?;
    Some(files.into_iter().map(|file| file.found(inner, address)).collect())
}

/// Notes a listing for runs without a network.
fn keep(inner: &Inner, address: &Address, found: &[Found]) -> Result<(), FileError> {
    let note = note(inner, address);
    let folder = note.parent().unwrap_or(&note);
    fs::create_dir_all(folder).map_err(|e| FileError::new("create", folder, e))?;
    let files: Vec<Noted> = found.iter().map(Noted::of).collect();
    commit::write_atomic(&note, |out| serde_json::to_writer(out, &files).map_err(io::Error::from))
}

pub(super) async fn list(inner: &Inner, address: &Address) -> Result<Vec<Found>, FetchError> {
    let offline = inner.offline(address);
    if let Some(switch) = offline {
        if let Some(found) = noted(inner, address) {
            return Ok(found);
        }
        // The hub's own cache can be looked through.
        if !matches!(address, Address::Hub { .. }) {
            let message = format!("{switch} is set, and it was never listed here");
            return Err(Problem::Offline(message).at(address));
        }
    }
    let mut faults = Faults::new(inner.options.attempts, inner.options.pause);
    loop {
        match attempt(inner, address).await {
            Ok(found) if found.is_empty() => return Err(Problem::Gone.at(address)),
            Ok(found) => {
                if inner.options.asking == Asking::Noted && offline.is_none() {
                    keep(inner, address, &found)?;
                }
                return Ok(found);
            }
            Err(problem) => faults.wait(problem).await.map_err(|problem| problem.at(address))?,
        }
    }
}

async fn attempt(inner: &Inner, address: &Address) -> Result<Vec<Found>, Problem> {
    let address = &pinned(inner, address).await?;
    let Some(pattern) = address.pattern() else {
        let Address::Web { url } = address else { return Err(Problem::Gone) };
        let (bytes, version) = inner.web.look(url).await?;
        let bytes = bytes.ok_or_else(|| {
            let message = "the server does not say how large the file is: fetch it by other means";
            Problem::Lasting(message.to_owned())
        })?;
        let origin = Origin { address: address.clone(), version, sum: None };
        return Ok(vec![found(inner, address.file_name(), true, origin, bytes)]);
    };
    let one = !is_pattern(pattern) && !pattern.is_empty() && !pattern.ends_with('/');
    if one && let Some(file) = exactly(inner, address, pattern).await? {
        let Listed { bytes, origin, .. } = file;
        return Ok(vec![found(inner, address.file_name(), true, origin, bytes)]);
    }
    // A folder without its slash.
    let folder = format!("{pattern}/");
    let pattern = if one { folder.as_str() } else { pattern };
    let (base, glob) = split(pattern);
    let glob = GlobBuilder::new(if glob.is_empty() { "**" } else { glob })
        .literal_separator(true)
        .build()
        .map_err(|e| Problem::Lasting(format!("the pattern is not valid: {}", e.kind())))?
        .compile_matcher();
    let mut all: Vec<Found> = below(inner, address, base)
        .await?
        .into_iter()
        .filter_map(|file| {
            let relative = file.path.strip_prefix(base)?.to_owned();
            // A bucket may hold keys that no file system could: they match no pattern.
            let fits = is_clean(&relative) && glob.is_match(&relative);
            fits.then(|| found(inner, &relative, false, file.origin, file.bytes))
        })
        .collect();
    all.sort_by(|a, b| a.relative.cmp(&b.relative));
    Ok(all)
}

/// The address with its revision settled.
async fn pinned(inner: &Inner, address: &Address) -> Result<Address, Problem> {
    let Address::Hub { repository, revision, path } = address else { return Ok(address.clone()) };
    let commit = inner.hub.commit(&inner.web, repository, revision).await?;
    Ok(hub::address(repository, &commit, path))
}

fn found(inner: &Inner, relative: &str, named: bool, origin: Origin, bytes: u64) -> Found {
    let place = inner.place(&origin, bytes);
    let path = place.link.unwrap_or(place.whole);
    Found { relative: relative.to_owned(), named, origin, bytes, path }
}

/// The folder before the first part with a wildcard, ending at its slash, and the rest.
fn split(pattern: &str) -> (&str, &str) {
    match pattern.find(['*', '?', '[', '{']) {
        Some(wild) => pattern.split_at(pattern[..wild].rfind('/').map_or(0, |slash| slash + 1)),
        None => (pattern, ""),
    }
}

/// The file of exactly this path, if it is one.
async fn exactly(inner: &Inner, address: &Address, path: &str) -> Result<Option<Listed>, Problem> {
    match address {
        Address::Object { service, bucket, .. } => {
            match inner.bucket(*service, bucket)?.look(path).await {
                Ok(object) => Ok(Some(Listed {
                    path: object.key,
                    bytes: object.bytes,
                    origin: Origin { address: address.clone(), version: object.version, sum: None },
                })),
                Err(Problem::Gone) => Ok(None),
                Err(other) => Err(other),
            }
        }
        Address::Hub { .. } => {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let files = hub_files(inner, address, folder, false).await?;
            Ok(files.into_iter().find(|file| file.path == path))
        }
        Address::Web { .. } => Ok(None),
    }
}

async fn below(inner: &Inner, address: &Address, base: &str) -> Result<Vec<Listed>, Problem> {
    match address {
        Address::Object { service, bucket, .. } => {
            let objects = inner.bucket(*service, bucket)?.list(base).await?;
            // Keys that end with a slash stand for folders in some tools.
            let files = objects.into_iter().filter(|object| !object.key.ends_with('/'));
            Ok(files
                .map(|object| Listed {
                    origin: Origin {
                        address: address.with_path(&object.key),
                        version: object.version,
                        sum: None,
                    },
                    path: object.key,
                    bytes: object.bytes,
                })
                .collect())
        }
        Address::Hub { .. } => hub_files(inner, address, base, true).await,
        Address::Web { .. } => Ok(Vec::new()),
    }
}

async fn hub_files(
    inner: &Inner,
    address: &Address,
    folder: &str,
    deep: bool,
) -> Result<Vec<Listed>, Problem> {
    let Address::Hub { repository, revision, .. } = address else { return Ok(Vec::new()) };
    let files = inner.hub.list(&inner.web, repository, revision, folder, deep).await?;
    Ok(files
        .into_iter()
        .map(|file| Listed {
            origin: Origin { address: address.with_path(&file.path), version: None, sum: file.sum },
            path: file.path,
            bytes: file.bytes,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn patterns_are_split_before_the_first_wildcard() {
        assert_eq!(split("a/b/*.x"), ("a/b/", "*.x"));
        assert_eq!(split("a/b*/c/*.x"), ("a/", "b*/c/*.x"));
        assert_eq!(split("*.x"), ("", "*.x"));
        assert_eq!(split("a/b/"), ("a/b/", ""));
        assert_eq!(split(""), ("", ""));
    }
}
