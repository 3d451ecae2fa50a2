//! What a user reads when a manifest is wrong.

use coda_manifests::{Curriculum, HeldOutLoss, Hold, Manifest, ManifestError, Schedule};
use insta::assert_snapshot;
use proptest::prelude::*;
use std::fmt::Write as _;
use std::path::Path;

const YAML: &str = "\
version: 1
name: small
stage: pre
tokenizer:
  path: tokenizer.json
data:
  out: shards
  row_length: 256
  sources:
    - name: docs
      paths: [docs.jsonl]
      tokens: 1.5M
curriculum:
  p1: 0.01
train:
  steps: 100
  lr: {peak: 3e-4}
";

fn load(yaml: &str, overrides: &[&str]) -> Result<Manifest, ManifestError> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("small.yaml");
    Manifest::from_yaml(yaml, &path, overrides, &[])
}

/// The messages for `YAML` with one text replaced by another, or with overrides.
fn messages(results: impl IntoIterator<Item = Result<Manifest, ManifestError>>) -> String {
    let folder = format!("{}/", env!("CARGO_MANIFEST_DIR"));
    results.into_iter().fold(String::new(), |mut text, result| {
        match result {
            Ok(_) => text.push_str("accepted\n"),
            Err(error) => {
                assert!(error.is_usage());
                let _ = writeln!(text, "{}", error.to_string().replace(&folder, ""));
                if let Some(hint) = error.hint() {
                    let _ = writeln!(text, "  hint: {hint}");
                }
            }
        }
        text
    })
}

fn edited(edits: &[(&str, &str)]) -> String {
    messages(edits.iter().map(|(from, to)| {
        assert!(YAML.contains(from), "{from}");
        load(&YAML.replacen(from, to, 1), &[])
    }))
}

