//! The distributions of masked fractions and masked runs against simulation. Seeds are fixed; bounds
//! are five standard errors and, for what is summed over noise levels, the promised tolerance.

use coda_curriculum::{
    Context, RowView, Settings, SyntaxSpans,
    expected::{Distributions, packed_row},
    plan_row,
};
use coda_manifests::{MaskBlocks, Profile};

const BINS: usize = 10;

struct Simulated {
    rows: f64,
    fractions: Vec<f64>,
    /// By length: the sum over rows and the sum of squares of the runs of a row.
    runs: Vec<(f64, f64)>,
}

fn simulate(settings: &Settings, profile: Profile, length: u32, rows: u64) -> Simulated {
    let mut all = Simulated {
        rows: rows as f64,
        fractions: vec![0.0; BINS],
        runs: vec![(0.0, 0.0); bin_of_run(length) + 1],
    };
    for key in 0..rows {
        // Another step for every row, so that `coda-repo` draws a block size for each.
        let context = Context { profile, seed: 20_251_003, step: key, score_pads: true };
        let row = RowView {
            length,
            row_key: key,
            epoch: 0,
            prefix_len: 0,
            valid_len: length,
            maskable_starts: &[0],
            maskable_lens: &[length],
            spans: SyntaxSpans::default(),
        };
        let plan = plan_row(settings, &context, &row);
        let bin = plan.masked.len() * BINS / length as usize;
        all.fractions[bin.min(BINS - 1)] += 1.0;
        let mut counts = vec![0.0; all.runs.len()];
        let mut rest = plan.masked.as_slice();
        while let Some(first) = rest.first() {
            let run = rest.iter().zip(*first..).take_while(|(at, next)| **at == *next).count();
            counts[bin_of_run(u32::try_from(run).expect("a row is short"))] += 1.0;
            rest = &rest[run..];
        }
        for ((sum, squares), count) in all.runs.iter_mut().zip(counts) {
            *sum += count;
            *squares += count * count;
        }
    }
    all
}

/// 1, 2, 3 to 4, 5 to 8 and so on.
fn bin_of_run(length: u32) -> usize {
    length.max(1).next_power_of_two().trailing_zeros() as usize
}

fn agree(settings: &Settings, profile: Profile, length: u32, rows: u64, tolerance: f64) {
    let context = Context { profile, seed: 0, step: 0, score_pads: true };
    let expected = Distributions::new(length, BINS).of(settings, &context);
    let simulated = simulate(settings, profile, length, rows);
    let mean = packed_row(settings, &context, length).masked_fraction * f64::from(length);
    assert!((expected.masked_tokens() - mean).abs() < 1e-3 * mean, "{settings:?}");
    for (bin, (count, expected)) in
        simulated.fractions.iter().zip(&expected.masked_fraction).enumerate()
    {
        let error = (expected * (1.0 - expected) / simulated.rows).sqrt();
        let found = count / simulated.rows;
        assert!(
            (found - expected).abs() < 5.0 * error + tolerance,
            "{settings:?}, bin {bin}: {found} simulated, {expected} expected"
        );
    }
    let mut binned = vec![0.0; simulated.runs.len()];
    for (run, count) in expected.masked_runs.iter().enumerate().skip(1) {
        binned[bin_of_run(u32::try_from(run).expect("short"))] += count;
    }
    for (bin, ((sum, squares), expected)) in simulated.runs.iter().zip(&binned).enumerate() {
        let mean = sum / simulated.rows;
        let error = ((squares / simulated.rows - mean * mean) / simulated.rows).sqrt();
        assert!(
            (mean - expected).abs() < 5.0 * error + 1e-3 * expected + 1e-6,
            "{settings:?}, runs up to 2^{bin}: {mean} simulated, {expected} expected ({error})"
        );
    }
}

fn settings(p1: f64, p2: f64, p3: f64, block_sizes: &[u32], sampling_eps: f64) -> Settings {
    Settings {
        p1,
        p2,
        p3,
        block_sizes: block_sizes.to_vec(),
        mask_blocks: MaskBlocks::Tokens,
        sampling_eps,
        span_ratio: 1.0,
    }
}

#[test]
fn short_rows_are_distributed_as_said() {
    for settings in [
        settings(0.0, 0.0, 0.0, &[4], 1e-3),
        settings(0.2, 0.3, 0.0, &[4], 0.2),
        settings(0.0, 0.0, 1.0, &[4], 1e-3),
        settings(0.3, 0.3, 0.5, &[3, 16], 1e-3),
        settings(0.0, 1.0, 1.0, &[24, 200], 0.4),
    ] {
        for profile in [Profile::CodaPaper, Profile::CodaRepo] {
            agree(&settings, profile, 96, 30_000, 0.005);
        }
    }
}

#[test]
fn long_rows_are_distributed_as_said() {
    for settings in [
        settings(0.0, 0.0, 0.0, &[4], 1e-3),
        settings(0.2, 0.2, 0.25, &[4, 8, 16, 32], 1e-3),
        settings(0.0, 0.5, 1.0, &[32], 1e-3),
    ] {
        agree(&settings, Profile::CodaPaper, 1024, 8_000, 0.01);
    }
}

/// A block size that no row has room for masks nothing, however large it is.
#[test]
fn blocks_larger_than_any_row_cost_nothing() {
    let context = Context { profile: Profile::CodaPaper, seed: 0, step: 0, score_pads: true };
    for length in [64, 4096] {
        let settings = settings(0.1, 0.1, 1.0, &[u32::MAX, 4], 1e-3);
        let with_fours = Settings { block_sizes: vec![4], p3: 0.5, ..settings.clone() };
        // Half of the rows draw the giant; the others are rows of fours.
        let half = packed_row(&settings, &context, length).masked_fraction;
        let singles = packed_row(&Settings { p3: 0.0, ..settings.clone() }, &context, length);
        let fours = 2.0 * packed_row(&with_fours, &context, length).masked_fraction
            - singles.masked_fraction;
        assert!((half - fours / 2.0).abs() < 1e-12);
        let spread = Distributions::new(length, BINS).of(&settings, &context);
        assert!(spread.masked_fraction[0] > 0.5 && spread.masked_fraction[0] < 0.6, "{spread:?}");
    }
}

/// Every row is masked all over at noise 1; a row of one token has one run or none.
#[test]
fn edges_of_the_range_hold() {
    let context = Context { profile: Profile::CodaPaper, seed: 0, step: 0, score_pads: true };
    for sizes in [&[1u32][..], &[8], &[50]] {
        let full = Distributions::new(40, 4).of(&settings(0.0, 0.0, 1.0, sizes, 1.0), &context);
        let (bin, run) = if sizes[0] > 40 { (0, 0.0) } else { (3, 1.0) };
        assert!((full.masked_fraction[bin] - 1.0).abs() < 1e-9, "{sizes:?} {full:?}");
        assert!((full.masked_runs[40] - run).abs() < 1e-4, "{sizes:?} {full:?}");
    }
    let one = Distributions::new(1, 3).of(&settings(0.5, 0.5, 0.0, &[4], 0.5), &context);
    assert!(
        (one.masked_fraction[2] - 0.75).abs() < 1e-9 && (one.masked_runs[1] - 0.75).abs() < 1e-9
    );
}
