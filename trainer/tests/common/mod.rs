//! A tiny world: a tokenizer of words, a shard set of patterned rows, a manifest.

#![allow(dead_code, reason = "each test target uses its part")]

use assert_cmd::Command;
use coda_shards::{RowBuf, ShardWriter, SourceReport, Span, Specials, WriterOptions, row_key};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

pub(crate) const LENGTH: u32 = 24;
pub(crate) const PAD: u32 = 40;
pub(crate) const EOS: u32 = 41;
pub(crate) const MASK: u32 = 42;

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let vocabulary: serde_json::Map<String, Value> =
            (0..PAD).map(|id| (format!("t{id}"), json!(id))).collect();
        let added: Vec<Value> = [(PAD, "<|endoftext|>"), (EOS, "<|im_end|>"), (MASK, "<|mask|>")]
            .map(|(id, content)| {
                json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                       "rstrip": false, "normalized": false, "special": true})
            })
            .into();
        let tokenizer = json!({
            "version": "1.0", "added_tokens": added,
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t0"},
        });
        fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).expect("write");
        let world = Self { dir };
        world.write_shards();
        fs::write(world.path("tiny.yaml"), MANIFEST).expect("write");
        world
    }

    fn write_shards(&self) {
        let options = WriterOptions {
            row_length: LENGTH,
            rows_per_shard: 16,
            specials: Specials { eos: EOS, pad: PAD, mask: MASK },
            spans: None,
            tokenizer: self.path("tokenizer.json"),
            manifest_hash: "tiny".to_owned(),
            sources: vec!["a".to_owned(), "b".to_owned()],
            replace: false,
        };
        let mut writer = ShardWriter::create(self.path("shards"), options).expect("writer");
        let mut reports = Vec::new();
        for (source, name) in ["a", "b"].into_iter().enumerate() {
            let step = [1, 3][source];
            for ordinal in 0..40_u32 {
                let token =
                    |j: u32| if j % 12 == 11 { EOS } else { (ordinal * 7 + j * step) % PAD };
                writer
                    .push(&RowBuf {
                        tokens: (0..LENGTH).map(token).collect(),
                        segments: vec![0, 12],
                        row_key: row_key(name, u64::from(ordinal)),
                        source: u16::try_from(source).expect("small"),
                        prefix_len: 0,
                        valid_len: LENGTH,
                        maskable: vec![Span { start: 0, len: LENGTH }],
                        spans: Vec::new(),
                    })
                    .expect("row");
            }
            reports.push(SourceReport {
                name: name.to_owned(),
                documents: 80,
                ..SourceReport::default()
            });
        }
        writer.finish(reports).expect("finish");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `coda-trainer` with these arguments, quiet, in the world's folder.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("coda-trainer").expect("the binary is built");
        command.current_dir(self.dir.path()).args(args);
        command
    }

    /// Trains into `out`; the JSON summary.
    pub(crate) fn train(&self, out: &str, more: &[&str]) -> Value {
        let mut args =
            vec!["--stage", "pre", "--manifest", "tiny.yaml", "--quiet", "--json", "--out", out];
        args.extend(more);
        let output = self.command(&args).assert().success().get_output().stdout.clone();
        serde_json::from_slice(&output).expect("a JSON object")
    }

    /// The standard error of a command that ends with `code`.
    pub(crate) fn fails(&self, args: &[&str], code: i32) -> String {
        let assert = self.command(args).assert().code(code);
        String::from_utf8(assert.get_output().stderr.clone()).expect("UTF-8")
    }

    /// The metrics of a run without what a clock decides.
    pub(crate) fn metrics(&self, out: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(out).join("metrics.jsonl")).expect("metrics");
        text.lines()
            .map(|line| {
                let mut value: Value = serde_json::from_str(line).expect("a JSON line");
                let object = value.as_object_mut().expect("an object");
                object.shift_remove("seconds");
                object.shift_remove("tokens_per_second");
                value
            })
            .collect()
    }

    /// The bytes that decide how training would go on.
    pub(crate) fn state(&self, out: &str, step: u64) -> Vec<Vec<u8>> {
        let dir = self.path(out).join(format!("checkpoints/step-{step:06}"));
        ["model.safetensors", "train_state.safetensors", "run.json"]
            .map(|name| fs::read(dir.join(name)).expect("the file is there"))
            .into()
    }
}

pub(crate) fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON")
}

const MANIFEST: &str = "
version: 1
name: tiny
stage: pre
tokenizer: {path: tokenizer.json}
data:
  out: shards
  row_length: 24
  held_out: 0.2
  sources:
    - {name: a, paths: [a.jsonl]}
    - {name: b, paths: [b.jsonl]}
curriculum: {p1: 0.3, p2: 0.3, p3: 0.5, block_sizes: [2, 4]}
model:
  hidden_size: 16
  num_hidden_layers: 2
  intermediate_size: 32
  num_attention_heads: 2
  num_key_value_heads: 1
  head_dim: 8
  vocab_size: 44
  tie_word_embeddings: false
train:
  steps: 12
  global_batch: 6
  lr: {peak: 0.01}
  grad_clip: 1.0
  eval: {every: 5, batches: 2}
  checkpoint: {every: 4, keep: 2}
";
