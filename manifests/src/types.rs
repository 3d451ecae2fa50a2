//! The keys of a manifest as types. `docs/manifest.md` tells the same to users; a test holds the
//! two together.

use crate::{
    Blobs, Clean, Cuda, Curriculum, Decontaminate, Dedup, Keep, Packing, Roots, SpanKinds,
    TokenCount, Transform, Unnest, Xla,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A whole manifest: what to ingest, what the model sees, and how it is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the manifest format: 1.
    pub version: u32,
    /// A short name for people and for output folders.
    pub name: String,
    /// What kind of training this is for.
    pub stage: Stage,
    /// Whose method is followed where the report and the released code differ (method §8).
    #[serde(default)]
    pub profile: Profile,
    /// Seed of every random draw.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Folders, besides the manifest's own, in which paths may lie.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_roots: Vec<String>,
    /// The tokenizer and its control tokens.
    pub tokenizer: Tokenizer,
    /// What is ingested.
    pub data: Data,
    /// Masking strategies and noise.
    #[serde(default)]
    pub curriculum: Curriculum,
    /// The model; absent: the shape of method §1, freshly initialised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// Training.
    #[serde(default)]
    pub train: Train,
    /// Where this manifest's paths may lead. Not a key.
    #[serde(skip)]
    pub(crate) roots: Roots,
}

/// The stages of method §5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Pre-training on packed rows.
    Pre,
    /// Mid-training on packed rows, with the curriculum of Table 3.
    Mid,
    /// Post-training on prompts and answers.
    Post,
}

/// Whose method is followed where report and released code differ (method §8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// The technical report, arXiv 2510.03270.
    #[default]
    CodaPaper,
    /// The released repository, SalesforceAIResearch/CoDA at fa1d505.
    CodaRepo,
}

/// The tokenizer and the names of its control tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokenizer {
    /// A Hugging Face `tokenizer.json`.
    pub path: String,
    /// The token that ends documents and answers.
    #[serde(default = "default_eos")]
    pub eos: String,
    /// The token that fills rows.
    #[serde(default = "default_pad")]
    pub pad: String,
    /// The token that stands for a masked position.
    #[serde(default = "default_mask")]
    pub mask: String,
    /// Whether control tokens spelled inside documents become control tokens.
    #[serde(default)]
    pub match_special_text: bool,
}

/// What is ingested, and into what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Folder of the shard set: ingest writes it, training reads it.
    pub out: String,
    /// Tokens per row (L).
    pub row_length: u32,
    /// Rows per shard file.
    #[serde(default = "default_rows_per_shard")]
    pub rows_per_shard: u32,
    /// Share of every source's rows, its last ones, that is never trained on.
    #[serde(default = "default_held_out")]
    pub held_out: f64,
    /// Share of rejected records above which ingest ends with exit code 1.
    #[serde(default)]
    pub max_reject_rate: f64,
    /// Longest document in bytes; longer ones are rejected.
    #[serde(default = "default_max_document_bytes")]
    pub max_document_bytes: u64,
    /// What happens to conversations longer than a row; absent: as the profile says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlong: Option<Overlong>,
    /// Folder that remote files are fetched to; absent: `.cache/coda` beside the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// Whether only what was listed and fetched before is used.
    #[serde(default)]
    pub offline: bool,
    /// Whether fetched files stay in the cache after a build has read them; absent: they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_fetched: Option<bool>,
    /// Whether other machines may be asked without encryption.
    #[serde(default)]
    pub allow_http: bool,
    /// How documents become rows.
    #[serde(default, skip_serializing_if = "Packing::is_default")]
    pub packing: Packing,
    /// Which spans of the text are noted in the rows, for `curriculum.mask_blocks`; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spans: Option<SpanKinds>,
    /// Cleaning of all sources; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean: Option<Clean>,
    /// Which repeated documents are left out; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup: Option<Dedup>,
    /// Which benchmarks must not be in the data; absent: not looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decontaminate: Option<Decontaminate>,
    /// The sources, in the order in which they are ingested.
    pub sources: Vec<Source>,
}

