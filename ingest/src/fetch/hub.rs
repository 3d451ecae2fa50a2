//! The Hugging Face hub: the conventions of its Python library, over our own HTTP client.
//!
//! `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HOME`, `HF_HUB_CACHE` and `HF_HUB_OFFLINE` mean what
//! they mean there, and the cache has the same layout, so that files are shared in both directions.

use super::{
    Origin,
    address::{Address, is_clean},
    cache::{Place, Sum},
    error::Problem,
    web::Web,
};
use coda_shards::commit;
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
};
use walkdir::WalkDir;

/// Largest page of a listing.
const MAX_PAGE: usize = 64 << 20;
/// Pages of a listing: the hub gives a thousand files in each.
const MAX_PAGES: usize = 10_000;

/// What the environment says about the hub.
#[derive(Clone)]
pub(super) struct Hub {
    endpoint: String,
    token: Option<String>,
    cache: PathBuf,
    offline: bool,
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HubFile {
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) sum: Option<Sum>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    oid: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

impl Hub {
    /// Reads the environment through `get`; `offline` may be set already.
    pub(super) fn from_env(offline: bool, get: &dyn Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let user = || get("HOME").or_else(|| get("USERPROFILE")).unwrap_or_default();
        let home = get("HF_HOME").map_or_else(
            || {
                get("XDG_CACHE_HOME")
                    .map_or_else(|| Path::new(&user()).join(".cache"), PathBuf::from)
                    .join("huggingface")
            },
            PathBuf::from,
        );
        let named = get("HF_HUB_CACHE").or_else(|| get("HUGGINGFACE_HUB_CACHE"));
        let token_path = get("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let token = get("HF_TOKEN").or_else(|| fs::read_to_string(token_path).ok());
        let yes = |value: String| {
            matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
        };
        let switch = get("HF_HUB_OFFLINE").or_else(|| get("TRANSFORMERS_OFFLINE"));
        let offline = offline || switch.is_some_and(yes);
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()),
            cache: named.map_or_else(|| home.join("hub"), PathBuf::from),
            offline,
        }
    }

    pub(super) const fn is_offline(&self) -> bool {
        self.offline
    }

    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Where a file can be had.
    pub(super) fn url(&self, repository: &str, revision: &str, path: &str) -> String {
        let (revision, path) = (quoted(revision, false), quoted(path, true));
        format!("{}/datasets/{repository}/resolve/{revision}/{path}", self.endpoint)
    }

    fn folder(&self, repository: &str) -> PathBuf {
        self.cache.join(format!("datasets--{}", repository.replace('/', "--")))
    }

    /// The commit that a revision stands for.
    pub(super) async fn commit(
        &self,
        web: &Web,
        repository: &str,
        revision: &str,
    ) -> Result<String, Problem> {
        if is_commit(revision) {
            return Ok(revision.to_owned());
        }
        let noted = self.folder(repository).join("refs").join(revision);
        if self.offline {
            let commit = fs::read_to_string(&noted).map(|text| text.trim().to_owned());
            return commit.ok().filter(|commit| is_commit(commit)).ok_or_else(|| {
                let place = noted.display();
                Problem::Offline(format!(
                    "HF_HUB_OFFLINE is set, and the cache does not say which commit {revision:?} \
                     is (no file {place})"
                ))
            });
        }
        let revision = quoted(revision, false);
        let url = format!("{}/api/datasets/{repository}/revision/{revision}", self.endpoint);
        let (bytes, _) = web.page(&url, self.token(), MAX_PAGE).await?;
        let answer: Revision = serde_json::from_slice(&bytes).map_err(|e| not_ours(&e))?;
        if !is_commit(&answer.sha) {
            return Err(Problem::Lasting("the hub names no commit for this revision".to_owned()));
        }
        // For later runs without the network, and for Python. Not being able to note it is no fault.
        let _ = noted.parent().map(fs::create_dir_all);
        let _ = commit::write_atomic(&noted, |out| write!(out, "{}", answer.sha));
        Ok(answer.sha)
    }

