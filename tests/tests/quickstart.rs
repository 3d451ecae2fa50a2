//! The quickstart's own pre-training, as its manifest says it, on the XLA engine and on the CPU engine: for
//! the first steps the losses are the same. (Whole runs part, some dozens of steps later, as any two runs
//! that differ by rounding do: docs/xla.md.)

mod support;

use serde_json::{Value, json};
use std::{fs, path::Path};
use support::{Workplace, root};

const STEPS: usize = 40;

/// Files of this repository with an ending, under some folders.
fn texts(folders: &[&str], ending: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, ending: &str, found: &mut Vec<(String, String)>) {
        let entries = fs::read_dir(folder).expect("a folder of the repository");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                walk(&path, ending, found);
            } else if path.extension().is_some_and(|found| found == ending) {
                let text = fs::read_to_string(&path).expect("text");
                found.push((found.len().to_string(), text));
            }
        }
    }
    let mut found = Vec::new();
    for folder in folders {
        walk(&root().join(folder), ending, &mut found);
    }
    found
}

/// Corpora where the quickstart's manifest looks for them, its tokenizer, and its shard set.
fn prepared() -> Workplace {
    let work = Workplace::new();
    for (name, text) in texts(&["trainer/src", "ingest/src", "curriculum/src"], "rs") {
        work.write(&format!("runs/quickstart/corpora/code/{name}.rs"), text);
    }
    let docs: Vec<String> = texts(&["docs"], "md")
        .into_iter()
        .map(|(name, text)| json!({"id": name, "text": text}).to_string())
        .collect();
    work.write("runs/quickstart/corpora/docs.jsonl", docs.join("\n"));
    let manifest = root().join("manifests").join("quickstart").join("pretrain.yaml");
    work.write("manifests/quickstart/pretrain.yaml", fs::read(manifest).expect("the manifest"));
    let places = ["runs/quickstart/corpora/code", "runs/quickstart/corpora/docs.jsonl"];
    let trained = work.run(
        "coda-ingest",
        &["train-tokenizer", "--vocab-size", "4096", "--extensions", "rs", "--input"],
        &[places[0], places[1], "--out", "runs/quickstart/tokenizer/tokenizer.json"],
    );
    assert_eq!(trained.code, 0, "{}", trained.stderr);
    let set = work.run("coda-ingest", &["--manifest", MANIFEST, "--json", "-q"], &[]).json();
    assert!(set["rows"].as_u64().is_some_and(|rows| rows > 200), "{set}");
    work
}

const MANIFEST: &str = "manifests/quickstart/pretrain.yaml";

/// The losses of the first steps on an engine, and the nats of their tokens.
fn losses(work: &Workplace, engine: &[&str], out: &str) -> Vec<[f64; 2]> {
    let stop = STEPS.to_string();
    let run = ["--stage", "pre", "--manifest", MANIFEST, "--out", out, "--stop-after", &stop];
    let every = ["--quiet", "--json", "train.log_every=1"];
    work.run("coda-trainer", &[&run[..], &every].concat(), engine).json();
    let lines = work.read(&format!("{out}/metrics.jsonl"));
    let of_step = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        Some([line["loss"].as_f64()?, line["nats_per_token"].as_f64()?])
    };
    lines.lines().filter_map(of_step).collect()
}

#[test]
fn its_first_steps_on_xla_have_the_losses_of_the_cpu_engine() {
    let work = prepared();
    let cpu = losses(&work, &["--engine", "cpu"], "cpu");
    let plugin = coda_pjrt::discover(None, coda_pjrt::PluginKind::Cpu);
    let plugin = plugin.expect("the CPU plugin: `cargo xtask plugin`");
    let plugin = plugin.to_str().expect("UTF-8");
    let xla = losses(&work, &["--engine", "xla", "--plugin", plugin], "xla");
    assert_eq!((cpu.len(), xla.len()), (STEPS, STEPS));
    // Without the weights of the noise levels, by which single losses jump.
    let mean = |steps: &[[f64; 2]]| steps.iter().map(|[_, nats]| nats).sum::<f64>() / 10.0;
    assert!(mean(&cpu[STEPS - 10..]) + 0.3 < mean(&cpu[..10]), "it learns: {cpu:?}");
    for (step, (cpu, xla)) in cpu.iter().zip(&xla).enumerate() {
        let close = |of: usize| (cpu[of] / xla[of] - 1.0).abs() < 1e-4;
        assert!(close(0) && close(1), "step {step}: {cpu:?} and {xla:?}");
    }
}
