//! `coda-curriculum show`: the schedules over the run, and what they come to.

use crate::{
    ManifestArgs, chart,
    clocks::{Waits, Ways},
    mix::{RealRows, SourceTimeline, mix},
    page::{self, Sample},
    run::{Resolved, write},
    table,
    timeline::{Run, Timeline, Wanted},
};
use clap::Args;
use coda_cli::{Failure, print_json, print_text};
use coda_curriculum::{Clocks, Curriculum, MaskPlan, RowView, SyntaxSpans, plan_row};
use coda_shards::row_key;
use coda_stages::Recipe;
use std::path::PathBuf;

/// At most so many rows of a batch are shown.
const SAMPLE_ROWS: u64 = 24;
/// At most so many rows of a shard set are averaged.
const AVERAGED_ROWS: u64 = 1024;

#[derive(Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    manifest: ManifestArgs,
    /// Take the number of rows (which sets the length of an epoch) from this shard set; absent: from
    /// the one that the manifest names, when it is there.
    #[arg(long, value_name = "DIR")]
    shards: Option<PathBuf>,
    /// Assume that so many rows will be trained on, before there is a shard set.
    #[arg(long, value_name = "N", conflicts_with = "shards")]
    rows: Option<u64>,
    /// Take the clocks of schedules with a hold from this metrics.jsonl of a run; absent: show the run
    /// without waits and with the longest.
    #[arg(long, value_name = "METRICS")]
    clocks: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long, conflicts_with_all = ["svg", "html"])]
    json: bool,
    /// Write a picture of the schedules, light or dark as the reader's system is.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write one self-contained page: words, pictures, sample rows, table.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(crate) fn run(args: &ShowArgs) -> Result<(), Failure> {
    let (shards, clocks) = (args.shards.as_deref(), args.clocks.as_deref());
    let resolved = Resolved::load(&args.manifest, shards, args.rows, clocks)?;
    let wanted = Wanted {
        points: args.svg.is_some() || args.html.is_some(),
        shapes: args.json || args.html.is_some(),
    };
    let mut timeline = timeline(&resolved, wanted);
    timeline.shard_set_rows = real_rows(&resolved)?;
    if args.json {
        return print_json(&timeline);
    }
    if let Some(path) = &args.svg {
        write(path, &chart::svg(&timeline))?;
    }
    if let Some(path) = &args.html {
        let (samples, drawn_from) = samples(&resolved, &timeline)?;
        write(path, &page::html(&timeline, &samples, &drawn_from))?;
    }
    if args.svg.is_none() && args.html.is_none() {
        print_text(&table::render(&timeline))?;
    }
    Ok(())
}

/// One run's curriculum for the rows of a source, over the run.
pub(crate) struct Course<'a> {
    resolved: &'a Resolved,
    ways: &'a Ways,
    /// The source with schedules of its own; `None`: the common ones.
    source: Option<&'a str>,
    curriculum: Curriculum,
}

impl<'a> Course<'a> {
    pub(crate) fn new(resolved: &'a Resolved, ways: &'a Ways, source: Option<&'a str>) -> Self {
        let curriculum = of(&resolved.recipe.curriculum, source);
        Self { resolved, ways, source, curriculum }
    }

    /// Looks at the run.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Run<'_>) -> T) -> T {
        let recipe = &self.resolved.recipe;
        let settings = |step| {
            let progress = recipe.progress(step);
            if self.ways.is_empty() {
                return self.curriculum.settings(progress);
            }
            of(&recipe.curriculum_at(&self.ways.at(step)), self.source).settings(progress)
        };
        look(&Run {
            name: self.resolved.manifest.name.clone(),
            stage: self.resolved.stage_name().to_owned(),
            profile: self.resolved.profile_name().to_owned(),
            curriculum: &self.curriculum,
            total_steps: recipe.total_steps,
            global_batch: self.resolved.global_batch(),
            row_length: recipe.row_length,
            progress: &|step| recipe.progress(step),
            settings: &settings,
            path: &|key| self.ways.path(self.source, key).cloned(),
            learning_rate: &|step| recipe.lr_at(step),
            epochs_from: self.resolved.epochs_from(),
        })
    }
}

fn of(curriculum: &Curriculum, source: Option<&str>) -> Curriculum {
    source.map_or_else(|| curriculum.clone(), |name| curriculum.of_source(name))
}

