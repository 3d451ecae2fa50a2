//! `coda-curriculum draw`: the exact mask plans of rows.

use crate::{
    ManifestArgs,
    rows::{self, RowText},
    run::{Data, Resolved, view, write},
    table::{align, number},
    text::{self, Marks, Part},
    timeline::named,
};
use clap::Args;
use coda_cli::{Failure, print_json, print_text};
use coda_curriculum::{MaskPlan, SpecialIds, apply, plan_row};
use coda_manifests::MaskBlocks;
use coda_shards::Row;
use serde::Serialize;
use std::{
    fmt::Write as _,
    io::{IsTerminal as _, stdout},
    ops::Range,
    path::PathBuf,
    str::FromStr,
};
use tokenizers::Tokenizer;

/// Shows the exact masks that the trainer draws.
///
/// Without --rows: the batch of the step, row by row. With --rows: those rows of the shard set, with
/// the schedules as they stand at the step and the draws of the row's first visit at or after it.
#[derive(Args)]
pub(crate) struct DrawArgs {
    #[command(flatten)]
    manifest: ManifestArgs,
    /// The shard set; absent: the one that the manifest names.
    #[arg(long, value_name = "DIR")]
    shards: Option<PathBuf>,
    /// Rows of the shard set, from A up to but not including B; absent: the batch of the step.
    #[arg(long, value_name = "A..B")]
    rows: Option<Rows>,
    /// The optimizer step, from 0.
    #[arg(long, value_name = "N")]
    step: u64,
    /// Take the clocks of schedules with a hold from this metrics.jsonl; absent: nothing waits.
    #[arg(long, value_name = "METRICS")]
    clocks: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long, conflicts_with_all = ["text", "html"])]
    json: bool,
    /// With --json: also the ids that the model is to find and those that it sees.
    #[arg(long, requires = "json")]
    ids: bool,
    /// Print the rows' text with its masks.
    #[arg(long)]
    text: bool,
    /// Write one self-contained page with the rows' text, coloured.
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    html: Option<PathBuf>,
}

/// `A..B`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rows(Range<u64>);

impl FromStr for Rows {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |part: &str| {
            part.parse().map_err(|_| format!("{part:?} is not a row number; write rows as 0..8"))
        };
        let (from, to) = text.split_once("..").ok_or("write rows as 0..8")?;
        let rows = parse(from)?..parse(to)?;
        if rows.is_empty() {
            Err("there are no rows in this range".to_owned())
        } else {
            Ok(Self(rows))
        }
    }
}

/// One row at one step. The names are those of the JSON output.
#[derive(Debug, Serialize)]
struct Drawn {
    row: u64,
    /// The row key in hexadecimal: JSON readers lose digits of large integers.
    key: String,
    source: String,
    /// The epoch of the draws.
    epoch: u32,
    /// The first step at or after the one asked for whose batch holds the row.
    visited_at_step: u64,
    sigma: f64,
    strategies: Vec<&'static str>,
    prefix_len: u32,
    valid_len: u32,
    block_size: Option<u32>,
    /// What blocks are, where they are not runs of tokens.
    #[serde(skip_serializing_if = "MaskBlocks::is_tokens")]
    mask_blocks: MaskBlocks,
    masked: Vec<u32>,
    /// The row after truncation: what is to be found.
    #[serde(skip_serializing_if = "Option::is_none")]
    clean: Option<Vec<u32>>,
    /// The same with its masks: what the model sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    noised: Option<Vec<u32>>,
}

#[derive(Serialize)]
struct Report {
    step: u64,
    shard_set: String,
    fingerprint: String,
    rows: Vec<Drawn>,
}

