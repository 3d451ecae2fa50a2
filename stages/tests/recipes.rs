//! Recipes of every stage and profile against the tables of the method, and against what a manifest
//! says otherwise.

#![allow(clippy::float_cmp, reason = "recipes hold exact values")]

use coda_curriculum::{Context, RowView, SyntaxSpans, plan_row};
use coda_manifests::{ConditionedSpan, Manifest, Overlong, Schedule};
use coda_stages::{Epochs, OptimizerRecipe, Recipe, RecipeError};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("manifests")
}

fn shipped(name: &str, overrides: &[&str]) -> Manifest {
    Manifest::load(&manifests().join(name), overrides, &[]).unwrap()
}

/// A manifest of the given stage that says nothing but what it must.
fn bare(stage: &str, overrides: &[&str]) -> Manifest {
    let kind = if stage == "post" { "sft" } else { "text" };
    let yaml = format!(
        "{{version: 1, name: bare, stage: {stage}, tokenizer: {{path: t.json}}, data: {{out: o, \
         row_length: 64, sources: [{{name: s, paths: [x.jsonl], kind: {kind}}}]}}}}"
    );
    Manifest::from_yaml(&yaml, &manifests().join("bare.yaml"), overrides, &[]).unwrap()
}

fn resolve(manifest: &Manifest, rows: Option<u64>) -> Recipe {
    Recipe::resolve(manifest, rows).unwrap()
}

/// The whole recipe of each shipped manifest under each profile. 4.2 million conversations in
/// opc-sft-stage1.
#[test]
fn golden_recipes() {
    for (file, stage) in
        [("pretrain.yaml", "pre"), ("midtrain.yaml", "mid"), ("posttrain.yaml", "post")]
    {
        for profile in ["coda-paper", "coda-repo"] {
            let manifest = shipped(file, &[&format!("profile={profile}")]);
            let rows = (stage == "post").then_some(4_200_000);
            insta::assert_json_snapshot!(format!("{stage}-{profile}"), resolve(&manifest, rows));
        }
    }
}

#[test]
fn every_shipped_manifest_is_a_recipe() {
    for folder in [manifests(), manifests().join("quickstart")] {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        for file in files.filter(|path| path.extension().is_some_and(|ext| ext == "yaml")) {
            let none: &[&str] = &[];
            let manifest = Manifest::load(&file, none, &[]).unwrap();
            let recipe = resolve(&manifest, Some(100_000));
            // What is stored with a checkpoint is read again as it was.
            let json = serde_json::to_string(&recipe).unwrap();
            assert_eq!(serde_json::from_str::<Recipe>(&json).unwrap(), recipe);
        }
    }
}

/// Method §4, Table 3: percent of the sequences S1 : S2 : S3 over 50,000 steps.
#[test]
fn the_papers_mid_training_follows_table_3() {
    let recipe = resolve(&shipped("midtrain.yaml", &[]), None);
    let percent = |step| {
        let settings = recipe.curriculum.settings(recipe.progress(step));
        [settings.p1, settings.p2, settings.p3].map(|p| p * 100.0).map(f64::round)
    };
    let table = [[1, 1, 5], [5, 5, 10], [10, 10, 15], [15, 15, 20], [20, 20, 25]];
    for (epoch, row) in (0u64..).zip(table) {
        let row = row.map(f64::from);
        assert_eq!(percent(epoch * 10_000), row);
        assert_eq!(percent(epoch * 10_000 + 9_999), row);
    }
    assert_eq!(recipe.steps_per_epoch(), Some(10_000.0));
    // 20.97 billion tokens are seen five times.
    assert_eq!(recipe.tokens_per_step() * recipe.total_steps / 5, 20_971_520_000);
}