/// What happens to a conversation longer than a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlong {
    /// It is left out (the released code).
    Drop,
    /// Its end is cut off (the report).
    Truncate,
}

/// One source of documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name: decides the random draws of its rows, so it must be unique.
    pub name: String,
    /// A published corpus that gives the keys which this source does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Files, globs, folders, and addresses of the same.
    pub paths: Vec<String>,
    /// The container of its files.
    #[serde(default)]
    pub format: Format,
    /// What a record is.
    #[serde(default)]
    pub kind: SourceKind,
    /// Column or key that holds the text of a `text` record.
    #[serde(default = "default_text_field")]
    pub text_field: String,
    /// The text of a `text` record out of several fields: `{field}` stands for a field's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_template: Option<String>,
    /// Columns or keys of an `sft` record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Fields>,
    /// Records name a blob instead of holding their text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blobs: Option<Blobs>,
    /// A list inside the record whose elements hold the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unnest: Option<Unnest>,
    /// What is mended in every text that is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transforms: Option<Vec<Transform>>,
    /// Only records whose columns have these values; the others are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<BTreeMap<String, Keep>>,
    /// Archives: only members whose path fits one of these globs; empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<String>>,
    /// Code: whether files in folders of other people's code are left out; absent: they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_vendored: Option<bool>,
    /// Code: whether files that a program wrote are left out; absent: they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_generated: Option<bool>,
    /// Code folders: only these languages; empty: all known ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<String>,
    /// Folders: only files with these extensions (without the dot); empty: all that fit the format.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
    /// Globs of what to leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Cleaning of this source; its keys go before those of `data.clean`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean: Option<Clean>,
    /// Licence of the source, for the card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Token budget: ingest stops the source there; absent: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenCount>,
    /// Mixing weight; absent in every source: in proportion to rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// How often the source is gone through while the whole is gone through once; absent in every
    /// source: once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
}

/// The container of a source's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// By file extension.
    #[default]
    Auto,
    /// One JSON object per line; plain, `.gz` or `.zst`.
    Jsonl,
    /// JSON objects in one array, or one after the other, however they are spread over lines.
    Json,
    /// Alternating lines: a question, its answer. The fields are `question` and `answer`.
    Pairs,
    /// Parquet.
    Parquet,
    /// Arrow IPC, file or stream.
    Arrow,
    /// One document per text file.
    Text,
    /// One document per source file of a folder.
    Code,
}

/// What a record of a source is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// A document, packed with others into rows.
    #[default]
    Text,
    /// A prompt and its answer, one per row.
    Sft,
}

/// Columns or keys of an `sft` record: either an instruction and an output, or messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    /// Holds the user's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// Holds the assistant's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Holds a list of `{role, content}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<String>,
}

/// The model: a checkpoint to start from, or a shape, or both (they must then agree).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// A Hugging Face folder whose weights training starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// Width of the residual stream (D).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_size: Option<u32>,
    /// Number of layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_hidden_layers: Option<u32>,
    /// Inner width of the feed-forward network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intermediate_size: Option<u32>,
    /// Query heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_attention_heads: Option<u32>,
    /// Key and value heads; divides the query heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<u32>,
    /// Width of a head; even.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<u32>,
    /// Rows of the embedding (V), at least the tokenizer's ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<u32>,
    /// Base of the rotary frequencies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// Epsilon of every `RMSNorm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rms_norm_eps: Option<f64>,
    /// Whether the head shares the embedding's weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tie_word_embeddings: Option<bool>,
}

