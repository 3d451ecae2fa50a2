//! Frequencies and coverage against the method's probabilities, and the closed forms of `expected`
//! against simulation. Seeds are fixed, so nothing here is flaky; bounds are five standard errors.

use coda_curriculum::{
    Context, RowView, Settings, SyntaxSpans,
    expected::{Expected, row_like},
    plan_row,
};
use coda_manifests::{MaskBlocks, Profile, SpanKind, SpanKinds};

const LENGTH: u32 = 96;

fn row(row_key: u64, prefix_len: u32, valid_len: u32) -> RowView<'static> {
    RowView {
        length: LENGTH,
        row_key,
        epoch: 0,
        prefix_len,
        valid_len,
        maskable_starts: &[0],
        maskable_lens: &[LENGTH],
        spans: SyntaxSpans::default(),
    }
}

fn context(profile: Profile) -> Context {
    Context { profile, seed: 20_251_003, step: 0, score_pads: true }
}

fn settings(p1: f64, p2: f64, p3: f64, block_sizes: &[u32]) -> Settings {
    Settings {
        p1,
        p2,
        p3,
        block_sizes: block_sizes.to_vec(),
        mask_blocks: MaskBlocks::Tokens,
        sampling_eps: 1e-3,
        span_ratio: 1.0,
    }
}

/// Five standard errors of a share `p` of `n` draws.
fn five_errors(p: f64, n: u64) -> f64 {
    5.0 * (p * (1.0 - p) / n as f64).sqrt()
}

/// Given its sigma, an interior position is masked with probability sigma, with S3 as without, and
/// a position near an edge with `1 - (1 - sigma)^(c/k)`. Standardised over many rows, the number of
/// masked rows at each position must be normal.
#[test]
fn coverage_is_sigma_inside_and_as_the_windows_say_at_the_edges() {
    let rows = 20_000u64;
    for k in [1u32, 3, 8, 32] {
        let settings = settings(0.0, 0.0, 1.0, &[k]);
        let (mut excess, mut variance) = (vec![0.0; LENGTH as usize], vec![0.0; LENGTH as usize]);
        for key in 0..rows {
            let plan = plan_row(&settings, &context(Profile::CodaPaper), &row(key, 0, LENGTH));
            for position in 0..LENGTH {
                let windows = (position + 1).min(LENGTH - position).min(k).min(LENGTH - k + 1);
                let p = 1.0 - (1.0 - plan.sigma).powf(f64::from(windows) / f64::from(k));
                if windows == k {
                    assert!((p - plan.sigma).abs() < 1e-12);
                }
                let masked = plan.masked.binary_search(&position).is_ok();
                excess[position as usize] += f64::from(u8::from(masked)) - p;
                variance[position as usize] += p * (1.0 - p);
            }
        }
        for (position, (excess, variance)) in excess.iter().zip(&variance).enumerate() {
            let z = excess / variance.sqrt();
            assert!(z.abs() < 5.0, "k = {k}, position {position}: {z} standard errors");
        }
    }
}

#[test]
fn gates_open_as_often_as_the_schedule_says() {
    let rows = 60_000u64;
    let settings = settings(0.2, 0.25, 0.3, &[2, 4, 8]);
    let (mut s1, mut s2, mut s3) = (0u64, 0u64, 0u64);
    let mut both = 0u64;
    let mut sizes = [0u64; 9];
    for key in 0..rows {
        let plan = plan_row(&settings, &context(Profile::CodaPaper), &row(key, 0, LENGTH));
        s1 += u64::from(plan.s1);
        s2 += u64::from(plan.s2);
        s3 += u64::from(plan.s3);
        both += u64::from(plan.s1 && plan.s3);
        if let Some(k) = plan.block_size {
            sizes[k as usize] += 1;
        }
    }
    let check = |what: &str, found: u64, of: u64, p: f64| {
        let share = found as f64 / of as f64;
        assert!((share - p).abs() < five_errors(p, of), "{what}: {share}, not {p}");
    };
    check("S1", s1, rows, 0.2);
    check("S2 among the rows left by S1", s2, rows - s1, 0.25);
    check("S3", s3, rows, 0.3);
    check("S3 among the rows of S1", both, s1, 0.3);
    for k in [2, 4, 8] {
        check("a block size", sizes[k], s3, 1.0 / 3.0);
    }
}

