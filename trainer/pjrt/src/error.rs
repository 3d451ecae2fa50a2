//! What can go wrong with a plugin, a program or its arguments.

use crate::ElementType;
use std::{
    fmt,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// The variable without which libtpu asks the cloud's metadata server about the machine.
pub(crate) const SKIP_METADATA: &str = "TPU_SKIP_MDS_QUERY";

/// A plugin, as errors name it: its file and the version of the API that it speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginName {
    /// The file.
    pub path: PathBuf,
    /// Major and minor version of its API.
    pub version: (i32, i32),
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (PJRT {}.{})", self.path.display(), self.version.0, self.version.1)
    }
}

/// The kind of an error that a plugin reports; the numbers are those of `absl::StatusCode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are those of the API and say all that it says")]
pub enum ErrorCode {
    Cancelled,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
    Unknown,
}

impl ErrorCode {
    const NUMBERS: [(i32, Self); 15] = [
        (1, Self::Cancelled),
        (3, Self::InvalidArgument),
        (4, Self::DeadlineExceeded),
        (5, Self::NotFound),
        (6, Self::AlreadyExists),
        (7, Self::PermissionDenied),
        (8, Self::ResourceExhausted),
        (9, Self::FailedPrecondition),
        (10, Self::Aborted),
        (11, Self::OutOfRange),
        (12, Self::Unimplemented),
        (13, Self::Internal),
        (14, Self::Unavailable),
        (15, Self::DataLoss),
        (16, Self::Unauthenticated),
    ];

    /// The code of that number; [`ErrorCode::Unknown`] for numbers that are none.
    #[must_use]
    pub fn from_number(number: i32) -> Self {
        Self::NUMBERS
            .into_iter()
            .find(|(known, _)| *known == number)
            .map_or(Self::Unknown, |(_, code)| code)
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> i32 {
        Self::NUMBERS.into_iter().find(|(_, code)| *code == self).map_or(2, |(number, _)| number)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Why something with PJRT did not go.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PjrtError {
    /// No plugin was found; the places that were looked at.
    #[error("found no PJRT plugin{}; looked at:\n{}", .kind, .looked.join("\n"))]
    NotFound {
        /// ` for a CPU` or the like; empty if any would have done.
        kind: &'static str,
        /// One line for each place.
        looked: Vec<String>,
        /// What to install.
        install: &'static str,
    },
    /// A library that may ask the network when it is loaded, and nothing forbids it.
    #[error("{}: not loaded, since {SKIP_METADATA} is not set", .path.display())]
    Environment {
        /// The library.
        path: PathBuf,
    },
    /// A variable that has to be set could not be, for threads are running that may read it.
    #[error("cannot set {SKIP_METADATA} and others in a process that has {threads} threads")]
    TooLate {
        /// How many there are.
        threads: usize,
    },
    /// The dynamic loader refuses the file.
    #[error("{}: cannot be loaded as a library: {message}", .path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// The loader's words.
        message: String,
    },
    /// A library, but not a plugin.
    #[error("{}: no PJRT plugin: {message}", .path.display())]
    NoPlugin {
        /// The file.
        path: PathBuf,
        /// What is missing.
        message: String,
    },
    /// A plugin of another major version, whose functions mean something else.
    #[error("{plugin}: the API must be 0.x")]
    Version {
        /// The plugin.
        plugin: PluginName,
    },
    /// A function that this plugin does not have.
    #[error("{plugin} has no function {function}")]
    MissingFunction {
        /// The plugin.
        plugin: PluginName,
        /// The function's name in the C API.
        function: &'static str,
    },
    /// The plugin reports an error.
    #[error("{plugin}: {function}: {code}: {message}")]
    Plugin {
        /// The plugin.
        plugin: PluginName,
        /// The function's name in the C API.
        function: &'static str,
        /// The kind.
        code: ErrorCode,
        /// The plugin's words.
        message: String,
    },
    /// The plugin broke the API's rules.
    #[error("{plugin}: {function} {message}")]
    Broken {
        /// The plugin.
        plugin: PluginName,
        /// The function's name in the C API.
        function: &'static str,
        /// What it did.
        message: String,
    },
    /// An option of a kind that cannot be given there.
    #[error("option `{name}`: {message}")]
    Option {
        /// The option.
        name: String,
        /// What is wrong.
        message: &'static str,
    },
    /// Elements that are not those of the buffer.
    #[error("the buffer holds {found}, not {wanted}")]
    Element {
        /// What was asked for.
        wanted: ElementType,
        /// What the buffer has.
        found: ElementType,
    },
    /// A number of elements that the dimensions do not give.
    #[error("{len} elements do not fill the dimensions {dims:?}")]
    Size {
        /// How many there are.
        len: usize,
        /// The dimensions.
        dims: Vec<usize>,
    },
    /// A buffer whose memory is gone.
    #[error("{place} was deleted: a program took it over as a donated argument")]
    Deleted {
        /// `the buffer` or `argument 3 of device 0`.
        place: String,
    },
    /// Arguments that the program cannot be called with.
    #[error("{message}")]
    Arguments {
        /// What is wrong.
        message: String,
    },
}

impl PjrtError {
    /// What to do about it, if that can be said.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotFound { install, .. } => install,
            Self::Environment { .. } | Self::TooLate { .. } => {
                return Some(format!(
                    "set {SKIP_METADATA}=1, or 0 on a Cloud TPU VM whose libtpu must ask"
                ));
            }
            Self::Load { path, .. } if !path.exists() => "check the path",
            Self::Load { .. } => {
                "the file must be a plugin for this system, and the libraries that it needs must be \
                 installed"
            }
            Self::NoPlugin { .. } => "name the plugin itself: a library that exports GetPjrtApi",
            Self::Version { .. } => "take a plugin that speaks PJRT 0.x",
            Self::MissingFunction { .. } => "take a newer version of this plugin",
            Self::Plugin { code, message, .. } => return plugin_hint(*code, message),
            Self::Element { .. } => "ask for the element type of the program's output",
            Self::Deleted { .. } => "use the program's output in its place",
            Self::Broken { .. }
            | Self::Option { .. }
            | Self::Size { .. }
            | Self::Arguments { .. } => return None,
        };
        Some((*hint).to_owned())
    }
}

