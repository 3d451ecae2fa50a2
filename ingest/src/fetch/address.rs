//! Addresses: what a path with a scheme names.

use std::fmt;

/// Stores of objects that are named by a bucket and a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Amazon S3 and what speaks its language.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage; the account is named by the environment.
    Azure,
}

impl Service {
    /// The scheme of its addresses.
    #[must_use]
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }
}

/// One remote file, or, in a manifest, a pattern for many.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `s3://bucket/key`, `gs://bucket/key`, `az://container/key`.
    Object {
        /// Whose.
        service: Service,
        /// The bucket or container.
        bucket: String,
        /// The key, without a slash in front.
        key: String,
    },
    /// `https://…`, `http://…`.
    Web {
        /// All of it, with its query.
        url: String,
    },
    /// `hf://datasets/org/name@revision/path`.
    Hub {
        /// `org/name`.
        repository: String,
        /// A branch, a tag or a commit; `main` when the address has none.
        revision: String,
        /// The path within it.
        path: String,
    },
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {problem}")]
pub struct AddressError {
    /// The text, without what may be secret in it.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Address {
    /// Whether a path of a manifest is an address.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        text.contains("://")
    }

    /// The address that a text spells.
    ///
    /// # Errors
    /// If its scheme is not known or a part is missing or malformed.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let error = |problem| AddressError { text: without_query(text).to_owned(), problem };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| error("has no scheme"))?;
        if rest.chars().any(char::is_control) {
            return Err(error("holds a control character"));
        }
        let service = match scheme {
            "s3" => Service::S3,
            "gs" => Service::Gcs,
            "az" => Service::Azure,
            "http" | "https" => {
                let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
                if host.is_empty() {
                    return Err(error("has no host"));
                }
                if host.contains('@') {
                    let text = format!("{scheme}://…{}", host.rsplit('@').next().unwrap_or(""));
                    let problem = "has a user name or password in it: they would end up in files";
                    return Err(AddressError { text, problem });
                }
                return Ok(Self::Web { url: text.to_owned() });
            }
            "hf" => return Self::parse_hub(rest).map_err(error),
            _ => return Err(error("has another scheme than s3, gs, az, https, http and hf")),
        };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || is_pattern(bucket) {
            return Err(error("has no bucket; a bucket cannot be a pattern"));
        }
        if !key.is_empty() && !is_clean(key.trim_end_matches('/')) {
            return Err(error("has an empty part, or `.` or `..`, in its key"));
        }
        Ok(Self::Object { service, bucket: bucket.to_owned(), key: key.to_owned() })
    }

    fn parse_hub(rest: &str) -> Result<Self, &'static str> {
        let shape = "is not of the form hf://datasets/org/name[@revision]/path";
        let rest = rest.strip_prefix("datasets/").ok_or(shape)?;
        let (org, rest) = rest.split_once('/').ok_or(shape)?;
        let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        let (mut revision, mut path) = (revision.replace("%2F", "/"), path);
        // The hub's own refs have slashes: refs/convert/parquet, refs/pr/7.
        if revision == "refs" {
            let mut parts = path.splitn(3, '/');
            if let (Some(kind @ ("convert" | "pr")), Some(of)) = (parts.next(), parts.next()) {
                revision = format!("refs/{kind}/{of}");
                path = parts.next().unwrap_or_default();
            }
        }
        let plain = |part: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && part != "." && part != ".." && part.chars().all(known)
        };
        if !plain(org) || !plain(name) || !revision.split('/').all(plain) {
            return Err(shape);
        }
        if !path.is_empty() && !is_clean(path.trim_end_matches('/')) {
            return Err("has an empty part, or `.` or `..`, in its path");
        }
        let (repository, path) = (format!("{org}/{name}"), path.to_owned());
        Ok(Self::Hub { repository, revision, path })
    }

    /// The last part of its path.
    #[must_use]
    pub fn file_name(&self) -> &str {
        let path = match self {
            Self::Object { key, .. } => key,
            Self::Web { url } => without_query(url),
            Self::Hub { path, .. } => path,
        };
        path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
    }

    /// The part of it that may be a pattern or a folder; nothing for the web, which has neither.
    pub(crate) fn pattern(&self) -> Option<&str> {
        match self {
            Self::Object { key, .. } => Some(key),
            Self::Hub { path, .. } => Some(path),
            Self::Web { .. } => None,
        }
    }

    /// The same with another key or path.
    pub(crate) fn with_path(&self, path: &str) -> Self {
        let mut other = self.clone();
        match &mut other {
            Self::Object { key, .. } => path.clone_into(key),
            Self::Hub { path: own, .. } => path.clone_into(own),
            Self::Web { .. } => {}
        }
        other
    }
}

