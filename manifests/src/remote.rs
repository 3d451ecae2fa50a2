//! What does not lie beside the manifest: paths that are addresses, and texts that are named by id.

use crate::Data;
use serde::{Deserialize, Serialize};

/// Folder beside the manifest that remote files are fetched to.
const CACHE: &str = ".cache/coda";
/// Where Software Heritage publishes the content of its archive.
pub const ARCHIVE_URL: &str = "https://softwareheritage.s3.amazonaws.com/content/";

/// A source whose records do not hold their text but the id of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blobs {
    /// Folder of the blob store.
    pub store: String,
    /// Column or key that holds the id.
    #[serde(default = "default_id")]
    pub id: String,
    /// Column or key that names the encoding; absent: UTF-8 with replacement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// What stands before the id in the address of a blob.
    #[serde(default = "default_url")]
    pub url: String,
}

fn default_id() -> String {
    "blob_id".to_owned()
}

fn default_url() -> String {
    ARCHIVE_URL.to_owned()
}

impl Data {
    /// The folder that remote files are fetched to.
    #[must_use]
    pub fn cache(&self) -> &str {
        self.cache.as_deref().unwrap_or(CACHE)
    }
}

impl Blobs {
    /// The part that decides what is read: neither where the store is nor where it came from.
    pub(crate) fn decisive(&self) -> Self {
        Self { store: String::new(), url: String::new(), ..self.clone() }
    }
}
