//! The whole line on small input: corpora, shards, curriculum, three stages, an infill.

mod support;

use serde_json::Value;
use support::{GLOBAL_BATCH, ROW_LENGTH, Workplace};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

#[test]
fn files_become_a_model_that_fills_in_masks() {
    let work = Workplace::new();
    let mut init: Option<&str> = None;
    let mut untrained = f64::NAN;
    for stage in ["pre", "mid", "post"] {
        let summary = work.ingest(stage);
        assert_eq!(
            keys(&summary),
            [
                "documents",
                "rejected",
                "dropped",
                "rows",
                "tokens",
                "padding_tokens",
                "input_bytes",
                "output_bytes",
                "seconds",
                "tokens_per_second",
                "shard_set",
                "fingerprint",
                "padding_share",
                "sources"
            ]
        );
        let (rows, tokens) = (number(&summary["rows"]), number(&summary["tokens"]));
        let padding = number(&summary["padding_tokens"]);
        assert!((rows * f64::from(ROW_LENGTH) - tokens - padding).abs() < 0.5, "{summary}");
        let shards = format!("shards/{stage}");
        assert_eq!(work.run("coda-ingest", &["verify", &shards], &[]).code, 0);

        let manifest = format!("{stage}.yaml");
        let show = work.run("coda-curriculum", &["show", "--manifest", &manifest, "--json"], &[]);
        assert_eq!(show.json()["total_steps"], 40);
        let draw = work.run(
            "coda-curriculum",
            &["draw", "--manifest", &manifest, "--shards", &shards, "--step", "3", "--json"],
            &["--rows", "0..4"],
        );
        let draw = draw.json();
        let drawn = draw["rows"].as_array().expect("rows");
        assert_eq!(drawn.len(), 4);
        for row in drawn {
            for key in [
                "row",
                "key",
                "sigma",
                "strategies",
                "prefix_len",
                "valid_len",
                "block_size",
                "masked",
            ] {
                assert!(row.get(key).is_some(), "{key} is missing in {row}");
            }
        }

        let more: Vec<&str> = init.iter().flat_map(|init| ["--init", init]).collect();
        let trained = work.train(stage, stage, &more);
        let trained = trained.json();
        assert_eq!(trained["step"], 40);
        assert_eq!(trained["tokens"], 40 * GLOBAL_BATCH * ROW_LENGTH);
        let (first, last) = (number(&trained["held_out_first"]), number(&trained["held_out_last"]));
        // Mid-training goes on where pre-training stopped, on the same text (this repository's, which
        // changes): it begins and ends far below an untrained model, and need not fall much further.
        let (reached, from) =
            if stage == "mid" { (first.max(last), untrained) } else { (last, first) };
        let steps = format!("{stage}: the held-out loss went from {first} to {last}");
        assert!(reached < from * 0.97, "{steps}, untrained it is {untrained}");
        if stage == "pre" {
            untrained = first;
        }
        let metrics = work.metrics(stage);
        assert_eq!(metrics.iter().filter(|line| line["loss"].is_number()).count(), 40);
        assert_eq!(work.run("coda-trainer", &["verify", stage], &[]).code, 0);
        init = Some(stage);
    }

    let args = ["sample", "--checkpoint", "post", "--prefix", "fn add_7() {", "--span", "6"];
    let more = ["--suffix", "}", "--trace", "trace.jsonl", "--json", "-q"];
    let sampled = work.run("coda-trainer", &args, &more).json();
    assert_eq!(sampled["masked"], 6);
    let text = sampled["text"].as_str().expect("text");
    assert!(text.starts_with("fn add_7() {") && text.ends_with('}'), "{text}");
    let trace: Vec<Value> = work
        .read("trace.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    let revealed: usize =
        trace.iter().map(|step| step["revealed"].as_array().expect("positions").len()).sum();
    assert_eq!(revealed, 6, "every mask is filled once");
    assert_eq!(trace.last().expect("steps")["tokens"], sampled["tokens"]);
    let again = work.run("coda-trainer", &args, &more).json();
    assert_eq!(again["text"], sampled["text"], "the same seed gives the same text");
}

#[test]
fn each_stage_starts_from_the_weights_of_the_one_before() {
    let work = Workplace::new();
    for stage in ["pre", "mid"] {
        work.ingest(stage);
    }
    let pre = work.train("pre", "pre", &["train.steps=20"]).json();
    let with = work.train("mid", "with", &["--init", "pre", "train.steps=1"]).json();
    let without = work.train("mid", "without", &["train.steps=1"]).json();
    let (with, without) = (number(&with["held_out_first"]), number(&without["held_out_first"]));
    assert!(with < without, "{with} is not below {without}");
    assert!(number(&pre["held_out_last"]) < number(&pre["held_out_first"]));
}
