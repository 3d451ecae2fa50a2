//! What several commands read: manifests and shard sets.

use crate::{
    feed::{Feed, source_ranges},
    fit::{feed_failure, shard_exit},
};
use clap::{Args, ValueEnum};
use coda_cli::{Exit, Failure};
use coda_manifests::{Manifest, ManifestError, PathError, Stage};
use coda_shards::{ShardSet, SourceRange};
use coda_stages::{Recipe, RecipeError};
use std::path::{Path, PathBuf};

/// A manifest with its overrides.
#[derive(Args, Clone, Debug)]
pub(super) struct ManifestArgs {
    /// What to train for. Without --manifest it chooses manifests/pretrain.yaml, midtrain.yaml or
    /// posttrain.yaml.
    #[arg(long, value_enum, value_name = "STAGE", required_unless_present = "manifest")]
    pub(super) stage: Option<StageArg>,
    /// The manifest.
    #[arg(long, value_name = "FILE")]
    pub(super) manifest: Option<PathBuf>,
    /// Read this shard set instead of the one at data.out.
    #[arg(long, value_name = "DIR")]
    pub(super) shards: Option<PathBuf>,
    /// Manifest keys to override, as `a.b.c=value`.
    #[arg(value_name = "KEY=VALUE")]
    pub(super) overrides: Vec<String>,
}

/// A stage on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StageArg {
    /// Pre-training.
    Pre,
    /// Mid-training.
    Mid,
    /// Post-training.
    Post,
}

impl StageArg {
    const fn stage(self) -> Stage {
        match self {
            Self::Pre => Stage::Pre,
            Self::Mid => Stage::Mid,
            Self::Post => Stage::Post,
        }
    }

    const fn manifest(self) -> &'static str {
        match self {
            Self::Pre => "manifests/pretrain.yaml",
            Self::Mid => "manifests/midtrain.yaml",
            Self::Post => "manifests/posttrain.yaml",
        }
    }
}

impl ManifestArgs {
    /// Reads the manifest. `more` are overrides of other options; they win.
    pub(super) fn load(&self, more: &[String]) -> Result<Manifest, Failure> {
        let path = match (&self.manifest, self.stage) {
            (Some(path), _) => path.clone(),
            (None, Some(stage)) => PathBuf::from(stage.manifest()),
            (None, None) => return Err(Failure::usage("give --stage or --manifest")),
        };
        let overrides: Vec<&String> = self.overrides.iter().chain(more).collect();
        let allowed: Vec<PathBuf> = self.shards.iter().cloned().collect();
        let manifest = Manifest::load(&path, &overrides, &allowed)
            .map_err(|error| manifest_failure(&error))?;
        if let Some(stage) = self.stage.map(StageArg::stage).filter(|&s| s != manifest.stage) {
            let named = |stage| match stage {
                Stage::Pre => "pre",
                Stage::Mid => "mid",
                Stage::Post => "post",
            };
            return Err(Failure::usage(format!(
                "{} is a manifest for stage {}, not {}",
                path.display(),
                named(manifest.stage),
                named(stage)
            ))
            .hint(format!("leave out --stage, or override stage={}", named(stage))));
        }
        Ok(manifest)
    }

    /// Opens the shard set of the manifest and fixes the recipe for it.
    pub(super) fn rows(&self, manifest: &Manifest) -> Result<Rows, Failure> {
        let dir = match &self.shards {
            Some(dir) => dir.clone(),
            None => manifest.resolve(&manifest.data.out).map_err(|error| path_failure(&error))?,
        };
        let set = ShardSet::open(&dir).map_err(|error| {
            Failure::from_error(shard_exit(&error), &error).maybe_hint(error.hint())
        })?;
        let ranges = source_ranges(&set, manifest).map_err(feed_failure)?;
        let train_rows = |name: &str| {
            let named = ranges.iter().zip(set.sources()).find(|(_, source)| source.name == name);
            named.map_or(0, |(range, _)| range.rows - range.held_out_rows)
        };
        let pass = manifest.data.pass_rows(train_rows);
        let recipe =
            Recipe::resolve(manifest, Some(pass)).map_err(|error| recipe_failure(&error))?;
        let feed = Feed::new(set, &ranges, &recipe).map_err(feed_failure)?;
        Ok(Rows { dir, ranges, recipe, feed })
    }
}

/// A shard set, and the recipe over it.
pub(super) struct Rows {
    pub(super) dir: PathBuf,
    pub(super) ranges: Vec<SourceRange>,
    pub(super) recipe: Recipe,
    pub(super) feed: Feed,
}

/// The checkpoint that a recipe or the command line begins with.
pub(super) fn init_path(
    manifest: &Manifest,
    recipe: &Recipe,
    init: Option<&Path>,
) -> Result<Option<PathBuf>, Failure> {
    match (init, &recipe.init) {
        (Some(path), _) => Ok(Some(path.to_path_buf())),
        (None, Some(text)) => {
            manifest.resolve(text).map(Some).map_err(|error| path_failure(&error))
        }
        (None, None) => Ok(None),
    }
}

fn manifest_failure(error: &ManifestError) -> Failure {
    let exit = match error {
        ManifestError::Read { .. } => Exit::Io,
        _ => Exit::Usage,
    };
    Failure::from_error(exit, error).maybe_hint(error.hint())
}

pub(super) fn path_failure(error: &PathError) -> Failure {
    Failure::from_error(Exit::Usage, error).maybe_hint(error.hint())
}

pub(super) fn recipe_failure(error: &RecipeError) -> Failure {
    Failure::from_error(Exit::Usage, error).maybe_hint(error.hint())
}