pub(crate) fn run(args: &DrawArgs) -> Result<(), Failure> {
    let resolved =
        Resolved::load(&args.manifest, args.shards.as_deref(), None, args.clocks.as_deref())?;
    resolved.ways.note(args.step);
    let data = resolved.require_data()?;
    let visits = visits(args, &resolved, data)?;

    let settings = data.settings(&resolved.recipe, args.step, &resolved.ways.at(args.step));
    let context = resolved.recipe.curriculum.context(args.step);
    let mut plans = Vec::new();
    for visit in visits {
        let row = data.row(visit.row)?;
        let settings = &settings[usize::from(row.source)];
        let plan = plan_row(settings, &context, &view(&row, visit.epoch));
        plans.push((visit, row, plan));
    }
    if args.text {
        return print_text(&texts(args, data, &plans)?);
    }
    if let Some(path) = &args.html {
        return write(path, &html(args, &resolved, data, &plans)?);
    }
    let rows = plans.iter().map(|plan| drawn(data, plan, args.ids)).collect();
    if args.json {
        return print_json(&Report {
            step: args.step,
            shard_set: data.set.dir().display().to_string(),
            fingerprint: data.set.fingerprint().to_owned(),
            rows,
        });
    }
    print_text(&table(&rows))
}

/// A row, when it is visited, and what then happens to it.
type Plan<'a> = (Visit, Row<'a>, MaskPlan);

/// A row at its next turn.
struct Visit {
    row: u64,
    epoch: u32,
    step: u64,
}

fn visits(args: &DrawArgs, resolved: &Resolved, data: &Data) -> Result<Vec<Visit>, Failure> {
    let batch = resolved.global_batch();
    let first = args
        .step
        .checked_mul(batch)
        .ok_or_else(|| Failure::usage(format!("step {} is out of range", args.step)))?;
    let visit = |position: u64| {
        let at = data.order.at(position);
        Visit { row: at.row, epoch: at.epoch, step: position / batch }
    };
    let Some(Rows(rows)) = &args.rows else {
        return Ok((first..first + batch).map(visit).collect());
    };
    if rows.end > data.set.rows() {
        return Err(Failure::usage(format!(
            "rows {}..{} were asked for, but the shard set has {} rows",
            rows.start,
            rows.end,
            data.set.rows()
        )));
    }
    let (trained, held_out): (Vec<u64>, Vec<u64>) =
        rows.clone().partition(|&row| !data.is_held_out(row));
    if !held_out.is_empty() {
        eprintln!(
            "note: {} of the {} rows are held out and never trained on; they are left out",
            held_out.len(),
            rows.end - rows.start
        );
    }
    trained
        .into_iter()
        .map(|row| match data.order.next_visit(row, first) {
            Some((position, at)) => Ok(Visit { row, epoch: at.epoch, step: position / batch }),
            None => Err(Failure::usage(format!("row {row} is never visited"))
                .hint("its source has the weight 0")),
        })
        .collect()
}

fn strategies(plan: &MaskPlan) -> Vec<&'static str> {
    let taken = [(plan.s1, "S1"), (plan.s2, "S2"), (plan.s3, "S3")];
    taken.into_iter().filter_map(|(taken, name)| taken.then_some(name)).collect()
}

fn drawn(data: &Data, (visit, row, plan): &Plan<'_>, with_ids: bool) -> Drawn {
    let specials = data.set.specials();
    let ids = SpecialIds { mask: specials.mask, pad: specials.pad };
    let (clean, noised) = with_ids.then(|| apply(plan, row.tokens, ids)).unzip();
    Drawn {
        row: visit.row,
        key: format!("{:016x}", plan.row_key),
        source: data.source_name(row.source),
        epoch: visit.epoch,
        visited_at_step: visit.step,
        sigma: plan.sigma,
        strategies: strategies(plan),
        prefix_len: plan.prefix_len,
        valid_len: plan.valid_len,
        block_size: plan.block_size,
        mask_blocks: plan.mask_blocks,
        masked: plan.masked.clone(),
        clean,
        noised,
    }
}

