//! The same bytes for any number of jobs; the same masks and loss for any split of a batch.

mod support;

use support::{Workplace, tree};

#[test]
fn the_number_of_jobs_changes_no_byte() {
    let work = Workplace::new();
    for stage in ["pre", "post"] {
        let manifest = work.manifest(stage);
        // A bad record too: rejects are part of the set.
        if stage == "pre" {
            let docs = work.read("corpora/docs.jsonl");
            work.write("corpora/docs.jsonl", format!("{{\"no\": 1}}\n{docs}{{broken\n"));
        }
        let mut trees = Vec::new();
        for jobs in ["1", "2", "7"] {
            let out = format!("{stage}-{jobs}");
            let args = ["--manifest", &manifest, "--jobs", jobs, "--out", &out, "-q"];
            let ran = work.run("coda-ingest", &args, &["data.max_reject_rate=0.5"]);
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            trees.push(tree(&work.path(&out)));
        }
        assert!(trees[0].len() >= 4, "a set has an index, shards, a tokenizer and a card");
        let names = |i: usize| trees[i].iter().map(|(path, _)| path).collect::<Vec<_>>();
        for other in [1, 2] {
            assert_eq!(names(0), names(other));
            for (one, two) in trees[0].iter().zip(&trees[other]) {
                assert!(one.1 == two.1, "{} differs", one.0.display());
            }
        }
    }
}

#[test]
fn the_split_of_a_batch_changes_neither_masks_nor_loss() {
    let work = Workplace::new();
    work.ingest("pre");
    let mut runs = Vec::new();
    for micro in ["8", "4", "2", "1"] {
        let key = format!("train.micro_batch={micro}");
        let ran = work.train("pre", micro, &[&key, "train.steps=12"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        runs.push(work.timeless_metrics(micro));
    }
    for run in &runs[1..] {
        assert_eq!(run.len(), runs[0].len());
        for (whole, split) in runs[0].iter().zip(run) {
            // What the masks came to is the same to the last bit.
            for key in ["step", "tokens", "scored", "observed", "epoch", "lr"] {
                assert_eq!(whole[key], split[key], "{key} of {whole}");
            }
            let (Some(a), Some(b)) = (whole["loss"].as_f64(), split["loss"].as_f64()) else {
                continue;
            };
            // The gradients are summed in another order, so weights differ in their last bits.
            assert!((a - b).abs() <= 1e-5 * a.abs(), "loss {a} and {b} of step {}", whole["step"]);
        }
        // Before the first update nothing has been summed in another order yet.
        let first = |run: &[serde_json::Value]| {
            run.iter().find_map(|line| line["loss"].as_f64()).expect("a loss")
        };
        let (a, b) = (first(&runs[0]), first(run));
        assert!((a - b).abs() <= 1e-6 * a.abs(), "first loss {a} and {b}");
    }
}

#[test]
fn two_runs_of_one_manifest_are_the_same_run() {
    let work = Workplace::new();
    work.ingest("pre");
    for out in ["one", "two"] {
        assert_eq!(work.train("pre", out, &["train.steps=8"]).code, 0);
    }
    assert_eq!(work.timeless_metrics("one"), work.timeless_metrics("two"));
    assert_eq!(work.train("pre", "other", &["train.steps=8", "seed=18"]).code, 0);
    assert_ne!(work.timeless_metrics("one"), work.timeless_metrics("other"));
}
