//! What pre-, mid- and post-training *are*: a manifest becomes a [`Recipe`].
//!
//! A manifest says what differs from the published method; [`Recipe::resolve`] adds the rest from
//! the tables of method §3 to §5, by [`Stage`](coda_manifests::Stage) and
//! [`Profile`](coda_manifests::Profile) ([`defaults`]). A recipe has no holes: it holds every
//! number that decides a run, so it is stored with each checkpoint, and
//! answers what holds at a step ([`Recipe::progress`], [`Recipe::lr_at`]).
//!
//! The reference stops early by an evaluation that returns no loss, so it never stops (method §8);
//! there is no early stopping here.
//!
//! ```
//! use coda_manifests::Manifest;
//! use coda_stages::Recipe;
//! use std::path::Path;
//!
//! let yaml = "
//! version: 1
//! name: small
//! stage: mid
//! tokenizer: {path: tokenizer.json}
//! data: {out: shards, row_length: 256, sources: [{name: docs, paths: [docs.jsonl]}]}
//! train: {steps: 500}
//! ";
//! let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("small.yaml");
//! let manifest = Manifest::from_yaml(yaml, &here, &[""; 0], &[])?;
//! let recipe = Recipe::resolve(&manifest, None)?;
//! // Table 3 of the report has five epochs; they fall on five equal parts of the 500 steps.
//! let settings = recipe.curriculum.settings(recipe.progress(250));
//! assert_eq!((settings.p1, settings.p3), (0.10, 0.15));
//! assert_eq!(recipe.lr_at(250), 1e-4); // half of the linear way from 2e-4 to 0
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod defaults;
mod length;
mod lr;
mod recipe;
mod resolve;

pub use length::Epochs;
pub use lr::LearningRate;
pub use recipe::{ModelShape, OptimizerRecipe, Recipe};
pub use resolve::RecipeError;
