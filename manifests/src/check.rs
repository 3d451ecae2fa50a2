//! What the types alone cannot say about a manifest's values.

mod cleaning;
mod curriculum;

use crate::{
    Data, Format, Keep, Manifest, Model, Packing, Scalar, Source, SourceKind, Stage, Train,
};
use std::collections::HashSet;

/// A value that does not fit.
pub(crate) struct Problem {
    pub(crate) key: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

type Checked = Result<(), Problem>;

fn problem(key: impl Into<String>, message: impl Into<String>) -> Problem {
    Problem { key: key.into(), message: message.into(), hint: None }
}

impl Problem {
    fn hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }
}

fn require(holds: bool, key: &str, message: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(problem(key, message())) }
}

pub(crate) fn check(manifest: &Manifest) -> Checked {
    require(manifest.version == 1, "version", || {
        format!("{} is not a version this program knows: 1", manifest.version)
    })?;
    check_name("name", &manifest.name)?;
    for (key, text) in [
        ("tokenizer.path", &manifest.tokenizer.path),
        ("tokenizer.eos", &manifest.tokenizer.eos),
        ("tokenizer.pad", &manifest.tokenizer.pad),
        ("tokenizer.mask", &manifest.tokenizer.mask),
    ] {
        require(!text.is_empty(), key, || "it is empty".to_owned())?;
    }
    let specials = [&manifest.tokenizer.eos, &manifest.tokenizer.pad];
    require(!specials.contains(&&manifest.tokenizer.mask), "tokenizer.mask", || {
        "the mask token must differ from eos and pad".to_owned()
    })?;
    check_data(&manifest.data, manifest.stage)?;
    curriculum::check(manifest)?;
    if let Some(model) = &manifest.model {
        check_model(model)?;
    }
    check_train(&manifest.train)
}

/// Names end up in file names, cards and fingerprints.
fn check_name(key: &str, name: &str) -> Checked {
    let plain = |c: char| c.is_alphanumeric() || "-_.+/ ".contains(c);
    require(!name.is_empty() && name.len() <= 200 && name.chars().all(plain), key, || {
        format!("{name:?} is not a name of letters, digits and -_.+/")
    })
}

fn share(key: &str, value: f64, below_one: bool) -> Checked {
    let holds = (0.0..=1.0).contains(&value) && !(below_one && value >= 1.0);
    let range = if below_one { "from 0 to below 1" } else { "from 0 to 1" };
    require(holds, key, || format!("{value} is not a share {range}"))
}

fn positive(key: &str, value: Option<impl Into<f64>>) -> Checked {
    let value = value.map(Into::into);
    require(value.is_none_or(|v: f64| v > 0.0 && v.is_finite()), key, || {
        format!("{} is not above 0", value.unwrap_or_default())
    })
}

fn check_data(data: &Data, stage: Stage) -> Checked {
    require(!data.out.is_empty(), "data.out", || "it is empty".to_owned())?;
    require((2..=1 << 24).contains(&data.row_length), "data.row_length", || {
        format!("{} is not from 2 to {} tokens", data.row_length, 1 << 24)
    })?;
    require(data.rows_per_shard > 0, "data.rows_per_shard", || "0 is not above 0".to_owned())?;
    require(data.max_document_bytes > 0, "data.max_document_bytes", || {
        "0 is not above 0".to_owned()
    })?;
    require(data.cache.as_ref().is_none_or(|cache| !cache.is_empty()), "data.cache", || {
        "it is empty".to_owned()
    })?;
    share("data.held_out", data.held_out, true)?;
    share("data.max_reject_rate", data.max_reject_rate, false)?;
    require(!data.sources.is_empty(), "data.sources", || "there are no sources".to_owned())?;
    require(u16::try_from(data.sources.len()).is_ok(), "data.sources", || {
        format!("{} sources are too many: at most {}", data.sources.len(), u16::MAX)
    })?;
    let mut names = HashSet::new();
    for (index, source) in data.sources.iter().enumerate() {
        let key = |name: &str| format!("data.sources.{index}.{name}");
        require(names.insert(&source.name), &key("name"), || {
            format!("{:?} is the name of another source too", source.name)
        })?;
        check_source(source, stage, &key)?;
    }
    cleaning::check(data)?;
    check_mixing(data)?;
    require(stage != Stage::Post || data.packing == Packing::Concat, "data.packing", || {
        "in stage post every conversation has a row of its own; nothing is packed".to_owned()
    })
}

