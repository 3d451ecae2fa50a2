//! Ingest, measured beside the tools that a user would pick instead. `compare.py` runs everything;
//! results are recorded in `docs/benchmarks.md`.
//!
//! * `tokenize`: text in memory to ids, with each engine;
//! * `dedup`: cleaning, marks and decisions on text in memory.

use coda_ingest::{
    decode::{Batch, BatchSink, DecodeOptions, decode},
    record::{Document, Extracted, Extractor, RecordShape},
    source::{Filters, list_files},
};
use std::path::PathBuf;

/// User and system seconds that this process has used.
#[must_use]
pub fn cpu_seconds() -> f64 {
    let usage = usage();
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// The most memory that this process has used, in bytes.
#[must_use]
pub fn peak_memory() -> u64 {
    // Linux counts in KiB.
    usage().ru_maxrss.cast_unsigned() * 1024
}

fn usage() -> libc::rusage {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills the structure it is given; all zeros are a valid value too.
    unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    }
}

/// The documents of files, globs or folders.
///
/// # Panics
/// If a file cannot be read or a record holds no text in `field`.
#[must_use]
pub fn documents(paths: &[PathBuf], field: &str) -> Vec<String> {
    let extractor = Extractor::new(RecordShape::Text { field: field.to_owned() });
    let options = DecodeOptions { layout: extractor.layout().clone(), ..DecodeOptions::default() };
    let files = list_files("bench", paths, &Filters::default()).expect("there are files");
    let mut documents = Vec::new();
    for file in files {
        let mut take = |batch: Batch| {
            documents.extend(batch.records.iter().map(|record| {
                match extractor.document(&batch.bytes, &record.body) {
                    Ok(Extracted::Document(Document::Text(text))) => text.into_owned(),
                    other => panic!("{}: {other:?}", file.name),
                }
            }));
            true
        };
        let mut sink = BatchSink::new(&mut take);
        decode(&file, 0, &options, &mut sink).and_then(|()| sink.flush()).expect("readable");
    }
    documents
}
