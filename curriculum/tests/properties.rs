//! What holds for every plan, whatever the row, the settings and the profile.

use coda_curriculum::{
    Context, MaskPlan, RowView, Settings, SpecialIds, SyntaxSpans, apply, plan_row,
};
use coda_manifests::{MaskBlocks, Profile};
use proptest::prelude::*;

/// A row with its own memory for the spans.
#[derive(Clone, Debug)]
struct Row {
    length: u32,
    key: u64,
    epoch: u32,
    prefix_len: u32,
    valid_len: u32,
    starts: Vec<u32>,
    lens: Vec<u32>,
}

impl Row {
    fn view(&self) -> RowView<'_> {
        RowView {
            length: self.length,
            row_key: self.key,
            epoch: self.epoch,
            prefix_len: self.prefix_len,
            valid_len: self.valid_len,
            maskable_starts: &self.starts,
            maskable_lens: &self.lens,
            spans: SyntaxSpans::default(),
        }
    }
}

prop_compose! {
    fn rows()(
        length in 0u32..300,
        key: u64,
        epoch in 0u32..1 << 24,
        prompt in 0u32..300,
        padding in 0u32..300,
        gaps in prop::collection::vec((0u32..40, 0u32..120), 0..6),
    ) -> Row {
        let valid_len = length.saturating_sub(padding);
        let prefix_len = prompt.min(valid_len);
        let (mut starts, mut lens, mut at) = (vec![], vec![], prefix_len);
        for (gap, len) in gaps {
            let start = (at + gap).min(valid_len);
            at = (start + len).min(valid_len);
            starts.push(start);
            lens.push(at - start);
        }
        Row { length, key, epoch, prefix_len, valid_len, starts, lens }
    }
}

fn probabilities() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(1.0), 0.0f64..=1.0]
}

prop_compose! {
    fn settings()(
        p1 in probabilities(),
        p2 in probabilities(),
        p3 in probabilities(),
        block_sizes in prop::collection::vec(1u32..80, 1..5),
        sampling_eps in 1e-6f64..=1.0,
        span_ratio in probabilities(),
    ) -> Settings {
        Settings { p1, p2, p3, block_sizes, mask_blocks: MaskBlocks::Tokens, sampling_eps, span_ratio }
    }
}

prop_compose! {
    fn contexts()(paper: bool, seed: u64, step: u64, score_pads: bool) -> Context {
        let profile = if paper { Profile::CodaPaper } else { Profile::CodaRepo };
        Context { profile, seed, step, score_pads }
    }
}

