//! Which files a source consists of, in an order that does not depend on the machine.

mod authorship;
mod digest;
mod language;
mod list;
mod remote;

pub use authorship::is_generated;
pub use digest::{DigestError, digest};
pub use language::{
    KNOWN_EXTENSIONS, language_of, language_of_file, language_of_name, language_of_script,
};
pub use list::{Filters, SourceError, list_files};
pub(crate) use list::{container_of, extension, glob_set};
pub use remote::list_remote;

use crate::fetch::Origin;
use std::{path::PathBuf, sync::Arc};

/// How the records lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// One JSON object a line, plain, gzip or zstd.
    Jsonl,
    /// JSON objects in one array, or one after the other, however they are spread over lines.
    Json,
    /// Alternating lines: a question, its answer.
    Pairs,
    /// An archive of files of the other kinds, plain, gzip or zstd.
    Tar,
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC, file or stream.
    Arrow,
    /// The whole file is one document.
    Text,
    /// The whole file is one document of code; binary files are passed over.
    Code,
}

impl Container {
    /// The name in messages and listings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Json => "json",
            Self::Pairs => "pairs",
            Self::Tar => "tar",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
            Self::Text => "text",
            Self::Code => "code",
        }
    }
}

/// One file of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Where it is; a remote file once it was fetched.
    pub path: PathBuf,
    /// How it is named in the shard set: relative to the manifest where possible.
    pub name: String,
    /// How to read it.
    pub container: Container,
    /// Its size when it was listed.
    pub bytes: u64,
    /// Where it comes from, when it is remote.
    pub origin: Option<Arc<Origin>>,
    /// Whether it is other people's code, which is to be counted and dropped.
    pub vendored: bool,
}