#[test]
fn noise_levels_and_cuts_are_uniform() {
    let rows = 40_000u64;
    let settings = settings(0.5, 1.0, 0.0, &[2]);
    let (mut noise, mut prefix, mut suffix) = ([0u64; 10], vec![0u64; 96], vec![0u64; 96]);
    for key in 0..rows {
        let plan = plan_row(&settings, &context(Profile::CodaPaper), &row(key, 0, LENGTH));
        let unit = (plan.sigma - 1e-3) / (1.0 - 1e-3);
        let tenth = (1..10).filter(|&tenth| unit * 10.0 >= f64::from(tenth)).count();
        noise[tenth] += 1;
        assert!(plan.s1 != plan.s2, "S2 at probability 1 takes what S1 leaves");
        if plan.s1 {
            prefix[plan.prefix_len as usize] += 1;
        } else {
            suffix[plan.valid_len as usize] += 1;
        }
    }
    for count in noise {
        assert!((count as f64 / rows as f64 - 0.1).abs() < five_errors(0.1, rows), "{noise:?}");
    }
    for cuts in [prefix, suffix] {
        let total: u64 = cuts.iter().sum();
        assert_eq!(cuts[0], 0, "a cut leaves at least one position on either side");
        let p = 1.0 / 95.0;
        for count in &cuts[1..] {
            assert!((*count as f64 / total as f64 - p).abs() < five_errors(p, total), "{cuts:?}");
        }
    }
}

/// What many rows come to.
struct Simulated {
    masked_fraction: Mean,
    scored_tokens: Mean,
    loss_weight: Mean,
    sigma: Mean,
    shares: [Mean; 3],
}

#[derive(Default)]
struct Mean {
    n: f64,
    sum: f64,
    squares: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.n += 1.0;
        self.sum += value;
        self.squares += value * value;
    }

    fn check(&self, what: &str, expected: f64) {
        let mean = self.sum / self.n;
        let error = ((self.squares / self.n - mean * mean).max(0.0) / self.n).sqrt();
        let far = (mean - expected).abs();
        assert!(
            far <= 5.0 * error + 1e-9,
            "{what}: {mean} simulated, {expected} expected ({error})"
        );
        assert!(error < 0.05 * expected.abs().max(0.01), "{what}: too few rows to tell");
    }
}

fn simulate(settings: &Settings, context: &Context, shape: RowView<'_>) -> Simulated {
    let mean = Mean::default;
    let mut all = Simulated {
        masked_fraction: mean(),
        scored_tokens: mean(),
        loss_weight: mean(),
        sigma: mean(),
        shares: [mean(), mean(), mean()],
    };
    for key in 0..30_000u64 {
        // Another step for every row, so that `coda-repo` draws a block size for each.
        let context = Context { step: key, ..*context };
        let plan = plan_row(settings, &context, &RowView { row_key: key, ..shape });
        let scored = plan.masked.iter().filter(|&&position| position > 0).count();
        all.masked_fraction.add(plan.masked.len() as f64 / f64::from(shape.length));
        all.scored_tokens.add(scored as f64);
        all.loss_weight.add(1.0 / plan.sigma);
        all.sigma.add(plan.sigma);
        for (share, taken) in all.shares.iter_mut().zip([plan.s1, plan.s2, plan.s3]) {
            share.add(f64::from(u8::from(taken)));
        }
    }
    all
}

fn agree(expected: Expected, simulated: &Simulated) {
    simulated.masked_fraction.check("masked fraction", expected.masked_fraction);
    simulated.scored_tokens.check("scored tokens", expected.scored_tokens);
    simulated.loss_weight.check("loss weight", expected.loss_weight);
    simulated.sigma.check("sigma", expected.sigma);
    let shares = [expected.s1_share, expected.s2_share, expected.s3_share];
    for ((simulated, expected), what) in simulated.shares.iter().zip(shares).zip(["S1", "S2", "S3"])
    {
        simulated.check(what, expected);
    }
}