/// The maskable positions, one by one from the rule in `coda_curriculum::draws`.
fn maskable(settings: &Settings, context: &Context, row: &Row, plan: &MaskPlan) -> Vec<u32> {
    let protected = (settings.span_ratio * f64::from(row.prefix_len)).floor();
    let in_span = |p: u32| {
        row.starts.iter().zip(&row.lens).any(|(&start, &len)| (start..start + len).contains(&p))
    };
    let is_maskable = |&p: &u32| {
        let open_prompt = f64::from(p) >= protected && p < row.prefix_len;
        let token = p < plan.valid_len && (open_prompt || in_span(p));
        let pad = p >= plan.valid_len && context.score_pads && settings.p2 == 0.0;
        p >= plan.prefix_len && (token || pad)
    };
    (0..row.length).filter(is_maskable).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn plans_keep_their_promises(settings in settings(), context in contexts(), row in rows()) {
        let plan = plan_row(&settings, &context, &row.view());
        prop_assert!(!(plan.s1 && plan.s2), "S1 and S2 exclude each other");
        prop_assert_eq!(plan.s3, plan.block_size.is_some());
        prop_assert!(settings.p1 > 0.0 || !plan.s1);
        prop_assert!(settings.p2 > 0.0 || !plan.s2);
        prop_assert!(settings.p3 > 0.0 || !plan.s3);
        prop_assert!(plan.sigma >= settings.sampling_eps && plan.sigma <= 1.0);
        prop_assert!(plan.prefix_len <= row.length && plan.valid_len <= row.valid_len);
        if plan.s1 {
            prop_assert!(plan.prefix_len >= 1 && plan.prefix_len < row.length.max(row.prefix_len + 1));
        }
        if plan.s2 {
            prop_assert!(plan.valid_len < row.length);
        } else {
            prop_assert_eq!(plan.valid_len, row.valid_len);
        }
        prop_assert!(plan.masked.is_sorted_by(|a, b| a < b), "each position once, ascending");
        prop_assert!(plan.masked.iter().all(|&p| p >= plan.prefix_len));

        let maskable = maskable(&settings, &context, &row, &plan);
        prop_assert!(plan.masked.iter().all(|p| maskable.binary_search(p).is_ok()));
        if plan.sigma >= 1.0 && !plan.s3 {
            prop_assert_eq!(&plan.masked, &maskable);
        }
        if let Some(k) = plan.block_size {
            prop_assert!(settings.block_sizes.contains(&k));
            // Masked positions come in stretches of at least k.
            for stretch in plan.masked.chunk_by(|a, b| a + 1 == *b) {
                prop_assert!(stretch.len() >= k as usize);
            }
        }
        prop_assert_eq!(plan_row(&settings, &context, &row.view()), plan);
    }

    #[test]
    fn a_plan_never_depends_on_its_neighbours_in_the_batch(
        settings in settings(),
        context in contexts(),
        rows in prop::collection::vec(rows(), 1..12),
        split in 1usize..12,
    ) {
        let plan = |row: &Row| plan_row(&settings, &context, &row.view());
        let whole: Vec<_> = rows.iter().map(plan).collect();
        let parts: Vec<_> = rows.chunks(split).rev().map(|part| part.iter().map(plan)).collect();
        let parts: Vec<_> = parts.into_iter().rev().flatten().collect();
        prop_assert_eq!(whole, parts);
    }

    #[test]
    fn applying_a_plan_writes_masks_and_pads_and_nothing_else(
        settings in settings(),
        context in contexts(),
        row in rows(),
    ) {
        let ids = SpecialIds { mask: 9, pad: 7 };
        let tokens: Vec<u32> =
            (0..row.length).map(|p| if p < row.valid_len { 100 + p } else { ids.pad }).collect();
        let plan = plan_row(&settings, &context, &row.view());
        let (clean, noised) = apply(&plan, &tokens, ids);
        for p in 0..row.length {
            let (at, hidden) = (p as usize, plan.masked.binary_search(&p).is_ok());
            prop_assert_eq!(clean[at], if p < plan.valid_len { 100 + p } else { ids.pad });
            prop_assert_eq!(noised[at], if hidden { ids.mask } else { clean[at] });
        }
    }
}

fn packed(length: u32, key: u64) -> Row {
    Row {
        length,
        key,
        epoch: 0,
        prefix_len: 0,
        valid_len: length,
        starts: vec![0],
        lens: vec![length],
    }
}

