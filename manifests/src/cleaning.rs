//! Which documents are left out, and what is changed in the others: the keys `clean`, `dedup` and
//! `decontaminate`. `docs/cleaning.md` says what every rule measures.

use serde::{Deserialize, Serialize};

/// What is changed in a document, and which documents are left out. What is absent is off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clean {
    /// A named set of values; the other keys come on top of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<CleanProfile>,
    /// Control characters other than tab, line feed, carriage return and form feed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<ControlCharacters>,
    /// A byte order mark at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bom: Option<KeepOrStrip>,
    /// What ends a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newlines: Option<Newlines>,
    /// Spaces and tabs before the end of a line or of the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trailing_whitespace: Option<KeepOrStrip>,
    /// Largest share of U+FFFD among the characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_replacement_share: Option<f64>,
    /// Fewest characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_chars: Option<u64>,
    /// Most characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_chars: Option<u64>,
    /// Fewest lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_lines: Option<u64>,
    /// Most lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lines: Option<u64>,
    /// Most characters of any line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_line_chars: Option<u64>,
    /// Most characters of the lines on average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_mean_line_chars: Option<f64>,
    /// Smallest share of letters and digits among the characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_alnum_share: Option<f64>,
    /// Largest share of lines that repeat an earlier line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_repeated_line_share: Option<f64>,
    /// Largest share of bytes in lines that repeat an earlier line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_repeated_line_bytes_share: Option<f64>,
    /// Largest share of paragraphs that repeat an earlier paragraph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_repeated_paragraph_share: Option<f64>,
    /// Largest share of bytes in paragraphs that repeat an earlier paragraph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_repeated_paragraph_bytes_share: Option<f64>,
    /// Pairs of n and the largest share of the most frequent n-gram of words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_top_ngram_share: Option<Vec<(u32, f64)>>,
    /// Pairs of n and the largest share of words in n-grams that repeat an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_repeated_ngram_share: Option<Vec<(u32, f64)>>,
}

/// A named set of cleaning values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CleanProfile {
    /// Nothing: a source steps out of `data.clean`.
    None,
    /// Web pages, articles, books.
    Prose,
    /// Source files.
    Code,
}

/// What happens to control characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlCharacters {
    /// They stay.
    Keep,
    /// They are taken out.
    Strip,
    /// The document is left out.
    Drop,
}

/// Whether something stays in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepOrStrip {
    /// It stays.
    Keep,
    /// It is taken out.
    Strip,
}

/// What ends a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Newlines {
    /// What the document says.
    Keep,
    /// A line feed: `\r\n` and a lone `\r` become `\n`.
    Lf,
}

impl CleanProfile {
    /// The values that the name stands for.
    #[must_use]
    pub fn values(self) -> Clean {
        match self {
            Self::None => Clean::default(),
            Self::Prose => Clean {
                control: Some(ControlCharacters::Strip),
                bom: Some(KeepOrStrip::Strip),
                newlines: Some(Newlines::Lf),
                max_replacement_share: Some(0.001),
                min_chars: Some(200),
                min_alnum_share: Some(0.5),
                max_repeated_line_share: Some(0.30),
                max_repeated_line_bytes_share: Some(0.20),
                max_repeated_paragraph_share: Some(0.30),
                max_repeated_paragraph_bytes_share: Some(0.20),
                max_top_ngram_share: Some(vec![(2, 0.20), (3, 0.18), (4, 0.16)]),
                max_repeated_ngram_share: Some(vec![(5, 0.25), (10, 0.20)]),
                ..Clean::default()
            },
            Self::Code => Clean {
                control: Some(ControlCharacters::Keep),
                bom: Some(KeepOrStrip::Strip),
                newlines: Some(Newlines::Lf),
                max_replacement_share: Some(0.001),
                min_chars: Some(64),
                max_line_chars: Some(1000),
                max_mean_line_chars: Some(100.0),
                min_alnum_share: Some(0.25),
                max_repeated_line_bytes_share: Some(0.60),
                max_repeated_ngram_share: Some(vec![(10, 0.80)]),
                ..Clean::default()
            },
        }
    }
}

impl Clean {
    /// The values with the profile spelled out. A source's own keys (`self`) go before those of
    /// `defaults`; a source that names a profile starts from that profile alone.
    #[must_use]
    pub fn resolve(own: Option<&Self>, defaults: Option<&Self>) -> Self {
        let whole =
            |keys: &Self| keys.over(&keys.profile.map(CleanProfile::values).unwrap_or_default());
        let defaults = defaults.map(whole).unwrap_or_default();
        match own {
            None => defaults,
            Some(own) if own.profile.is_some() => whole(own),
            Some(own) => own.over(&defaults),
        }
    }

