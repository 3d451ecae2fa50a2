//! What was not taken in, and why.

use crate::{
    decode::{Fault, Location},
    reason::Code,
    source::{Container, InputFile},
};
use serde::{Deserialize, Serialize};

/// One line of `rejects.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// The source's name.
    pub source: String,
    /// The file, named as in the shard set's inputs.
    pub file: String,
    /// Line of a text container, from 1; in an archive counted over its members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Row of a column container, or value of a JSON array, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    /// Element of a list inside the record, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub element: Option<u32>,
    /// Where the record starts in the decompressed file (text containers).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte_offset: Option<u64>,
    /// Where in the record the fault is, when it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// The code that rejects are counted by.
    #[serde(deserialize_with = "crate::reason::one")]
    pub reason: Code,
    /// A sentence for people.
    pub message: String,
    /// BLAKE3 of the record's first 256 bytes (all of it when it is shorter).
    pub head_blake3: String,
}

impl Reject {
    /// A reject at a place of a file.
    #[must_use]
    pub fn new(
        source: &str,
        file: &InputFile,
        location: Location,
        fault: Fault,
        head: &blake3::Hash,
    ) -> Self {
        let columns = matches!(file.container, Container::Parquet | Container::Arrow);
        let values = file.container == Container::Json;
        let number = (location.number > 0).then_some(location.number);
        Self {
            source: source.to_owned(),
            file: file.name.clone(),
            line: number.filter(|_| !columns && !values),
            row: number.filter(|_| columns || values),
            element: (location.element > 0).then_some(location.element),
            byte_offset: number.filter(|_| !columns).map(|_| location.offset),
            at: fault.at,
            reason: fault.reason,
            message: fault.message,
            head_blake3: head.to_hex().to_string(),
        }
    }
}