#[test]
fn unknown_keys_name_the_nearest_and_their_place() {
    assert_snapshot!(edited(&[
        ("  steps: 100", "  stps: 100"),
        ("peak", "peek"),
        ("row_length", "rowlength"),
        ("tokens: 1.5M", "token: 1.5M"),
        ("name: small", "title: small"),
        ("p1: 0.01", "p1: {epoch: [0.01]}"),
        ("p1: 0.01", "zzz: 0.01"),
        ("p1: 0.01", "p1: {linear: {to: 1, step: 3}}"),
    ]), @r#"
small.yaml:16:3: unknown key `train.stps`
  hint: did you mean `train.steps`?
small.yaml:17:8: unknown key `train.lr.peek`
  hint: did you mean `train.lr.peak`?
small.yaml:8:3: unknown key `data.rowlength`
  hint: did you mean `data.row_length`?
small.yaml:12:7: unknown key `data.sources.0.token`
  hint: did you mean `data.sources.0.tokens`?
small.yaml:2:1: unknown key `title`
  hint: known here: version, name, stage, profile, seed, allowed_roots, tokenizer, data, curriculum, model, train
small.yaml:14:8: unknown key `curriculum.p1.epoch`
  hint: did you mean `curriculum.p1.epochs`?
small.yaml:14:3: unknown key `curriculum.zzz`
  hint: known here: p1, p2, p3, block_sizes, mask_blocks, sampling_eps, conditioned_span, sources
small.yaml:14:24: unknown key `curriculum.p1.linear.step`
  hint: did you mean `curriculum.p1.linear.steps`?
"#);
}

#[test]
fn blocks_follow_what_is_noted() {
    assert_snapshot!(edited(&[
        ("p1: 0.01", "mask_blocks: lines"),
        ("p1: 0.01", "mask_blocks: words"),
        ("p1: 0.01", "mask_blocks: [brackets, words]"),
        ("p1: 0.01", "mask_blocks: 3"),
        ("p1: 0.01", "sources: {docs: {mask_blocks: [lines, brackets]}}"),
        ("row_length: 256", "row_length: 256\n  spans: tokens"),
        ("row_length: 256", "row_length: 256\n  spans: []"),
        ("p1: 0.01", "mask_blocks: tokens"),
    ]), @r#"
small.yaml:14:16: curriculum.mask_blocks: blocks are to follow lines, but data.spans does not have them noted
  hint: set `data.spans: lines` and ingest again; a set without spans stays as it is
small.yaml:14:16: curriculum.mask_blocks: invalid value: string "words", expected tokens, lines, brackets or [lines, brackets]
small.yaml:14:27: curriculum.mask_blocks.1: invalid value: string "words", expected one of lines, brackets
small.yaml:14:16: curriculum.mask_blocks: invalid type: integer `3`, expected tokens, lines, brackets or [lines, brackets]
small.yaml:14:33: curriculum.sources.docs.mask_blocks: blocks are to follow lines, but data.spans does not have them noted
  hint: set `data.spans: lines` and ingest again; a set without spans stays as it is
small.yaml:9:10: data.spans: invalid value: string "tokens", expected lines, brackets or [lines, brackets]
small.yaml:9:10: data.spans: invalid length 0, expected lines, brackets or [lines, brackets]
accepted
"#);
    let noted = load(YAML, &["data.spans=lines", "curriculum.mask_blocks=lines"]);
    assert_ne!(noted.unwrap().hash(), load(YAML, &[]).unwrap().hash());
    let followed = ["data.spans=[brackets, lines]", "curriculum.mask_blocks=brackets"];
    let both = load(YAML, &followed).unwrap();
    assert_eq!(both.data.spans.unwrap().to_string(), "lines,brackets");
    // What the model sees decides no row.
    assert_eq!(both.hash(), load(YAML, &followed[..1]).unwrap().hash());
}

#[test]
fn values_that_do_not_fit() {
    assert_snapshot!(edited(&[
        ("stage: pre", "stage: late"),
        ("version: 1", "version: 2"),
        ("row_length: 256", "row_length: 1"),
        ("row_length: 256", "row_length: -5"),
        ("row_length: 256", "row_length: long"),
        ("1.5M", "1.5"),
        ("1.5M", "lots"),
        ("1.5M", "0"),
        ("paths: [docs.jsonl]", "paths: []"),
        ("paths: [docs.jsonl]", "paths: docs.jsonl"),
        ("  out: shards\n", ""),
        ("tokens: 1.5M", "weight: 0"),
        ("tokens: 1.5M", "weight: .inf"),
        ("tokens: 1.5M", "epochs: 0"),
        ("tokens: 1.5M", "epochs: 2\n      weight: 1"),
        ("row_length: 256", "row_length: 256\n  packing: first-fit"),
        ("tokens: 1.5M", "kind: sft"),
        ("tokens: 1.5M", "fields: {messages: m}"),
        ("name: docs", "name: \"a\\nb\""),
        ("steps: 100", "steps: 0"),
        ("steps: 100", "micro_batch: 3\n  global_batch: 8"),
        ("steps: 100", "optimizer: {kind: sgd}"),
        ("steps: 100", "optimizer: {betas: [0.9, 0.95, 0.99]}"),
        ("steps: 100", "optimizer: {betas: [0.9]}"),
        ("peak: 3e-4", "warmup_steps: 3, warmup_ratio: 0.1"),
        ("train:", "model: {hidden_size: 256}\ntrain:"),
    ]), @r#"
small.yaml:3:8: stage: invalid value: string "late", expected one of pre, mid, post
small.yaml:1:10: version: 2 is not a version this program knows: 1
small.yaml:8:15: data.row_length: 1 is not from 2 to 16777216 tokens
small.yaml:8:15: data.row_length: invalid value: integer `-5`, expected u32
small.yaml:8:15: data.row_length: invalid type: string "long", expected a whole number from 0 on
small.yaml:12:15: data.sources.0.tokens: invalid type: floating point `1.5`, expected an amount of tokens such as 1500000, 1.5M or 60.17B
small.yaml:12:15: data.sources.0.tokens: "lots" is not an amount of tokens such as 1500000, 1.5M or 60.17B
small.yaml:12:15: data.sources.0.tokens: a budget of 0 tokens leaves nothing of the source
small.yaml:11:14: data.sources.0.paths: there are no paths
small.yaml:11:14: data.sources.0.paths: invalid type: string "docs.jsonl", expected a list
small.yaml:7:3: data: the key `out` is missing
  hint: docs/manifest.md says what `out` is
small.yaml:12:15: data.sources.0.weight: 0 is not above 0
small.yaml:12:15: value `.inf` is not a finite number
  hint: docs/manifest.md shows what a manifest looks like
small.yaml:12:15: data.sources.0.epochs: 0 is not above 0
small.yaml:12:15: data.sources.0.epochs: this source has epochs and "docs" has a weight
  hint: epochs are weights in units of rows: give one kind
small.yaml:9:12: data.packing: invalid value: string "first-fit", expected one of concat, best-fit
small.yaml:12:13: data.sources.0.kind: sources of kind sft belong to stage post
  hint: stage post reads `kind: sft`, stages pre and mid read `kind: text`
small.yaml:12:15: data.sources.0.fields: only sources of kind sft have fields; text sources have text_field
small.yaml:10:13: data.sources.0.name: "a\nb" is not a name of letters, digits and -_.+/
small.yaml:16:10: train.steps: 0 is not above 0
small.yaml:16:16: train.micro_batch: 3 does not divide global_batch, 8
small.yaml:16:21: train.optimizer.kind: invalid value: string "sgd", expected one of adafactor, adamw
small.yaml:16:22: train.optimizer.betas: 3 values where 2 were expected
small.yaml:16:22: train.optimizer.betas: invalid length 1, expected an array of length 2
small.yaml:17:39: train.lr.warmup_ratio: give warmup_steps or warmup_ratio, not both
small.yaml:15:8: model.num_hidden_layers: it is missing: a shape is given as a whole
  hint: give all of hidden_size, num_hidden_layers, intermediate_size, num_attention_heads, num_key_value_heads, head_dim and vocab_size, or none
"#);
}

#[test]
fn schedules_that_do_not_fit() {
    assert_snapshot!(edited(&[
        ("p1: 0.01", "p1: 1.5"),
        ("p1: 0.01", "p1: {epochs: []}"),
        ("p1: 0.01", "p1: {epochs: [0.1, x]}"),
        ("p1: 0.01", "p1: {epochs: [0.1], phases: [0.1]}"),
        ("p1: 0.01", "p1: {}"),
        ("p1: 0.01", "p1: {cosine: {to: 0.5}}"),
        ("p1: 0.01", "p1: {cosine: {to: 1.5, steps: 9}}"),
        ("p1: 0.01", "p1: {piecewise: []}"),
        ("p1: 0.01", "p1: {piecewise: [0.1, 0.2]}"),
        ("p1: 0.01", "p1: {piecewise: [[0, 0.1, 3]]}"),
        ("p1: 0.01", "p1: {piecewise: [[-1, 0.1]]}"),
        ("p1: 0.01", "p1: {piecewise: [[5, 0.1], [5, 0.2]]}"),
        ("p1: 0.01", "block_sizes: {cosine: {from: [2], to: [4], steps: 3}}"),
        ("p1: 0.01", "sources: {dosc: {p1: 0.1}}"),
        ("p1: 0.01", "sources: {zzz: {p1: 0.1}}"),
        ("p1: 0.01", "sources: {docs: {p1: 2}}"),
        ("p1: 0.01", "sources: {docs: {block_sizes: {linear: {from: 1, to: 2, steps: 3}}}}"),
        ("p1: 0.01", "block_sizes: [4, 0]"),
        ("p1: 0.01", "block_sizes: {linear: {from: [2], to: [4], steps: 3}}"),
        ("p1: 0.01", "conditioned_span: {ratio: 0.1}"),
        ("p1: 0.01", "sampling_eps: 0"),
    ]), @r#"
small.yaml:14:7: curriculum.p1: 1.5 is not a probability from 0 to 1
small.yaml:14:7: curriculum.p1: the list has no values
small.yaml:14:22: curriculum.p1.epochs.1: invalid type: string "x", expected a number
small.yaml:14:7: curriculum.p1: invalid length 2, expected a value, or a map with one of linear, cosine, piecewise, epochs, epoch_cycle, phases
small.yaml:14:7: curriculum.p1: invalid length 0, expected a value, or a map with one of linear, cosine, piecewise, epochs, epoch_cycle, phases
small.yaml:14:16: curriculum.p1.cosine: the key `steps` is missing
  hint: docs/manifest.md says what `steps` is
small.yaml:14:7: curriculum.p1: 1.5 is not a probability from 0 to 1
small.yaml:14:7: curriculum.p1: the list has no values
small.yaml:14:20: curriculum.p1.piecewise.0: invalid type: floating point `0.1`, expected a list of 2
small.yaml:14:20: curriculum.p1.piecewise.0: 3 values where 2 were expected
small.yaml:14:21: curriculum.p1.piecewise.0.0: invalid value: integer `-1`, expected u64
small.yaml:14:7: curriculum.p1: step 5 does not come after the one before it
  hint: the steps of a piecewise schedule ascend
small.yaml:14:16: curriculum.block_sizes: a list of sizes cannot ramp
  hint: use `phases: [[2, 4], [8, 16]]`, `piecewise: [[0, [4]], [500, [8]]]` or `epochs: [[4], [8]]`
small.yaml:14:19: curriculum.sources.dosc: data.sources has no source of this name
  hint: did you mean `docs`?
small.yaml:14:18: curriculum.sources.zzz: data.sources has no source of this name
  hint: the sources are docs
small.yaml:14:24: curriculum.sources.docs.p1: 2.0 is not a probability from 0 to 1
small.yaml:14:33: curriculum.sources.docs.block_sizes: a list of sizes cannot ramp
  hint: use `phases: [[2, 4], [8, 16]]`, `piecewise: [[0, [4]], [500, [8]]]` or `epochs: [[4], [8]]`
small.yaml:14:16: curriculum.block_sizes: [4, 0] is not a list of sizes of 1 or more
small.yaml:14:16: curriculum.block_sizes: a list of sizes cannot ramp
  hint: use `phases: [[2, 4], [8, 16]]`, `piecewise: [[0, [4]], [500, [8]]]` or `epochs: [[4], [8]]`
small.yaml:14:21: curriculum.conditioned_span: only rows of stage post have prompts
small.yaml:14:17: curriculum.sampling_eps: 0.0 is not above 0 and at most 1
"#);
}

#[test]
fn holds_that_do_not_fit() {
    let hold = "hold: {on: s3, patience: 2, max_hold: 9}";
    let wrong = [
        &format!("p1: {{linear: {{to: 0.5, steps: 9}}, {hold}}}"),
        &format!("p1: {{phases: [0.1], {hold}}}"),
        &format!("p1: {{piecewise: [[0, 0.1], [9, 0.2]], {hold}}}"),
        &format!("p1: {{{hold}}}"),
        &format!("sources: {{docs: {{block_sizes: {{piecewise: [[0, 4]], {hold}}}}}}}"),
        "p1: {phases: [0.1, 0.2], hold: {on: s4, patience: 2, max_hold: 9}}",
        "p1: {phases: [0.1, 0.2], hold: {on: s3, max_hold: 9}}",
        "p1: {phases: [0.1, 0.2], hold: {on: s3, patience: 0, max_hold: 9}}",
        "p1: {phases: [0.1, 0.2], hold: {on: s3, patience: 2, max_hold: 0}}",
        "p1: {phases: [0.1, 0.2], hold: {on: s3, patience: 2, min_delta: -1, max_hold: 9}}",
        "p1: {phases: [0.1, 0.2], hold: {on: s3, patients: 2, max_hold: 9}}",
    ];
    let edits: Vec<(&str, &str)> = wrong.into_iter().map(|text| ("p1: 0.01", text)).collect();
    let good = format!("curriculum.p1={{phases: [0.1, 0.2], {hold}}}");
    let without = |key: &str| load(YAML, &[&good, key]);
    let found =
        edited(&edits) + &messages([without("data.held_out=0"), without("train.eval.every=0")]);
    assert_snapshot!(found, @r#"
small.yaml:14:43: curriculum.p1.hold: a ramp has no point at which it could wait
  hint: write it with points, as in `piecewise: [[0, 0.1], [500, 0.3], [1000, 0.5]]`: it waits at 500
small.yaml:14:29: curriculum.p1.hold: the schedule has no point at which it could wait
  hint: phases, epochs and lists at points wait before each value but the first, numbers at each point but the last and one at step 0
small.yaml:14:47: curriculum.p1.hold: the schedule has no point at which it could wait
  hint: phases, epochs and lists at points wait before each value but the first, numbers at each point but the last and one at step 0
small.yaml:14:7: curriculum.p1: a hold stands beside one of piecewise, epochs, epoch_cycle, phases
small.yaml:14:61: curriculum.sources.docs.block_sizes.hold: the schedule has no point at which it could wait
  hint: phases, epochs and lists at points wait before each value but the first, numbers at each point but the last and one at step 0
small.yaml:14:39: curriculum.p1.hold.on: invalid value: string "s4", expected one of plain, s1, s2, s3
small.yaml:14:34: curriculum.p1.hold: the key `patience` is missing
  hint: docs/manifest.md says what `patience` is
small.yaml:14:53: curriculum.p1.hold.patience: 0 is not above 0
small.yaml:14:66: curriculum.p1.hold.max_hold: 0 is not above 0
small.yaml:14:67: curriculum.p1.hold.min_delta: -1 is not 0 or more
small.yaml:14:43: unknown key `curriculum.p1.hold.patients`
  hint: did you mean `curriculum.p1.hold.patience`?
small.yaml with override `data.held_out=0`: data.held_out: 0 leaves no rows on which a schedule with a hold could see a loss fall
small.yaml with override `train.eval.every=0`: train.eval.every: 0 measures no loss during the run, which a schedule with a hold waits for
"#);
}

#[test]
fn a_hold_stands_beside_its_schedule_and_comes_back_as_it_was_written() {
    let override_ = "curriculum={p1: {hold: {on: plain, patience: 2, max_hold: 9}, epochs: [0, 1]}, \
                     block_sizes: {piecewise: [[0, 4], [9, [8, 16]]], \
                     hold: {on: s1, patience: 1, min_delta: 0.25, max_hold: 7}}}";
    let manifest = load(YAML, &[override_]).unwrap();
    let curriculum = &manifest.curriculum;
    let p1 = curriculum.p1.as_ref().unwrap();
    let hold = Hold { on: HeldOutLoss::Plain, patience: 2, min_delta: 0.0, max_hold: 9 };
    assert_eq!((p1.hold(), p1.reads_epochs(), p1.values()), (Some(&hold), true, vec![&0.0, &1.0]));
    let json = serde_json::to_value(curriculum).unwrap();
    assert_eq!(json["block_sizes"]["hold"]["min_delta"], 0.25);
    assert_eq!(serde_json::from_value::<Curriculum>(json).unwrap(), *curriculum);
    // What the model sees is not part of what decides the shards.
    assert_eq!(manifest.hash(), load(YAML, &[]).unwrap().hash());
}

#[test]
fn no_yaml_and_repeated_keys() {
    assert_snapshot!(edited(&[
        ("  steps: 100", "  steps: 100\n  steps: 200"),
        ("paths: [docs.jsonl]", "paths: [docs.jsonl"),
        ("name: small", "\tname: small"),
        ("name: small", "name: *nowhere"),
        ("lr: {peak: 3e-4}", "lr: {peak: 3e-4}\n---\nversion: 1"),
    ]), @r#"
small.yaml:17:3: duplicate mapping key `steps` is not allowed here
  hint: docs/manifest.md shows what a manifest looks like
small.yaml:12:13: illegal placement of ':' indicator
  hint: docs/manifest.md shows what a manifest looks like
small.yaml:1:10: while scanning a plain scalar, found a tab
  hint: docs/manifest.md shows what a manifest looks like
small.yaml:2:7: reference to unknown value
  hint: docs/manifest.md shows what a manifest looks like
small.yaml:18:1: YAML document too large or too complex: limits breached: Documents { documents: 2 }
  hint: docs/manifest.md shows what a manifest looks like
"#);
    assert_snapshot!(messages(["", "[]", "hello"].map(|yaml| load(yaml, &[]))), @r#"
small.yaml:1:1: manifest: expected keys, of version, name, stage, profile, seed, allowed_roots, tokenizer, data, curriculum, model, train
small.yaml:1:1: manifest: expected keys, of version, name, stage, profile, seed, allowed_roots, tokenizer, data, curriculum, model, train
small.yaml:1:1: manifest: expected keys, of version, name, stage, profile, seed, allowed_roots, tokenizer, data, curriculum, model, train
"#);
}

#[test]
fn bombs_are_refused_quickly() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        let _ = writeln!(laughs, "a{level}: &a{level} [{inner}]");
    }
    let deep = "[".repeat(100_000);
    let deep_blocks: String = (0..2000).map(|depth| " ".repeat(depth) + "a:\n").collect();
    let long = format!("name: {}", "x".repeat(2 << 20));
    let wide = "- 1\n".repeat(200_000);
    let start = std::time::Instant::now();
    for bomb in [laughs, deep, deep_blocks, long, wide] {
        let error = load(&bomb, &[]).unwrap_err();
        assert!(matches!(error, ManifestError::Yaml { .. }), "{error}");
        let error = load(YAML, &[&format!("name={bomb}")]).unwrap_err();
        assert!(matches!(error, ManifestError::Override { .. }), "{error}");
    }
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

#[test]
fn overrides_reach_every_kind_of_place() {
    let manifest = load(
        YAML,
        &[
            "train.steps=7",
            "data.sources.0.weight=2.5",
            "curriculum.p1.linear.to=0.2",
            "curriculum.p1.linear.steps=10",
            "curriculum.block_sizes={epoch_cycle: [4, 8]}",
            "train.optimizer.betas=[0.9, 0.95]",
            "train.eval.every=3",
            "tokenizer.eos=<|end|>",
            "name = with spaces ",
            "train.lr=",
        ],
    )
    .unwrap();
    assert_eq!(manifest.train.steps, Some(7));
    assert_eq!(manifest.data.sources[0].weight, Some(2.5));
    let ramp = Schedule::Linear { from: 0.0, to: 0.2, steps: 10 };
    assert_eq!(manifest.curriculum.p1, Some(ramp));
    let cycle = Schedule::EpochCycle(vec![vec![4], vec![8]]);
    assert_eq!(manifest.curriculum.block_sizes, Some(cycle));
    assert_eq!(manifest.train.optimizer.unwrap().betas, Some([0.9, 0.95]));
    assert_eq!(manifest.train.eval.every, Some(3));
    assert_eq!(manifest.tokenizer.eos, "<|end|>");
    assert_eq!(manifest.name, "with spaces");
    assert_eq!(manifest.train.lr, None);
}

#[test]
fn overrides_that_cannot_be_applied() {
    let overrides = [
        "train.steps",
        "=3",
        "train..steps=3",
        "data.sources.1.weight=2",
        "data.sources.first.weight=2",
        "train.steps=[1",
        "train.stepz=3",
        "train.steps=many",
        "data.row_length=1",
        "data.sources.0.nam=x",
    ];
    assert_snapshot!(messages(overrides.map(|text| load(YAML, &[text]))), @r#"
override `train.steps`: there is no `=` in it
  hint: an override is a.b.c=value, such as train.steps=100 or data.sources.0.weight=2
override `=3`: `` is not a key
  hint: an override is a.b.c=value, such as train.steps=100 or data.sources.0.weight=2
override `train..steps=3`: `train..steps` is not a key
  hint: an override is a.b.c=value, such as train.steps=100 or data.sources.0.weight=2
override `data.sources.1.weight=2`: `data.sources` is a list of 1; `1` is not in it
  hint: an override is a.b.c=value, such as train.steps=100 or data.sources.0.weight=2
override `data.sources.first.weight=2`: `data.sources` is a list of 1; `first` is not in it
  hint: an override is a.b.c=value, such as train.steps=100 or data.sources.0.weight=2
override `train.steps=[1`: unclosed bracket '['
  hint: an override is a.b.c=value, such as train.steps=100 or data.sources.0.weight=2
small.yaml with override `train.stepz=3`: unknown key `train.stepz`
  hint: did you mean `train.steps`?
small.yaml with override `train.steps=many`: train.steps: invalid type: string "many", expected a whole number from 0 on
small.yaml with override `data.row_length=1`: data.row_length: 1 is not from 2 to 16777216 tokens
small.yaml with override `data.sources.0.nam=x`: unknown key `data.sources.0.nam`
  hint: did you mean `data.sources.0.name`?
"#);
}

#[test]
fn a_missing_file_and_bytes_that_are_no_text() {
    let folder = tempfile::TempDir::new().unwrap();
    let none: &[&str] = &[];
    let missing = Manifest::load(&folder.path().join("no.yaml"), none, &[]).unwrap_err();
    assert!(!missing.is_usage() && missing.hint().is_some());
    let file = folder.path().join("bytes.yaml");
    std::fs::write(&file, b"version: 1\nname: \xff\n").unwrap();
    let error = Manifest::load(&file, none, &[]).unwrap_err();
    assert!(error.is_usage());
    assert!(error.to_string().ends_with("bytes.yaml:2:1: this line is not UTF-8"), "{error}");
}

#[test]
fn the_hash_covers_what_decides_the_shards_and_nothing_else() {
    let hash = |overrides: &[&str]| load(YAML, overrides).unwrap().hash();
    let plain = hash(&[]);
    for same in [
        "seed=3",
        "name=other",
        "data.out=elsewhere",
        "data.held_out=0.1",
        "data.sources.0.weight=2",
        "train.steps=5",
        "curriculum.p1=0.5",
        "tokenizer.path=moved.json",
        "data.overlong=truncate",
        "data.clean={}",
        "data.clean={profile: none}",
    ] {
        assert_eq!(hash(&[same]), plain, "{same}");
    }
    let mut seen = std::collections::HashSet::from([plain]);
    for other in [
        "data.row_length=512",
        "data.rows_per_shard=7",
        "data.max_document_bytes=100",
        "data.overlong=drop",
        "tokenizer.eos=x",
        "tokenizer.match_special_text=true",
        "data.sources.0.name=other",
        "data.sources.0.paths=[other.jsonl]",
        "data.sources.0.tokens=2M",
        "data.sources.0.text_field=body",
        "data.sources.0.extensions=[rs]",
        "data.sources.0.license=MIT",
        "data.clean={min_chars: 3}",
        "data.clean={profile: prose}",
        "data.clean={profile: code}",
        "data.sources.0.clean={max_lines: 9}",
        "data.dedup={}",
        "data.dedup={scope: source}",
        "data.dedup={near: {}}",
        "data.dedup={near: {seed: 1}}",
        "data.decontaminate={files: [x], fields: [y]}",
    ] {
        assert!(seen.insert(hash(&[other])), "{other}");
    }
    // Where memory ends, the disk begins.
    assert_eq!(hash(&["data.dedup={memory: 2000000}"]), hash(&["data.dedup={}"]));
    // Where a rule stands does not matter, only what it says.
    let own = hash(&["data.sources.0.clean={profile: code, min_chars: 3}"]);
    assert_eq!(hash(&["data.clean={profile: code}", "data.sources.0.clean={min_chars: 3}"]), own);
    let other = "data.sources.0.clean={profile: code, min_chars: 3}";
    assert_eq!(hash(&["data.clean={profile: prose, max_lines: 9}", other]), own);
}

#[test]
fn cleaning_keys_are_checked() {
    let of = |overrides: &[&str]| messages(overrides.iter().map(|text| load(YAML, &[text])));
    assert_snapshot!(of(&[
        "data.clean={min_alnum_share: 1.5}",
        "data.clean={max_chars: 0}",
        "data.clean={min_chars: 9, max_chars: 8}",
        "data.sources.0.clean={profile: prose, max_chars: 100}",
        "data.clean={max_top_ngram_share: [[0, 0.5]]}",
        "data.clean={max_top_ngram_share: [[2, 0.5], [2, 0.6]]}",
        "data.clean={max_repeated_ngram_share: [[2, 1.5]]}",
        "data.clean={max_repeated_ngram_share: [2, 0.5]}",
        "data.clean={max_mean_line_chars: 0}",
        "data.clean={profile: poetry}",
        "data.clean={min_char: 3}",
        "data.dedup={exact: false}",
        "data.dedup={memory: 1000}",
        "data.dedup={near: {threshold: 0}}",
        "data.dedup={near: {bands: 64, rows: 32}}",
        "data.dedup={near: {ngram: 65}}",
        "data.dedup={near: {rows: 0}}",
        "data.decontaminate={files: [x]}",
        "data.decontaminate={files: [x], fields: []}",
        "data.decontaminate={files: [x], fields: [y], ngram: 5, min_words: 6}",
    ]), @r#"
    small.yaml with override `data.clean={min_alnum_share: 1.5}`: data.clean.min_alnum_share: 1.5 is not a share from 0 to 1
    small.yaml with override `data.clean={max_chars: 0}`: data.clean.max_chars: 0 would leave out every document
      hint: a rule is off when its key is absent
    small.yaml with override `data.clean={min_chars: 9, max_chars: 8}`: data.clean.min_chars: 9 is above max_chars, 8: no document is left
    small.yaml with override `data.sources.0.clean={profile: prose, max_chars: 100}`: data.sources.0.clean.min_chars: 200 is above max_chars, 100: no document is left
    small.yaml with override `data.clean={max_top_ngram_share: [[0, 0.5]]}`: data.clean.max_top_ngram_share: n-grams of 0 words: expected 1 to 64
    small.yaml with override `data.clean={max_top_ngram_share: [[2, 0.5], [2, 0.6]]}`: data.clean.max_top_ngram_share: n = 2 stands twice
    small.yaml with override `data.clean={max_repeated_ngram_share: [[2, 1.5]]}`: data.clean.max_repeated_ngram_share: 1.5 is not a share from 0 to 1
    small.yaml with override `data.clean={max_repeated_ngram_share: [2, 0.5]}`: data.clean.max_repeated_ngram_share.0: invalid type: integer `2`, expected a list of 2
    small.yaml with override `data.clean={max_mean_line_chars: 0}`: data.clean.max_mean_line_chars: 0 is not above 0
    small.yaml with override `data.clean={profile: poetry}`: data.clean.profile: invalid value: string "poetry", expected one of none, prose, code
    small.yaml with override `data.clean={min_char: 3}`: unknown key `data.clean.min_char`
      hint: did you mean `data.clean.min_chars`?
    small.yaml with override `data.dedup={exact: false}`: data.dedup.exact: neither exact nor near duplicates are looked for
      hint: take `dedup` away, or give `near: {}`
    small.yaml with override `data.dedup={memory: 1000}`: data.dedup.memory: 1000 bytes are too few: at least 1048576
    small.yaml with override `data.dedup={near: {threshold: 0}}`: data.dedup.near.threshold: 0 is not above 0 and at most 1
    small.yaml with override `data.dedup={near: {bands: 64, rows: 32}}`: data.dedup.near.bands: 2048 values in a sketch (bands × rows) are too many: at most 1024
    small.yaml with override `data.dedup={near: {ngram: 65}}`: data.dedup.near.ngram: 65 is not from 1 to 64 words
    small.yaml with override `data.dedup={near: {rows: 0}}`: data.dedup.near.rows: 0 is not above 0
    small.yaml with override `data.decontaminate={files: [x]}`: data.decontaminate: the key `fields` is missing
      hint: docs/manifest.md says what `fields` is
    small.yaml with override `data.decontaminate={files: [x], fields: []}`: data.decontaminate.fields: the list is empty
      hint: for example `fields: [prompt, text]`
    small.yaml with override `data.decontaminate={files: [x], fields: [y], ngram: 5, min_words: 6}`: data.decontaminate.min_words: 6 is not from 1 to ngram, 5
    "#);
}

proptest! {
    /// No text makes the loader panic, and what loads survives a round trip.
    #[test]
    fn any_text_is_a_manifest_or_an_error(
        line in 0usize..17,
        text in "[\\[\\]{}:,&*!|>'\"%@#a-z0-9_.<\\-~ \n\t]{0,24}",
    ) {
        let mut lines: Vec<&str> = YAML.lines().collect();
        lines[line] = &text;
        if let Ok(manifest) = load(&lines.join("\n"), &[]) {
            let again = load(&manifest.to_resolved_yaml(), &[]).unwrap();
            prop_assert_eq!(again, manifest);
        }
        let _ = load(YAML, &[&text]);
        let _ = load(YAML, &[&format!("curriculum={text}")]);
    }
}
