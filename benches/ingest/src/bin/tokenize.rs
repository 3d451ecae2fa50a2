//! Text in memory to ids with one engine: megabytes per CPU-second, first pass and second, as JSON.
//! With `--check` every document's ids are compared with those of Hugging Face `tokenizers`.

use clap::{Parser, ValueEnum};
use coda_bench_ingest::{cpu_seconds, documents, peak_memory};
use coda_ingest::tokenize::{Encode, FastEncoder, HfEncoder};
use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Engine {
    /// Ours.
    Coda,
    /// The crate `fastokens`.
    Fastokens,
    /// The crate `tokenizers`.
    Tokenizers,
}

/// Measures one engine on text in memory.
#[derive(Parser)]
struct Args {
    /// Which engine.
    engine: Engine,
    /// A `tokenizer.json`.
    #[arg(long)]
    tokenizer: PathBuf,
    /// Files, globs or folders with documents.
    paths: Vec<PathBuf>,
    /// Their column or key with the text.
    #[arg(long, default_value = "text")]
    field: String,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Text taken, in megabytes.
    #[arg(long)]
    megabytes: Option<usize>,
    /// Compare all ids with those of `tokenizers`, control tokens matched or not; nothing is timed.
    #[arg(long)]
    check: bool,
}

type Encoder = Box<dyn Fn(&str, &mut Vec<u32>) + Sync>;

fn main() {
    let args = Args::parse();
    let mut texts = documents(&args.paths, &args.field);
    let mut room = args.megabytes.unwrap_or(usize::MAX).saturating_mul(1_000_000);
    texts.retain(|text| {
        let fits = text.len() <= room;
        room = if fits { room - text.len() } else { 0 };
        fits
    });
    if args.check {
        return check(&args, &texts);
    }
    let before = cpu_seconds();
    let encoder = load(&args);
    let load = cpu_seconds() - before;
    let bytes: usize = texts.iter().map(String::len).sum();
    let passes: Vec<serde_json::Value> = (0..2)
        .map(|_| {
            let (cpu, clock) = (cpu_seconds(), Instant::now());
            let tokens = pass(&encoder, &texts, args.threads);
            let (cpu, seconds) = (cpu_seconds() - cpu, clock.elapsed().as_secs_f64());
            let rate = bytes as f64 / 1e6 / cpu;
            serde_json::json!({"mb_per_cpu_second": rate, "seconds": seconds, "tokens": tokens})
        })
        .collect();
    let name = args.engine.to_possible_value().map(|v| v.get_name().to_owned());
    let result = serde_json::json!({
        "engine": name, "threads": args.threads, "documents": texts.len(), "bytes": bytes,
        "load_cpu_seconds": load, "passes": passes, "peak_memory": peak_memory(),
    });
    println!("{result}");
}

fn load(args: &Args) -> Encoder {
    match args.engine {
        Engine::Coda => {
            let json = std::fs::read(&args.tokenizer).expect("readable");
            let encoder = FastEncoder::new(&json, true).expect("covered");
            Box::new(move |text, ids| encoder.encode_into(text, ids).expect("encodes"))
        }
        Engine::Fastokens => {
            let encoder = fastokens::Tokenizer::from_file(&args.tokenizer).expect("loads");
            Box::new(move |text, ids| ids.extend(encoder.encode(text).expect("encodes")))
        }
        Engine::Tokenizers => {
            let encoder = HfEncoder::load(&args.tokenizer, true).expect("loads");
            Box::new(move |text, ids| encoder.encode_into(text, ids).expect("encodes"))
        }
    }
}

fn pass(encoder: &Encoder, texts: &[String], threads: usize) -> usize {
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut ids, mut tokens) = (Vec::new(), 0);
        while let Some(text) = texts.get(next.fetch_add(1, Ordering::Relaxed)) {
            ids.clear();
            encoder(text, &mut ids);
            tokens += ids.len();
        }
        tokens
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    })
}

fn check(args: &Args, texts: &[String]) {
    let json = std::fs::read(&args.tokenizer).expect("readable");
    let mut different = 0;
    for matching in [false, true] {
        let ours = FastEncoder::new(&json, matching).expect("covered");
        let judge = HfEncoder::load(&args.tokenizer, matching).expect("loads");
        let next = AtomicUsize::new(0);
        let wrong = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..args.threads {
                scope.spawn(|| {
                    while let Some(text) = texts.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if ours.encode(text).expect("ids") != judge.encode(text).expect("ids") {
                            wrong.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        different += wrong.into_inner();
    }
    println!("{}", serde_json::json!({"documents": texts.len(), "different": different}));
    assert_eq!(different, 0, "documents with other ids");
}
