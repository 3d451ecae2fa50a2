//! `index.json`: what a shard set holds, written last.

use crate::{ShardError, commit::FileError};
use coda_manifests::SpanKinds;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io, path::Path};

/// The name of the index within the set.
pub const INDEX_FILE: &str = "index.json";
/// The name of the copied tokenizer within the set.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// The name of the list of rejected records within the set.
pub const REJECTS_FILE: &str = "rejects.jsonl";
/// The name of the card within the set.
pub const README_FILE: &str = "README.md";
/// The value of `format` in `index.json`.
pub const FORMAT: &str = "coda-shards";
/// The version of the format of sets whose rows have no spans of their text.
pub const FORMAT_VERSION: u32 = 1;
/// The version of the format of sets whose rows have them. Both are written and read.
pub const FORMAT_VERSION_SPANS: u32 = 2;

/// The typed content of `index.json`. Nothing in it depends on time, place or the number of jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Always [`FORMAT`].
    pub format: String,
    /// [`FORMAT_VERSION`], or [`FORMAT_VERSION_SPANS`] with [`Index::spans`].
    pub format_version: u32,
    /// BLAKE3 (hex) of this file's own bytes with this value left empty: names the set.
    pub fingerprint: String,
    /// Hash of the manifest that produced the set.
    pub manifest_hash: String,
    /// Tokens per row.
    pub row_length: u32,
    /// Bits per token id: 32.
    pub id_bits: u32,
    /// Rows in the set.
    pub rows: u64,
    /// Rows of every shard but the last.
    pub rows_per_shard: u32,
    /// Rows of every record batch but the last of a shard.
    pub rows_per_batch: u32,
    /// The ids with a meaning of their own.
    pub specials: Specials,
    /// The kinds of spans that the rows' text is divided into. Absent when rows have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spans: Option<SpanKinds>,
    /// Sums over all sources.
    pub totals: Totals,
    /// The sources, in the order of their rows.
    pub sources: Vec<SourceEntry>,
    /// The shards, in the order of their rows.
    pub shards: Vec<ShardEntry>,
    /// The other files of the set by name: `tokenizer.json`, `rejects.jsonl`, `README.md`.
    pub files: BTreeMap<String, FileEntry>,
}

/// The ids of the special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Specials {
    /// Ends every document.
    pub eos: u32,
    /// Fills rows up to the row length.
    pub pad: u32,
    /// Stands for a token to be predicted.
    pub mask: u32,
}

/// Sums over all sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// Documents in the rows.
    pub documents: u64,
    /// Tokens in the rows, special tokens included, padding left out.
    pub tokens: u64,
    /// Pads.
    pub padding_tokens: u64,
    /// Records that were not taken in.
    pub rejected: u64,
    /// Bytes of text that went in.
    pub input_bytes: u64,
}

impl Totals {
    /// The sums over these sources.
    #[must_use]
    pub fn of(sources: &[SourceEntry]) -> Self {
        let mut totals = Self::default();
        for source in sources {
            totals.documents = totals.documents.saturating_add(source.documents);
            totals.tokens = totals.tokens.saturating_add(source.tokens);
            totals.padding_tokens = totals.padding_tokens.saturating_add(source.padding_tokens);
            totals.rejected = totals.rejected.saturating_add(source.rejected());
            totals.input_bytes = totals.input_bytes.saturating_add(source.input_bytes);
        }
        totals
    }
}

/// One source and its rows, which are contiguous.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceEntry {
    /// The source's name in the manifest; every row key derives from it.
    pub name: String,
    /// Its licence, as the manifest says.
    pub license: Option<String>,
    /// Documents in its rows.
    pub documents: u64,
    /// Tokens in its rows, padding left out.
    pub tokens: u64,
    /// Pads in its rows.
    pub padding_tokens: u64,
    /// Its number of rows.
    pub rows: u64,
    /// Its first row, counted over the whole set.
    pub first_row: u64,
    /// Bytes of its text that went in.
    pub input_bytes: u64,
    /// Rejected records by reason.
    pub rejects: BTreeMap<String, u64>,
    /// Usable records that a rule of the manifest left out, by rule. Absent when there are none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drops: BTreeMap<String, u64>,
    /// The remote addresses that it was read from, with revisions settled. Absent when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
}

