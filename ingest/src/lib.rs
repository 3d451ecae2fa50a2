//! Corpora to shard sets: `source → decode → record → tokenize → pack → write`.
//!
//! * [`plan`]: a manifest, its tokenizer and its files, checked;
//! * [`source`]: which files a source consists of;
//! * [`fetch`]: remote files, listed and brought to a cache;
//! * [`decode`]: containers to raw records, with caps against hostile input;
//! * [`blobs`]: texts that a corpus names by id, in a local store;
//! * [`record`]: raw records to documents and conversations;
//! * [`tokenize`]: text to ids, exactly as Hugging Face `tokenizers` gives them;
//! * [`pack`]: documents to rows;
//! * [`pipeline`]: one source through all of it, in parallel, with the same bytes for any number of
//!   threads;
//! * [`build`]: all sources into one shard set;
//! * [`prefetch`]: everything remote of a plan, ahead of time;
//! * [`part`]: the same in parts, by several processes or machines, and their merge;
//! * [`estimate`]: what a build would give;
//! * [`train_tokenizer`]: a byte-level BPE tokenizer from code and text.

pub mod blobs;
pub mod build;
pub mod decode;
pub mod estimate;
pub mod fetch;
pub mod pack;
pub mod part;
pub mod pipeline;
pub mod plan;
pub mod prefetch;
mod reason;
pub mod record;
pub mod reject;
pub mod source;
pub mod tokenize;
pub mod train_tokenizer;
