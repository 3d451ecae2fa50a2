//! `coda-curriculum show`: the schedules over the run, and what they come to.

use crate::{
    ManifestArgs, chart, page,
    run::{Resolved, write},
    table,
    timeline::{Run, Timeline},
};
use clap::Args;
use coda_cli::{Failure, print_json, print_text};
use std::path::PathBuf;

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
    /// Write a picture of the schedules.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write one self-contained page with the picture and the table.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(crate) fn run(args: &ShowArgs) -> Result<(), Failure> {
    let resolved = Resolved::load(&args.manifest, args.shards.as_deref(), args.rows)?;
    let recipe = &resolved.recipe;
    let run = Run {
        name: resolved.manifest.name.clone(),
        stage: resolved.stage_name().to_owned(),
        profile: resolved.profile_name().to_owned(),
        curriculum: &recipe.curriculum,
        total_steps: recipe.total_steps,
        global_batch: resolved.global_batch(),
        row_length: recipe.row_length,
        progress: &|step| recipe.progress(step),
        learning_rate: &|step| recipe.lr_at(step),
        epochs_from: resolved.epochs_from(),
    };
    let draws_pictures = args.svg.is_some() || args.html.is_some();
    let timeline = Timeline::of(&run, draws_pictures);
    if args.json {
        return print_json(&timeline);
    }
    if draws_pictures {
        let svg = chart::svg(&timeline)
            .map_err(|error| Failure::io(format!("cannot draw the picture: {error}")))?;
        if let Some(path) = &args.svg {
            write(path, &svg)?;
        }
        if let Some(path) = &args.html {
            write(path, &page::html(&timeline, &svg))?;
        }
        return Ok(());
    }
    print_text(&table::render(&timeline))
}