impl SourceEntry {
    /// Its records that a rule left out, whatever the rule.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.drops.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Its rejected records, whatever the reason.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejects.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// One shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// Its file name.
    pub file: String,
    /// Its number of rows.
    pub rows: u64,
    /// Its first row, counted over the whole set.
    pub first_row: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// BLAKE3 of the file, hex.
    pub blake3: String,
    /// CRC-32C of every block of 1 MiB (the last may be shorter).
    pub crc32c: Vec<u32>,
}

/// One file beside the shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its length in bytes.
    pub bytes: u64,
    /// BLAKE3 of the file, hex.
    pub blake3: String,
}

/// The part that every version has, read first so that another version gives a clear error.
#[derive(Deserialize)]
struct Head {
    format: String,
    format_version: u32,
}

impl Index {
    /// The version of the format of a set with such spans.
    pub(crate) const fn version(spans: Option<SpanKinds>) -> u32 {
        if spans.is_some() { FORMAT_VERSION_SPANS } else { FORMAT_VERSION }
    }

    /// The file name of a shard.
    #[must_use]
    pub fn shard_file(number: usize) -> String {
        format!("shard-{number:05}.arrow")
    }

    /// The tokenizer's fingerprint: BLAKE3 (hex) of `tokenizer.json`.
    #[must_use]
    pub fn tokenizer_fingerprint(&self) -> &str {
        self.files.get(TOKENIZER_FILE).map_or("", |file| file.blake3.as_str())
    }

