//! Which of the crates that cargo has unpacked on this machine become the quickstart's corpora.

use coda_cli::Failure;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Names that say nothing worth learning: bindings and tables that a program has written.
const GENERATED: [&str; 14] = [
    "-sys",
    "-sys-",
    "arrow-format",
    "cudarc",
    "encoding_rs",
    "js-sys",
    "libc",
    "linux-raw-sys",
    "parquet-format",
    "r-efi",
    "unicode",
    "wasi",
    "windows",
    "winapi",
];

/// Never ingested: the function that is filled in at the end comes from here.
pub(crate) const HELD_BACK: [&str; 1] = ["indexmap"];

/// Where cargo keeps what it downloads.
pub(crate) fn cargo_home() -> Result<PathBuf, Failure> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .ok_or_else(|| Failure::usage("neither CARGO_HOME nor a home directory is known"))
}

/// One unpacked crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// `name-version`, the name of its directory.
    pub(crate) id: String,
    /// The crate's name.
    pub(crate) name: String,
    /// Where it lies.
    pub(crate) directory: PathBuf,
}

/// The crates of `Cargo.lock` that come from a registry, lie unpacked on this machine, and are
/// written by people; of several versions the last one. Sorted by name: the same on every machine
/// with the same lock file and platform.
pub(crate) fn list(lock: &str, cargo_home: &Path) -> Result<Vec<Unpacked>, Failure> {
    let sources = cargo_home.join("registry").join("src");
    let mut registries: Vec<PathBuf> = fs::read_dir(&sources)
        .map_err(|e| {
            Failure::io(format!("cannot read {}: {e}", sources.display()))
                .hint("`cargo fetch --locked` fills it; CARGO_HOME says where cargo keeps it")
        })?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    registries.sort();
    let mut newest = BTreeMap::new();
    for (name, version) in locked(lock) {
        if GENERATED.iter().any(|part| name.contains(part)) {
            continue;
        }
        let id = format!("{name}-{version}");
        let found = registries.iter().map(|registry| registry.join(&id)).find(|d| d.is_dir());
        if let Some(directory) = found {
            newest.insert(name.clone(), Unpacked { id, name, directory });
        }
    }
    Ok(newest.into_values().collect())
}

/// Name and version of every package of a lock file that comes from a registry, in its order.
fn locked(lock: &str) -> impl Iterator<Item = (String, String)> {
    lock.split("[[package]]").skip(1).filter_map(|package| {
        let field = |key: &str| {
            package.lines().find_map(|line| {
                let value = line.strip_prefix(key)?.trim().strip_prefix('=')?.trim();
                Some(value.trim_matches('"').to_owned())
            })
        };
        field("source")?
            .starts_with("registry+")
            .then(|| Some((field("name")?, field("version")?)))?
    })
}

#[cfg(test)]
mod tests {
    use super::list;
    use std::fs;

    #[test]
    fn only_unpacked_registry_crates_count_and_the_last_version_wins() {
        let home = tempfile::tempdir().expect("a directory");
        for id in ["either-1.9.0", "either-1.19.0", "libc-0.2.0", "own-0.1.0", "stray-1.0.0"] {
            fs::create_dir_all(home.path().join("registry/src/some-index").join(id))
                .expect("mkdir");
        }
        let registry = "source = \"registry+https://example.org/index\"";
        let package = |name: &str, version: &str, source: &str| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n{source}\n\n")
        };
        let lock = [
            "version = 4\n\n".to_owned(),
            package("absent", "1.0.0", registry),
            package("either", "1.9.0", registry),
            package("either", "1.19.0", registry),
            package("libc", "0.2.0", registry),
            package("own", "0.1.0", ""),
        ]
        .concat();
        let found = list(&lock, home.path()).expect("a list");
        assert_eq!(found.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["either-1.19.0"]);
    }

    #[test]
    fn no_registry_folder_is_an_error_with_a_hint() {
        let home = tempfile::tempdir().expect("a directory");
        let failure = list("", home.path()).expect_err("nothing there");
        assert!(failure.render().contains("cargo fetch"), "{}", failure.render());
    }
}
