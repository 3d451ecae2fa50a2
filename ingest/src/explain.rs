//! What happens to one document, step by step, and why: the part of a build that comes before it is
//! run again, without writing anything.

use crate::{
    clean::Finding,
    decode::{Batch, BatchSink, DecodeError, RawRecord, decode},
    dedup::{DedupError, Deduper, Store, Verdict},
    fetch::FetchError,
    pipeline::{Line, Outcome, Prepared, SourcePlan, change, encode, prepare},
    placed::Placed,
    plan::Plan,
    record::Extracted,
    source::{Container, InputFile},
    words::Words,
};
use coda_manifests::DedupScope;
use rayon::prelude::*;
use serde::Serialize;
use std::{path::Path, str::FromStr, sync::Arc};

/// Fewest hexadecimal digits of a hash: below that, two documents of a corpus may share them.
const FEWEST_DIGITS: usize = 8;
/// Source, file and line or row of a decided document.
const PLACE_BYTES: usize = 16;

/// Which document is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A line or row of a file of a source.
    Place {
        /// The source.
        source: String,
        /// The file, named as in listings and rejects.
        file: String,
        /// Line or row, from 1.
        number: u64,
    },
    /// The first document whose text, before cleaning, has a BLAKE3 that begins with these digits.
    Text {
        /// Hexadecimal digits in lower case.
        digits: String,
    },
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_hex = text.bytes().all(|b| b.is_ascii_hexdigit());
        if is_hex && (FEWEST_DIGITS..=64).contains(&text.len()) {
            return Ok(Self::Text { digits: text.to_ascii_lowercase() });
        }
        let parts = text.split_once(':').and_then(|(source, rest)| {
            let (file, number) = rest.rsplit_once(':')?;
            Some((source.to_owned(), file.to_owned(), number.parse().ok().filter(|&n| n > 0)?))
        });
        parts.map(|(source, file, number)| Self::Place { source, file, number }).ok_or_else(|| {
            format!(
                "expected SOURCE:FILE:LINE (or row), or at least {FEWEST_DIGITS} digits of the \
                 BLAKE3 of a document's text"
            )
        })
    }
}

/// Where a document is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Its source.
    pub source: String,
    /// Its file.
    pub file: String,
    /// Its line, in text containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Its row, in column containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
}

impl Place {
    fn new(source: &SourcePlan, file: &InputFile, number: u64) -> Self {
        let columns = matches!(file.container, Container::Parquet | Container::Arrow);
        let number = Some(number);
        Self {
            source: source.name.clone(),
            file: file.name.clone(),
            line: number.filter(|_| !columns),
            row: number.filter(|_| columns),
        }
    }
}

/// Why a record is no document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// The code that rejects are counted by.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// Text of a benchmark in the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contamination {
    /// The task.
    pub task: String,
    /// The words, as the document has them.
    pub text: String,
}

/// An earlier document that makes this one superfluous.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Duplicate {
    /// The earlier one.
    pub of: Place,
    /// Estimated Jaccard similarity of their word n-grams; absent when the texts are the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f64>,
}