    /// Bytes of all files of the set but the index itself.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let shards = self.shards.iter().map(|shard| shard.bytes);
        let files = self.files.values().map(|file| file.bytes);
        shards.chain(files).fold(0, u64::saturating_add)
    }

    /// The exact bytes of `index.json`.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("an index has string keys only");
        bytes.push(b'\n');
        bytes
    }

    /// The fingerprint that belongs to this content.
    pub(crate) fn compute_fingerprint(&self) -> String {
        let unsigned = Self { fingerprint: String::new(), ..self.clone() };
        blake3::hash(&unsigned.to_bytes()).to_hex().to_string()
    }

    /// Reads and checks `index.json` of a directory.
    ///
    /// # Errors
    /// If the file is missing or unreadable, is of another version, is not what was written, or
    /// contradicts itself.
    pub fn load(dir: &Path) -> Result<Self, ShardError> {
        let path = dir.join(INDEX_FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound && dir.is_dir() => {
                return Err(ShardError::Unfinished { dir: dir.to_path_buf() });
            }
            Err(error) => return Err(FileError::new("read", &path, error).into()),
        };
        Self::parse(&path, &bytes)
    }

    /// Parses the bytes of an `index.json`; `path` is for messages.
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, ShardError> {
        let damaged = |place: &str, problem: String| ShardError::Damaged {
            file: path.to_path_buf(),
            place: place.to_owned(),
            problem,
        };
        let json = |error: &serde_json::Error| {
            let place = format!("line {} column {}", error.line(), error.column());
            damaged(&place, error.to_string())
        };
        let head: Head = serde_json::from_slice(bytes).map_err(|error| json(&error))?;
        let incompatible = |problem| ShardError::Incompatible { file: path.to_path_buf(), problem };
        if head.format != FORMAT {
            return Err(incompatible(format!("format is {:?}, not {FORMAT:?}", head.format)));
        }
        if !(FORMAT_VERSION..=FORMAT_VERSION_SPANS).contains(&head.format_version) {
            return Err(incompatible(format!(
                "format version {} was found; this version of CODA reads versions \
                 {FORMAT_VERSION} to {FORMAT_VERSION_SPANS}",
                head.format_version
            )));
        }
        let index: Self = serde_json::from_slice(bytes).map_err(|error| json(&error))?;
        let fingerprint = index.compute_fingerprint();
        if index.fingerprint != fingerprint {
            return Err(damaged(
                "fingerprint",
                format!("the content hashes to {fingerprint}, the file says {}", index.fingerprint),
            ));
        }
        if index.to_bytes() != bytes {
            return Err(damaged("its layout", "the bytes are not as they were written".to_owned()));
        }
        index.check().map_err(|problem| damaged("its sums", problem))?;
        Ok(index)
    }

    /// Holds the numbers against each other.
    pub(crate) fn check(&self) -> Result<(), String> {
        let nonzero = self.row_length > 0 && self.rows_per_shard > 0 && self.rows_per_batch > 0;
        if !nonzero || self.id_bits != 32 {
            return Err(
                "row_length, rows_per_shard, rows_per_batch must be above 0 and id_bits 32"
                    .to_owned(),
            );
        }
        if self.format_version != Self::version(self.spans) {
            return Err(format!("format version {} does not fit its spans", self.format_version));
        }
        let mut next = 0u64;
        for source in &self.sources {
            if source.first_row != next {
                return Err(format!("source {} does not start at row {next}", source.name));
            }
            next = next.checked_add(source.rows).ok_or("the rows overflow")?;
        }
        if next != self.rows {
            return Err(format!("the sources have {next} rows, the set says {}", self.rows));
        }
        if self.totals != Totals::of(&self.sources) {
            return Err("the totals are not the sums over the sources".to_owned());
        }
        let mut next = 0u64;
        for (number, shard) in self.shards.iter().enumerate() {
            let file = Self::shard_file(number);
            if shard.file != file || shard.first_row != next {
                return Err(format!("shard {number} is not {file} starting at row {next}"));
            }
            let full = u64::from(self.rows_per_shard);
            let last = number + 1 == self.shards.len();
            let least = if last { 1 } else { full };
            if !(least..=full).contains(&shard.rows) {
                return Err(format!("{file} has {} rows", shard.rows));
            }
            if shard.crc32c.len() as u64 != shard.bytes.div_ceil(crate::blocks::BLOCK as u64) {
                return Err(format!("{file} has a wrong number of block checksums"));
            }
            next = next.checked_add(shard.rows).ok_or("the rows overflow")?;
        }
        if next != self.rows {
            return Err(format!("the shards have {next} rows, the set says {}", self.rows));
        }
        self.check_files()
    }

    fn check_files(&self) -> Result<(), String> {
        let expected = [README_FILE, REJECTS_FILE, TOKENIZER_FILE];
        if !self.files.keys().map(String::as_str).eq(expected) {
            return Err(format!("files lists {:?}, not {expected:?}", self.files.keys()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Index;
    use coda_manifests::{SpanKind, SpanKinds};
    use std::path::Path;

    const FROZEN: &[u8] = include_bytes!("../../tests/compat/shards_v1/index.json");

    #[test]
    fn every_flipped_bit_of_an_index_is_found() {
        let path = Path::new("index.json");
        assert!(Index::parse(path, FROZEN).is_ok());
        let mut bytes = FROZEN.to_vec();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Index::parse(path, &bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    /// Numbers that contradict each other under a fingerprint that was made to fit.
    #[test]
    fn contradictions_are_found_behind_a_valid_fingerprint() {
        let path = Path::new("index.json");
        let sound = Index::parse(path, FROZEN).unwrap();
        let changes: [fn(&mut Index); 11] = [
            |index| index.rows += 1,
            |index| index.row_length = 0,
            |index| index.totals.tokens += 1,
            |index| index.sources[1].first_row += 1,
            |index| index.sources[1].rows = u64::MAX,
            |index| index.shards[0].file = "../../etc/passwd".to_owned(),
            |index| index.shards[0].rows -= 1,
            |index| index.shards[1].crc32c.push(0),
            |index| drop(index.files.remove("README.md")),
            |index| index.format_version = 2,
            |index| index.spans = SpanKinds::new([SpanKind::Lines]),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut index = sound.clone();
            change(&mut index);
            index.fingerprint = index.compute_fingerprint();
            let error = Index::parse(path, &index.to_bytes()).expect_err("a contradiction");
            assert!(error.to_string().contains("index.json"), "change {number}: {error}");
        }
    }
}