    /// Whether nothing is changed and nothing left out.
    #[must_use]
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }

    /// These keys where they are given, `base` elsewhere.
    fn over(&self, base: &Self) -> Self {
        Self {
            profile: None,
            control: self.control.or(base.control),
            bom: self.bom.or(base.bom),
            newlines: self.newlines.or(base.newlines),
            trailing_whitespace: self.trailing_whitespace.or(base.trailing_whitespace),
            max_replacement_share: self.max_replacement_share.or(base.max_replacement_share),
            min_chars: self.min_chars.or(base.min_chars),
            max_chars: self.max_chars.or(base.max_chars),
            min_lines: self.min_lines.or(base.min_lines),
            max_lines: self.max_lines.or(base.max_lines),
            max_line_chars: self.max_line_chars.or(base.max_line_chars),
            max_mean_line_chars: self.max_mean_line_chars.or(base.max_mean_line_chars),
            min_alnum_share: self.min_alnum_share.or(base.min_alnum_share),
            max_repeated_line_share: self.max_repeated_line_share.or(base.max_repeated_line_share),
            max_repeated_line_bytes_share: self
                .max_repeated_line_bytes_share
                .or(base.max_repeated_line_bytes_share),
            max_repeated_paragraph_share: self
                .max_repeated_paragraph_share
                .or(base.max_repeated_paragraph_share),
            max_repeated_paragraph_bytes_share: self
                .max_repeated_paragraph_bytes_share
                .or(base.max_repeated_paragraph_bytes_share),
            max_top_ngram_share: self
                .max_top_ngram_share
                .clone()
                .or_else(|| base.max_top_ngram_share.clone()),
            max_repeated_ngram_share: self
                .max_repeated_ngram_share
                .clone()
                .or_else(|| base.max_repeated_ngram_share.clone()),
        }
    }
}

/// Which documents are left out because an earlier one says the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dedup {
    /// Documents with the same text as an earlier one.
    #[serde(default = "yes")]
    pub exact: bool,
    /// Which documents are compared.
    #[serde(default)]
    pub scope: DedupScope,
    /// Documents nearly like an earlier one; absent: not looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near: Option<Near>,
    /// Bytes of the tables in memory; what does not fit goes to disk. Decides no byte of the output.
    #[serde(default = "default_memory")]
    pub memory: u64,
}

/// Which documents are compared with each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DedupScope {
    /// Those of all sources.
    #[default]
    All,
    /// Those of the same source.
    Source,
}

/// How near duplicates are found: sketches of word n-grams, compared where a band agrees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Near {
    /// Estimated Jaccard similarity from which a document is a duplicate.
    #[serde(default = "default_threshold")]
    pub threshold: f64,
    /// Words of an n-gram.
    #[serde(default = "default_near_ngram")]
    pub ngram: u32,
    /// Bands of the sketch: two documents are compared when all values of a band agree.
    #[serde(default = "default_bands")]
    pub bands: u32,
    /// Values of a band.
    #[serde(default = "default_rows")]
    pub rows: u32,
    /// Seed of the hash functions.
    #[serde(default)]
    pub seed: u64,
}

/// Which documents are left out because they hold text of a benchmark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decontaminate {
    /// The benchmarks' files, one task a record.
    pub files: Vec<String>,
    /// Keys or columns of a task that must not be trained on.
    pub fields: Vec<String>,
    /// The key that names a task; absent: its line or row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_field: Option<String>,
    /// Words of an n-gram.
    #[serde(default = "default_contamination_ngram")]
    pub ngram: u32,
    /// Fields with fewer words than an n-gram count as one, if they have this many; absent: 8, or
    /// `ngram` where that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_words: Option<u32>,
}

impl Decontaminate {
    /// Fewest words of a field that is looked for.
    #[must_use]
    pub fn min_words(&self) -> u32 {
        self.min_words.unwrap_or(MIN_WORDS.min(self.ngram))
    }
}

/// Fewer words than these are found in many documents by chance.
const MIN_WORDS: u32 = 8;

const fn yes() -> bool {
    true
}

const fn default_memory() -> u64 {
    128 << 20
}

const fn default_threshold() -> f64 {
    0.8
}

const fn default_near_ngram() -> u32 {
    5
}

const fn default_bands() -> u32 {
    16
}

const fn default_rows() -> u32 {
    8
}

const fn default_contamination_ngram() -> u32 {
    13
}