/// Weights are given for all sources or for none, and go without epochs.
fn check_mixing(data: &Data) -> Checked {
    if let Some(index) = data.sources.iter().position(|source| source.epochs.is_some()) {
        let weighted = data.sources.iter().find(|source| source.weight.is_some());
        require(weighted.is_none(), &format!("data.sources.{index}.epochs"), || {
            let name = weighted.map_or("", |source| source.name.as_str());
            format!("this source has epochs and {name:?} has a weight")
        })
        .map_err(|problem| problem.hint("epochs are weights in units of rows: give one kind"))?;
    }
    let weighted = data.sources.iter().filter(|source| source.weight.is_some()).count();
    if let Some(index) = data.sources.iter().position(|source| source.weight.is_none()) {
        require(weighted == 0, &format!("data.sources.{index}.weight"), || {
            format!("{weighted} sources have a weight and this one has none")
        })
        .map_err(|problem| problem.hint("give every source a weight, or none"))?;
    }
    Ok(())
}

fn check_source(source: &Source, stage: Stage, key: &impl Fn(&str) -> String) -> Checked {
    check_name(&key("name"), &source.name)?;
    require(!source.paths.is_empty(), &key("paths"), || "there are no paths".to_owned())?;
    require(
        source.weight.is_none_or(|weight| weight > 0.0 && weight.is_finite()),
        &key("weight"),
        || format!("{} is not above 0", source.weight.unwrap_or_default()),
    )?;
    positive(&key("epochs"), source.epochs)?;
    require(source.tokens.is_none_or(|tokens| tokens.0 > 0), &key("tokens"), || {
        "a budget of 0 tokens leaves nothing of the source".to_owned()
    })?;
    for extension in &source.extensions {
        require(!extension.is_empty() && !extension.starts_with('.'), &key("extensions"), || {
            format!("{extension:?} is not an extension without its dot, such as py")
        })?;
    }
    check_record(source, key)?;
    let fits = matches!(
        (stage, source.kind),
        (Stage::Pre | Stage::Mid, SourceKind::Text) | (Stage::Post, SourceKind::Sft)
    );
    if !fits {
        let (kind, stage) = match source.kind {
            SourceKind::Text => ("text", "pre or mid"),
            SourceKind::Sft => ("sft", "post"),
        };
        let message = format!("sources of kind {kind} belong to stage {stage}");
        return Err(problem(key("kind"), message)
            .hint("stage post reads `kind: sft`, stages pre and mid read `kind: text`"));
    }
    let Some(fields) = &source.fields else { return Ok(()) };
    let pair = fields.instruction.is_some() || fields.output.is_some();
    require(source.kind == SourceKind::Sft, &key("fields"), || {
        "only sources of kind sft have fields; text sources have text_field".to_owned()
    })?;
    require(pair != fields.messages.is_some(), &key("fields"), || {
        "expected either instruction and output, or messages".to_owned()
    })?;
    require(
        !pair || (fields.instruction.is_some() && fields.output.is_some()),
        &key("fields"),
        || "instruction and output go together".to_owned(),
    )
}

/// What of a record becomes a document.
fn check_record(source: &Source, key: &impl Fn(&str) -> String) -> Checked {
    let whole = matches!(source.format, Format::Text | Format::Code);
    for (name, given) in [
        ("text_template", source.text_template.is_some()),
        ("unnest", source.unnest.is_some()),
        ("keep", source.keep.as_ref().is_some_and(|keep| !keep.is_empty())),
    ] {
        require(!(whole && given), &key(name), || {
            "files of format text and code are one document each and have no fields".to_owned()
        })?;
    }
    let code = matches!(source.format, Format::Auto | Format::Code);
    let given = source.drop_vendored.is_some() || source.drop_generated.is_some();
    require(code || !given, &key("drop_generated"), || {
        "drop_vendored and drop_generated belong to files of code".to_owned()
    })?;
    if let Some(template) = &source.text_template {
        require(source.kind == SourceKind::Text, &key("text_template"), || {
            "only sources of kind text have a text_template; sft sources have fields".to_owned()
        })?;
        require(source.text_field == "text", &key("text_template"), || {
            "give text_template or text_field, not both".to_owned()
        })?;
        require(template.contains('{'), &key("text_template"), || {
            format!("{template:?} names no field, such as {{question}}")
        })?;
    }
    if let Some(blobs) = &source.blobs {
        require(source.kind == SourceKind::Text, &key("blobs"), || {
            "only sources of kind text have blobs".to_owned()
        })?;
        require(source.text_template.is_none(), &key("blobs"), || {
            "give blobs or text_template, not both".to_owned()
        })?;
        for (name, value) in [("store", &blobs.store), ("id", &blobs.id), ("url", &blobs.url)] {
            require(!value.is_empty(), &key(&format!("blobs.{name}")), || {
                "it is empty".to_owned()
            })?;
        }
    }
    if let Some(unnest) = &source.unnest {
        require(!unnest.list.is_empty(), &key("unnest.list"), || "it is empty".to_owned())?;
    }
    for (column, keep) in source.keep.iter().flatten() {
        let key = || key(&format!("keep.{column}"));
        match keep {
            Keep::OneOf(values) => {
                let finite = |v: &Scalar| !matches!(v, Scalar::Number(n) if !n.is_finite());
                require(!values.is_empty() && values.iter().all(finite), &key(), || {
                    "a list of no values keeps no record".to_owned()
                })?;
            }
            Keep::Range { min, max } => {
                let low = min.unwrap_or(f64::NEG_INFINITY);
                let high = max.unwrap_or(f64::INFINITY);
                require((min.is_some() || max.is_some()) && low <= high, &key(), || {
                    "expected {min: …, max: …}, one or both, in this order".to_owned()
                })?;
            }
        }
    }
    Ok(())
}