#[test]
fn closed_forms_agree_with_simulation() {
    let cases = [
        (settings(0.0, 0.0, 0.0, &[4]), (0, LENGTH)),
        (settings(0.2, 0.2, 0.25, &[2, 4, 8]), (0, LENGTH)),
        (settings(1.0, 0.0, 1.0, &[24]), (0, LENGTH)),
        (settings(0.0, 1.0, 1.0, &[5, 200]), (0, LENGTH)),
        (settings(0.3, 0.0, 0.5, &[60]), (30, 70)),
        (Settings { span_ratio: 0.4, ..settings(0.2, 0.5, 0.5, &[3]) }, (30, 70)),
        (Settings { sampling_eps: 0.5, ..settings(0.1, 0.1, 0.5, &[4, 8, 16, 32]) }, (0, LENGTH)),
    ];
    for (settings, (prefix_len, valid_len)) in cases {
        for profile in [Profile::CodaPaper, Profile::CodaRepo] {
            let (context, shape) = (context(profile), row(0, prefix_len, valid_len));
            agree(row_like(&settings, &context, &shape), &simulate(&settings, &context, shape));
        }
    }
}

/// Lines that fill the row but for some tokens, with nested brackets in them.
const SPANS: [&[u32]; 2] =
    [&[0, 1, 2, 10, 10, 40, 41, 50, 70, 75], &[10, 8, 3, 30, 8, 8, 5, 30, 20, 10]];
const KINDS: [u8; 10] = [0, 1, 1, 0, 1, 0, 1, 1, 0, 1];

fn over_spans(kinds: &[SpanKind], settings: Settings) -> Settings {
    let kinds = SpanKinds::new(kinds.iter().copied()).expect("some");
    Settings { mask_blocks: MaskBlocks::Spans(kinds), ..settings }
}

fn row_with_spans(key: u64, prefix_len: u32, valid_len: u32) -> RowView<'static> {
    let spans = SyntaxSpans { starts: SPANS[0], lens: SPANS[1], kinds: &KINDS };
    RowView { spans, ..row(key, prefix_len, valid_len) }
}

/// Over spans too, and with whatever cuts go through them.
#[test]
fn closed_forms_over_spans_agree_with_simulation() {
    let cases = [
        (over_spans(&[SpanKind::Lines], settings(0.0, 0.0, 1.0, &[40])), (0, LENGTH)),
        (over_spans(&[SpanKind::Brackets], settings(0.3, 0.3, 0.6, &[4, 8, 40])), (0, LENGTH)),
        (over_spans(&SpanKind::ALL, settings(0.2, 0.0, 0.5, &[8, 30])), (33, 90)),
    ];
    for (settings, (prefix_len, valid_len)) in cases {
        for profile in [Profile::CodaPaper, Profile::CodaRepo] {
            let (context, shape) = (context(profile), row_with_spans(0, prefix_len, valid_len));
            agree(row_like(&settings, &context, &shape), &simulate(&settings, &context, shape));
        }
    }
}

/// Every position is masked with probability sigma, in a block or not, and blocks hang together.
#[test]
fn over_spans_every_position_is_masked_at_sigma() {
    let rows = 20_000_u64;
    let settings = over_spans(&SpanKind::ALL, settings(0.0, 0.0, 1.0, &[30]));
    // Worked out by hand: the outermost spans of at most 30 tokens, from the left.
    let blocks = [(0, 10), (10, 40), (40, 48), (50, 80)];
    let (mut excess, mut variance) = (vec![0.0; LENGTH as usize], vec![0.0; LENGTH as usize]);
    for key in 0..rows {
        let plan =
            plan_row(&settings, &context(Profile::CodaPaper), &row_with_spans(key, 0, LENGTH));
        let masked = |position: u32| plan.masked.binary_search(&position).is_ok();
        for (start, end) in blocks {
            let whole = (start..end).all(masked) || !(start..end).any(masked);
            assert!(whole, "{start}..{end}: {:?}", plan.masked);
        }
        for position in 0..LENGTH {
            let hit = f64::from(u8::from(masked(position)));
            excess[position as usize] += hit - plan.sigma;
            variance[position as usize] += plan.sigma * (1.0 - plan.sigma);
        }
    }
    for (position, (excess, variance)) in excess.iter().zip(&variance).enumerate() {
        let z = excess / variance.sqrt();
        assert!(z.abs() < 5.0, "position {position}: {z} standard errors");
    }
}

