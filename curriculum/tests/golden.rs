//! Frozen plans, drawn by the plain Python implementation in `golden/make.py`. They may be added
//! to, never changed: whoever reproduces our masks depends on them.

use coda_curriculum::{
    Context, MaskPlan, Progress, RowView, Settings, SyntaxSpans, plan_row, schedule::value_at,
};
use coda_manifests::{MaskBlocks, Profile, Schedule};
use serde_json::Value;

fn number(value: &Value) -> u32 {
    value.as_u64().and_then(|n| u32::try_from(n).ok()).expect("a u32")
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().expect("a list").iter().map(number).collect()
}

fn real(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn flag(value: &Value) -> bool {
    value.as_bool().expect("true or false")
}

fn blocks(settings: &Value) -> MaskBlocks {
    let blocks = settings.get("mask_blocks").cloned();
    blocks.map(|value| serde_json::from_value(value).expect("kinds")).unwrap_or_default()
}

fn settings(value: &Value) -> Settings {
    Settings {
        p1: real(&value["p1"]),
        p2: real(&value["p2"]),
        p3: real(&value["p3"]),
        block_sizes: numbers(&value["block_sizes"]),
        mask_blocks: blocks(value),
        sampling_eps: real(&value["sampling_eps"]),
        span_ratio: real(&value["span_ratio"]),
    }
}

fn context(value: &Value) -> Context {
    let profile = match value["profile"].as_str() {
        Some("coda-paper") => Profile::CodaPaper,
        Some("coda-repo") => Profile::CodaRepo,
        other => panic!("no profile: {other:?}"),
    };
    Context {
        profile,
        seed: value["seed"].as_u64().expect("a seed"),
        step: value["step"].as_u64().expect("a step"),
        score_pads: flag(&value["score_pads"]),
    }
}

fn plan(value: &Value, settings: &Value) -> MaskPlan {
    MaskPlan {
        row_key: value["row_key"].as_u64().expect("a key"),
        sigma: f64::from_bits(value["sigma_bits"].as_u64().expect("the bits of a number")),
        s1: flag(&value["s1"]),
        s2: flag(&value["s2"]),
        s3: flag(&value["s3"]),
        prefix_len: number(&value["prefix_len"]),
        valid_len: number(&value["valid_len"]),
        block_size: value["block_size"].as_u64().map(|_| number(&value["block_size"])),
        mask_blocks: blocks(settings),
        masked: numbers(&value["masked"]),
    }
}

#[test]
fn the_frozen_plans_are_drawn_again_bit_for_bit() {
    let cases: Vec<Value> =
        serde_json::from_str(include_str!("golden/plans.json")).expect("the frozen file");
    assert_eq!(cases.len(), 64 + 36);
    let (mut s1, mut s2, mut s3, mut masked) = (0, 0, 0, 0);
    let mut over_spans = 0;
    for (i, case) in cases.iter().enumerate() {
        let spans = case["row"]["maskable"].as_array().expect("spans");
        let starts: Vec<u32> = spans.iter().map(|span| number(&span[0])).collect();
        let lens: Vec<u32> = spans.iter().map(|span| number(&span[1])).collect();
        let expected = plan(&case["plan"], &case["settings"]);
        let text = case["row"].get("spans").and_then(Value::as_array).cloned().unwrap_or_default();
        let part = |i: usize| text.iter().map(move |span| number(&span[i])).collect::<Vec<u32>>();
        let (span_starts, span_lens) = (part(0), part(1));
        let kinds: Vec<u8> = part(2).iter().map(|&kind| u8::try_from(kind).expect("u8")).collect();
        let row = RowView {
            length: number(&case["row"]["length"]),
            row_key: expected.row_key,
            epoch: number(&case["row"]["epoch"]),
            prefix_len: number(&case["row"]["prefix_len"]),
            valid_len: number(&case["row"]["valid_len"]),
            maskable_starts: &starts,
            maskable_lens: &lens,
            spans: SyntaxSpans { starts: &span_starts, lens: &span_lens, kinds: &kinds },
        };
        let drawn = plan_row(&settings(&case["settings"]), &context(&case["context"]), &row);
        assert_eq!(drawn, expected, "case {i}");
        assert_eq!(drawn.sigma.to_bits(), expected.sigma.to_bits(), "case {i}");
        s1 += usize::from(expected.s1);
        s2 += usize::from(expected.s2);
        s3 += usize::from(expected.s3);
        over_spans += usize::from(expected.s3 && !expected.mask_blocks.is_tokens());
        masked += expected.masked.len();
    }
    // The cases must be telling: every strategy comes about, and plenty of tokens are masked.
    assert!(s1 >= 8 && s2 >= 5 && s3 >= 16 && masked >= 400, "{s1} {s2} {s3} {masked}");
    assert!(over_spans >= 20, "{over_spans}");
}

/// Values of schedules as plain Python (`golden/schedules.py`) computes them.
#[test]
fn the_frozen_values_of_schedules_are_found_again_bit_for_bit() {
    let cases: Vec<Value> =
        serde_json::from_str(include_str!("golden/schedules.json")).expect("the frozen file");
    let mut between = 0;
    for case in &cases {
        let schedule: Schedule<f64> =
            serde_json::from_value(case["schedule"].clone()).expect("a schedule");
        let progress = Progress {
            step: case["step"].as_u64().expect("a step"),
            total_steps: case["total_steps"].as_u64().expect("steps"),
            epoch: number(&case["epoch"]),
        };
        let found = value_at(&schedule, progress);
        assert_eq!(Some(found.to_bits()), case["bits"].as_u64(), "{case}");
        between += usize::from(!schedule.values().contains(&&found));
    }
    // The cases must be telling: many lie on a slope.
    assert!(cases.len() == 120 && between >= 30, "{between}");
}