    /// All files below a folder of a commit, or the file of that name.
    pub(super) async fn list(
        &self,
        web: &Web,
        repository: &str,
        at: &str,
        folder: &str,
        deep: bool,
    ) -> Result<Vec<HubFile>, Problem> {
        if self.offline {
            return self.list_cached(repository, at, folder, deep);
        }
        let base = format!("{}/api/datasets/{repository}/tree/{at}", self.endpoint);
        let folder = folder.trim_end_matches('/');
        let slash = if folder.is_empty() { "" } else { "/" };
        let mut next = Some(format!("{base}{slash}{}?recursive={deep}", quoted(folder, true)));
        let mut files = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some(url) = next else { return Ok(files) };
            if !url.starts_with(&self.endpoint) {
                let message = "the listing goes on at another server".to_owned();
                return Err(Problem::Lasting(message));
            }
            let (bytes, following) = web.page(&url, self.token(), MAX_PAGE).await?;
            let entries: Vec<Entry> = serde_json::from_slice(&bytes).map_err(|e| not_ours(&e))?;
            for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
                files.push(file(entry)?);
            }
            next = following;
        }
        Err(Problem::Lasting(format!("the listing has more than {MAX_PAGES} pages")))
    }

    /// What the cache holds of a commit.
    fn list_cached(
        &self,
        repository: &str,
        commit: &str,
        folder: &str,
        deep: bool,
    ) -> Result<Vec<HubFile>, Problem> {
        let snapshot = self.folder(repository).join("snapshots").join(commit);
        if !snapshot.is_dir() {
            let place = snapshot.display();
            return Err(Problem::Offline(format!(
                "HF_HUB_OFFLINE is set, and nothing of this commit is in the cache (no folder \
                 {place})"
            )));
        }
        let depth = if deep { usize::MAX } else { 1 };
        let walk = WalkDir::new(snapshot.join(folder)).max_depth(depth).sort_by_file_name();
        let mut files = Vec::new();
        for entry in walk.into_iter().filter_map(Result::ok) {
            let Ok(metadata) = fs::metadata(entry.path()) else { continue };
            let relative = entry.path().strip_prefix(&snapshot).unwrap_or(entry.path());
            if metadata.is_file() {
                let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
                let sum = fs::read_link(entry.path()).ok().and_then(|blob| sum_of(&blob));
                files.push(HubFile { path: parts.join("/"), bytes: metadata.len(), sum });
            }
        }
        Ok(files)
    }

    /// Where a file lies in the cache.
    pub(super) fn place(
        &self,
        repository: &str,
        commit: &str,
        path: &str,
        origin: &Origin,
    ) -> Place {
        let folder = self.folder(repository);
        let shown = folder.join("snapshots").join(commit).join(path);
        let Some(sum) = &origin.sum else {
            // An old commit in a cache without links: it is there or it is not.
            let part = shown.with_extension("incomplete");
            return Place { part, whole: shown, link: None, lock: None, note: None };
        };
        let blobs = folder.join("blobs");
        let locks = self.cache.join(".locks").join(folder.file_name().unwrap_or_default());
        Place {
            part: blobs.join(format!("{}.incomplete", sum.hex())),
            whole: blobs.join(sum.hex()),
            link: Some(shown),
            lock: Some(locks.join(format!("{}.lock", sum.hex()))),
            note: None,
        }
    }
}

fn file(entry: Entry) -> Result<HubFile, Problem> {
    if !is_clean(&entry.path) {
        return Err(Problem::Lasting("the hub lists a file with an impossible path".to_owned()));
    }
    let (bytes, sum) = match (entry.lfs, entry.oid) {
        (Some(lfs), _) => (lfs.size, Sum::Sha256(lfs.oid)),
        (None, Some(oid)) => (entry.size, Sum::Git(oid)),
        (None, None) => {
            return Err(Problem::Lasting(format!("the hub gives no hash of {}", entry.path)));
        }
    };
    // The hash becomes a file name.
    let digits = match &sum {
        Sum::Sha256(_) => 64,
        Sum::Git(_) => 40,
    };
    if !is_hex(sum.hex(), digits) {
        return Err(Problem::Lasting(format!("the hub gives no valid hash of {}", entry.path)));
    }
    Ok(HubFile { path: entry.path, bytes, sum: Some(sum) })
}

