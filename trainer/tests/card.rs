//! The model card of an export says what the files of its runs say.

mod common;

use common::World;
use std::fs;

#[test]
fn a_card_tells_data_stages_losses_and_results() {
    let world = World::new();
    world.train("first", &[]);
    world.train("second", &["--init", "first", "train.steps=8"]);
    let results = r#"{"evaluation": {"benchmark": "humaneval+", "data": {"hash": "abc"}}, "base": {"1": 0.5},
                      "plus": {"1": 0.25}, "problems": 4, "samples": 4, "tasks": []}"#;
    fs::write(world.path("results.json"), results).expect("write");
    let args = [
        "eval",
        "--manifest",
        "tiny.yaml",
        "--checkpoint",
        "second",
        "--nll",
        "--levels",
        "2",
        "--json",
    ];
    let nll = world.command(&args).assert().success().get_output().stdout.clone();
    fs::write(world.path("nll.json"), nll).expect("write");
    let options = ["--name", "Tiny: one", "--license", "apache-2.0", "--results", "results.json"];
    let export = ["export", "second", "--hf", "out", "--results", "nll.json"];
    world.command(&[export.as_slice(), &options].concat()).assert().success();
    let card = fs::read_to_string(world.path("out/README.md")).expect("a card");
    let metrics = world.metrics("second");
    let last = metrics.last().expect("a line")["held_out"]["loss"].as_f64().expect("a loss");
    for text in [
        "---\nlibrary_name: transformers\n",
        "license: \"apache-2.0\"\n",
        "model-index:\n- name: \"Tiny: one\"\n",
        "- type: \"pass@1\"\n      value: 25.0\n",
        "# Tiny: one\n",
        "| pre | a | not stated | 80 |",
        "| 12 of 12 | 6 × 24 | adafactor |",
        "| 8 of 8 | 6 × 24 |",
        &format!("→ {last:.4} |"),
        "humaneval+: pass@1 25.0 %",
        "masked as s3: ",
        ", not a bound (16 rows)",
    ] {
        assert!(card.contains(text), "{text} is missing:\n{card}");
    }
    assert_eq!(card.matches("| pre | coda-paper |").count(), 2, "{card}");

    // A model from elsewhere has no runs.
    world.command(&["export", "out", "--hf", "again"]).assert().success();
    let card = fs::read_to_string(world.path("again/README.md")).expect("a card");
    assert!(card.contains("No run is known") && card.contains("None was given"), "{card}");
    assert!(!card.contains("license:") && !card.contains("model-index"), "{card}");
}
