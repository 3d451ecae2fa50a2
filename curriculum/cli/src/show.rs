//! `coda-curriculum show`: the schedules over the run, and what they come to.

use crate::{
    ManifestArgs, chart,
    mix::{RealRows, SourceTimeline, mix},
    page::{self, Sample},
    run::{Resolved, write},
    table,
    timeline::{Run, Timeline, Wanted},
};
use clap::Args;
use coda_cli::{Failure, print_json, print_text};
use coda_curriculum::{Curriculum, MaskPlan, Progress, RowView, plan_row};
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
    let resolved = Resolved::load(&args.manifest, args.shards.as_deref(), args.rows)?;
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

/// The run that a manifest describes, under one of its curricula.
pub(crate) fn run_of<'a>(
    resolved: &Resolved,
    curriculum: &'a Curriculum,
    progress: &'a dyn Fn(u64) -> Progress,
    learning_rate: &'a dyn Fn(u64) -> f64,
) -> Run<'a> {
    Run {
        name: resolved.manifest.name.clone(),
        stage: resolved.stage_name().to_owned(),
        profile: resolved.profile_name().to_owned(),
        curriculum,
        total_steps: resolved.recipe.total_steps,
        global_batch: resolved.global_batch(),
        row_length: resolved.recipe.row_length,
        progress,
        learning_rate,
        epochs_from: resolved.epochs_from(),
    }
}

/// The run laid out over its steps, with the sources that have schedules of their own.
pub(crate) fn timeline(resolved: &Resolved, wanted: Wanted) -> Timeline {
    let recipe = &resolved.recipe;
    let (progress, rate) = (|step| recipe.progress(step), |step| recipe.lr_at(step));
    let run = |curriculum| run_of(resolved, curriculum, &progress, &rate);
    let mut timeline = Timeline::of(&run(&recipe.curriculum), wanted);
    if recipe.curriculum.sources.is_empty() {
        return timeline;
    }
    let names: Vec<&String> = resolved.manifest.data.sources.iter().map(|s| &s.name).collect();
    let curricula: Vec<Curriculum> =
        names.iter().map(|name| recipe.curriculum.of_source(name)).collect();
    let shares = resolved.shares();
    for (i, name) in names.iter().enumerate() {
        if recipe.curriculum.sources.contains_key(*name) {
            let own = Timeline::of(&run(&curricula[i]), wanted);
            timeline.sources.push(SourceTimeline {
                source: (*name).clone(),
                share: shares.as_ref().map(|shares| shares[i]),
                lines: own.lines.clone(),
                timeline: own,
            });
        }
    }
    timeline.mix = shares.map(|shares| {
        let runs: Vec<(f64, Run<'_>)> = shares.into_iter().zip(curricula.iter().map(run)).collect();
        mix(&runs)
    });
    timeline
}

/// What the rows of the shard set come to, if there is one.
fn real_rows(resolved: &Resolved) -> Result<Option<RealRows>, Failure> {
    let Some(data) = resolved.data() else { return Ok(None) };
    let recipe = &resolved.recipe;
    let rows = AVERAGED_ROWS.min(recipe.total_steps.saturating_mul(resolved.global_batch()));
    let last_step = recipe.total_steps.saturating_sub(1);
    let (first, last) = (data.averages(recipe, 0, rows)?, data.averages(recipe, last_step, rows)?);
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
        let plans = match resolved.data() {
            Some(data) => data.plans(&resolved.recipe, step, count)?,
            None => made_up(&resolved.recipe, step, count),
        };
        samples.push(Sample { step, plans });
    }
    let drawn_from = if resolved.data().is_some() {
        "These are the first rows of the batches that the trainer will see."
    } else {
        "There is no shard set yet: these are made-up rows that are full, without prompt and padding. Their          masks are drawn as those of real rows are."
    };
    Ok((samples, drawn_from.to_owned()))
}

fn made_up(recipe: &Recipe, step: u64, count: u64) -> Vec<MaskPlan> {
    let settings = recipe.curriculum.settings(recipe.progress(step));
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
        };
        plan_row(&settings, &context, &row)
    };
    (0..count).map(plan).collect()
}
