//! One row's masks: S1, S2, S3 and the noise level (method §2 and §3).

use crate::{Settings, blocks, maskable, spans};
use coda_manifests::{MaskBlocks, Profile};
use coda_random::{Purpose, Stream, bernoulli_threshold};
use serde::Serialize;
use std::ops::Range;

/// What is the same for every row of a step besides the [`Settings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// How S3 chooses its rows and block sizes.
    pub profile: Profile,
    /// The run's seed.
    pub seed: u64,
    /// The optimizer step, from 0. Only `coda-repo` looks at it: one block size for the batch.
    pub step: u64,
    /// Whether pads may be masked (and then are scored) while `p2` is 0 (method §5).
    pub score_pads: bool,
}

/// The spans of a row's text, one entry of each slice for a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyntaxSpans<'a> {
    /// First positions, ascending.
    pub starts: &'a [u32],
    /// Lengths; of spans with the same start the longest comes first.
    pub lens: &'a [u32],
    /// What they are: [`coda_manifests::SpanKind::code`].
    pub kinds: &'a [u8],
}

/// A row as the shard set holds it: its shape and its key, never its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowView<'a> {
    /// Tokens in the row, pads included: `L`.
    pub length: u32,
    /// The key from which all of the row's draws derive.
    pub row_key: u64,
    /// How often the row's source had been gone through before this visit; below 2^24.
    pub epoch: u32,
    /// Length of the prompt at the row's start; 0 in packed rows.
    pub prefix_len: u32,
    /// Tokens before the padding.
    pub valid_len: u32,
    /// Starts of the maskable spans, ascending.
    pub maskable_starts: &'a [u32],
    /// Lengths of the maskable spans.
    pub maskable_lens: &'a [u32],
    /// The spans of the text; none where the shard set does not note them.
    pub spans: SyntaxSpans<'a>,
}

/// What happens to one row at one visit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MaskPlan {
    /// The key of the row.
    pub row_key: u64,
    /// The noise level; the row's loss is weighted by `1 / sigma`.
    pub sigma: f64,
    /// S1 took the row: an unmaskable prefix.
    pub s1: bool,
    /// S2 took the row: a truncated suffix.
    pub s2: bool,
    /// S3 took the row: blocks are masked instead of single tokens.
    pub s3: bool,
    /// Positions below this one are never masked: S1's cut or the protected part of the prompt.
    pub prefix_len: u32,
    /// Positions from here on are pads: S2's cut or the row's own padding.
    pub valid_len: u32,
    /// The block size, when S3 took the row.
    pub block_size: Option<u32>,
    /// What S3's blocks are.
    #[serde(skip_serializing_if = "MaskBlocks::is_tokens")]
    pub mask_blocks: MaskBlocks,
    /// The masked positions, ascending.
    pub masked: Vec<u32>,
}

/// The two token ids that masking writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialIds {
    /// Stands where a token is hidden.
    pub mask: u32,
    /// Stands where nothing is.
    pub pad: u32,
}

/// Draws the plan of one row. A pure function: the same arguments give the same plan anywhere.
/// [`crate::draws`] lists the draws.
///
/// # Panics
/// If the row's epoch is 2^24 or more, or S3 is on and there is no block size or one of 0
/// ([`crate::Curriculum::check`] refuses those).
#[must_use]
pub fn plan_row(settings: &Settings, context: &Context, row: &RowView<'_>) -> MaskPlan {
    plan_row_at(settings, context, row, |u| settings.level(u))
}