/// Training. What is absent comes from stage and profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// The engine that runs the model.
    #[serde(default)]
    pub engine: Engine,
    /// Folder of the run: checkpoints and metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out: Option<String>,
    /// Optimizer steps of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Passes over the training rows; with `steps`, the equal parts into which they fall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Rows per optimizer step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_batch: Option<u32>,
    /// Rows per forward and backward pass; divides `global_batch`. Absent: the trainer chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<u32>,
    /// The optimizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<Optimizer>,
    /// The learning rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr: Option<LearningRate>,
    /// Largest norm of the whole gradient; 0: no clipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad_clip: Option<f64>,
    /// Whether tokens attend only inside their own document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_attention: Option<bool>,
    /// Whether pads may be masked, and then are scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_pads: Option<bool>,
    /// Which activations are computed again in the backward pass.
    #[serde(default)]
    pub recompute: Recompute,
    /// Precision of the weights that the optimizer updates.
    #[serde(default)]
    pub master_weights: MasterWeights,
    /// What only the CUDA engine reads.
    #[serde(default)]
    pub cuda: Cuda,
    /// What only the XLA engine reads.
    #[serde(default)]
    pub xla: Xla,
    /// Evaluation on the held-out rows.
    #[serde(default)]
    pub eval: Eval,
    /// Checkpoints.
    #[serde(default)]
    pub checkpoint: Checkpoint,
    /// Steps between two lines of plain progress; absent: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_every: Option<u64>,
}

/// The engine that runs the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The fastest that this machine has.
    #[default]
    Auto,
    /// dfdx tape with CPU kernels.
    Cpu,
    /// dfdx tape with CUDA kernels.
    Cuda,
    /// A whole step compiled by XLA.
    Xla,
}

/// The optimizer and its constants. What is absent comes from the kind (method §5).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// Which one; absent: as the stage says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<OptimizerKind>,
    /// `AdamW`: decay of the first and the second moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub betas: Option<[f64; 2]>,
    /// `AdamW`: added to the root of the second moment. Adafactor: added to squared gradients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// Decoupled weight decay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Adafactor: `beta2 = 1 - step^decay_rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_rate: Option<f64>,
    /// Adafactor: largest root mean square of an update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_threshold: Option<f64>,
}

/// The optimizers of method §5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adafactor without relative step, parameter scale and first moment.
    Adafactor,
    /// Adam with decoupled weight decay.
    Adamw,
}

/// The learning rate. What is absent comes from stage and profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearningRate {
    /// Its highest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<f64>,
    /// How it falls after the warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<LrSchedule>,
    /// Steps over which it rises from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// The same as a share of all steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_ratio: Option<f64>,
    /// Its value at the end, as a share of the peak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ratio: Option<f64>,
}

/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LrSchedule {
    /// A straight line to the end.
    Linear,
    /// Half a cosine to the end.
    Cosine,
    /// It stays.
    Constant,
}

/// Which activations are computed again in the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// None: all are kept.
    #[default]
    None,
    /// On a card, those between the products, which cost little: norms, rotations, `SwiGLU`. Elsewhere
    /// none.
    Pointwise,
    /// Those inside a layer: only its input is kept.
    Layer,
}

/// Precision of the weights that the optimizer updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MasterWeights {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16 without a wider copy, as the reference does.
    Bf16,
}

/// Evaluation on the held-out rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eval {
    /// Steps between evaluations; 0: only at the start and the end; absent: a tenth of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// Micro-batches per evaluation; absent: 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches: Option<u32>,
    /// Whether the held-out loss is also measured under S1, S2 and S3.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_strategy: bool,
    /// Noise levels of the likelihood bound that is measured with it; absent: none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nll_levels: Option<u32>,
}

/// Checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Steps between checkpoints; 0: only at the end; absent: a tenth of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// How many are kept, the newest; absent: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
}

const fn default_seed() -> u64 {
    17
}

fn default_eos() -> String {
    "<|im_end|>".to_owned()
}

fn default_pad() -> String {
    "<|endoftext|>".to_owned()
}

fn default_mask() -> String {
    "<|mask|>".to_owned()
}

const fn default_rows_per_shard() -> u32 {
    4096
}

const fn default_held_out() -> f64 {
    0.005
}

const fn default_max_document_bytes() -> u64 {
    64 << 20
}

fn default_text_field() -> String {
    "text".to_owned()
}