/// What happens to a document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// Where it is.
    pub place: Place,
    /// `taken_in`, `left_out` or `rejected`.
    pub outcome: &'static str,
    /// The code of the rule or fault.
    pub reason: Option<&'static str>,
    /// Why the record is no document.
    pub rejection: Option<Rejection>,
    /// BLAKE3 of the text as it was found.
    pub blake3: Option<String>,
    /// Bytes of the text as it was found, and after cleaning.
    pub bytes: Option<[u64; 2]>,
    /// What every rule of `clean` says.
    pub clean: Vec<Finding>,
    /// Text of a benchmark in it.
    pub contamination: Option<Contamination>,
    /// An earlier document that makes it superfluous. Looked for when nothing else leaves it out.
    pub duplicate: Option<Duplicate>,
    /// Tokens, the end token included, before any cut to a row.
    pub tokens: Option<u64>,
    /// Those tokens.
    #[serde(skip)]
    pub ids: Vec<u32>,
    /// Where it begins in the finished shard set, where there is one: for the caller to fill in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placed: Option<Vec<Placed>>,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// No such source.
    #[error("there is no source {name:?}; the manifest has {known}")]
    NoSource {
        /// The name.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// No such file.
    #[error("source {source_name:?} has no file {file:?}")]
    NoFile {
        /// The source.
        source_name: String,
        /// The file.
        file: String,
        /// One that it has.
        example: String,
    },
    /// Nothing stands there.
    #[error("no record was found at {place}")]
    NoRecord {
        /// Where it was looked for.
        place: String,
    },
    /// The source ended before.
    #[error("source {source_name:?} ends before this document: its token budget is reached")]
    AfterBudget {
        /// The source.
        source_name: String,
    },
    /// An input cannot be read.
    #[error(transparent)]
    Read(#[from] DecodeError),
    /// A remote file cannot be fetched.
    #[error(transparent)]
    Fetch(FetchError),
    /// The state of deduplication cannot be kept.
    #[error(transparent)]
    Dedup(#[from] DedupError),
    /// A signal asked for the end.
    #[error("stopped by a signal")]
    Stopped,
}

impl ExplainError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoFile { example, .. } => {
                Some(format!("files are named as in --dry-run, for example {example:?}"))
            }
            Self::NoRecord { .. } => Some(
                "lines and rows count from 1; blank lines and code files that are binary or empty \
                 are no records"
                    .to_owned(),
            ),
            Self::Fetch(error) => error.hint(),
            Self::AfterBudget { .. } => Some("the source's `tokens` sets the budget".to_owned()),
            _ => None,
        }
    }

    /// Whether the question is wrong (as opposed to the disk).
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        !matches!(self, Self::Read(_) | Self::Fetch(_) | Self::Dedup(_) | Self::Stopped)
    }
}

/// Says what happens to a document. `scratch` is an empty folder.
///
/// # Errors
/// If the document does not exist, an input cannot be read, or a signal came.
pub fn explain(
    plan: &Plan,
    line: &Line<'_>,
    target: &Target,
    scratch: &Path,
) -> Result<Explanation, ExplainError> {
    let wanted = locate(plan, target)?;
    let dedup = plan.dedup.as_ref().map(|keys| Deduper::open(&scratch.join("state"), keys));
    let places = Store::open(&scratch.join("places"), PLACE_BYTES)?;
    let mut search = Search { plan, line, target, wanted, dedup: dedup.transpose()?, places };
    let scope = plan.dedup.as_ref().map(|keys| keys.scope);
    for source in &plan.sources {
        let is_wanted = wanted.is_none_or(|(wanted, _)| wanted == source.number);
        // What comes before decides what is a duplicate.
        if (is_wanted || scope == Some(DedupScope::All))
            && let Some(found) = search.source(source, scope.is_some())?
        {
            return Ok(found);
        }
        if is_wanted && wanted.is_some() {
            break;
        }
    }
    let place = match target {
        Target::Place { source, file, number } => format!("{source}:{file}:{number}"),
        Target::Text { digits } => {
            format!("any place with a text whose BLAKE3 begins with {digits}")
        }
    };
    Err(ExplainError::NoRecord { place })
}

/// Numbers of the wanted source and file.
fn locate(plan: &Plan, target: &Target) -> Result<Option<(u16, u32)>, ExplainError> {
    let Target::Place { source: name, file, .. } = target else { return Ok(None) };
    let source = plan.sources.iter().find(|source| source.name == *name).ok_or_else(|| {
        let known: Vec<&str> = plan.sources.iter().map(|source| source.name.as_str()).collect();
        ExplainError::NoSource { name: name.clone(), known: known.join(", ") }
    })?;
    let mut files = (0..).zip(&source.files);
    let found = files.find(|(_, known)| known.name == *file || known.path == Path::new(file));
    let (number, _) = found.ok_or_else(|| ExplainError::NoFile {
        source_name: name.clone(),
        file: file.clone(),
        example: source.files.first().map(|file| file.name.clone()).unwrap_or_default(),
    })?;
    Ok(Some((source.number, number)))
}

struct Search<'a> {
    plan: &'a Plan,
    line: &'a Line<'a>,
    target: &'a Target,
    wanted: Option<(u16, u32)>,
    dedup: Option<Deduper>,
    /// The place of every decided document, by ordinal.
    places: Store,
}

/// How far a source went with a batch.
enum Step {
    GoOn,
    Found(Box<Explanation>),
    Full,
}

