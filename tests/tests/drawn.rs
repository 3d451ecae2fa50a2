//! What `coda-curriculum draw` shows is what the trainer's feed makes: the same rows with the same ids,
//! noise levels and scored positions, in every stage and profile, at any step, by source too.

mod support;

use coda_manifests::Manifest;
use coda_shards::ShardSet;
use coda_stages::Recipe;
use coda_trainer::feed::{Feed, source_ranges};
use serde_json::Value;
use std::collections::BTreeMap;
use support::{GLOBAL_BATCH, Workplace};

/// Schedules that move, so that a step's batch cannot be that of another.
const MOVING: &str = "curriculum={p1: {linear: {to: 0.5, steps: 40}}, \
                      p2: {piecewise: [[0, 0.1], [30, 0.6]]}, \
                      p3: {cosine: {from: 0.1, to: 0.9, steps: 40}}, block_sizes: [2, 4], \
                      sources: {code: {p3: 1, block_sizes: {piecewise: [[0, 2], [15, [3, 5]]]}, \
                      sampling_eps: 0.2}}}";

/// Blocks that follow the text, of another kind for each source.
const OVER_SPANS: &str = "curriculum={p1: 0.2, p2: 0.2, p3: 0.7, block_sizes: [6, 24], \
                          mask_blocks: lines, sources: {code: {mask_blocks: [lines, brackets]}}}";

/// A feed as the trainer makes it.
fn feed(work: &Workplace, stage: &str, overrides: &[&str]) -> Feed {
    let path = work.path(&format!("{stage}.yaml"));
    let manifest = Manifest::load(&path, overrides, &[]).expect("the manifest");
    let set = ShardSet::open(work.path(&format!("shards/{stage}"))).expect("the shard set");
    let ranges = source_ranges(&set, &manifest).expect("a set that fits");
    let rows = manifest.data.pass_rows(|name| {
        let named = ranges.iter().zip(set.sources()).find(|(_, source)| source.name == name);
        named.map_or(0, |(range, _)| range.rows - range.held_out_rows)
    });
    let recipe = Recipe::resolve(&manifest, Some(rows)).expect("a recipe");
    Feed::new(set, &ranges, &recipe).expect("a feed")
}

fn ids(value: &Value) -> Vec<u32> {
    let numbers = value.as_array().expect("a list").iter();
    numbers.map(|id| u32::try_from(id.as_u64().expect("an id")).expect("a u32")).collect()
}

#[test]
fn what_is_drawn_is_what_is_trained_on() {
    let work = Workplace::new();
    let (mut masked, mut strategies) = (0, [0; 3]);
    let (mut over_spans, mut over_blocks) = (0, 0);
    let post = "curriculum={p3: 0.5, mask_blocks: brackets, block_sizes: 20}";
    let runs = [
        ("pre", MOVING, ""),
        ("mid", "", ""),
        ("post", "", ""),
        ("pre", OVER_SPANS, "data.spans=[brackets, lines]"),
        ("post", post, "data.spans=brackets"),
    ];
    for (stage, changes, spans) in runs {
        let manifest = work.manifest(stage);
        let ingest = ["--manifest", &manifest, "--json", "-q", "--force"];
        let more: &[&str] = if spans.is_empty() { &[] } else { &[spans] };
        work.run("coda-ingest", &ingest, more).json();
        for profile in ["profile=coda-paper", "profile=coda-repo"] {
            // The sets of both profiles have the same rows: only `overlong` differs, and none is.
            let overrides: Vec<&str> =
                [profile, changes, spans].into_iter().filter(|change| !change.is_empty()).collect();
            let feed = feed(&work, stage, &overrides);
            let mask = feed.set().specials().mask;
            for step in [0_u64, 17, 39] {
                let manifest = format!("{stage}.yaml");
                let number = step.to_string();
                let args = ["draw", "--manifest", &manifest, "--step", &number, "--json", "--ids"];
                let drawn = work.run("coda-curriculum", &args, &overrides).json();
                let drawn = drawn["rows"].as_array().expect("rows");
                // Split as an engine may split it: the batch is the same.
                let settings = feed.settings(step, &BTreeMap::new());
                let mut rows = feed.prepare(&settings, 0..3).expect("rows");
                rows.extend(feed.prepare(&settings, 3..GLOBAL_BATCH).expect("rows"));
                let batch = feed.batch(&rows);
                assert_eq!((drawn.len(), batch.rows), (rows.len(), GLOBAL_BATCH as usize));
                for (i, (drawn, row)) in drawn.iter().zip(&rows).enumerate() {
                    let place = format!("{stage}, {profile}, step {step}, row {i}");
                    let part = i * batch.len..(i + 1) * batch.len;
                    assert_eq!(drawn["row"], row.position.row, "{place}");
                    assert_eq!(ids(&drawn["clean"]), batch.input_ids[part.clone()], "{place}");
                    let noised = &batch.noised_ids[part];
                    assert_eq!(ids(&drawn["noised"]), noised, "{place}");
                    let sigma = drawn["sigma"].as_f64().expect("sigma");
                    assert!((sigma - batch.sigma[i]).abs() < 1e-15, "{place}");
                    // Scored is what is masked, but for position 0.
                    let scored = (1..).zip(&noised[1..]).filter(|(_, id)| **id == mask);
                    let scored: Vec<u32> = scored.map(|(position, _)| position).collect();
                    let shown: Vec<u32> = ids(&drawn["masked"])
                        .into_iter()
                        .filter(|&position| position > 0)
                        .collect();
                    assert_eq!(shown, scored, "{place}");
                    masked += scored.len();
                    over_spans += usize::from(drawn.get("mask_blocks").is_some());
                    let taken = row.plan.s3 && !row.plan.mask_blocks.is_tokens();
                    assert_eq!(
                        drawn["strategies"].to_string().contains("S3"),
                        row.plan.s3,
                        "{place}"
                    );
                    over_blocks += usize::from(taken);
                    let taken = [row.plan.s1, row.plan.s2, row.plan.s3];
                    for (count, taken) in strategies.iter_mut().zip(taken) {
                        *count += usize::from(taken);
                    }
                }
            }
        }
    }
    // The batches must be telling.
    assert!(over_spans > 20 && over_blocks > 20, "{over_spans} {over_blocks}");
    assert!(masked > 1000 && strategies.iter().all(|&count| count > 5), "{masked} {strategies:?}");
}