fn check_model(model: &Model) -> Checked {
    let shape = [
        ("hidden_size", model.hidden_size),
        ("num_hidden_layers", model.num_hidden_layers),
        ("intermediate_size", model.intermediate_size),
        ("num_attention_heads", model.num_attention_heads),
        ("num_key_value_heads", model.num_key_value_heads),
        ("head_dim", model.head_dim),
        ("vocab_size", model.vocab_size),
    ];
    let given = shape.iter().filter(|(_, value)| value.is_some()).count();
    for (name, value) in shape {
        let key = format!("model.{name}");
        require(value != Some(0), &key, || "0 is not above 0".to_owned())?;
        if given > 0 && value.is_none() {
            return Err(problem(key, "it is missing: a shape is given as a whole").hint(
                "give all of hidden_size, num_hidden_layers, intermediate_size, \
                 num_attention_heads, num_key_value_heads, head_dim and vocab_size, or none",
            ));
        }
    }
    if let (Some(heads), Some(kv)) = (model.num_attention_heads, model.num_key_value_heads) {
        require(heads % kv == 0, "model.num_key_value_heads", || {
            format!("{kv} key and value heads do not divide {heads} query heads")
        })?;
    }
    require(model.head_dim.is_none_or(|dim| dim % 2 == 0), "model.head_dim", || {
        "rotary embedding needs an even head_dim".to_owned()
    })?;
    positive("model.rope_theta", model.rope_theta)?;
    positive("model.rms_norm_eps", model.rms_norm_eps)
}

fn check_train(train: &Train) -> Checked {
    require(train.steps != Some(0), "train.steps", || "0 is not above 0".to_owned())?;
    positive("train.epochs", train.epochs)?;
    positive("train.global_batch", train.global_batch)?;
    positive("train.micro_batch", train.micro_batch)?;
    positive("train.xla.mesh.data", Some(train.xla.mesh.data))?;
    positive("train.xla.mesh.fsdp", Some(train.xla.mesh.fsdp))?;
    positive("train.xla.mesh.tensor", Some(train.xla.mesh.tensor))?;
    positive("train.xla.query_chunk", train.xla.query_chunk)?;
    positive("train.xla.loss_chunk", train.xla.loss_chunk)?;
    if let (Some(global), Some(micro)) = (train.global_batch, train.micro_batch) {
        require(global % micro == 0, "train.micro_batch", || {
            format!("{micro} does not divide global_batch, {global}")
        })?;
    }
    let clip = train.grad_clip.unwrap_or(0.0);
    require(clip >= 0.0 && clip.is_finite(), "train.grad_clip", || {
        format!("{clip} is not 0 or more")
    })?;
    if let Some(optimizer) = &train.optimizer {
        let betas = optimizer.betas.unwrap_or_default();
        require(
            betas.iter().all(|beta| (0.0..1.0).contains(beta)),
            "train.optimizer.betas",
            || format!("{betas:?} are not both from 0 to below 1"),
        )?;
        positive("train.optimizer.eps", optimizer.eps)?;
        positive("train.optimizer.clip_threshold", optimizer.clip_threshold)?;
        let decay = optimizer.weight_decay.unwrap_or(0.0);
        require(decay >= 0.0 && decay.is_finite(), "train.optimizer.weight_decay", || {
            format!("{decay} is not 0 or more")
        })?;
        let rate = optimizer.decay_rate.unwrap_or(-0.8);
        require((-1.0..0.0).contains(&rate), "train.optimizer.decay_rate", || {
            format!("{rate} is not from -1 to below 0")
        })?;
    }
    if let Some(lr) = &train.lr {
        positive("train.lr.peak", lr.peak)?;
        share("train.lr.min_ratio", lr.min_ratio.unwrap_or(0.0), false)?;
        share("train.lr.warmup_ratio", lr.warmup_ratio.unwrap_or(0.0), false)?;
        require(
            lr.warmup_steps.is_none() || lr.warmup_ratio.is_none(),
            "train.lr.warmup_ratio",
            || "give warmup_steps or warmup_ratio, not both".to_owned(),
        )?;
    }
    for (key, zero) in [
        ("train.eval.batches", train.eval.batches == Some(0)),
        ("train.eval.nll_levels", train.eval.nll_levels == Some(0)),
        ("train.checkpoint.keep", train.checkpoint.keep == Some(0)),
        ("train.log_every", train.log_every == Some(0)),
    ] {
        require(!zero, key, || "0 is not above 0".to_owned())?;
    }
    Ok(())
}
