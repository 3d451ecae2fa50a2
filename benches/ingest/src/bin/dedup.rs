//! Cleaning and deduplication of text in memory: megabytes per CPU-second of every step, and what it
//! leaves out, as JSON.

use clap::Parser;
use coda_bench_ingest::{cpu_seconds, documents, peak_memory};
use coda_ingest::{
    clean::Cleaner,
    dedup::{Deduper, Marker, Marks, Verdict},
    words::Words,
};
use coda_manifests::{Clean, CleanProfile, Dedup, DedupScope, Near};
use serde_json::{Value, json};
use std::{borrow::Cow, collections::BTreeMap, path::PathBuf};

/// Measures cleaning and deduplication on text in memory, on one thread.
#[derive(Parser)]
struct Args {
    /// Files, globs or folders with documents.
    paths: Vec<PathBuf>,
    /// Their column or key with the text.
    #[arg(long, default_value = "text")]
    field: String,
    /// Bytes of memory for the tables.
    #[arg(long, default_value_t = 128 << 20)]
    memory: u64,
}

fn main() {
    let args = Args::parse();
    let texts = documents(&args.paths, &args.field);
    let bytes: usize = texts.iter().map(String::len).sum();
    let mut steps = BTreeMap::new();
    let mut time = |name: &'static str, step: &mut dyn FnMut(&str)| {
        let before = cpu_seconds();
        for text in &texts {
            step(text);
        }
        let cpu = cpu_seconds() - before;
        let rate = bytes as f64 / 1e6 / cpu;
        steps.insert(name, json!({"cpu_seconds": cpu, "megabytes_per_cpu_second": rate}));
    };
    let mut words = Words::default();
    let mut count = 0;
    time("words", &mut |text| {
        words.clear();
        words.read(text, usize::MAX);
        count += words.hashes().len();
    });
    let mut drops: BTreeMap<&str, Value> = BTreeMap::new();
    for (name, profile) in
        [("clean_prose", CleanProfile::Prose), ("clean_code", CleanProfile::Code)]
    {
        let own = Clean { profile: Some(profile), ..Clean::default() };
        let cleaner = Cleaner::new(Clean::resolve(Some(&own), None));
        let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
        time(name, &mut |text| {
            words.clear();
            let text = cleaner.change(Cow::Borrowed(text));
            if let Some(reason) = cleaner.reason(&text, &mut words) {
                *reasons.entry(reason).or_default() += 1;
            }
        });
        drops.insert(name, json!(reasons));
    }
    let near = Near { threshold: 0.8, ngram: 5, bands: 16, rows: 8, seed: 0 };
    for (marks_name, decide_name, near) in
        [("exact", "exact_decide", None), ("near", "near_decide", Some(near))]
    {
        let keys = Dedup { exact: true, scope: DedupScope::All, near, memory: args.memory };
        let marker = Marker::new(&keys);
        let mut marks: Vec<Marks> = Vec::new();
        time(marks_name, &mut |text| {
            words.clear();
            marks.push(marker.marks(text, &mut words));
        });
        let folder = tempfile::tempdir().expect("a folder");
        let dedup = Deduper::open(folder.path(), &keys).expect("opens");
        let mut left_out: BTreeMap<&str, u64> = BTreeMap::new();
        let mut each = marks.iter();
        time(decide_name, &mut |_| {
            let Some(marks) = each.next() else { return };
            let (_, verdict): (u64, Verdict) = dedup.decide(marks, 0).expect("decides");
            if let Some(reason) = verdict.reason() {
                *left_out.entry(reason).or_default() += 1;
            }
        });
        drops.insert(decide_name, json!(left_out));
    }
    let summary = json!({
        "documents": texts.len(), "bytes": bytes, "words": count, "steps": steps,
        "left_out": drops, "peak_memory": peak_memory(),
    });
    println!("{summary}");
}