#[test]
fn plain_rows_have_the_known_expectations() {
    let expected =
        row_like(&settings(0.0, 0.0, 0.0, &[4]), &context(Profile::CodaPaper), &row(0, 0, LENGTH));
    assert!((expected.masked_fraction - 0.5005).abs() < 1e-12);
    assert!((expected.scored_tokens - 95.0 * 0.5005).abs() < 1e-9);
    assert!((expected.loss_weight - 1000.0f64.ln() / 0.999).abs() < 1e-9);
}

/// Blocks stay off prefixes and pads: near such an edge a position has fewer windows, and is masked
/// with `1 - (1 - sigma)^(c/k)` for its `c` windows; beyond it, never.
#[test]
fn prefixes_and_pads_are_edges_too() {
    let (rows, k) = (20_000_u64, 8_u32);
    let (prefix, valid) = (21_u32, 70_u32);
    // S2 among the rows or not: with p2 above 0 pads are never masked.
    let settings = settings(0.0, 1e-9, 1.0, &[k]);
    let (mut excess, mut variance) = (vec![0.0; LENGTH as usize], vec![0.0; LENGTH as usize]);
    for key in 0..rows {
        let plan = plan_row(&settings, &context(Profile::CodaPaper), &row(key, prefix, valid));
        assert!(plan.masked.iter().all(|j| (prefix..valid).contains(j)), "{:?}", plan.masked);
        for position in prefix..valid {
            let windows = (position - prefix + 1).min(valid - position).min(k);
            let p = 1.0 - (1.0 - plan.sigma).powf(f64::from(windows) / f64::from(k));
            let masked = plan.masked.binary_search(&position).is_ok();
            excess[position as usize] += f64::from(u8::from(masked)) - p;
            variance[position as usize] += p * (1.0 - p);
        }
    }
    for position in prefix as usize..valid as usize {
        let z = excess[position] / variance[position].sqrt();
        assert!(z.abs() < 5.0, "position {position}: {z} standard errors");
    }
}

/// Without blocks every maskable position is masked with probability sigma, wherever it stands,
/// and neighbours know nothing of each other.
#[test]
fn single_tokens_are_masked_at_sigma_and_independently() {
    let rows = 20_000_u64;
    let settings = settings(0.0, 0.0, 0.0, &[8]);
    let (mut excess, mut variance) = (vec![0.0; LENGTH as usize], vec![0.0; LENGTH as usize]);
    let (mut together, mut spread) = (0.0, 0.0);
    for key in 0..rows {
        let plan = plan_row(&settings, &context(Profile::CodaPaper), &row(key, 0, LENGTH));
        let sigma = plan.sigma;
        let mut before = 0.0;
        for position in 0..LENGTH {
            let masked = plan.masked.binary_search(&position).is_ok();
            let deviation = f64::from(u8::from(masked)) - sigma;
            excess[position as usize] += deviation;
            variance[position as usize] += sigma * (1.0 - sigma);
            together += before * deviation;
            spread += if position == 0 { 0.0 } else { (sigma * (1.0 - sigma)).powi(2) };
            before = deviation;
        }
    }
    for (position, (excess, variance)) in excess.iter().zip(&variance).enumerate() {
        let z = excess / variance.sqrt();
        assert!(z.abs() < 5.0, "position {position}: {z} standard errors");
    }
    let z = together / f64::sqrt(spread);
    assert!(z.abs() < 5.0, "neighbours: {z} standard errors");
}
