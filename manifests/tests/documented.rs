//! `docs/manifest.md` lists the keys that exist: all of them, and no others.

use coda_manifests::{
    Blobs, Checkpoint, Clean, CleanProfile, ConditionedSpan, ControlCharacters, Cuda,
    CudaAttention, Curriculum, Data, Decontaminate, Dedup, DedupScope, Engine, Eval, Fields,
    Format, HeldOutLoss, Hold, KeepOrStrip, LearningRate, LrSchedule, Manifest, MaskBlocks,
    MasterWeights, Model, Near, Newlines, Optimizer, OptimizerKind, Overlong, Packing, Recompute,
    Schedule, Source, SourceCurriculum, SourceKind, SpanKind, SpanKinds, TokenCount, Tokenizer,
    Train, Transform, Unnest, UnnestInto, Xla,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A manifest in which every key is present. Struct literals without `..`: a new field does not
/// compile until it stands here.
#[allow(clippy::too_many_lines, reason = "one literal with every key")]
fn everything() -> Manifest {
    let some = || Some("x".to_owned());
    let chance = || Some(Schedule::Constant(0.5));
    let yaml = "{version: 1, name: x, stage: post, allowed_roots: [x], tokenizer: {path: x}, \
                data: {out: x, row_length: 8, sources: [{name: x, paths: [x], kind: sft}]}}";
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("x.yaml");
    let none: &[&str] = &[];
    let mut manifest = Manifest::from_yaml(yaml, &here, none, &[]).unwrap();
    manifest.tokenizer = Tokenizer {
        path: "x".to_owned(),
        eos: "x".to_owned(),
        pad: "x".to_owned(),
        mask: "x".to_owned(),
        match_special_text: false,
    };
    manifest.data = Data {
        out: "x".to_owned(),
        row_length: 8,
        rows_per_shard: 1,
        held_out: 0.0,
        max_reject_rate: 0.0,
        max_document_bytes: 1,
        overlong: Some(Overlong::Drop),
        cache: some(),
        offline: false,
        keep_fetched: Some(true),
        allow_http: false,
        packing: Packing::BestFit,
        spans: SpanKinds::new([SpanKind::Lines]),
        clean: Some(clean()),
        dedup: Some(Dedup {
            exact: true,
            scope: DedupScope::All,
            near: Some(Near { threshold: 0.5, ngram: 1, bands: 1, rows: 1, seed: 1 }),
            memory: 1,
        }),
        decontaminate: Some(Decontaminate {
            files: vec!["x".to_owned()],
            fields: vec!["x".to_owned()],
            id_field: some(),
            ngram: 1,
            min_words: Some(1),
        }),
        sources: vec![source()],
    };
    manifest.curriculum = Curriculum {
        p1: Some(held()),
        p2: chance(),
        p3: chance(),
        block_sizes: Some(Schedule::Constant(vec![4])),
        mask_blocks: Some(MaskBlocks::Tokens),
        sampling_eps: chance(),
        conditioned_span: Some(ConditionedSpan::Off),
        sources: BTreeMap::from([(
            "NAME".to_owned(),
            SourceCurriculum {
                p1: chance(),
                p2: chance(),
                p3: chance(),
                block_sizes: Some(Schedule::Constant(vec![4])),
                mask_blocks: Some(MaskBlocks::Tokens),
                sampling_eps: chance(),
            },
        )]),
    };
    manifest.model = Some(Model {
        init: some(),
        hidden_size: Some(1),
        num_hidden_layers: Some(1),
        intermediate_size: Some(1),
        num_attention_heads: Some(1),
        num_key_value_heads: Some(1),
        head_dim: Some(2),
        vocab_size: Some(1),
        rope_theta: Some(1.0),
        rms_norm_eps: Some(1.0),
        tie_word_embeddings: Some(false),
    });
    manifest.train = everything_of_training();
    manifest
}

/// Its hold has keys of its own; the values beside it have none.
fn held() -> Schedule<f64> {
    let hold = Hold { on: HeldOutLoss::S3, patience: 1, min_delta: 0.5, max_hold: 1 };
    Schedule::Held { schedule: Box::new(Schedule::Phases(vec![0.5])), hold }
}

fn everything_of_training() -> Train {
    Train {
        engine: Engine::Auto,
        out: Some("x".to_owned()),
        steps: Some(1),
        epochs: Some(1.0),
        global_batch: Some(1),
        micro_batch: Some(1),
        optimizer: Some(Optimizer {
            kind: Some(OptimizerKind::Adamw),
            betas: Some([0.5, 0.5]),
            eps: Some(1.0),
            weight_decay: Some(0.0),
            decay_rate: Some(-0.5),
            clip_threshold: Some(1.0),
        }),
        lr: Some(LearningRate {
            peak: Some(1.0),
            schedule: Some(LrSchedule::Linear),
            warmup_steps: Some(1),
            warmup_ratio: Some(0.5),
            min_ratio: Some(0.5),
        }),
        grad_clip: Some(1.0),
        document_attention: Some(false),
        score_pads: Some(false),
        recompute: Recompute::None,
        master_weights: MasterWeights::F32,
        cuda: Cuda { attention: CudaAttention::Auto },
        xla: Xla { query_chunk: Some(1), loss_chunk: Some(1), ..Xla::default() },
        eval: Eval { every: Some(1), batches: Some(1), by_strategy: true, nll_levels: Some(1) },
        checkpoint: Checkpoint { every: Some(1), keep: Some(1) },
        log_every: Some(1),
    }
}

fn clean() -> Clean {
    Clean {
        profile: Some(CleanProfile::Prose),
        control: Some(ControlCharacters::Drop),
        bom: Some(KeepOrStrip::Strip),
        newlines: Some(Newlines::Lf),
        trailing_whitespace: Some(KeepOrStrip::Strip),
        max_replacement_share: Some(1.0),
        min_chars: Some(1),
        max_chars: Some(1),
        min_lines: Some(1),
        max_lines: Some(1),
        max_line_chars: Some(1),
        max_mean_line_chars: Some(1.0),
        min_alnum_share: Some(1.0),
        max_repeated_line_share: Some(1.0),
        max_repeated_line_bytes_share: Some(1.0),
        max_repeated_paragraph_share: Some(1.0),
        max_repeated_paragraph_bytes_share: Some(1.0),
        max_top_ngram_share: Some(vec![(1, 1.0)]),
        max_repeated_ngram_share: Some(vec![(1, 1.0)]),
    }
}

fn source() -> Source {
    let some = || Some("x".to_owned());
    Source {
        name: "x".to_owned(),
        preset: some(),
        paths: vec!["x".to_owned()],
        format: Format::Auto,
        kind: SourceKind::Sft,
        text_field: "x".to_owned(),
        text_template: some(),
        unnest: Some(Unnest {
            list: "x".to_owned(),
            into: UnnestInto::Document,
            separator: "x".to_owned(),
        }),
        transforms: Some(vec![Transform::Lf]),
        keep: Some(BTreeMap::new()),
        members: Some(vec!["x".to_owned()]),
        drop_vendored: Some(true),
        drop_generated: Some(true),
        fields: Some(Fields { instruction: some(), output: some(), messages: some() }),
        blobs: Some(Blobs {
            store: "x".to_owned(),
            id: "x".to_owned(),
            encoding: some(),
            url: "x".to_owned(),
        }),
        languages: vec!["x".to_owned()],
        extensions: vec!["x".to_owned()],
        exclude: vec!["x".to_owned()],
        clean: Some(clean()),
        license: some(),
        tokens: Some(TokenCount(1)),
        weight: Some(1.0),
        epochs: Some(1.0),
    }
}

fn collect(value: &Value, path: &str, keys: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect(value, &path, keys);
                keys.insert(path);
            }
        }
        Value::Array(items) => {
            for item in items.iter().filter(|item| item.is_object()) {
                collect(item, &format!("{path}[]"), keys);
            }
        }
        _ => {}
    }
}

#[test]
fn the_page_lists_every_key_and_no_other() {
    let mut keys = BTreeSet::new();
    collect(&serde_json::to_value(everything()).unwrap(), "", &mut keys);
    assert!(keys.len() > 75, "{keys:?}");

    let page = include_str!("../../docs/manifest.md");
    let documented: BTreeSet<&str> = page
        .split("## Defaults by stage")
        .next()
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(key, _)| key))
        .filter(|key| !key.starts_with('{'))
        .collect();
    // A source's rules are those of the whole.
    keys.retain(|key| !key.starts_with("data.sources[].clean."));
    // Shapes of schedules have a table of their own, and a hold may stand beside any schedule.
    keys.remove("curriculum.p1.phases");
    for key in &keys {
        // A group whose keys are all listed need not be listed itself.
        let group = documented.iter().any(|other| other.starts_with(&format!("{key}.")));
        assert!(group || documented.contains(key.as_str()), "docs/manifest.md does not have {key}");
    }
    for key in documented {
        assert!(keys.contains(key), "docs/manifest.md has {key}, which is no key");
    }
}