/// The strategies are drawn as often as Table 3 says, in every epoch: within five standard errors.
/// S2 takes its share of the rows that S1 left (method §3).
#[test]
fn rows_take_the_strategies_as_often_as_table_3_says() {
    let recipe = resolve(&shipped("midtrain.yaml", &[]), None);
    let rows = 20_000_u64;
    for epoch in 0..5_u32 {
        let step = u64::from(epoch) * 10_000 + 5000;
        let settings = recipe.curriculum.settings(recipe.progress(step));
        let context = Context { profile: recipe.profile, seed: 3, step, score_pads: true };
        let mut counts = [0_u64; 3];
        for row_key in 0..rows {
            let row = RowView {
                length: 64,
                row_key,
                epoch,
                prefix_len: 0,
                valid_len: 64,
                maskable_starts: &[0],
                maskable_lens: &[64],
                spans: SyntaxSpans::default(),
            };
            let plan = plan_row(&settings, &context, &row);
            assert!(!(plan.s1 && plan.s2), "S1 and S2 exclude each other");
            for (count, taken) in counts.iter_mut().zip([plan.s1, plan.s2, plan.s3]) {
                *count += u64::from(taken);
            }
        }
        let [p1, p2, p3] = [[1, 1, 5], [5, 5, 10], [10, 10, 15], [15, 15, 20], [20, 20, 25]]
            [epoch as usize]
            .map(|percent| f64::from(percent) / 100.0);
        for (count, p) in counts.iter().zip([p1, (1.0 - p1) * p2, p3]) {
            let share = *count as f64 / rows as f64;
            let error = (p * (1.0 - p) / rows as f64).sqrt();
            assert!((share - p).abs() < 5.0 * error, "epoch {epoch}: {share}, not {p}");
        }
    }
}

#[test]
fn the_repos_mid_training_is_constant_and_may_ramp() {
    let constant = resolve(&shipped("midtrain.yaml", &["profile=coda-repo"]), None);
    for step in [0, 15_000, 29_999] {
        let settings = constant.curriculum.settings(constant.progress(step));
        assert_eq!((settings.p1, settings.p2, settings.p3), (0.25, 0.25, 0.30));
    }
    let overrides = ["profile=coda-repo", "curriculum.p1.linear={to: 0.25, steps: 1000}"];
    let ramp = resolve(&shipped("midtrain.yaml", &overrides), None);
    let p1 = |step| ramp.curriculum.settings(ramp.progress(step)).p1;
    assert_eq!([0, 500, 1000, 20_000].map(p1), [0.0, 0.125, 0.25, 0.25]);
}

/// Method §5, conditioned-span annealing.
#[test]
fn prompts_open_up_as_the_profile_says() {
    let span = |file: &str, overrides: &[&str], rows| {
        resolve(&shipped(file, overrides), rows).curriculum.conditioned_span
    };
    let (one, two) = ("posttrain.yaml", "posttrain-stage2.yaml");
    assert_eq!(span(one, &[], Some(176_000)), ConditionedSpan::Ratio(0.1));
    assert_eq!(span(two, &[], Some(176_000)), ConditionedSpan::Ratio(0.1));
    assert_eq!(span(one, &["profile=coda-repo"], Some(9)), ConditionedSpan::Ratio(0.05));
    let off = ["profile=coda-repo", "curriculum.conditioned_span=off"];
    assert_eq!(span(two, &off, Some(9)), ConditionedSpan::Off);
    assert_eq!(span(one, &["train.epochs=4"], Some(176_000)), ConditionedSpan::Ratio(0.25));
    // Steps alone, no rows known: a tenth. Less than one epoch: over the whole run.
    assert_eq!(
        resolve(&bare("post", &["train.steps=90"]), None).curriculum.conditioned_span,
        ConditionedSpan::Ratio(0.1)
    );
    let short = resolve(&bare("post", &["train.steps=90"]), Some(1_000_000));
    assert_eq!(short.curriculum.conditioned_span, ConditionedSpan::Ratio(1.0));
    for stage in ["pre", "mid"] {
        assert_eq!(
            resolve(&bare(stage, &[]), None).curriculum.conditioned_span,
            ConditionedSpan::Off
        );
    }
}