/// [`plan_row`] at a noise level of the caller's choice, from the row's own draw of it in `[0, 1)`:
/// for evaluations, which look at every level.
///
/// # Panics
/// As [`plan_row`].
#[must_use]
pub fn plan_row_at(
    settings: &Settings,
    context: &Context,
    row: &RowView<'_>,
    level: impl FnOnce(f64) -> f64,
) -> MaskPlan {
    let draws = |purpose| Stream::new(context.seed, row.row_key, row.epoch, purpose);
    let gate = |purpose, p| u64::from(draws(purpose).u32_at(0)) < bernoulli_threshold(p);
    let cut = |purpose| 1 + draws(purpose).below_at(0, row.length - 1);

    let sigma = level(draws(Purpose::Sigma).unit_at(0));

    let has_cut = row.length >= 2;
    let s1 = has_cut && gate(Purpose::PrefixGate, settings.p1);
    let s2 = has_cut && !s1 && gate(Purpose::SuffixGate, settings.p2);
    let mut bounds = maskable::Bounds::of(settings, context, row);
    if s1 {
        bounds.prefix = bounds.prefix.max(cut(Purpose::PrefixCut));
    }
    if s2 {
        bounds.valid = bounds.valid.min(cut(Purpose::SuffixCut));
    }
    let runs = maskable::runs(row, &bounds);

    let block_size = match context.profile {
        Profile::CodaPaper => gate(Purpose::BlockGate, settings.p3)
            .then(|| pick(&settings.block_sizes, draws(Purpose::BlockSize))),
        Profile::CodaRepo => (settings.p3 > 0.0).then(|| {
            let batch = Stream::new(context.seed, context.step, 0, Purpose::BatchBlockSize);
            pick(&settings.block_sizes, batch)
        }),
    };
    let masked = match (block_size, settings.mask_blocks) {
        (Some(k), MaskBlocks::Tokens) => {
            blocks::masked(draws(Purpose::BlockStart), sigma, k, &runs)
        }
        (Some(k), MaskBlocks::Spans(kinds)) => {
            let blocks = spans::blocks(row.spans, kinds, k, &runs);
            spans::masked(draws(Purpose::TokenMask), sigma, &blocks, &runs)
        }
        (None, _) => single_tokens(draws(Purpose::TokenMask), sigma, &runs),
    };
    MaskPlan {
        row_key: row.row_key,
        sigma,
        s1,
        s2,
        s3: block_size.is_some(),
        prefix_len: bounds.prefix,
        valid_len: bounds.valid,
        block_size,
        mask_blocks: settings.mask_blocks,
        masked,
    }
}

fn pick(sizes: &[u32], draws: Stream) -> u32 {
    let count = u32::try_from(sizes.len()).expect("a list of block sizes is short");
    sizes[draws.below_at(0, count) as usize]
}

/// Every position of `runs` on its own, with probability `sigma`.
fn single_tokens(draws: Stream, sigma: f64, runs: &[Range<u32>]) -> Vec<u32> {
    let threshold = bernoulli_threshold(sigma);
    let mut masked = Vec::new();
    for run in runs {
        for_each_draw(draws, run.clone(), |position, word| {
            if u64::from(word) < threshold {
                masked.push(position);
            }
        });
    }
    masked
}

/// Calls `visit` with every position of `range` and the draw of that index.
pub(crate) fn for_each_draw(draws: Stream, range: Range<u32>, mut visit: impl FnMut(u32, u32)) {
    let mut words = [0; 256];
    let mut from = range.start;
    while from < range.end {
        let count = (range.end - from).min(256);
        let chunk = &mut words[..count as usize];
        draws.fill(u64::from(from), chunk);
        for (position, &word) in (from..).zip(chunk.iter()) {
            visit(position, word);
        }
        from += count;
    }
}

/// The clean ids (targets, with S2's pads in place) and the noised ids (model input) of a row.
///
/// # Panics
/// If the plan is of a longer row.
#[must_use]
pub fn apply(plan: &MaskPlan, tokens: &[u32], ids: SpecialIds) -> (Vec<u32>, Vec<u32>) {
    let (mut clean, mut noised) = (vec![0; tokens.len()], vec![0; tokens.len()]);
    apply_into(plan, tokens, ids, &mut clean, &mut noised);
    (clean, noised)
}

/// [`apply`] into a batch's own memory: `clean` and `noised` are as long as `tokens`.
///
/// # Panics
/// If the lengths differ, or the plan is of a longer row.
pub fn apply_into(
    plan: &MaskPlan,
    tokens: &[u32],
    ids: SpecialIds,
    clean: &mut [u32],
    noised: &mut [u32],
) {
    clean.copy_from_slice(tokens);
    let valid = tokens.len().min(plan.valid_len as usize);
    clean[valid..].fill(ids.pad);
    noised.copy_from_slice(clean);
    for &position in &plan.masked {
        noised[position as usize] = ids.mask;
    }
}
