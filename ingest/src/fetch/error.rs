//! What can go wrong on the way to a remote file.

use super::address::{Address, AddressError};
use coda_shards::commit::FileError;
use std::time::Duration;

/// Longest text of a server that is passed on.
const MAX_TOLD: usize = 300;
/// Environment variables whose values never appear in a message, by the end of their names.
const SECRETS: &[&str] = &["_KEY", "_KEY_ID", "_TOKEN", "_SECRET", "_PASSWORD"];
/// Shorter values are too common to be told from ordinary text.
const SHORTEST_SECRET: usize = 6;

/// Why a remote file could not be listed or fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A path with a scheme is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A server could not be asked, or refused.
    #[error("{address}: {problem}")]
    Remote {
        /// What was asked for.
        address: String,
        /// What happened.
        problem: Problem,
    },
    /// The cache could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The environment or the system does not allow it.
    #[error("{0}")]
    Setup(String),
    /// A signal asked for the end.
    #[error("stopped by a signal")]
    Stopped,
}

/// What a server, or the way to it, made impossible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It may work later.
    #[error("{message}")]
    Passing {
        /// What happened.
        message: String,
        /// How long the server asks to wait.
        after: Option<Duration>,
    },
    /// There is nothing at the address.
    #[error("it does not exist")]
    Gone,
    /// The credentials, or their absence, are not accepted.
    #[error("access is refused: {0}")]
    Refused(String),
    /// The file is another one than when it was listed.
    #[error("the file is not the one that was listed: {0}")]
    Changed(String),
    /// It is not there, and the network must not be used.
    #[error("{0}")]
    Offline(String),
    /// It will not work later either.
    #[error("{0}")]
    Lasting(String),
}

impl Problem {
    /// A passing problem.
    pub(crate) fn passing(message: impl AsRef<str>) -> Self {
        Self::Passing { message: told(message.as_ref()), after: None }
    }

    /// A problem by the status of an answer.
    pub(crate) fn of_status(status: u16, after: Option<Duration>, body: &str) -> Self {
        let message = told(format!("the server answered {status} {body}").trim_end());
        match status {
            404 | 410 => Self::Gone,
            401 | 403 => Self::Refused(message),
            412 | 416 => Self::Changed(message),
            408 | 425 | 429 | 500..=599 => Self::Passing { message, after },
            _ => Self::Lasting(message),
        }
    }

    pub(crate) fn at(self, address: &Address) -> FetchError {
        FetchError::Remote { address: address.to_string(), problem: self }
    }
}

impl FetchError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Remote { address, problem } => match problem {
                Problem::Refused(_) if address.starts_with("s3:") => {
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true \
                     for a public bucket"
                }
                Problem::Refused(_) if address.starts_with("gs:") => {
                    "set GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true for a \
                     public bucket"
                }
                Problem::Refused(_) if address.starts_with("az:") => {
                    "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or \
                     AZURE_SKIP_SIGNATURE=true for a public container"
                }
                Problem::Refused(_) if address.starts_with("hf:") => {
                    "set HF_TOKEN, and accept the conditions of a gated dataset on its page"
                }
                Problem::Changed(_) => "run the command again to list it anew",
                Problem::Passing { .. } => {
                    "run the command again: it goes on with what was already fetched"
                }
                Problem::Offline(_) => "unset it to let the server be asked",
                Problem::Gone => "check the address; a pattern finds what is there",
                Problem::Refused(_) | Problem::Lasting(_) => return None,
            },
            Self::Address(_) | Self::File(_) | Self::Setup(_) | Self::Stopped => return None,
        };
        Some(hint.to_owned())
    }

    /// Whether the manifest is wrong (as opposed to the network or the disk).
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Address(_) | Self::Remote { problem: Problem::Gone, .. })
    }
}

/// A foreign message as it may be shown: in one line, of bounded length, and without the value of any
/// variable of the environment that is named like a secret.
pub(crate) fn told(text: &str) -> String {
    let secrets = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.to_string_lossy().to_ascii_uppercase();
        let value = value.into_string().ok()?;
        let secret = SECRETS.iter().any(|end| name.ends_with(end));
        (secret && value.trim().len() >= SHORTEST_SECRET).then(|| value.trim().to_owned())
    });
    conceal(text, secrets)
}

fn conceal(text: &str, secrets: impl Iterator<Item = String>) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        text = text.replace(&secret, "***");
    }
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_TOLD) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_TOLD, Problem, conceal};
    use std::time::Duration;

    #[test]
    fn secrets_and_long_answers_are_cut() {
        let secrets = || ["sesame-open".to_owned()].into_iter();
        assert_eq!(conceal("key sesame-open\n is\tbad", secrets()), "key *** is bad");
        let long = conceal(&"é".repeat(1000), secrets());
        assert_eq!(long.chars().count(), MAX_TOLD + 1);
    }

    #[test]
    fn statuses_are_sorted() {
        let of = |status| Problem::of_status(status, None, "");
        assert_eq!(of(404), Problem::Gone);
        assert!(matches!(of(403), Problem::Refused(_)));
        assert!(matches!(of(412), Problem::Changed(_)));
        assert!(matches!(of(400), Problem::Lasting(_)));
        let after = Some(Duration::from_secs(2));
        for status in [408, 429, 500, 503, 599] {
            let problem = Problem::of_status(status, after, "");
            assert!(matches!(problem, Problem::Passing { after: Some(_), .. }), "{status}");
        }
    }
}