/// As it is shown and recorded: without the query, in which signatures may be.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object { service, bucket, key } => {
                write!(f, "{}://{bucket}/{key}", service.scheme())
            }
            Self::Web { url } => f.write_str(without_query(url)),
            Self::Hub { repository, revision, path } => {
                write!(f, "hf://datasets/{repository}@{}/{path}", revision.replace('/', "%2F"))
            }
        }
    }
}

fn without_query(url: &str) -> &str {
    let web = url.starts_with("http://") || url.starts_with("https://");
    if web { url.split(['?', '#']).next().unwrap_or(url) } else { url }
}

/// Whether a path has parts that a file system would not take as names.
pub(crate) fn is_clean(path: &str) -> bool {
    let name = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0'])
    };
    path.split('/').all(name)
}

pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

#[cfg(test)]
mod tests {
    use super::{Address, Service};
    use proptest::prelude::*;

    #[test]
    fn addresses_are_taken_apart() {
        let parse = |text| Address::parse(text).expect("an address");
        let object = Address::Object {
            service: Service::S3,
            bucket: "b".to_owned(),
            key: "x/*.jsonl".to_owned(),
        };
        assert_eq!(parse("s3://b/x/*.jsonl"), object);
        let hub = |revision: &str, path: &str| Address::Hub {
            repository: "org/name".to_owned(),
            revision: revision.to_owned(),
            path: path.to_owned(),
        };
        assert_eq!(parse("hf://datasets/org/name/a/b.parquet"), hub("main", "a/b.parquet"));
        assert_eq!(parse("hf://datasets/org/name@v1.0/**"), hub("v1.0", "**"));
        assert_eq!(parse("hf://datasets/org/name"), hub("main", ""));
        let converted = hub("refs/convert/parquet", "d/*.parquet");
        assert_eq!(parse("hf://datasets/org/name@refs/convert/parquet/d/*.parquet"), converted);
        assert_eq!(parse("hf://datasets/org/name@refs%2Fconvert%2Fparquet/d/*.parquet"), converted);
        assert_eq!(parse(&converted.to_string()), converted);
    }

    #[test]
    fn what_is_no_address_is_refused_without_its_secrets() {
        for text in [
            "ftp://host/x",
            "s3://",
            "s3:///key",
            "s3://b*/key",
            "s3://bucket/a//b",
            "gs://bucket/../other",
            "hf://models/org/name/x",
            "hf://datasets/name/",
            "hf://datasets/../name/x",
            "hf://datasets/org/name@a..\u{7}/x",
            "hf://datasets/org/name/../x",
            "https:///x",
            "https://host/\nx",
        ] {
            Address::parse(text).expect_err(text);
        }
        for text in ["https://user:sesame@host/x", "gopher://h/?token=open-sesame"] {
            let shown = Address::parse(text).expect_err("refused").to_string();
            assert!(!shown.contains("user:sesame"), "{shown}");
        }
        let signed = Address::parse("https://host/a/b.gz?sig=sesame#x").expect("an address");
        assert_eq!(signed.to_string(), "https://host/a/b.gz");
        assert_eq!(signed.file_name(), "b.gz");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(text in "(s3|gs|az|hf)://[a-z@.*/%2F-]{0,40}") {
            if let Ok(address) = Address::parse(&text) {
                prop_assert_eq!(Address::parse(&address.to_string()).expect("itself"), address);
            }
        }
    }
}