impl Search<'_> {
    /// Goes through a source until the wanted document or its end.
    fn source(
        &mut self,
        source: &SourcePlan,
        from_start: bool,
    ) -> Result<Option<Explanation>, ExplainError> {
        let mut options = self.line.decode.clone();
        source.fill(&mut options);
        let mut tokens = 0;
        for (index, file) in (0..).zip(&source.files) {
            let is_wanted = self.wanted.is_none_or(|wanted| wanted == (source.number, index));
            if !is_wanted && !from_start && source.budget.is_none() {
                continue;
            }
            if let Some(fetch) = self.line.fetch {
                let over = || self.line.stop.requested().is_some();
                let file = std::slice::from_ref(file);
                fetch.ahead(file, Arc::new(|_| ())).next(&over).map_err(|error| match error {
                    FetchError::Stopped => ExplainError::Stopped,
                    error => ExplainError::Fetch(error),
                })?;
            }
            let mut step = Ok(Step::GoOn);
            let mut send = |batch: Batch| {
                step = self.batch(source, &batch, &mut tokens);
                matches!(step, Ok(Step::GoOn))
            };
            let mut sink = BatchSink::new(&mut send);
            match decode(file, index, &options, &mut sink).and_then(|()| sink.flush()) {
                Err(DecodeError::Closed) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
            match step? {
                Step::GoOn => {}
                Step::Found(found) => return Ok(Some(*found)),
                Step::Full => {
                    let wanted_here =
                        self.wanted.is_some_and(|(wanted, _)| wanted == source.number);
                    return if wanted_here {
                        Err(ExplainError::AfterBudget { source_name: source.name.clone() })
                    } else {
                        Ok(None)
                    };
                }
            }
        }
        Ok(None)
    }

    fn batch(
        &mut self,
        source: &SourcePlan,
        batch: &Batch,
        tokens: &mut u64,
    ) -> Result<Step, ExplainError> {
        if self.line.stop.requested().is_some() {
            return Err(ExplainError::Stopped);
        }
        let line = self.line;
        let prepare = |record| prepare(source, line, batch, record);
        let mut prepared: Vec<Prepared<'_>> =
            line.workers.install(|| batch.records.par_iter().map(prepare).collect());
        let found = self.find(source, batch);
        let mut verdict = Verdict::New;
        for (index, (record, prepared)) in batch.records.iter().zip(&mut prepared).enumerate() {
            if let (Prepared::Ready { marks: Some(marks), .. }, Some(dedup)) =
                (&*prepared, &self.dedup)
            {
                let (_, decided) = dedup.decide(marks, source.number)?;
                self.push_place(source.number, record)?;
                if let Some(reason) = decided.reason() {
                    *prepared = Prepared::Over(Outcome::Dropped { reason });
                }
                if found == Some(index) {
                    verdict = decided;
                }
            }
            if let Some(budget) = source.budget {
                // Only tokens tell where the source ends.
                let over = Prepared::Over(Outcome::Dropped { reason: "" });
                let own = std::mem::replace(prepared, over);
                *tokens += match encode(source, line, batch, record, own) {
                    Outcome::Text { ids, .. } => ids.len() as u64,
                    Outcome::Chat { row, .. } => row.ids.len().min(line.row_length as usize) as u64,
                    _ => 0,
                };
                if *tokens >= budget && found != Some(index) {
                    return Ok(Step::Full);
                }
            }
            if found == Some(index) {
                let explanation = self.tell(source, batch, record, verdict)?;
                return Ok(Step::Found(Box::new(explanation)));
            }
        }
        Ok(Step::GoOn)
    }

    /// The wanted record in a batch.
    fn find(&self, source: &SourcePlan, batch: &Batch) -> Option<usize> {
        let is_it = |record: &RawRecord| match (self.target, self.wanted) {
            (Target::Place { number, .. }, Some(wanted)) => {
                wanted == (source.number, record.location.file) && record.location.number == *number
            }
            (Target::Text { digits }, _) => {
                match source.extractor.document(&batch.bytes, &record.body) {
                    Ok(Extracted::Document(document)) => {
                        let hash = blake3::hash(document.text().as_bytes());
                        hash.to_hex().starts_with(digits)
                    }
                    Ok(Extracted::Dropped(_)) | Err(_) => false,
                }
            }
            (Target::Place { .. }, None) => false,
        };
        self.line.workers.install(|| batch.records.par_iter().position_first(is_it))
    }

    fn push_place(&mut self, source: u16, record: &RawRecord) -> Result<(), DedupError> {
        let head = (u64::from(source) << 32 | u64::from(record.location.file)).to_le_bytes();
        self.places.push([&head, &record.location.number.to_le_bytes()])
    }

    fn place_of(&mut self, ordinal: u64) -> Result<Place, DedupError> {
        let mut record = Vec::new();
        self.places.get(ordinal - 1, &mut record)?;
        let word =
            |at: usize| record[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let (head, number) = (word(0), word(8));
        let index = |n: u64| usize::try_from(n & 0xffff_ffff).unwrap_or(usize::MAX);
        let source = &self.plan.sources[index(head >> 32)];
        Ok(Place::new(source, &source.files[index(head)], number))
    }

    fn tell(
        &mut self,
        source: &SourcePlan,
        batch: &Batch,
        record: &RawRecord,
        verdict: Verdict,
    ) -> Result<Explanation, ExplainError> {
        let file = &source.files[record.location.file as usize];
        let mut told = Explanation {
            place: Place::new(source, file, record.location.number),
            outcome: "rejected",
            reason: None,
            rejection: None,
            blake3: None,
            bytes: None,
            clean: Vec::new(),
            contamination: None,
            duplicate: None,
            tokens: None,
            ids: Vec::new(),
            placed: None,
        };
        let extracted = source.extractor.document(&batch.bytes, &record.body);
        if let Ok(Extracted::Document(found)) = extracted {
            let before = found.text().into_owned();
            let document = change(&source.cleaner, found);
            let text = document.text();
            told.blake3 = Some(blake3::hash(before.as_bytes()).to_hex().to_string());
            told.bytes = Some([before.len() as u64, text.len() as u64]);
            told.clean = source.cleaner.findings(&text);
            let hit = self.line.benchmarks.and_then(|b| b.find(&text, &mut Words::default()));
            told.contamination = hit.map(|hit| Contamination {
                task: hit.task.to_owned(),
                text: text[hit.bytes].to_owned(),
            });
        }
        told.duplicate = match verdict {
            Verdict::New => None,
            Verdict::Exact { first } => {
                Some(Duplicate { of: self.place_of(first)?, similarity: None })
            }
            Verdict::Near { first, similarity } => {
                Some(Duplicate { of: self.place_of(first)?, similarity: Some(similarity) })
            }
        };
        let prepared = match verdict.reason() {
            None => prepare(source, self.line, batch, record),
            Some(reason) => Prepared::Over(Outcome::Dropped { reason }),
        };
        match encode(source, self.line, batch, record, prepared) {
            Outcome::Text { ids, .. } => told.taken_in(ids),
            Outcome::Chat { row, .. } => told.taken_in(row.ids),
            Outcome::Dropped { reason } => {
                told.outcome = "left_out";
                told.reason = Some(reason);
            }
            Outcome::Rejected { fault, .. } => told.rejected(fault.reason, fault.message),
            Outcome::Recorded(reject) => told.rejected(reject.reason, reject.message),
        }
        Ok(told)
    }
}

impl Explanation {
    fn rejected(&mut self, reason: &'static str, message: String) {
        self.reason = Some(reason);
        self.rejection = Some(Rejection { reason, message });
    }

    fn taken_in(&mut self, ids: Vec<u32>) {
        self.outcome = "taken_in";
        self.tokens = Some(ids.len() as u64);
        self.ids = ids;
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn documents_are_named_by_place_or_by_text() {
        let place = |source: &str, file: &str, number| Target::Place {
            source: source.to_owned(),
            file: file.to_owned(),
            number,
        };
        assert_eq!("docs:a/b.jsonl:7".parse(), Ok(place("docs", "a/b.jsonl", 7)));
        assert_eq!("docs:C:/x.jsonl:1".parse(), Ok(place("docs", "C:/x.jsonl", 1)));
        assert_eq!("0123ABCDEF".parse(), Ok(Target::Text { digits: "0123abcdef".to_owned() }));
        for wrong in ["", "docs", "docs:a", "docs:a:0", "docs:a:x", "0123abc"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