fn table(rows: &[Drawn]) -> String {
    let headings = [
        "row",
        "key",
        "source",
        "epoch",
        "visited at",
        "sigma",
        "strategies",
        "prefix",
        "valid",
        "block",
        "masked",
    ];
    let cells: Vec<[String; 11]> = rows
        .iter()
        .map(|row| {
            [
                row.row.to_string(),
                row.key.clone(),
                row.source.clone(),
                row.epoch.to_string(),
                row.visited_at_step.to_string(),
                number(row.sigma),
                if row.strategies.is_empty() { "-".to_owned() } else { row.strategies.join("+") },
                row.prefix_len.to_string(),
                row.valid_len.to_string(),
                row.block_size.map_or_else(|| "-".to_owned(), |k| k.to_string()),
                row.masked.len().to_string(),
            ]
        })
        .collect();
    align(&headings, &cells)
}

fn texts(args: &DrawArgs, data: &Data, plans: &[Plan<'_>]) -> Result<String, Failure> {
    let tokenizer = tokenizer(data)?;
    let colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let marks = if colour { Marks::Colour } else { Marks::Plain };
    let mut page = text::legend(marks);
    for plan in plans {
        let parts = parts(&tokenizer, plan)?;
        let head = headline(args.step, data, plan);
        let _ = writeln!(page, "\n── {head}\n{}", text::render(&parts, marks));
    }
    Ok(page)
}

fn html(
    args: &DrawArgs,
    resolved: &Resolved,
    data: &Data,
    plans: &[Plan<'_>],
) -> Result<String, Failure> {
    let tokenizer = tokenizer(data)?;
    let row = |plan| {
        Ok(RowText { head: headline(args.step, data, plan), parts: parts(&tokenizer, plan)? })
    };
    let rows = plans.iter().map(row).collect::<Result<Vec<_>, Failure>>()?;
    let masks: Vec<MaskPlan> = plans.iter().map(|(_, _, plan)| plan.clone()).collect();
    let length = data.set.row_length();
    Ok(rows::html(&resolved.manifest.name, args.step, length, &masks, &rows))
}

fn tokenizer(data: &Data) -> Result<Tokenizer, Failure> {
    let path = data.set.tokenizer_path();
    Tokenizer::from_file(&path).map_err(|error| {
        Failure::incompatible(format!("cannot read the tokenizer {}: {error}", path.display()))
    })
}

fn parts(tokenizer: &Tokenizer, (visit, row, plan): &Plan<'_>) -> Result<Vec<Part>, Failure> {
    let decode = |range: Range<u32>| {
        tokenizer
            .decode(&row.tokens[range.start as usize..range.end as usize], false)
            .map_err(|error| Failure::incompatible(format!("row {}: {error}", visit.row)))
    };
    text::parts(plan, length(row), row.valid_len, decode)
}

fn length(row: &Row<'_>) -> u32 {
    u32::try_from(row.tokens.len()).unwrap_or(u32::MAX)
}

fn headline(step: u64, data: &Data, (visit, row, plan): &Plan<'_>) -> String {
    format!(
        "row {} · {} · step {step} · epoch {} · sigma {} · {} · {} of {} masked",
        visit.row,
        data.source_name(row.source),
        visit.epoch,
        number(plan.sigma),
        heading(plan),
        plan.masked.len(),
        length(row)
    )
}

fn heading(plan: &MaskPlan) -> String {
    let names = strategies(plan);
    let names = if names.is_empty() { "no strategy".to_owned() } else { names.join("+") };
    match (plan.block_size, plan.mask_blocks) {
        (Some(k), MaskBlocks::Tokens) => format!("{names}, blocks of {k}"),
        (Some(k), MaskBlocks::Spans(kinds)) => format!("{names}, {} of up to {k}", named(kinds)),
        (None, _) => names,
    }
}

#[cfg(test)]
mod tests {
    use super::Rows;

    #[test]
    fn rows_are_a_range() {
        assert_eq!("3..8".parse(), Ok(Rows(3..8)));
        for wrong in ["3", "8..3", "3..3", "a..b", "..4"] {
            assert!(wrong.parse::<Rows>().is_err(), "{wrong}");
        }
    }
}
