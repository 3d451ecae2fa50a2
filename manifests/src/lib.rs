//! The manifest: one YAML file that says what is ingested, what the model sees and how it is
//! trained.
//!
//! [`Manifest::load`] reads the file, applies `a.b.c=value` overrides, refuses unknown keys with
//! the nearest known name, checks every value and fixes where paths may lead. What comes out is
//! typed; whatever stage and profile decide by default is `Option` and filled in by `coda-stages`.
//! Every path goes through [`Roots`]: nothing outside the manifest's folder, its `allowed_roots`
//! and the paths given on the command line is opened.
//!
//! ```
//! use coda_manifests::{Manifest, Stage};
//! use std::path::Path;
//!
//! let yaml = "
//! version: 1
//! name: small
//! stage: pre
//! tokenizer: {path: tokenizer.json}
//! data:
//!   out: shards
//!   row_length: 256
//!   sources: [{name: docs, paths: [docs.jsonl], tokens: 1.5M}]
//! ";
//! let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
//! let overrides = ["data.row_length=512"];
//! let manifest = Manifest::from_yaml(yaml, &folder.join("small.yaml"), &overrides, &[])?;
//! assert_eq!(manifest.stage, Stage::Pre);
//! assert_eq!(manifest.data.row_length, 512);
//! assert_eq!(manifest.data.sources[0].tokens.unwrap().0, 1_500_000);
//! # Ok::<(), coda_manifests::ManifestError>(())
//! ```

mod check;
mod cleaning;
mod cuda;
mod curriculum;
mod error;
mod load;
mod mixing;
mod node;
mod overrides;
mod presets;
mod record;
mod remote;
mod roots;
mod schedule;
mod spans;
mod token_count;
mod types;
mod xla;

pub use cleaning::{
    Clean, CleanProfile, ControlCharacters, Decontaminate, Dedup, DedupScope, KeepOrStrip, Near,
    Newlines,
};
pub use cuda::{Cuda, CudaAttention};
pub use curriculum::{ConditionedSpan, Curriculum, SourceCurriculum};
pub use error::{ManifestError, Place};
pub use mixing::Packing;
pub use presets::{Preset, Published, presets};
pub use record::{Keep, Scalar, Transform, Unnest, UnnestInto};
pub use remote::{ARCHIVE_URL, Blobs};
pub use roots::{PathError, Roots};
pub use schedule::{HeldOutLoss, Hold, Schedule};
pub use spans::{MaskBlocks, SpanKind, SpanKinds};
pub use token_count::{TokenCount, TokenCountError};
pub use types::{
    Checkpoint, Data, Engine, Eval, Fields, Format, LearningRate, LrSchedule, Manifest,
    MasterWeights, Model, Optimizer, OptimizerKind, Overlong, Profile, Recompute, Source,
    SourceKind, Stage, Tokenizer, Train,
};
pub use xla::{Compute, MeshShape, Xla};
