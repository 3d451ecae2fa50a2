//! One record on a worker: from its bytes to a document that may be taken in, and on to its ids.

use super::{Line, SourcePlan};
use crate::{
    clean::Cleaner,
    decode::{Batch, Body, Fault, HEAD_BYTES, Location, RawRecord},
    dedup::{DedupError, Deduper, Marks, Verdict},
    record::{Document, Extracted},
    reject::Reject,
    tokenize::{ChatError, ChatRow},
    words::Words,
};
use std::{borrow::Cow, cell::RefCell};

/// What became of a record.
pub(crate) enum Outcome {
    /// A document: its ids, the end token included, and its bytes of text.
    Text { ids: Vec<u32>, bytes: u64 },
    /// A conversation.
    Chat { row: ChatRow, bytes: u64 },
    /// Well-formed, but left out by a rule of the manifest; the rule's code.
    Dropped { reason: &'static str },
    /// Not usable.
    Rejected { fault: Fault, head: blake3::Hash },
    /// Not usable, as a part has it.
    Recorded(Box<Reject>),
}

/// A batch's records on their way to the committer, in input order.
pub(crate) struct Done {
    pub(crate) records: Vec<(Location, Outcome)>,
    /// How many documents deduplication had decided with each record; empty when it decides none.
    pub(crate) decided: Vec<u64>,
    /// The marks of each record, where deduplication decides later; else empty.
    pub(crate) marks: Vec<Option<Marks>>,
    pub(crate) skipped: u64,
}

/// A record before its ids are looked for.
pub(crate) enum Prepared<'a> {
    /// A cleaned document, and what it is compared by.
    Ready { document: Document<'a>, marks: Option<Marks> },
    /// Nothing is left to do.
    Over(Outcome),
}

impl Prepared<'_> {
    /// Takes the marks away, for somebody who decides later.
    pub(super) fn take_marks(&mut self) -> Option<Marks> {
        match self {
            Self::Ready { marks, .. } => marks.take(),
            Self::Over(_) => None,
        }
    }
}

thread_local! {
    /// Every document needs its words, and their memory is worth keeping.
    static WORDS: RefCell<Words> = RefCell::default();
}

/// Extracts and cleans a record, and makes its marks.
pub(crate) fn prepare<'a>(
    plan: &SourcePlan,
    line: &Line<'_>,
    batch: &'a Batch,
    record: &'a RawRecord,
) -> Prepared<'a> {
    if let Body::Rejected { fault, head } = &record.body {
        return Prepared::Over(Outcome::Rejected { fault: fault.clone(), head: *head });
    }
    let document = match plan.extractor.document(&batch.bytes, &record.body) {
        Ok(Extracted::Document(document)) => change(&plan.cleaner, document),
        Ok(Extracted::Dropped(reason)) => return Prepared::Over(Outcome::Dropped { reason }),
        Err(fault) => return Prepared::Over(rejected(batch, record, fault)),
    };
    if plan.cleaner.values().is_off() && line.benchmarks.is_none() && line.marker.is_none() {
        return Prepared::Ready { document, marks: None };
    }
    let looked = WORDS.with_borrow_mut(|words| {
        words.clear();
        let text = document.text();
        if let Some(reason) = plan.cleaner.reason(&text, words) {
            return Err(reason);
        }
        if line.benchmarks.is_some_and(|benchmarks| benchmarks.find(&text, words).is_some()) {
            return Err("contaminated");
        }
        Ok(line.marker.map(|marker| marker.marks(&text, words)))
    });
    match looked {
        Ok(marks) => Prepared::Ready { document, marks },
        Err(reason) => Prepared::Over(Outcome::Dropped { reason }),
    }
}

/// The document with its changes.
pub(crate) fn change<'a>(cleaner: &Cleaner, document: Document<'a>) -> Document<'a> {
    match document {
        Document::Text(text) => Document::Text(cleaner.change(text)),
        Document::Chat(mut messages) => {
            for turn in &mut messages {
                if let Cow::Owned(changed) = cleaner.change(Cow::Borrowed(&turn.content)) {
                    turn.content = changed;
                }
            }
            Document::Chat(messages)
        }
    }
}

/// Decides, in order, which documents of a batch an earlier one makes superfluous. Gives, for every
/// record, how many documents were decided with it.
pub(super) fn decide(
    prepared: &mut [Prepared<'_>],
    source: u16,
    dedup: &Deduper,
) -> Result<Vec<u64>, DedupError> {
    let mut decided = dedup.decided();
    let each = prepared.iter_mut().map(|prepared| {
        let Prepared::Ready { marks: Some(marks), .. } = prepared else { return Ok(decided) };
        let (ordinal, verdict) = dedup.decide(marks, source)?;
        decided = ordinal;
        if let Some(reason) = verdict.reason() {
            *prepared = Prepared::Over(Outcome::Dropped { reason });
        }
        Ok(decided)
    });
    each.collect()
}

impl Verdict {
    /// The code by which drops are counted.
    #[must_use]
    pub const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::New => None,
            Self::Exact { .. } => Some("duplicate"),
            Self::Near { .. } => Some("near_duplicate"),
        }
    }
}

/// The ids of a prepared record.
pub(crate) fn encode(
    plan: &SourcePlan,
    line: &Line<'_>,
    batch: &Batch,
    record: &RawRecord,
    prepared: Prepared<'_>,
) -> Outcome {
    let document = match prepared {
        Prepared::Ready { document, .. } => document,
        Prepared::Over(outcome) => return outcome,
    };
    let tokenized = match (document, &plan.chat) {
        (Document::Text(text), _) => encode_text(line, &text),
        (Document::Chat(messages), Some(chat)) => {
            let bytes = messages.iter().map(|m| m.content.len() as u64).sum();
            let row = chat.encode(line.encoder, &messages).map_err(|e| match e {
                ChatError::NoAnswer => Fault::new("no_answer", e.to_string()),
                ChatError::Encode(e) => Fault::new("tokenizer", e.to_string()),
            });
            row.map(|row| Outcome::Chat { row, bytes })
        }
        (Document::Chat(_), None) => {
            Err(Fault::new("wrong_type", "a conversation in a source of kind text"))
        }
    };
    tokenized.unwrap_or_else(|fault| rejected(batch, record, fault))
}

fn encode_text(line: &Line<'_>, text: &str) -> Result<Outcome, Fault> {
    let mut ids = Vec::with_capacity(text.len() / 3 + 1);
    line.encoder.encode_into(text, &mut ids).map_err(|e| Fault::new("tokenizer", e.to_string()))?;
    ids.push(line.specials.eos);
    Ok(Outcome::Text { ids, bytes: text.len() as u64 })
}

fn rejected(batch: &Batch, record: &RawRecord, fault: Fault) -> Outcome {
    let bytes = &batch.bytes[record.body.head()];
    Outcome::Rejected { fault, head: blake3::hash(&bytes[..bytes.len().min(HEAD_BYTES)]) }
}
