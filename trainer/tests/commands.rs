//! The other commands of the real binary on a trained tiny model.

mod common;

use common::{MASK, World, read_json};
use serde_json::{Value, json};
use std::fs;

fn json_of(world: &World, args: &[&str]) -> Value {
    let assert = world.command(args).assert().success();
    serde_json::from_slice(&assert.get_output().stdout).expect("one JSON object")
}

#[test]
fn sampling_fills_every_mask_and_traces_each_step() {
    let world = World::new();
    world.train("run", &[]);
    for alg in ["origin", "maskgit_plus", "topk_margin", "entropy"] {
        let result = json_of(
            &world,
            &[
                "sample",
                "--checkpoint",
                "run",
                "--prefix",
                "t1 t2",
                "--span",
                "5",
                "--suffix",
                "t8 t9",
                "--steps",
                "3",
                "--alg",
                alg,
                "--trace",
                "trace.jsonl",
                "--json",
                "--quiet",
            ],
        );
        let tokens = result["tokens"].as_array().expect("tokens");
        assert_eq!(tokens.len(), 9);
        assert_eq!(
            (&tokens[..2], &tokens[7..]),
            ([json!(1), json!(2)].as_slice(), [json!(8), json!(9)].as_slice())
        );
        assert!(!tokens.contains(&json!(MASK)), "{result}");
        let trace = fs::read_to_string(world.path("trace.jsonl")).expect("trace");
        let steps: Vec<Value> =
            trace.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        // `origin` reveals by chance, and may be done before its last step.
        assert!(steps.len() == 3 || (alg == "origin" && steps.len() < 3), "{alg}");
        let mut revealed: Vec<u64> = steps
            .iter()
            .flat_map(|step| step["revealed"].as_array().expect("positions").clone())
            .map(|position| position.as_u64().expect("a position"))
            .collect();
        revealed.sort_unstable();
        assert_eq!(revealed, [2, 3, 4, 5, 6], "{alg}");
        assert_eq!(steps.last().expect("steps")["tokens"], result["tokens"]);
    }
    fs::write(world.path("holes.txt"), "t1 <|mask|> t3 <|mask|><|mask|> t6").expect("write");
    let result = json_of(
        &world,
        &["sample", "--checkpoint", "run/final", "--infill-file", "holes.txt", "--json", "--quiet"],
    );
    assert_eq!(result["masked"], 3);
    assert_eq!(result["tokens"].as_array().expect("tokens").len(), 6);
    let same = || {
        let args = [
            "sample",
            "--checkpoint",
            "run",
            "--prompt",
            "t1 t2",
            "--max-new-tokens",
            "8",
            "--temperature",
            "1",
            "--top-p",
            "0.9",
            "--top-k",
            "20",
            "--alg-temp",
            "0.5",
            "--quiet",
        ];
        world.command(&args).assert().success().get_output().stdout.clone()
    };
    assert_eq!(same(), same());
    let error = world
        .fails(&["sample", "--checkpoint", "run", "--prompt", "t1", "--max-new-tokens", "0"], 2);
    assert!(error.contains("nothing to fill"), "{error}");
    world.fails(&["sample", "--checkpoint", "run", "--prompt", "t1", "--alg", "original"], 2);
}

#[test]
fn a_checkpoint_can_be_inspected_verified_exported_and_evaluated() {
    let world = World::new();
    let summary = world.train("run", &[]);
    assert_eq!(json_of(&world, &["verify", "run", "--json"])["whole"], true);
    assert_eq!(json_of(&world, &["inspect", "run", "--json"])["run"]["step"], 12);
    let eval = json_of(
        &world,
        &["eval", "--manifest", "tiny.yaml", "--checkpoint", "run", "--json", "--rows", "12"],
    );
    // The run evaluates 2 micro-batches of 6 rows.
    assert_eq!(eval["held_out_loss"], summary["held_out_last"]);

    json_of(&world, &["export", "run", "--hf", "hf", "--json"]);
    let model = |dir: &str| fs::read(world.path(dir).join("model.safetensors")).expect("read");
    assert!(model("hf") == model("run/final"), "a round trip is bit-exact");
    let config = read_json(&world.path("hf/config.json"));
    assert_eq!((&config["mask_token_id"], &config["model_type"]), (&json!(MASK), &json!("qwen3")));
    assert!(world.fails(&["export", "run", "--hf", "hf"], 2).contains("exists already"));

    let plan = json_of(&world, &["plan", "--manifest", "tiny.yaml", "--json"]);
    assert_eq!(plan["parameters"], json_of(&world, &["inspect", "hf", "--json"])["parameters"]);
    assert_eq!(plan["tokens"], 12 * 6 * 24);

    let path = world.path("run/checkpoints/step-000012/config.json");
    fs::write(&path, "{}").expect("write");
    assert!(world.fails(&["verify", "run"], 4).contains("config.json"));
}