/// With the clocks that a run has recorded, `draw` shows what was trained on while schedules waited.
#[test]
fn what_is_drawn_with_recorded_clocks_is_what_was_trained_on() {
    let work = Workplace::new();
    work.ingest("pre");
    // The corpus is this repository's text, which changes, and losses with it: the patience of p3 outlasts
    // its longest hold, so that it waits whatever they are.
    let held = [
        "train.eval.every=3",
        "curriculum.p3={phases: [0, 1], hold: {on: s3, patience: 9, max_hold: 15}}",
        "curriculum.sources={code: {p1: {piecewise: [[0, 0], [4, 0.2], [12, 1]], \
         hold: {on: plain, patience: 1, min_delta: 0.02, max_hold: 9}}}}",
    ];
    assert_eq!(work.train("pre", "run", &held).code, 0);
    let lines = work.metrics("run");
    let waited = |line: &&Value| line["holds"]["p3"]["held"].as_u64() > Some(0);
    assert!(lines.iter().any(|line| waited(&line)), "nothing waited");
    let feed = feed(&work, "pre", &held);
    let draw = |step: usize, more: &[&str]| {
        let step = step.to_string();
        let args = ["draw", "--manifest", "pre.yaml", "--step", &step, "--json", "--ids"];
        work.run("coda-curriculum", &[&args, more].concat(), &held).json()["rows"].take()
    };
    let recorded = ["--clocks", "run/metrics.jsonl"];
    let mut parted = 0;
    for (step, line) in lines.iter().enumerate().skip(1) {
        // Line 1 is that of step 0.
        let drawn = draw(step - 1, &recorded);
        let rows = drawn.as_array().expect("rows");
        let masked = rows.iter().flat_map(|row| ids(&row["masked"]));
        let scored = masked.filter(|&position| position > 0).count() as u64;
        assert_eq!(line["scored"], scored, "step {step}");
        let blocks = rows.iter().filter(|row| !row["block_size"].is_null()).count();
        let share = line["observed"]["s3"].as_f64().expect("a share");
        assert_eq!(share.to_bits(), (blocks as f64 / rows.len() as f64).to_bits(), "step {step}");
        // Where the clocks are written down, the feed is made from them.
        if let Some(holds) = lines[step - 1]["holds"].as_object() {
            let clock = |(key, state): (&String, &Value)| {
                (key.clone(), state["clock"].as_u64().expect("a clock"))
            };
            let clocks: BTreeMap<String, u64> = holds.iter().map(clock).collect();
            let number = step as u64 - 1;
            let settings = feed.settings(number, &clocks);
            let batch = feed.batch(&feed.prepare(&settings, 0..GLOBAL_BATCH).expect("rows"));
            let noised: Vec<u32> = rows.iter().flat_map(|row| ids(&row["noised"])).collect();
            assert_eq!(noised, batch.noised_ids, "step {step}");
            parted += u64::from(draw(step - 1, &[]) != drawn);
        }
    }
    // The clocks must matter.
    assert!(parted > 2, "{parted}");
}
