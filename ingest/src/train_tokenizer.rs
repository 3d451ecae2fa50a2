//! Training a byte-level BPE tokenizer in the manner of Qwen2.
//!
//! NFC, the Qwen2 pre-tokenizer regex, byte level. The base vocabulary comes first (256 bytes, then
//! merges in order of rank), control tokens last, as in Qwen's own files. The trainer counts words
//! and settles ties by id, so the same input gives the same file whatever the number of threads.

use crate::{
    decode::{Batch, BatchSink, DecodeError, DecodeOptions, decode},
    record::{Document, Extracted, Extractor, RecordShape},
    source::InputFile,
    tokenize::{PIECE_BYTES, QWEN2_PATTERN, pieces},
};
use std::sync::{
    atomic::{AtomicU64, Ordering},
    mpsc::{SyncSender, sync_channel},
};
use tokenizers::{
    AddedToken, SplitDelimiterBehavior, TokenizerBuilder, TokenizerImpl,
    models::bpe::{BPE, BpeTrainer},
    normalizers::NFC,
    pre_tokenizers::{
        PreTokenizerWrapper,
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

/// The control tokens that CODA's stages need, in the order of their ids.
pub const DEFAULT_SPECIALS: &[&str] =
    &["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<|mask|>"];

/// Ids of single bytes: every text can be encoded.
const BYTES: usize = 256;

/// What to train.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// Ids in all: bytes, merges and control tokens.
    pub vocab_size: usize,
    /// Control tokens, in the order of their ids.
    pub specials: Vec<String>,
    /// Field of the text in jsonl and column containers.
    pub text_field: String,
    /// Text beyond this many bytes is not read.
    pub max_bytes: u64,
    /// Longer documents are left out.
    pub max_document_bytes: usize,
}

/// A trained tokenizer.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The `tokenizer.json`.
    pub json: String,
    /// Ids in it: fewer than asked for when the text ran out of pairs to merge.
    pub vocab_size: usize,
    /// Documents read.
    pub documents: u64,
    /// Bytes of text read.
    pub bytes: u64,
    /// Records left out because they are not usable.
    pub rejected: u64,
}

/// Why no tokenizer could be trained.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The vocabulary is too small for bytes and control tokens.
    #[error("a vocabulary of {asked} is too small: 256 bytes and {specials} control tokens need {}", BYTES + specials)]
    TooSmall {
        /// What was asked for.
        asked: usize,
        /// Number of control tokens.
        specials: usize,
    },
    /// No usable document was found.
    #[error("there is no text to train on ({rejected} records were not usable)")]
    NoText {
        /// Records left out.
        rejected: u64,
    },
    /// An input file cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The trainer failed.
    #[error("training failed: {0}")]
    Trainer(String),
}

/// Trains on the text of `files`, in order. `advance` hears how many bytes of text came in.
///
/// # Errors
/// [`TrainError`].
pub fn train(
    files: &[InputFile],
    options: &TrainOptions,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<Trained, TrainError> {
    let specials = options.specials.len();
    if options.vocab_size < BYTES + specials {
        return Err(TrainError::TooSmall { asked: options.vocab_size, specials });
    }
    let mut trainer = BpeTrainer::builder()
        .vocab_size(options.vocab_size - specials)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut tokenizer = untrained()?;
    let documents = AtomicU64::new(0);
    let bytes = AtomicU64::new(0);
    let read = std::thread::scope(|scope| {
        let (send, texts) = sync_channel::<String>(256);
        let reader = scope.spawn(move || read(files, options, &send));
        let counted = texts.into_iter().inspect(|text| {
            documents.fetch_add(1, Ordering::Relaxed);
            bytes.fetch_add(text.len() as u64, Ordering::Relaxed);
            advance(text.len() as u64);
        });
        let pieces = counted
            .flat_map(|text| pieces(&text, PIECE_BYTES).map(str::to_owned).collect::<Vec<_>>());
        tokenizer.train(&mut trainer, pieces).map_err(|e| TrainError::Trainer(e.to_string()))?;
        let rejected = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok::<u64, TrainError>(rejected)
    });
    let rejected = read?;
    let (documents, bytes) = (documents.into_inner(), bytes.into_inner());
    if documents == 0 {
        return Err(TrainError::NoText { rejected });
    }
    let failed = |e: tokenizers::Error| TrainError::Trainer(e.to_string());
    let controls = options.specials.iter().map(|text| {
        // As in Qwen3's file, the think tokens are not "special": decoders keep them.
        AddedToken::from(text.as_str(), !text.ends_with("think>"))
    });
    // `special` tokens are normalized: false; the others need it said.
    tokenizer.add_tokens(controls.map(|token| token.normalized(false))).map_err(failed)?;
    let json = tokenizer.to_string(false).map_err(failed)?;
    Ok(Trained { json, vocab_size: tokenizer.get_vocab_size(true), documents, bytes, rejected })
}

type Bpe = TokenizerImpl<BPE, NFC, PreTokenizerWrapper, ByteLevel, ByteLevel>;

fn untrained() -> Result<Bpe, TrainError> {
    let failed = |e: tokenizers::Error| TrainError::Trainer(e.to_string());
    let split = Split::new(
        SplitPattern::Regex(QWEN2_PATTERN.to_owned()),
        SplitDelimiterBehavior::Isolated,
        false,
    )
    .map_err(failed)?;
    let bytes = ByteLevel::new(false, false, false);
    TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(Some(NFC))
        .with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(Sequence::new(vec![
            split.into(),
            bytes.into(),
        ]))))
        .with_post_processor(Some(bytes))
        .with_decoder(Some(ByteLevel::default()))
        .build()
        .map_err(failed)
}

/// Sends the text of every usable record, up to the cap; returns how many were not usable.
fn read(
    files: &[InputFile],
    options: &TrainOptions,
    send: &SyncSender<String>,
) -> Result<u64, DecodeError> {
    let extractor = Extractor::new(RecordShape::Text { field: options.text_field.clone() });
    let decode_options = DecodeOptions {
        layout: extractor.layout().clone(),
        max_document_bytes: options.max_document_bytes,
        ..DecodeOptions::default()
    };
    let mut rejected = 0;
    let mut left = options.max_bytes;
    for (index, file) in (0..).zip(files) {
        let mut forward = |batch: Batch| {
            for record in &batch.records {
                match extractor.document(&batch.bytes, &record.body) {
                    Ok(Extracted::Document(Document::Text(text))) => {
                        let bytes = text.len() as u64;
                        if send.send(text.into_owned()).is_err() || bytes >= left {
                            return false;
                        }
                        left -= bytes;
                    }
                    Ok(Extracted::Dropped(_)) => {}
                    Ok(Extracted::Document(Document::Chat(_))) | Err(_) => rejected += 1,
                }
            }
            true
        };
        let mut sink = BatchSink::new(&mut forward);
        let outcome = decode(file, index, &decode_options, &mut sink).and_then(|()| sink.flush());
        match outcome {
            Err(DecodeError::Closed) => break,
            other => other?,
        }
    }
    Ok(rejected)
}