#[test]
fn check_writes_loss_logits_and_every_gradient() {
    use coda_trainer::checkpoint::SafetensorsFile;
    let world = World::new();
    world.train("run", &["--steps", "1"]);
    // Two rows of four tokens: ids and noise as little-endian words behind a header.
    let header = json!({
        "input_ids": {"dtype": "I32", "shape": [2, 4], "data_offsets": [0, 32]},
        "noised_ids": {"dtype": "I32", "shape": [2, 4], "data_offsets": [32, 64]},
        "sigma": {"dtype": "F32", "shape": [2], "data_offsets": [64, 72]},
    })
    .to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    let mask = i32::try_from(MASK).expect("small");
    for id in [1, 2, 3, 4, 5, 6, 7, 8, mask, 2, mask, 4, 5, 6, 7, mask] {
        bytes.extend(id.to_le_bytes());
    }
    for sigma in [0.5_f32, 0.25] {
        bytes.extend(sigma.to_le_bytes());
    }
    fs::write(world.path("batch.safetensors"), bytes).expect("write");
    let args = [
        "check",
        "--checkpoint",
        "run",
        "--batch",
        "batch.safetensors",
        "--out",
        "out.safetensors",
        "--logits",
        "--json",
    ];
    let result = json_of(&world, &args);
    // A masked first position is not scored.
    assert_eq!(result["scored"], 2);
    let out = SafetensorsFile::open(&world.path("out.safetensors")).expect("sound");
    assert_eq!(out.tensors()["logits"].shape, [2, 4, 44]);
    let loss = out.read_f32("loss").expect("loss")[0];
    // By hand from the logits: CE at (0, 2) over 0.5 and at (1, 3) over 0.25, over 8 tokens.
    let logits = out.read_f32("logits").expect("logits");
    let cross_entropy = |row: usize, target: usize| {
        let row = &logits[row * 44..(row + 1) * 44];
        let sum: f64 = row.iter().map(|&v| f64::from(v).exp()).sum();
        sum.ln() - f64::from(row[target])
    };
    let expected = (cross_entropy(1, 3) / 0.5 + cross_entropy(6, 8) / 0.25) / 8.0;
    assert!((f64::from(loss) - expected).abs() < 1e-5, "{loss} {expected}");
    assert_eq!(out.tensors().len(), 2 + 25);
    assert!(out.read_f32("grad.lm_head.weight").expect("grad").iter().any(|&g| g != 0.0));
    fs::write(world.path("batch.safetensors"), "junk").expect("write");
    world.fails(&args, 4);
}

#[test]
fn steps_on_made_up_rows_are_timed() {
    let world = World::new();
    let args = ["bench", "--manifest", "tiny.yaml", "--engine", "cpu", "--lengths", "8,16"];
    let more = ["--tokens", "32", "--passes", "2", "--timed", "2", "--warm-up", "1", "--json"];
    let result = json_of(&world, &[&args[..], &more].concat());
    assert_eq!(result["engine"], "cpu");
    let lengths = result["lengths"].as_array().expect("lengths");
    let of = |key: &str| lengths.iter().map(|of| of[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("length"), [8, 16]);
    assert_eq!(of("rows_per_pass"), [4, 2]);
    assert_eq!(of("tokens"), [64, 64]);
    for of in lengths {
        assert_eq!(of["seconds"].as_array().map(Vec::len), Some(2));
        let (tokens, median) = (of["tokens_per_second"].as_f64(), of["median"].as_f64());
        assert!((tokens.expect("a rate") * median.expect("seconds") - 64.0).abs() < 1e-6);
        assert!(of["loss"].as_f64().is_some_and(|loss| loss > 0.0), "{of}");
        assert!(of["scored"].as_u64().is_some_and(|n| (10..60).contains(&n)), "{of}");
        assert!(of["mfu"].is_null() && of["memory"].is_null(), "a CPU has no such figures");
    }
}