fn settings_of(p1: f64, p2: f64, p3: f64, block_sizes: &[u32]) -> Settings {
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

fn context_of(profile: Profile, step: u64) -> Context {
    Context { profile, seed: 17, step, score_pads: true }
}

#[test]
fn a_row_shorter_than_the_block_stays_clean() {
    let settings = settings_of(0.0, 0.0, 1.0, &[16]);
    for key in 0..50 {
        let plan = plan_row(&settings, &context_of(Profile::CodaPaper, 0), &packed(15, key).view());
        assert!(plan.s3 && plan.masked.is_empty());
    }
}

#[test]
fn rows_with_nothing_to_mask_stay_clean() {
    let settings = settings_of(0.0, 0.0, 0.5, &[1, 2]);
    let mut without_spans = packed(64, 1);
    (without_spans.starts, without_spans.lens) = (vec![], vec![]);
    let mut all_prompt = packed(64, 2);
    all_prompt.prefix_len = 64;
    for row in [without_spans, all_prompt, packed(0, 3)] {
        for step in 0..20 {
            let plan = plan_row(&settings, &context_of(Profile::CodaRepo, step), &row.view());
            assert_eq!(plan.masked, [] as [u32; 0]);
        }
    }
}

#[test]
fn at_the_highest_noise_everything_maskable_is_masked() {
    let mut settings = settings_of(0.0, 0.0, 0.0, &[4]);
    settings.sampling_eps = 1.0;
    let row = packed(100, 5);
    let all: Vec<u32> = (0..100).collect();
    let context = context_of(Profile::CodaPaper, 0);
    assert_eq!(plan_row(&settings, &context, &row.view()).masked, all);
    settings.p3 = 1.0;
    let plan = plan_row(&settings, &context, &row.view());
    assert_eq!((plan.sigma.to_bits(), plan.masked), (1.0f64.to_bits(), all));
}

#[test]
fn a_truncated_row_has_pads_that_are_never_masked_while_any_row_may_be_truncated() {
    let mut padded = packed(64, 11);
    padded.valid_len = 40;
    let mut settings = settings_of(0.0, 1e-6, 0.0, &[4]);
    settings.sampling_eps = 1.0;
    let context = context_of(Profile::CodaPaper, 0);
    let plan = plan_row(&settings, &context, &padded.view());
    assert!(!plan.s2);
    assert_eq!(plan.masked, (0..40).collect::<Vec<_>>(), "pads of every row, not only of S2's");
    settings.p2 = 0.0;
    assert_eq!(plan_row(&settings, &context, &padded.view()).masked.len(), 64);
    let unscored = Context { score_pads: false, ..context };
    assert_eq!(plan_row(&settings, &unscored, &padded.view()).masked.len(), 40);
}

/// The profiles differ in S3 alone: `coda-repo` ignores the value of p3 and draws one block size for
/// a batch.
#[test]
fn the_two_profiles_differ_as_the_method_says() {
    let settings = settings_of(0.25, 0.25, 0.3, &[2, 4, 8, 16]);
    let plans = |profile, step| {
        (0..400)
            .map(|key| plan_row(&settings, &context_of(profile, step), &packed(256, key).view()))
            .collect::<Vec<_>>()
    };
    let (paper, repo) = (plans(Profile::CodaPaper, 3), plans(Profile::CodaRepo, 3));
    for (paper, repo) in paper.iter().zip(&repo) {
        assert_eq!((paper.s1, paper.s2), (repo.s1, repo.s2));
        assert_eq!((paper.prefix_len, paper.valid_len), (repo.prefix_len, repo.valid_len));
        assert_eq!(paper.sigma.to_bits(), repo.sigma.to_bits());
    }
    let sizes = |plans: &[MaskPlan]| {
        let mut sizes: Vec<_> = plans.iter().filter_map(|plan| plan.block_size).collect();
        let count = sizes.len();
        sizes.sort_unstable();
        sizes.dedup();
        (count, sizes)
    };
    let (taken, of_paper) = sizes(&paper);
    assert!((80..160).contains(&taken), "{taken} of 400 at p3 = 0.3");
    assert_eq!(of_paper, [2, 4, 8, 16]);
    let (taken, of_repo) = sizes(&repo);
    assert_eq!((taken, of_repo.len()), (400, 1), "always on, one size for the batch");

    let of_steps: Vec<_> =
        (0..60).flat_map(|step| sizes(&plans(Profile::CodaRepo, step)).1).collect();
    assert!([2, 4, 8, 16].iter().all(|k| of_steps.contains(k)), "each batch draws its own size");

    let off = settings_of(0.25, 0.25, 0.0, &[2, 4]);
    let row = packed(256, 7);
    assert_eq!(
        plan_row(&off, &context_of(Profile::CodaPaper, 3), &row.view()),
        plan_row(&off, &context_of(Profile::CodaRepo, 3), &row.view()),
        "without S3 they agree"
    );
}
