//! `coda-ingest --explain`: what happens to one document.

use coda_cli::{Exit, Failure, Progress, ProgressArgs, print_json, print_text, signals::Stop};
use coda_ingest::{
    build::workers,
    clean::Finding,
    explain::{ExplainError, Explanation, Place, Target, explain},
    placed::placed,
    plan::Plan,
};
use coda_shards::commit::AtomicDir;
use std::{fmt::Write as _, path::Path};

/// Places in the shard set that are shown.
const SHOWN: usize = 4;

/// Runs the part of the build that the answer needs, and prints it. The state of deduplication is
/// kept in a folder beside `out` that goes when it ends.
pub(super) fn run(
    plan: &Plan,
    target: &Target,
    out: &Path,
    jobs: usize,
    stop: &Stop,
    json: bool,
) -> Result<Exit, Failure> {
    let pool = workers(jobs).map_err(|e| Failure::from_error(Exit::Io, &e))?;
    let quiet = ProgressArgs { quiet: true, ..ProgressArgs::default() };
    let progress = Progress::start(quiet, "", "", None);
    let beside = out.ancestors().skip(1).find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
    let scratch =
        AtomicDir::create(&beside.join("explain")).map_err(|e| super::file_failure(&e))?;
    let told = explain(plan, &plan.line(&pool, &progress, stop), target, scratch.path());
    let mut told = match told {
        Err(ExplainError::Stopped) => return Ok(stop.requested().unwrap_or(Exit::Interrupted)),
        told => told.map_err(|error| {
            let exit = if error.is_usage() { Exit::Usage } else { Exit::Io };
            Failure::from_error(exit, &error).maybe_hint(error.hint())
        })?,
    };
    if told.outcome == "taken_in" && out.join(coda_shards::INDEX_FILE).exists() {
        let found = placed(out, &told.place.source, &told.ids);
        told.placed = Some(found.map_err(|error| super::shard_failure(&error))?);
    }
    if json {
        print_json(&told)?;
    } else {
        print_text(&text(plan, &told, out))?;
    }
    Ok(Exit::Done)
}

fn text(plan: &Plan, told: &Explanation, set: &Path) -> String {
    let mut out = format!("{}\n", place(&told.place));
    if let (Some([before, after]), Some(blake3)) = (told.bytes, &told.blake3) {
        let _ = writeln!(out, "  found: {before} bytes of text, BLAKE3 {blake3}");
        if before != after {
            let _ = writeln!(out, "  cleaned: {after} bytes");
        }
    }
    for finding in &told.clean {
        let _ = writeln!(out, "  {}", rule(finding));
    }
    match &told.contamination {
        Some(hit) => {
            let _ = writeln!(out, "  contaminated: {:?} is of {}", hit.text, hit.task);
        }
        None if plan.benchmarks.is_some() && told.bytes.is_some() => {
            out.push_str("  decontaminate: no text of a benchmark\n");
        }
        None => {}
    }
    match &told.duplicate {
        Some(twin) => {
            let of = place(&twin.of);
            let _ = match twin.similarity {
                None => writeln!(out, "  duplicate: the same text as {of}"),
                Some(s) => writeln!(out, "  near duplicate: similarity about {s:.2} with {of}"),
            };
        }
        None if plan.dedup.is_some() && told.outcome == "taken_in" => {
            out.push_str("  dedup: no earlier document is like it\n");
        }
        None => {}
    }
    let reason = told.reason.unwrap_or_default();
    let _ = match (&told.rejection, told.tokens) {
        (Some(rejection), _) => writeln!(out, "  rejected ({reason}): {}", rejection.message),
        (None, Some(tokens)) => writeln!(out, "  taken in: {tokens} tokens"),
        (None, None) => writeln!(out, "  left out ({reason})"),
    };
    if let Some(found) = &told.placed {
        let set = set.display();
        let places: Vec<String> = found
            .iter()
            .take(SHOWN)
            .map(|place| format!("row {} from token {} on", place.row, place.token))
            .collect();
        let more = found.len().saturating_sub(SHOWN);
        let _ = match (places.is_empty(), more) {
            (true, _) => writeln!(out, "  not in {set}, which was made of other inputs or keys"),
            (false, 0) => writeln!(out, "  in {set}: {}", places.join(", ")),
            (false, more) => writeln!(out, "  in {set}: {} and {more} more", places.join(", ")),
        };
    }
    out
}

fn place(place: &Place) -> String {
    let number = match (place.line, place.row) {
        (Some(line), _) => format!("line {line}"),
        (None, row) => format!("row {}", row.unwrap_or_default()),
    };
    format!("{}: {} {number}", place.source, place.file)
}

fn rule(finding: &Finding) -> String {
    let Finding { reason, key, n, value, bound, dropped } = finding;
    let n = n.map(|n| format!(" (n = {n})")).unwrap_or_default();
    let verdict = if *dropped { format!("leaves it out ({reason})") } else { "holds".to_owned() };
    // Shares with few digits, counts with none.
    let number = |x: f64| if x.fract() == 0.0 { format!("{x}") } else { format!("{x:.3}") };
    format!("{key}{n}: {} against {}: {verdict}", number(*value), number(*bound))
}
