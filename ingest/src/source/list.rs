//! Listing the files of a source.

use super::{
    Container, InputFile,
    authorship::{is_build_folder, is_vendored},
    language::{language_of_file, language_of_name},
};
use crate::fetch::FetchError;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use std::{
    collections::HashSet,
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
};
use walkdir::WalkDir;

/// Folders of other people's code that hold no data set; folders of code are looked at more closely.
const OTHERS: &[&str] = &[
    "bower_components",
    "node_modules",
    "site-packages",
    "third-party",
    "third_party",
    "vendor",
    "vendored",
];

/// Which files of folders and globs count.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    /// Container of every file; by extension when absent.
    pub container: Option<Container>,
    /// Whether other people's code in folders of code is dropped, or taken like the rest.
    pub drop_vendored: bool,
    /// Only these extensions (without the dot); empty: all that the container knows.
    pub extensions: Vec<String>,
    /// Only these languages (names as in [`super::KNOWN_EXTENSIONS`], any case); empty: all.
    pub languages: Vec<String>,
    /// Globs on the path relative to the folder or to the glob's fixed part; what matches is left out.
    pub exclude: Vec<String>,
    /// Names are given relative to the deepest of these folders that holds the file.
    pub relative_to: Vec<PathBuf>,
}

/// Why a source cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A path of the manifest does not exist, or a glob or folder holds no file.
    #[error("source {source_name:?}: {} {problem}", path.display())]
    Nothing {
        /// The source.
        source_name: String,
        /// The path or glob.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
        /// What to do.
        hint: String,
    },
    /// The container of a file cannot be told from its name.
    #[error("source {source_name:?}: cannot tell the format of {}", path.display())]
    Format {
        /// The source.
        source_name: String,
        /// The file.
        path: PathBuf,
    },
    /// A glob is not well formed.
    #[error("source {source_name:?}: {glob:?} is not a valid glob: {message}")]
    Glob {
        /// The source.
        source_name: String,
        /// The glob.
        glob: String,
        /// What the parser said.
        message: String,
    },
    /// A remote path cannot be listed.
    #[error("source {source_name:?}: cannot list a remote path")]
    Remote {
        /// The source.
        source_name: String,
        /// Why.
        source: FetchError,
    },
    /// The system refused.
    #[error("source {source_name:?}: cannot read {}", path.display())]
    Read {
        /// The source.
        source_name: String,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SourceError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Nothing { hint, .. } => Some(hint.clone()),
            Self::Format { .. } => Some(
                "set the source's format to jsonl, json, pairs, parquet, arrow, text or code"
                    .to_owned(),
            ),
            Self::Glob { .. } => Some(
                "** matches folders at any depth, * within a name, {a,b} alternatives".to_owned(),
            ),
            Self::Remote { source, .. } => source.hint(),
            Self::Read { .. } => None,
        }
    }

    /// Whether the manifest is wrong (as opposed to the disk).
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        match self {
            Self::Remote { source, .. } => source.is_usage(),
            Self::Read { .. } => false,
            _ => true,
        }
    }
}

/// The files of a source: entries in the order given, the files of a folder or glob sorted by path,
/// a file that is listed twice only once. Inside folders, links to files count as files (the caches of
/// hubs are made of them; [`crate::plan`] checks where they lead), links to folders are not followed.
///
/// # Errors
/// If an entry names nothing, a format cannot be told, or the system refuses to list a folder.
pub fn list_files(
    source_name: &str,
    paths: &[PathBuf],
    filters: &Filters,
) -> Result<Vec<InputFile>, SourceError> {
    let lister = Lister { source_name, filters, exclude: glob_set(source_name, &filters.exclude)? };
    let mut files = Vec::new();
    for path in paths {
        let before = files.len();
        lister.entry(path, &mut files)?;
        if files.len() == before {
            let (problem, hint) = Lister::why_nothing(path);
            let (source_name, path) = (source_name.to_owned(), path.clone());
            return Err(SourceError::Nothing { source_name, path, problem, hint });
        }
    }
    let mut seen = HashSet::new();
    files.retain(|file| seen.insert(file.path.clone()));
    Ok(files)
}

