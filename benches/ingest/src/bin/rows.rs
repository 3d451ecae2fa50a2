//! Random rows of a shard set in batches of 64 through our reader, beside `memcpy` of as many bytes:
//! rows per CPU-second, as JSON.

use clap::Parser;
use coda_bench_ingest::cpu_seconds;
use coda_shards::{Check, ShardSet};
use std::{hint::black_box, path::PathBuf};

/// Rows of a batch.
const BATCH: usize = 64;
/// CPU seconds of a measurement.
const LONG_ENOUGH: f64 = 1.0;

/// Measures reading.
#[derive(Parser)]
struct Args {
    /// The shard set.
    shard_set: PathBuf,
    /// Measurements of each kind, in turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

fn main() {
    let args = Args::parse();
    let set = ShardSet::open_with(&args.shard_set, Check::Structure).expect("a shard set");
    let rows = set.index().rows;
    let length = set.index().row_length as usize;
    let all: Vec<u32> =
        (0..rows).flat_map(|row| set.row(row).expect("in range").tokens.to_vec()).collect();
    let mut batch = vec![0; BATCH * length];
    let mut results: [Vec<f64>; 3] = Default::default();
    for round in 0..args.rounds as u64 {
        let order = |n: u64| mix(round << 32 | n) % rows;
        let copied = measure(|n| {
            for (k, out) in batch.chunks_exact_mut(length).enumerate() {
                let row = set.row(order(n + k as u64)).expect("in range");
                out.copy_from_slice(row.tokens);
            }
            black_box(&batch);
        });
        let borrowed = measure(|n| {
            for k in 0..BATCH as u64 {
                let row = set.row(order(n + k)).expect("in range");
                black_box(row.tokens);
            }
        });
        let memory = measure(|n| {
            let most = all.len() - batch.len();
            let start = usize::try_from(order(n)).expect("fits") * length;
            let start = start.min(most);
            batch.copy_from_slice(&all[start..start + BATCH * length]);
            black_box(&batch);
        });
        for (result, rate) in results.iter_mut().zip([copied, borrowed, memory]) {
            result.push(rate);
        }
    }
    let [copied, borrowed, memory] = results.map(median);
    let json = serde_json::json!({
        "rows": rows, "row_length": length,
        "copied_rows_per_cpu_second": copied,
        "borrowed_rows_per_cpu_second": borrowed,
        "memcpy_rows_per_cpu_second": memory,
        "copied_of_memcpy": copied / memory,
    });
    println!("{json}");
}

/// Calls `batch` with the number of the first row until enough time has passed: rows per CPU-second.
fn measure(mut batch: impl FnMut(u64)) -> f64 {
    let (start, mut rows) = (cpu_seconds(), 0);
    loop {
        for _ in 0..64 {
            batch(rows);
            rows += BATCH as u64;
        }
        let seconds = cpu_seconds() - start;
        if seconds > LONG_ENOUGH {
            return rows as f64 / seconds;
        }
    }
}

/// Scatters row numbers (the finalizer of `SplitMix64`).
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ n >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ n >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ n >> 31
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
