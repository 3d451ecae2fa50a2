//! What can be wrong with a manifest.

use crate::PathError;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where in the input a key or value stands. Shown behind the manifest's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the manifest, counted from 1.
    File {
        /// Line.
        line: u64,
        /// Column in characters.
        column: u64,
    },
    /// In an `a.b.c=value` override.
    Override(String),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::File { line, column } => write!(formatter, ":{line}:{column}"),
            Self::Override(text) => write!(formatter, " with override `{text}`"),
        }
    }
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read the manifest {}", path.display())]
    Read {
        /// The manifest.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no YAML, repeats a key, or is too large or too deep.
    #[error("{}{place}: {message}", path.display())]
    Yaml {
        /// The manifest.
        path: PathBuf,
        /// Where.
        place: Place,
        /// What the parser said.
        message: String,
    },
    /// A key that does not exist.
    #[error("{}{place}: unknown key `{key}`", path.display())]
    UnknownKey {
        /// The manifest.
        path: PathBuf,
        /// Where.
        place: Place,
        /// The whole key, such as `train.lr.peek`.
        key: String,
        /// The nearest key that exists there.
        nearest: Option<String>,
        /// All keys that exist there.
        known: Box<[String]>,
    },
    /// A value that does not fit its key.
    #[error("{}{place}: {key}: {message}", path.display())]
    Value {
        /// The manifest.
        path: PathBuf,
        /// Where.
        place: Place,
        /// The whole key.
        key: String,
        /// What was found and what was expected.
        message: String,
        /// What to do about it.
        hint: Option<Box<str>>,
    },
    /// An override that cannot be applied.
    #[error("override `{text}`: {message}")]
    Override {
        /// The override as given.
        text: String,
        /// Why not.
        message: String,
    },
    /// A path that may not be opened, or cannot be looked up.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl ManifestError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("check the path given with --manifest".to_owned())
            }
            Self::Read { .. } => None,
            Self::Yaml { .. } => {
                Some("docs/manifest.md shows what a manifest looks like".to_owned())
            }
            Self::UnknownKey { nearest: Some(nearest), .. } => {
                Some(format!("did you mean `{nearest}`?"))
            }
            Self::UnknownKey { known, .. } => Some(format!("known here: {}", known.join(", "))),
            Self::Value { hint, .. } => hint.as_deref().map(str::to_owned),
            Self::Override { .. } => Some(
                "an override is a.b.c=value, such as train.steps=100 or data.sources.0.weight=2"
                    .to_owned(),
            ),
            Self::Path(error) => error.hint(),
        }
    }

    /// Whether the user's input is wrong (exit code 2), as opposed to the disk (exit code 3).
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        match self {
            Self::Read { .. } => false,
            Self::Path(error) => error.is_usage(),
            _ => true,
        }
    }
}