/// The run laid out over its steps; if there are schedules with a hold and no recorded clocks, also with
/// the longest waits.
pub(crate) fn timeline(resolved: &Resolved, wanted: Wanted) -> Timeline {
    let mut timeline = under(resolved, &resolved.ways, wanted);
    if timeline.waits == Some(Waits::None) {
        let latest = Ways::latest(&resolved.recipe);
        timeline.longest_waits = Some(Box::new(under(resolved, &latest, wanted)));
    }
    timeline
}

/// The run laid out over its steps, with the sources that have schedules of their own.
fn under(resolved: &Resolved, ways: &Ways, wanted: Wanted) -> Timeline {
    let recipe = &resolved.recipe;
    let mut timeline = Course::new(resolved, ways, None).look(|run| Timeline::of(run, wanted));
    if !ways.is_empty() {
        timeline.waits = Some(ways.waits);
        timeline.holds = ways.shown(recipe.total_steps);
    }
    if recipe.curriculum.sources.is_empty() {
        return timeline;
    }
    let names: Vec<&str> =
        resolved.manifest.data.sources.iter().map(|source| source.name.as_str()).collect();
    let courses: Vec<Course<'_>> =
        names.iter().map(|name| Course::new(resolved, ways, Some(name))).collect();
    let shares = resolved.shares();
    for (i, name) in names.iter().enumerate() {
        if recipe.curriculum.sources.contains_key(*name) {
            let own = courses[i].look(|run| Timeline::of(run, wanted));
            timeline.sources.push(SourceTimeline {
                source: (*name).to_owned(),
                share: shares.as_ref().map(|shares| shares[i]),
                lines: own.lines.clone(),
                timeline: own,
            });
        }
    }
    timeline.mix = shares.map(|shares| mix(&shares, &courses));
    timeline
}

/// What the rows of the shard set come to, if there is one.
fn real_rows(resolved: &Resolved) -> Result<Option<RealRows>, Failure> {
    let Some(data) = resolved.data() else { return Ok(None) };
    let recipe = &resolved.recipe;
    let rows = AVERAGED_ROWS.min(recipe.total_steps.saturating_mul(resolved.global_batch()));
    let last_step = recipe.total_steps.saturating_sub(1);
    let at = |step| data.averages(recipe, step, &resolved.ways.at(step), rows);
    let (first, last) = (at(0)?, at(last_step)?);
    Ok(Some(RealRows { rows, first, last }))
}

/// Rows at the start, in the middle and at the end of the run: the first of the real batch where there
/// is a shard set, else rows without prompt or padding. Says which.
fn samples(resolved: &Resolved, timeline: &Timeline) -> Result<(Vec<Sample>, String), Failure> {
    let total = timeline.total_steps;
    let mut steps = vec![0, total / 2, total.saturating_sub(1)];
    steps.dedup();
    let count = resolved.global_batch().min(SAMPLE_ROWS);
    let mut samples = Vec::new();
    for step in steps {
        let clocks = resolved.ways.at(step);
        let plans = match resolved.data() {
            Some(data) => data.plans(&resolved.recipe, step, &clocks, count)?,
            None => made_up(&resolved.recipe, step, &clocks, count),
        };
        samples.push(Sample { step, plans });
    }
    let by_tokens = resolved.recipe.curriculum.mask_blocks.is_tokens();
    let drawn_from = if resolved.data().is_some() {
        "These are the first rows of the batches that the trainer will see."
    } else if !by_tokens {
        "There is no shard set yet: these are made-up rows that are full, without prompt and padding. They \
         have no text, so that S3 has no spans to follow and masks token by token."
    } else {
        "There is no shard set yet: these are made-up rows that are full, without prompt and padding. Their \
         masks are drawn as those of real rows are."
    };
    Ok((samples, drawn_from.to_owned()))
}

fn made_up(recipe: &Recipe, step: u64, clocks: &Clocks, count: u64) -> Vec<MaskPlan> {
    let settings = recipe.curriculum_at(clocks).settings(recipe.progress(step));
    let context = recipe.curriculum.context(step);
    let plan = |ordinal| {
        let row = RowView {
            length: recipe.row_length,
            row_key: row_key("made-up rows", step * count + ordinal),
            epoch: 0,
            prefix_len: 0,
            valid_len: recipe.row_length,
            maskable_starts: &[0],
            maskable_lens: &[recipe.row_length],
            spans: SyntaxSpans::default(),
        };
        plan_row(&settings, &context, &row)
    };
    (0..count).map(plan).collect()
}
