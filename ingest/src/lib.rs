//! Corpora to shard sets: `source → decode → record → clean → dedup → tokenize → pack → write`.
//!
//! * [`plan`]: a manifest, its tokenizer and its files, checked;
//! * [`source`]: which files a source consists of;
//! * [`fetch`]: remote files, listed and brought to a cache;
//! * [`decode`]: containers to raw records, with caps against hostile input;
//! * [`blobs`]: texts that a corpus names by id, in a local store;
//! * [`record`]: raw records to documents and conversations;
//! * [`clean`]: changes to texts, and documents left out by how they look;
//! * [`dedup`]: documents that an earlier one makes superfluous;
//! * [`contamination`]: documents that hold text of a benchmark;
//! * [`words`]: texts as hashes of words, for all that looks at repetition;
//! * [`tokenize`]: text to ids, exactly as Hugging Face `tokenizers` gives them;
//! * [`pack`]: documents to rows;
//! * [`spans`]: where the lines and brackets of a row lie;
//! * [`pipeline`]: one source through all of it, in parallel, with the same bytes for any number of
//!   threads;
//! * [`build`]: all sources into one shard set;
//! * [`prefetch`]: everything remote of a plan, ahead of time;
//! * [`part`]: the same in parts, by several processes or machines, and their merge;
//! * [`estimate`]: what a build would give;
//! * [`explain`]: what happens to one document, and why; [`placed`]: where it stands in a finished set;
//! * [`import`]: ids that another program has tokenized, into a shard set;
//! * [`parquet_rows`]: a finished set as Parquet, for whatever reads tables;
//! * [`records`]: what lies in files, as JSON lines;
//! * [`train_tokenizer`]: a byte-level BPE tokenizer from code and text.

pub mod blobs;
pub mod build;
pub mod clean;
pub mod contamination;
pub mod decode;
pub mod dedup;
pub mod estimate;
pub mod explain;
pub mod fetch;
pub mod import;
pub mod pack;
pub mod parquet_rows;
pub mod part;
pub mod pipeline;
pub mod placed;
pub mod plan;
pub mod prefetch;
mod reason;
pub mod record;
pub mod records;
pub mod reject;
pub mod source;
pub mod spans;
pub mod tokenize;
pub mod train_tokenizer;
pub mod words;
