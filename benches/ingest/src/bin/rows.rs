//! Random rows of a shard set in batches of 64 through our reader, beside `memcpy` of as many bytes:
//! rows per CPU-second, as JSON.
//!
//! Two yardsticks: `memcpy` of the same rows in the same order from a copy of all ids in plain memory, which
//! is what a reader can reach, and of 64 rows that follow one another, which random rows cannot reach: the
//! processor fetches ahead within such a stretch.

use clap::Parser;
use coda_bench_ingest::cpu_seconds;
use coda_shards::{Check, ShardSet};
use std::{hint::black_box, path::PathBuf};

/// Rows of a batch.
const BATCH: usize = 64;
/// Batches of a turn: all kinds take short turns, so that they meet the same neighbours.
const TURN: u64 = 64;

/// Measures reading.
#[derive(Parser)]
struct Args {
    /// The shard set.
    shard_set: PathBuf,
    /// Measurements of each kind.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// CPU seconds of each kind in a round.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

const KINDS: [&str; 4] = ["copied", "memcpy_of_the_rows", "memcpy", "borrowed"];

/// Reads the batch that begins with the row of this number.
type Kind<'a> = &'a mut dyn FnMut(u64, &mut [u32]);

fn main() {
    let args = Args::parse();
    let set = ShardSet::open_with(&args.shard_set, Check::Structure).expect("a shard set");
    let rows = set.index().rows;
    let length = set.index().row_length as usize;
    let all: Vec<u32> =
        (0..rows).flat_map(|row| set.row(row).expect("in range").tokens.to_vec()).collect();
    let mut batch = vec![0; BATCH * length];
    let mut rates: [Vec<f64>; KINDS.len()] = Default::default();
    for round in 0..args.rounds {
        let order = |n: u64| mix(round << 32 | n) % rows;
        let mut kinds: [Kind<'_>; KINDS.len()] = [
            &mut |n, batch| {
                for (row, out) in (n..).zip(batch.chunks_exact_mut(length)) {
                    out.copy_from_slice(set.row(order(row)).expect("in range").tokens);
                }
            },
            &mut |n, batch| {
                for (row, out) in (n..).zip(batch.chunks_exact_mut(length)) {
                    let start = usize::try_from(order(row)).expect("fits") * length;
                    out.copy_from_slice(&all[start..start + length]);
                }
            },
            &mut |n, batch| {
                let start = usize::try_from(order(n)).expect("fits") * length;
                let start = start.min(all.len() - batch.len());
                batch.copy_from_slice(&all[start..start + batch.len()]);
            },
            &mut |n, _| {
                for row in n..n + BATCH as u64 {
                    black_box(set.row(order(row)).expect("in range").tokens);
                }
            },
        ];
        let mut seconds = [0.0; KINDS.len()];
        let mut turns = 0;
        while seconds[0] < args.seconds {
            for (kind, seconds) in kinds.iter_mut().zip(&mut seconds) {
                let start = cpu_seconds();
                for n in turns * TURN..(turns + 1) * TURN {
                    kind(n * BATCH as u64, &mut batch);
                    black_box(&batch);
                }
                *seconds += cpu_seconds() - start;
            }
            turns += 1;
        }
        for (rates, seconds) in rates.iter_mut().zip(seconds) {
            rates.push((turns * TURN * BATCH as u64) as f64 / seconds);
        }
    }
    let rates = rates.map(median);
    let mut json = serde_json::json!({ "rows": rows, "row_length": length });
    for (kind, rate) in KINDS.iter().zip(rates) {
        json[format!("{kind}_rows_per_cpu_second")] = rate.into();
    }
    json["copied_of_memcpy_of_the_rows"] = (rates[0] / rates[1]).into();
    json["copied_of_memcpy"] = (rates[0] / rates[2]).into();
    println!("{json}");
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
