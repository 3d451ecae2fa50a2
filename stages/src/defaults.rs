//! The numbers of method §3 to §5 that hold where a manifest is silent.

use coda_manifests::{ConditionedSpan, LrSchedule, OptimizerKind, Profile, Schedule, Stage};

use crate::ModelShape;

/// What a stage is under a profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// Optimizer steps; `None`: the run is as long as its epochs.
    pub steps: Option<u64>,
    /// Epochs of the run; `None`: as many as the steps make.
    pub epochs: Option<f64>,
    /// Rows per step.
    pub global_batch: u32,
    /// The optimizer.
    pub optimizer: OptimizerKind,
    /// Highest learning rate.
    pub peak: f64,
    /// How the learning rate falls.
    pub schedule: LrSchedule,
    /// How it rises.
    pub warmup: Warmup,
    /// Largest norm of the gradient; 0: no clipping.
    pub grad_clip: f64,
    /// Whether tokens attend only inside their own document.
    pub document_attention: bool,
    /// S1, S2 and S3.
    pub strategies: [Schedule<f64>; 3],
    /// Protection of prompts.
    pub span: Span,
}

/// How the learning rate rises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Warmup {
    /// Over so many steps, but at most a tenth of the run.
    Steps(u64),
    /// Over this share of the steps.
    Ratio(f64),
}

/// Protection of prompts by default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Span {
    /// As given.
    Fixed(ConditionedSpan),
    /// Annealed over the first epoch: R = 1 / epochs.
    FirstEpoch,
}

/// The lowest noise level (method §2).
pub const SAMPLING_EPS: f64 = 1e-3;

/// Block sizes of S3 in tokens: those of the released configuration (method §4).
pub const BLOCK_SIZES: [u32; 4] = [4, 8, 16, 32];

/// Table 3 of the report: S1 and S2 by epoch.
pub const TABLE_3_S1_S2: [f64; 5] = [0.01, 0.05, 0.10, 0.15, 0.20];

/// Table 3 of the report: S3 by epoch.
pub const TABLE_3_S3: [f64; 5] = [0.05, 0.10, 0.15, 0.20, 0.25];

/// The model of method §1: 2.03 billion parameters with its separate head.
pub const MODEL: ModelShape = ModelShape {
    hidden_size: 2048,
    num_hidden_layers: 28,
    intermediate_size: 6144,
    num_attention_heads: 16,
    num_key_value_heads: 8,
    head_dim: 128,
    vocab_size: 151_936,
    rope_theta: 1e6,
    rms_norm_eps: 1e-6,
    tie_word_embeddings: false,
};

/// The table of method §5.
#[must_use]
pub fn defaults(stage: Stage, profile: Profile) -> Defaults {
    let paper = profile == Profile::CodaPaper;
    let constant = |values: [f64; 3]| values.map(Schedule::Constant);
    let falls = if paper { LrSchedule::Linear } else { LrSchedule::Cosine };
    let rises = Warmup::Steps(if paper { 0 } else { 2000 });
    let always = Span::Fixed(ConditionedSpan::Off);
    match stage {
        Stage::Pre => Defaults {
            steps: Some(if paper { 50_000 } else { 210_000 }),
            epochs: None,
            global_batch: 512,
            optimizer: OptimizerKind::Adafactor,
            peak: 3e-4,
            schedule: falls,
            warmup: rises,
            grad_clip: 0.0,
            document_attention: true,
            strategies: constant([0.01; 3]),
            span: always,
        },
        Stage::Mid => Defaults {
            steps: Some(if paper { 50_000 } else { 30_000 }),
            epochs: paper.then_some(5.0),
            global_batch: 256,
            optimizer: OptimizerKind::Adafactor,
            peak: 2e-4,
            schedule: falls,
            warmup: rises,
            grad_clip: 0.0,
            document_attention: false,
            strategies: if paper {
                let prefix_suffix = Schedule::Epochs(TABLE_3_S1_S2.to_vec());
                [prefix_suffix.clone(), prefix_suffix, Schedule::Epochs(TABLE_3_S3.to_vec())]
            } else {
                constant([0.25, 0.25, 0.30])
            },
            span: always,
        },
        Stage::Post => Defaults {
            steps: None,
            epochs: Some(10.0),
            global_batch: 176,
            optimizer: OptimizerKind::Adamw,
            peak: 2e-5,
            schedule: LrSchedule::Cosine,
            warmup: Warmup::Ratio(0.1),
            grad_clip: 1.0,
            document_attention: false,
            strategies: constant([0.0; 3]),
            span: if paper { Span::FirstEpoch } else { Span::Fixed(ConditionedSpan::Ratio(0.05)) },
        },
    }
}
