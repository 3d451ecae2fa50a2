//! What the manifest and the shard set come to: the run that is looked at.

use crate::{ManifestArgs, clocks::Ways, mix::Averages, table::number};
use coda_cli::{Exit, Failure, human};
use coda_curriculum::{
    Clocks, MaskPlan, RowView, Settings, SpansNotNoted, SyntaxSpans, expected, plan_row,
};
use coda_manifests::{Manifest, ManifestError, PathError, Profile, Stage};
use coda_shards::{
    Check, ErrorClass, INDEX_FILE, Order, Row, ShardError, ShardSet, SourceRange, commit,
};
use coda_stages::{Epochs, Recipe, RecipeError};
use std::path::{Path, PathBuf};

/// A manifest with its recipe, and the shard set when there is one.
pub(crate) struct Resolved {
    pub(crate) manifest: Manifest,
    pub(crate) recipe: Recipe,
    /// The clocks of schedules with a hold.
    pub(crate) ways: Ways,
    data: Option<Data>,
    /// Where the shard set is or would be.
    dir: PathBuf,
}

impl Resolved {
    /// Reads the manifest and, if it is there, the shard set. A shard set named on the command line
    /// must be there. `assumed_rows` stand for the rows of a set that is yet to come. `clocks` are the
    /// metrics of a run; without, nothing is taken to wait.
    pub(crate) fn load(
        args: &ManifestArgs,
        shards: Option<&Path>,
        assumed_rows: Option<u64>,
        clocks: Option<&Path>,
    ) -> Result<Self, Failure> {
        let allowed: Vec<PathBuf> = shards.iter().map(|dir| dir.to_path_buf()).collect();
        let manifest = Manifest::load(&args.manifest, &args.overrides, &allowed)
            .map_err(|error| manifest_failure(&error))?;
        let dir = match shards {
            Some(dir) => dir.to_path_buf(),
            None => manifest.resolve(&manifest.data.out).map_err(|error| path_failure(&error))?,
        };
        let there = shards.is_some() || dir.join(INDEX_FILE).exists();
        let data =
            if there && assumed_rows.is_none() { Some(Data::open(&manifest, &dir)?) } else { None };
        let rows = data.as_ref().map(|data| data.pass_rows).or(assumed_rows);
        let recipe = Recipe::resolve(&manifest, rows).map_err(|error| {
            let hint = match error {
                RecipeError::NeedsRows { .. } | RecipeError::NeedsEpochs { .. } => {
                    Some("ingest first, or `show` the curriculum with --rows N".to_owned())
                }
                _ => error.hint(),
            };
            Failure::from_error(Exit::Usage, &error).maybe_hint(hint)
        })?;
        if let Some(data) = &data
            && let Some(missing) = recipe.curriculum.lacks(data.set.index().spans)
        {
            let error = SpansNotNoted { set: dir.display().to_string(), missing };
            return Err(Failure::from_error(Exit::Incompatible, &error).hint(error.hint()));
        }
        let ways = match clocks {
            Some(path) => Ways::recorded(&recipe, path)?,
            None => Ways::earliest(&recipe),
        };
        Ok(Self { manifest, recipe, ways, data, dir })
    }

    /// The shard set, if it is there.
    pub(crate) const fn data(&self) -> Option<&Data> {
        self.data.as_ref()
    }

    /// The shard set, which must be there.
    pub(crate) fn require_data(&self) -> Result<&Data, Failure> {
        self.data.as_ref().ok_or_else(|| {
            Failure::io(format!("there is no shard set in {}", self.dir.display()))
                .hint("run `coda-ingest --manifest …` first, or name a shard set with --shards")
        })
    }

    /// Each source's share of the rows that training reads, in the manifest's order; `None` where that
    /// follows from the rows of a shard set that is not there.
    pub(crate) fn shares(&self) -> Option<Vec<f64>> {
        let sources = &self.manifest.data.sources;
        let rows: Vec<u64> = match &self.data {
            Some(data) => sources.iter().map(|source| data.train_rows(&source.name)).collect(),
            None if sources.iter().all(|source| source.weight.is_some()) => vec![0; sources.len()],
            None => return None,
        };
        Some(self.manifest.data.shares(&rows))
    }