/// What is known about errors that plugins report.
fn plugin_hint(code: ErrorCode, message: &str) -> Option<String> {
    let has = |part: &str| message.contains(part);
    let hint = if has("jellyfish") || has("No visible GPU") || has("TPU initialization failed") {
        "this machine shows no such accelerator: choose another plugin, or compile ahead of time"
    } else if code == ErrorCode::ResourceExhausted || has("Ran out of memory") {
        "it does not fit: fewer rows at a time, smaller chunks, or a mesh of more devices"
    } else if code == ErrorCode::Unimplemented {
        "this plugin cannot do it: take a newer version, or another plugin"
    } else if code == ErrorCode::DeadlineExceeded || code == ErrorCode::Unavailable {
        "check that every process runs, and that all name the same coordinator"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

/// The words for a plugin at `path`.
pub(crate) fn name(path: &Path, version: (i32, i32)) -> PluginName {
    PluginName { path: path.to_owned(), version }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_keep_their_numbers() {
        for (number, code) in ErrorCode::NUMBERS {
            assert_eq!(ErrorCode::from_number(number), code);
            assert_eq!(code.number(), number);
        }
        assert_eq!(ErrorCode::from_number(99), ErrorCode::Unknown);
        assert_eq!(ErrorCode::Unknown.number(), 2);
    }

    #[test]
    fn an_error_names_plugin_version_function_and_code() {
        let error = PjrtError::Plugin {
            plugin: name(Path::new("/lib/p.so"), (0, 81)),
            function: "PJRT_Client_Compile",
            code: ErrorCode::ResourceExhausted,
            message: "16.54G of 15.75G".to_owned(),
        };
        assert_eq!(
            error.to_string(),
            "/lib/p.so (PJRT 0.81): PJRT_Client_Compile: ResourceExhausted: 16.54G of 15.75G"
        );
        assert!(error.hint().expect("a hint").contains("fewer rows"));
    }
}