#[test]
fn profiles_differ_where_report_and_code_do() {
    let long = |profile: &str| resolve(&bare("post", &[profile]), Some(10)).overlong;
    assert_eq!(long("profile=coda-paper"), Overlong::Truncate);
    assert_eq!(long("profile=coda-repo"), Overlong::Drop);
    let steps = |stage, profile: &str| resolve(&bare(stage, &[profile]), None).total_steps;
    assert_eq!(steps("pre", "profile=coda-paper"), 50_000);
    assert_eq!(steps("pre", "profile=coda-repo"), 210_000);
    assert_eq!(steps("mid", "profile=coda-paper"), 50_000);
    assert_eq!(steps("mid", "profile=coda-repo"), 30_000);
    // 4.9 and 1.17 epochs of 179.95 billion tokens (method §8).
    let rows = 179_950_000_000.0 / 8192.0;
    let epochs = |steps: f64| (steps * 512.0 / rows * 100.0).round() / 100.0;
    assert_eq!((epochs(210_000.0), epochs(50_000.0)), (4.89, 1.17));
}

/// Values of the closed formulas, computed by hand.
#[test]
fn learning_rates_by_hand() {
    let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-11 * b.abs(), "{a} is not {b}");
    let paper = resolve(&shipped("pretrain.yaml", &[]), None);
    assert_eq!(paper.lr_at(0), 3e-4);
    near(paper.lr_at(12_500), 2.25e-4);
    near(paper.lr_at(49_999), 6e-9);
    assert_eq!(paper.lr_at(50_000), 0.0);

    let repo = resolve(&shipped("midtrain.yaml", &["profile=coda-repo"]), None);
    assert_eq!(repo.lr_at(0), 0.0);
    near(repo.lr_at(500), 0.5e-4);
    assert_eq!(repo.lr_at(2000), 2e-4);
    near(repo.lr_at(16_000), 1e-4); // half of the 28,000 steps after the warm-up
    near(repo.lr_at(9000), 2e-4 * 0.5 * (1.0 + std::f64::consts::FRAC_1_SQRT_2));
    assert_eq!(repo.lr_at(30_000), 0.0);

    let post = resolve(&bare("post", &["train.steps=101"]), None);
    assert_eq!(post.lr.warmup_steps, 11); // a tenth, rounded up
    near(post.lr_at(1), 2e-5 / 11.0);
    assert_eq!(post.lr_at(11), 2e-5);
    near(post.lr_at(56), 1e-5);

    let floor = ["train.steps=100", "train.lr={peak: 1, schedule: linear, min_ratio: 0.1}"];
    let floor = resolve(&bare("pre", &floor), None);
    near(floor.lr_at(50), 0.55);
    near(floor.lr_at(100), 0.1);
    let constant = ["train.lr={schedule: constant, warmup_steps: 4}", "train.steps=8"];
    let constant = resolve(&bare("pre", &constant), None);
    assert_eq!([2, 4, 7].map(|step| constant.lr_at(step)), [1.5e-4, 3e-4, 3e-4]);
    // The reference's warm-up of 2000 does not swallow a short run.
    let short = resolve(&bare("pre", &["profile=coda-repo", "train.steps=100"]), None);
    assert_eq!(short.lr.warmup_steps, 10);
}