fn sum_of(blob: &Path) -> Option<Sum> {
    let name = blob.file_name()?.to_str()?;
    match name.len() {
        64 if is_hex(name, 64) => Some(Sum::Sha256(name.to_owned())),
        40 if is_hex(name, 40) => Some(Sum::Git(name.to_owned())),
        _ => None,
    }
}

fn not_ours(error: &serde_json::Error) -> Problem {
    Problem::Lasting(format!("the answer is not one of the hub: {error}"))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

pub(super) fn is_commit(text: &str) -> bool {
    is_hex(text, 40)
}

/// A path for an address; slashes are kept in paths, not in revisions.
fn quoted(text: &str, slashes: bool) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if plain || (byte == b'/' && slashes) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// The address of a file of a commit.
pub(super) fn address(repository: &str, commit: &str, path: &str) -> Address {
    Address::Hub {
        repository: repository.to_owned(),
        revision: commit.to_owned(),
        path: path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, Hub, Sum, file, quoted, sum_of};
    use std::path::Path;

    fn hub(pairs: &[(&str, &str)]) -> Hub {
        let get = |name: &str| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Hub::from_env(false, &get)
    }

    #[test]
    fn the_environment_means_what_it_means_to_the_python_library() {
        let plain = hub(&[("HOME", "/h")]);
        assert_eq!(plain.cache, Path::new("/h/.cache/huggingface/hub"));
        assert!(!plain.offline && plain.token.is_none() && plain.endpoint.starts_with("https://"));
        assert_eq!(hub(&[("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
        assert_eq!(hub(&[("HF_HOME", "/hf"), ("HOME", "/h")]).cache, Path::new("/hf/hub"));
        assert_eq!(hub(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]).cache, Path::new("/c"));
        for (value, offline) in [("1", true), ("true", true), ("ON", true), ("0", false)] {
            assert_eq!(hub(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
        assert_eq!(hub(&[("HF_TOKEN", " t \n")]).token(), Some("t"));
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("token"), "from-file\n").expect("written");
        let path = folder.path().display().to_string();
        assert_eq!(hub(&[("HF_HOME", &path)]).token(), Some("from-file"));
        let named = folder.path().join("token").display().to_string();
        assert_eq!(hub(&[("HF_TOKEN_PATH", &named)]).token(), Some("from-file"));
        let mirror = hub(&[("HF_ENDPOINT", "http://127.0.0.1:1/")]);
        let url = mirror.url("o/n", "refs/pr/1", "a b/c.gz");
        assert_eq!(url, "http://127.0.0.1:1/datasets/o/n/resolve/refs%2Fpr%2F1/a%20b/c.gz");
    }

    #[test]
    fn hostile_listings_are_refused() {
        let entry = |path: &str, oid: Option<&str>| Entry {
            kind: "file".to_owned(),
            path: path.to_owned(),
            size: 1,
            oid: oid.map(str::to_owned),
            lfs: None,
        };
        let good = "0123456789abcdef0123456789abcdef01234567";
        assert!(file(entry("a/b", Some(good))).is_ok());
        for path in ["../a", "/a", "a//b", "a/../../b", "a\\b", ""] {
            assert!(file(entry(path, Some(good))).is_err(), "{path:?}");
        }
        for oid in [None, Some("../../x"), Some("ABCDEF"), Some("")] {
            assert!(file(entry("a", oid)).is_err(), "{oid:?}");
        }
        assert_eq!(
            sum_of(Path::new("../../blobs").join(good).as_path()),
            Some(Sum::Git(good.to_owned()))
        );
        assert_eq!(sum_of(Path::new("blobs/other")), None);
    }

    #[test]
    fn paths_are_quoted() {
        assert_eq!(quoted("a/b c%é", true), "a/b%20c%25%C3%A9");
        assert_eq!(quoted("refs/x", false), "refs%2Fx");
    }
}