pub(super) struct Lister<'a> {
    pub(super) source_name: &'a str,
    pub(super) filters: &'a Filters,
    pub(super) exclude: GlobSet,
}

impl Lister<'_> {
    fn entry(&self, path: &Path, files: &mut Vec<InputFile>) -> Result<(), SourceError> {
        if path.is_file() {
            return self.add(path, self.filters.container, files);
        }
        if path.is_dir() {
            let container = self.filters.container.unwrap_or(Container::Code);
            let is_code = container == Container::Code;
            for file in self.walk(path, is_code, &|_| true)? {
                if self.belongs(&file, container) || (is_code && self.is_script(&file)) {
                    self.add(&file, Some(container), files)?;
                    let relative = file.strip_prefix(path).unwrap_or(&file);
                    let drop = is_code && self.filters.drop_vendored && is_vendored(relative);
                    files.last_mut().into_iter().for_each(|file| file.vendored = drop);
                }
            }
            return Ok(());
        }
        let Some((base, pattern)) = split_glob(path) else { return Ok(()) };
        if !base.is_dir() {
            return Ok(());
        }
        let wanted = glob_set(self.source_name, &[pattern])?;
        for file in self.walk(&base, false, &|relative| wanted.is_match(relative))? {
            let known = self.filters.extensions.is_empty() && self.filters.languages.is_empty();
            if known || self.belongs(&file, self.filters.container.unwrap_or(Container::Code)) {
                self.add(&file, self.filters.container, files)?;
            }
        }
        Ok(())
    }

    fn walk(
        &self,
        base: &Path,
        into_vendored: bool,
        wanted: &dyn Fn(&Path) -> bool,
    ) -> Result<Vec<PathBuf>, SourceError> {
        let mut found = Vec::new();
        let entries = WalkDir::new(base).into_iter().filter_entry(|entry| {
            let name = entry.file_name().to_string_lossy();
            let is_code = into_vendored && !is_hidden(&name) && !is_build_folder(&name);
            entry.depth() == 0 || is_code || !is_left_out(&name)
        });
        for entry in entries {
            let entry = entry.map_err(|e| SourceError::Read {
                source_name: self.source_name.to_owned(),
                path: e.path().unwrap_or(base).to_owned(),
                source: e.into(),
            })?;
            let relative = entry.path().strip_prefix(base).unwrap_or(entry.path());
            let is_file =
                entry.file_type().is_file() || (entry.path_is_symlink() && entry.path().is_file());
            if is_file && wanted(relative) && !self.exclude.is_match(relative) {
                found.push(entry.into_path());
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Whether a file found in a folder is one of the container's.
    pub(super) fn belongs(&self, path: &Path, container: Container) -> bool {
        let extension = extension(path);
        if !self.filters.extensions.is_empty() {
            let named = |e: &String| e.trim_start_matches('.').eq_ignore_ascii_case(&extension);
            return self.filters.extensions.iter().any(named);
        }
        match container {
            Container::Code => {
                self.has_language(language_of_name(Path::new(&without_compression(path))))
            }
            other => container_of(path) == Some(other),
        }
    }

    fn has_language(&self, language: Option<&'static str>) -> bool {
        let wanted = &self.filters.languages;
        language.is_some_and(|language| {
            wanted.is_empty() || wanted.iter().any(|l| l.eq_ignore_ascii_case(language))
        })
    }

    /// Whether a file without an extension is a script of the wanted languages.
    fn is_script(&self, path: &Path) -> bool {
        let any_name = self.filters.extensions.is_empty() && path.extension().is_none();
        any_name && self.has_language(language_of_file(path))
    }

    fn add(
        &self,
        path: &Path,
        container: Option<Container>,
        files: &mut Vec<InputFile>,
    ) -> Result<(), SourceError> {
        let source_name = || self.source_name.to_owned();
        let container = if is_archive(path) { Some(Container::Tar) } else { container }
            .or_else(|| container_of(path))
            .ok_or_else(|| SourceError::Format { source_name: source_name(), path: path.into() })?;
        let metadata = fs::metadata(path).map_err(|source| SourceError::Read {
            source_name: source_name(),
            path: path.to_owned(),
            source,
        })?;
        let name = self.name_of(path);
        let (path, bytes) = (path.to_owned(), metadata.len());
        files.push(InputFile { path, name, container, bytes, origin: None, vendored: false });
        Ok(())
    }

    fn name_of(&self, path: &Path) -> String {
        let inside =
            self.filters.relative_to.iter().filter_map(|root| path.strip_prefix(root).ok());
        let shortest = inside.min_by_key(|rest| rest.components().count()).unwrap_or(path);
        // A root may be the file itself.
        let named = if shortest.as_os_str().is_empty() { path.file_name() } else { None };
        named.unwrap_or(shortest.as_os_str()).to_string_lossy().into_owned()
    }

    fn why_nothing(path: &Path) -> (&'static str, String) {
        if path.is_dir() {
            let extensions = "hidden, vendored and build folders are left out; name other \
                              extensions with the source's `extensions`, or its `format`";
            ("holds no file that fits", extensions.to_owned())
        } else if split_glob(path).is_some_and(|(base, _)| base.is_dir()) {
            ("matches no file", "check the glob; hidden and vendored folders are left out".into())
        } else {
            ("does not exist", "relative paths start at the manifest's folder".to_owned())
        }
    }
}

/// Whether a file or folder of that name is not looked at: hidden, built, or other people's.
pub(super) fn is_left_out(name: &str) -> bool {
    is_hidden(name) || is_build_folder(name) || OTHERS.contains(&name)
}

fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

pub(super) fn is_archive(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    [".tar", ".tar.gz", ".tgz", ".tar.zst"].iter().any(|end| name.ends_with(end))
}

/// The last extension that is not a compression, in lower case.
pub(crate) fn extension(path: &Path) -> String {
    let name = without_compression(path);
    Path::new(&name)
        .extension()
        .map(|e| e.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default()
}

/// The name of a file without the extension of its compression.
fn without_compression(path: &Path) -> OsString {
    let packed = path.extension().is_some_and(|e| {
        let last = e.to_string_lossy().to_ascii_lowercase();
        last == "gz" || last == "zst"
    });
    let name = if packed { path.file_stem() } else { path.file_name() };
    name.unwrap_or_default().to_owned()
}

pub(crate) fn container_of(path: &Path) -> Option<Container> {
    if is_archive(path) {
        return Some(Container::Tar);
    }
    let extension = extension(path);
    Some(match extension.as_str() {
        "jsonl" | "ndjson" | "json" => Container::Jsonl,
        "parquet" => Container::Parquet,
        "arrow" | "ipc" | "feather" => Container::Arrow,
        "txt" | "text" => Container::Text,
        _ => {
            language_of_name(Path::new(&without_compression(path)))?;
            Container::Code
        }
    })
}

/// A path with glob characters, as the folder before them and the glob relative to it.
fn split_glob(path: &Path) -> Option<(PathBuf, String)> {
    let is_glob =
        |part: &Component<'_>| part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{']);
    let parts: Vec<Component<'_>> = path.components().collect();
    let first = parts.iter().position(is_glob)?;
    let base = parts[..first].iter().collect();
    let glob: PathBuf = parts[first..].iter().collect();
    Some((base, glob.to_string_lossy().into_owned()))
}

pub(crate) fn glob_set(source_name: &str, globs: &[String]) -> Result<GlobSet, SourceError> {
    let mut set = GlobSetBuilder::new();
    let error = |glob: &str, e: &globset::Error| SourceError::Glob {
        source_name: source_name.to_owned(),
        glob: glob.to_owned(),
        message: e.kind().to_string(),
    };
    for glob in globs {
        let built = GlobBuilder::new(glob).literal_separator(true).build();
        set.add(built.map_err(|e| error(glob, &e))?);
    }
    set.build().map_err(|e| error("", &e))
}