#[test]
fn steps_and_epochs() {
    let length = |stage, overrides: &[&str], rows| {
        let recipe = resolve(&bare(stage, overrides), rows);
        (recipe.total_steps, recipe.epochs)
    };
    let batch = "train.global_batch=8";
    // Both: equal parts. Epochs: passes over the rows. Steps: the stage's table, or the rows.
    assert_eq!(
        length("pre", &["train.steps=10", "train.epochs=2"], Some(7)),
        (10, Epochs::Parts(2.0))
    );
    assert_eq!(length("pre", &["train.epochs=2", batch], Some(33)), (9, Epochs::Rows(33)));
    assert_eq!(length("pre", &["train.epochs=0.5", batch], Some(33)), (3, Epochs::Rows(33)));
    assert_eq!(length("pre", &["train.steps=10"], Some(33)), (10, Epochs::Rows(33)));
    assert_eq!(length("pre", &["train.steps=10"], None), (10, Epochs::Unknown));
    assert_eq!(length("mid", &["train.steps=150"], Some(33)), (150, Epochs::Parts(5.0)));
    assert_eq!(length("mid", &["train.epochs=3", batch], Some(80)), (30, Epochs::Rows(80)));
    assert_eq!(length("post", &[batch], Some(80)), (100, Epochs::Rows(80)));
    let recipe = resolve(&bare("pre", &["train.epochs=3", batch]), Some(20));
    let epochs = [0, 1, 2, 3, 4, 5, 7].map(|step| recipe.progress(step).epoch);
    assert_eq!((recipe.total_steps, epochs), (8, [0, 0, 0, 1, 1, 2, 2]));
}

#[test]
fn optimizers_as_the_method_uses_them() {
    let optimizer = |stage, overrides: &[&str]| resolve(&bare(stage, overrides), Some(9)).optimizer;
    let adafactor = OptimizerRecipe::Adafactor {
        eps: 1e-30,
        clip_threshold: 1.0,
        decay_rate: -0.8,
        weight_decay: 0.0,
    };
    assert_eq!(optimizer("pre", &[]), adafactor);
    assert_eq!(optimizer("mid", &[]), adafactor);
    let adamw =
        |weight_decay| OptimizerRecipe::Adamw { betas: [0.9, 0.999], eps: 1e-8, weight_decay };
    assert_eq!(optimizer("post", &[]), adamw(0.0));
    assert_eq!(optimizer("post", &["train.optimizer.weight_decay=0.1"]), adamw(0.1));
    assert_eq!(optimizer("pre", &["train.optimizer.kind=adamw"]), adamw(0.0));
}

#[test]
fn what_a_manifest_says_wins() {
    let overrides = [
        "train.steps=12",
        "train.global_batch=6",
        "train.micro_batch=2",
        "train.grad_clip=0",
        "train.document_attention=true",
        "train.score_pads=false",
        "curriculum.p3=0.5",
        "curriculum.block_sizes=[2]",
        "curriculum.sampling_eps.phases=[0.1, 0.2]",
        "train.eval={every: 0, batches: 3}",
        "train.checkpoint={every: 5, keep: 1}",
        "train.log_every=2",
        "model.init=../models/Qwen3-1.7B",
    ];
    let recipe = resolve(&bare("post", &overrides), None);
    assert_eq!((recipe.global_batch, recipe.micro_batch, recipe.grad_clip), (6, Some(2), None));
    assert_eq!((recipe.document_attention, recipe.score_pads), (true, false));
    assert!(!recipe.curriculum.score_pads);
    assert_eq!(recipe.curriculum.p3, Schedule::Constant(0.5));
    assert_eq!(recipe.curriculum.settings(recipe.progress(6)).sampling_eps, 0.2);
    assert_eq!((recipe.eval_every, recipe.eval_batches), (0, 3));
    assert_eq!((recipe.checkpoint_every, recipe.checkpoint_keep, recipe.log_every), (5, 1, 2));
    assert_eq!((recipe.init.as_deref(), recipe.model), (Some("../models/Qwen3-1.7B"), None));
    assert_eq!(resolve(&bare("pre", &[]), None).model, Some(coda_stages::defaults::MODEL));
}

