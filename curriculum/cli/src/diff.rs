//! `coda-curriculum diff`: where two runs show the model different things.

use crate::{
    ManifestArgs, compare, differ,
    run::{Resolved, write},
};
use clap::Args;
use coda_cli::{Failure, print_json, print_text};
use std::path::PathBuf;

/// Compares what two runs show the model: the keys that differ, the schedules where they part, and the
/// largest differences of what they come to.
///
/// `diff A B`: two manifests. `diff A --profiles`: one manifest under both profiles.
/// `diff A KEY=VALUE…`: one manifest as it is and with keys changed. `diff A --clocks-a METRICS`: one
/// manifest without waits and as a run went through it. Runs of different lengths are
/// compared at the same share of the run.
#[derive(Args)]
pub(crate) struct DiffArgs {
    /// The one manifest.
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The other manifest; and keys to change, in both manifests if there are two.
    #[arg(value_name = "B | KEY=VALUE")]
    rest: Vec<String>,
    /// Compare the manifest under the profiles coda-paper and coda-repo.
    #[arg(long)]
    profiles: bool,
    /// Assume that so many rows will be trained on, in both runs.
    #[arg(long, value_name = "N")]
    rows: Option<u64>,
    /// Take the clocks of A's schedules with a hold from this metrics.jsonl; absent: nothing waits.
    #[arg(long, value_name = "METRICS")]
    clocks_a: Option<PathBuf>,
    /// The same for B.
    #[arg(long, value_name = "METRICS")]
    clocks_b: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long, conflicts_with_all = ["svg", "html"])]
    json: bool,
    /// Write a picture of the schedules that part, both in one chart.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write one self-contained page with both schedules in one picture.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// What a side is called, and how it is read.
struct Side {
    name: String,
    args: ManifestArgs,
}

pub(crate) fn run(args: &DiffArgs) -> Result<(), Failure> {
    let [a, b] = sides(args)?;
    let load = |side: &Side, clocks: &Option<PathBuf>| {
        Resolved::load(&side.args, None, args.rows, clocks.as_deref())
    };
    let (left, right) = (load(&a, &args.clocks_a)?, load(&b, &args.clocks_b)?);
    let diff = compare::runs((a.name, &left), (b.name, &right));
    if args.json {
        return print_json(&diff);
    }
    if let Some(path) = &args.svg {
        write(path, &differ::svg(&diff))?;
    }
    if let Some(path) = &args.html {
        write(path, &differ::html(&diff))?;
    }
    if args.svg.is_none() && args.html.is_none() {
        print_text(&differ::text(&diff))?;
    }
    Ok(())
}

fn sides(args: &DiffArgs) -> Result<[Side; 2], Failure> {
    let (manifests, overrides): (Vec<&String>, Vec<&String>) =
        args.rest.iter().partition(|text| !text.contains('='));
    let side = |name: String, manifest: &PathBuf, overrides: Vec<String>| Side {
        name,
        args: ManifestArgs { manifest: manifest.clone(), overrides },
    };
    let shown = args.a.display().to_string();
    let changes: Vec<String> = overrides.into_iter().cloned().collect();
    match (manifests.as_slice(), args.profiles) {
        ([], true) => Ok(["coda-paper", "coda-repo"].map(|profile| {
            let mut changes = changes.clone();
            changes.push(format!("profile={profile}"));
            side(format!("{shown} under {profile}"), &args.a, changes)
        })),
        ([], false) if !changes.is_empty() => {
            let changed = format!("{shown} with {}", changes.join(" "));
            Ok([side(shown, &args.a, Vec::new()), side(changed, &args.a, changes)])
        }
        // One manifest, as two runs have gone through it.
        ([], false) if args.clocks_a.is_some() || args.clocks_b.is_some() => {
            Ok(["A", "B"].map(|run| side(format!("{shown}, run {run}"), &args.a, Vec::new())))
        }
        ([b], false) => Ok([
            side(shown, &args.a, changes.clone()),
            side((*b).clone(), &PathBuf::from(b), changes),
        ]),
        _ => Err(Failure::usage("there is nothing to compare with, or more than two manifests")
            .hint(
                "diff A B compares two manifests, diff A --profiles one under both profiles, \
             diff A KEY=VALUE one before and after",
            )),
    }
}
