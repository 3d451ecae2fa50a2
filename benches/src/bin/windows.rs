//! Forwards of few positions on the CPU: a window in a row of 256, over kept keys and values, beside a whole
//! row of as many positions. The first goes through the products of few rows where the decoder finds it
//! small, the second always through the general product.
//!
//! ```text
//! windows [WIDTH…]
//! ```
//!
//! The model has 4 layers, an FFN of three times the width and a vocabulary of 4096; one output is asked for.
//! Prints a JSON line for each width and size: the least milliseconds of both, in turns.

use coda_benches::tiny_model;
use coda_trainer::{
    engine::{CpuDecoder, Decoder, Span},
    model::Params,
    threads::share_this_thread,
};
use serde_json::json;
use std::{error::Error, time::Instant};

const SIZES: [usize; 8] = [3, 5, 9, 17, 33, 64, 96, 128];
/// Tokens of the row that windows are part of.
const ROW: usize = 256;
const ROUNDS: usize = 20;

fn main() -> Result<(), Box<dyn Error>> {
    share_this_thread();
    let widths = std::env::args().skip(1).map(|width| width.parse());
    let mut widths: Vec<usize> = widths.collect::<Result<_, _>>()?;
    if widths.is_empty() {
        widths = vec![256, 512, 1024, 2048];
    }
    let row: Vec<u32> =
        (0..ROW).map(|at| u32::try_from(at * 7 % 4000)).collect::<Result<_, _>>()?;
    for width in widths {
        let config = tiny_model(width, true);
        let params = Params::init(&config, 7);
        let mut decoder = CpuDecoder::new(&config, &params);
        for size in SIZES {
            let window = 50..50 + size;
            let whole = Span { slot: 0, row: &row, window: 0..ROW, outputs: &[50] };
            decoder.decode(&[whole])?;
            let (mut part, mut own) = (f64::MAX, f64::MAX);
            for _ in 0..ROUNDS {
                let started = Instant::now();
                decoder.decode(&[Span {
                    slot: 0,
                    row: &row,
                    window: window.clone(),
                    outputs: &[50],
                }])?;
                part = part.min(started.elapsed().as_secs_f64());
                let started = Instant::now();
                let short = &row[..size];
                decoder.decode(&[Span { slot: 1, row: short, window: 0..size, outputs: &[1] }])?;
                own = own.min(started.elapsed().as_secs_f64());
            }
            let (window_ms, row_ms) = (part * 1e3, own * 1e3);
            println!(
                "{}",
                json!({"width": width, "positions": size, "window_ms": window_ms, "row_ms": row_ms})
            );
        }
    }
    Ok(())
}