#[test]
fn what_is_missing_is_an_error_with_a_hint() {
    let refused = |stage, overrides: &[&str], rows| {
        let error = Recipe::resolve(&bare(stage, overrides), rows).unwrap_err();
        assert!(error.hint().is_some());
        error
    };
    assert_eq!(refused("post", &[], None), RecipeError::NeedsRows { epochs: 10.0 });
    assert_eq!(refused("pre", &["train.epochs=2"], None), RecipeError::NeedsRows { epochs: 2.0 });
    assert_eq!(refused("pre", &[], Some(0)), RecipeError::NoRows);
    let by_epoch = "curriculum.sampling_eps.epoch_cycle=[0.1, 0.2]";
    assert_eq!(refused("pre", &[by_epoch], None), RecipeError::NeedsEpochs { key: "sampling_eps" });
    let message = |overrides: &[&str]| refused("pre", overrides, None).to_string();
    assert_eq!(
        message(&["train.micro_batch=5"]),
        "train.micro_batch: 5 does not divide global_batch, 512"
    );
    assert_eq!(
        message(&["train.steps=5", "train.lr.warmup_steps=6"]),
        "train.lr.warmup_steps: 6 are more than the 5 steps of the run"
    );
    assert_eq!(
        message(&["train.optimizer.betas=[0.9, 0.9]"]),
        "train.optimizer.betas: adafactor has no such setting"
    );
    let foreign = refused("post", &["train.steps=5", "train.optimizer.decay_rate=-0.5"], None);
    assert_eq!(foreign.to_string(), "train.optimizer.decay_rate: adamw has no such setting");
}

proptest! {
    /// Rates lie between 0 and the peak, rise in the warm-up and never rise after it.
    #[test]
    fn learning_rates_rise_then_fall(
        steps in 1u64..3000,
        warmup in 0.0f64..1.0,
        floor in 0.0f64..1.0,
        schedule in prop::sample::select(vec!["linear", "cosine", "constant"]),
    ) {
        let manifest = bare("pre", &[
            &format!("train.steps={steps}"),
            &format!("train.lr={{peak: 0.5, schedule: {schedule}, warmup_ratio: {warmup:?}, min_ratio: {floor:?}}}"),
        ]);
        let recipe = resolve(&manifest, None);
        let peak_at = recipe.lr.warmup_steps;
        prop_assert!(peak_at <= steps);
        prop_assert_eq!(recipe.lr_at(peak_at), 0.5);
        for step in 0..steps {
            let (now, next) = (recipe.lr_at(step), recipe.lr_at(step + 1));
            prop_assert!((0.0..=0.5).contains(&now));
            let rises = step < peak_at;
            prop_assert!((rises && now < next) || (!rises && now >= next));
        }
        let end = if schedule == "constant" { 0.5 } else { 0.5 * floor };
        prop_assert!(peak_at == steps || (recipe.lr_at(steps) - end).abs() < 1e-12);
        prop_assert!((recipe.lr_at(u64::MAX) - recipe.lr_at(2 * steps)).abs() < 1e-12);
    }

    /// Epochs start at 0, never go back, and a run of E epochs ends in epoch E - 1.
    #[test]
    fn epochs_only_go_forward(
        epochs in 1u32..12,
        steps in 12u64..4000,
        rows in 1u64..5000,
        batch in 1u32..64,
    ) {
        let parts = ["train.steps", "train.epochs"];
        let parts = [format!("{}={steps}", parts[0]), format!("{}={epochs}", parts[1])];
        let by_parts = resolve(&bare("pre", &[&parts[0], &parts[1]]), None);
        let batch = format!("train.global_batch={batch}");
        let by_rows = resolve(&bare("pre", &[&parts[1], &batch]), Some(rows));
        for recipe in [by_parts, by_rows] {
            prop_assert_eq!(recipe.progress(0).epoch, 0);
            let last = recipe.total_steps - 1;
            prop_assert!(recipe.progress(last).epoch < epochs);
            prop_assert!(recipe.progress(recipe.total_steps).epoch >= epochs);
            for step in 0..last {
                prop_assert!(recipe.progress(step).epoch <= recipe.progress(step + 1).epoch);
            }
        }
    }
}
