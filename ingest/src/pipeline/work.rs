//! One record on a worker: from its bytes to its ids.

use super::{Line, SourcePlan};
use crate::{
    decode::{Batch, Body, Fault, HEAD_BYTES, Location, RawRecord},
    record::Document,
    reject::Reject,
    tokenize::{ChatError, ChatRow},
};

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
    pub(crate) skipped: u64,
}

/// One record, on a worker.
pub(super) fn encode(
    plan: &SourcePlan,
    line: &Line<'_>,
    batch: &Batch,
    record: &RawRecord,
) -> Outcome {
    if let Body::Rejected { fault, head } = &record.body {
        return Outcome::Rejected { fault: fault.clone(), head: *head };
    }
    let tokenized =
        plan.extractor.document(&batch.bytes, &record.body).and_then(|document| {
            match (document, &plan.chat) {
                (Document::Text(text), _) => {
                    let mut ids = Vec::with_capacity(text.len() / 3 + 1);
                    line.encoder
                        .encode_into(&text, &mut ids)
                        .map_err(|e| Fault::new("tokenizer", e.to_string()))?;
                    ids.push(line.specials.eos);
                    Ok(Outcome::Text { ids, bytes: text.len() as u64 })
                }
                (Document::Chat(messages), Some(chat)) => {
                    let bytes = messages.iter().map(|m| m.content.len() as u64).sum();
                    let row = chat.encode(line.encoder, &messages).map_err(|e| match e {
                        ChatError::NoAnswer => Fault::new("no_answer", e.to_string()),
                        ChatError::Encode(e) => Fault::new("tokenizer", e.to_string()),
                    })?;
                    Ok(Outcome::Chat { row, bytes })
                }
                (Document::Chat(_), None) => {
                    Err(Fault::new("wrong_type", "a conversation in a source of kind text"))
                }
            }
        });
    tokenized.unwrap_or_else(|fault| {
        let head = match &record.body {
            Body::Json(range) | Body::Text(range) => range.clone(),
            Body::Columns(ranges) => ranges.iter().flatten().next().cloned().unwrap_or(0..0),
            Body::Rejected { .. } => 0..0,
        };
        let bytes = &batch.bytes[head];
        Outcome::Rejected { fault, head: blake3::hash(&bytes[..bytes.len().min(HEAD_BYTES)]) }
    })
}