    /// Rows per optimizer step.
    pub(crate) fn global_batch(&self) -> u64 {
        u64::from(self.recipe.global_batch)
    }

    pub(crate) const fn stage_name(&self) -> &'static str {
        match self.manifest.stage {
            Stage::Pre => "pre",
            Stage::Mid => "mid",
            Stage::Post => "post",
        }
    }

    pub(crate) const fn profile_name(&self) -> &'static str {
        match self.manifest.profile {
            Profile::CodaPaper => "coda-paper",
            Profile::CodaRepo => "coda-repo",
        }
    }

    /// What an epoch is, in words.
    pub(crate) fn epochs_from(&self) -> String {
        match (self.recipe.epochs, &self.data) {
            (Epochs::Parts(epochs), _) => {
                format!("{} equal parts of the steps", number(epochs))
            }
            (Epochs::Rows(rows), Some(_)) => {
                format!("a pass over the {rows} training rows of {}", self.dir.display())
            }
            (Epochs::Rows(rows), None) => format!("a pass over {rows} rows, as assumed"),
            (Epochs::Unknown, _) => {
                format!("its length is not known yet: no shard set in {}", self.dir.display())
            }
        }
    }
}

/// A shard set in the order in which the trainer reads it.
pub(crate) struct Data {
    pub(crate) set: ShardSet,
    pub(crate) order: Order,
    ranges: Vec<SourceRange>,
    /// Positions of a pass over the whole, as the sources' epochs say.
    pass_rows: u64,
}

impl Data {
    fn open(manifest: &Manifest, dir: &Path) -> Result<Self, Failure> {
        let set =
            ShardSet::open_with(dir, Check::Structure).map_err(|error| shard_failure(&error))?;
        if set.row_length() != manifest.data.row_length {
            return Err(Failure::incompatible(format!(
                "the shard set {} has rows of {} tokens, the manifest says {}",
                dir.display(),
                set.row_length(),
                manifest.data.row_length
            ))
            .hint("ingest again, or name the shard set of this manifest with --shards"));
        }
        let mut ranges = set.source_ranges(manifest.data.held_out);
        for (range, source) in ranges.iter_mut().zip(set.sources()) {
            let entry = manifest.data.sources.iter().find(|entry| entry.name == source.name);
            let entry = entry.ok_or_else(|| {
                Failure::incompatible(format!(
                    "the shard set {} holds the source {:?}, which the manifest does not name",
                    dir.display(),
                    source.name
                ))
                .hint("ingest again, or name the shard set of this manifest with --shards")
            })?;
            range.weight = manifest.data.weight_of(entry, range.rows - range.held_out_rows);
        }
        let order = Order::new(manifest.seed, &ranges)
            .map_err(|error| Failure::from_error(Exit::Usage, &error).maybe_hint(error.hint()))?;
        let mut data = Self { set, order, ranges, pass_rows: 0 };
        data.pass_rows = manifest.data.pass_rows(|name| data.train_rows(name));
        Ok(data)
    }

    /// The rows of a source that are trained on.
    fn train_rows(&self, name: &str) -> u64 {
        let named =
            self.ranges.iter().zip(self.set.sources()).find(|(_, source)| source.name == name);
        named.map_or(0, |(range, _)| range.rows - range.held_out_rows)
    }

    /// What the curriculum says at a step for the rows of each source, by the source's number.
    pub(crate) fn settings(&self, recipe: &Recipe, step: u64, clocks: &Clocks) -> Vec<Settings> {
        let progress = recipe.progress(step);
        let curriculum = recipe.curriculum_at(clocks);
        let of = |name: &str| curriculum.of_source(name).settings(progress);
        self.set.sources().iter().map(|source| of(&source.name)).collect()
    }

    pub(crate) fn row(&self, row: u64) -> Result<Row<'_>, Failure> {
        self.set.row(row).map_err(|error| shard_failure(&error))
    }

    /// What the rows that training reads come to at a step, on average over `count` of them, evenly
    /// chosen from all visits of the run.
    pub(crate) fn averages(
        &self,
        recipe: &Recipe,
        step: u64,
        clocks: &Clocks,
        count: u64,
    ) -> Result<Averages, Failure> {
        let settings = self.settings(recipe, step, clocks);
        let context = recipe.curriculum.context(step);
        let visits = u128::from(recipe.total_steps) * u128::from(recipe.global_batch);
        let mut averages = Averages::default();
        for i in 0..count {
            let position = u128::from(i) * visits / u128::from(count);
            let at = self.order.at(u64::try_from(position).unwrap_or(u64::MAX));
            let row = self.row(at.row)?;
            let settings = &settings[usize::from(row.source)];
            let expected = expected::row_like(settings, &context, &view(&row, at.epoch));
            averages.add(1.0 / count as f64, &expected);
        }
        Ok(averages)
    }

    /// The plans of the first `count` rows of a step's batch.
    pub(crate) fn plans(
        &self,
        recipe: &Recipe,
        step: u64,
        clocks: &Clocks,
        count: u64,
    ) -> Result<Vec<MaskPlan>, Failure> {
        let settings = self.settings(recipe, step, clocks);
        let context = recipe.curriculum.context(step);
        let first = step * u64::from(recipe.global_batch);
        (first..first + count)
            .map(|position| {
                let at = self.order.at(position);
                let row = self.row(at.row)?;
                let settings = &settings[usize::from(row.source)];
                Ok(plan_row(settings, &context, &view(&row, at.epoch)))
            })
            .collect()
    }

    pub(crate) fn source_name(&self, source: u16) -> String {
        self.set.sources().get(usize::from(source)).map_or_else(String::new, |s| s.name.clone())
    }

    /// Whether a row is never trained on.
    pub(crate) fn is_held_out(&self, row: u64) -> bool {
        self.ranges.iter().any(|range| {
            let end = range.first_row + range.rows;
            (end - range.held_out_rows..end).contains(&row)
        })
    }
}

/// A row as the curriculum sees it, at its visit in `epoch`.
pub(crate) fn view<'a>(row: &Row<'a>, epoch: u32) -> RowView<'a> {
    RowView {
        length: u32::try_from(row.tokens.len()).unwrap_or(u32::MAX),
        row_key: row.row_key,
        epoch,
        prefix_len: row.prefix_len,
        valid_len: row.valid_len,
        maskable_starts: row.maskable_starts,
        maskable_lens: row.maskable_lens,
        spans: SyntaxSpans {
            starts: row.spans.starts,
            lens: row.spans.lens,
            kinds: row.spans.kinds,
        },
    }
}

/// Writes a result file whole or not at all, and says so on stderr.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    commit::write_atomic(path, |file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::from_error(Exit::Io, &error))?;
    eprintln!("{} is written, {}", path.display(), human::bytes(text.len() as u64));
    Ok(())
}

/// Blocks that are to follow what the rows do not have noted.
fn manifest_failure(error: &ManifestError) -> Failure {
    let exit = if error.is_usage() { Exit::Usage } else { Exit::Io };
    Failure::from_error(exit, error).maybe_hint(error.hint())
}

fn path_failure(error: &PathError) -> Failure {
    let exit = if error.is_usage() { Exit::Usage } else { Exit::Io };
    Failure::from_error(exit, error).maybe_hint(error.hint())
}

fn shard_failure(error: &ShardError) -> Failure {
    let exit = match error.class() {
        ErrorClass::Usage => Exit::Usage,
        ErrorClass::Io => Exit::Io,
        ErrorClass::Artefact => Exit::Incompatible,
    };
    Failure::from_error(exit, error).maybe_hint(error.hint())
}
