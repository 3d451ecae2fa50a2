//! What the models are worth on what they have never seen: the likelihood of held-out rows, and bodies of
//! functions that are filled in to the letter.

use super::{
    files, pairs,
    unpacked::{HELD_BACK, Unpacked},
};
use crate::{
    process,
    report::data::{Evaluation, Filled, Nll},
};
use coda_cli::Failure;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// Rows that a likelihood is measured on, and noise levels at which each is.
const ROWS: &str = "24";
const LEVELS: &str = "4";
/// Functions of the held-back crate whose bodies are filled in.
const FUNCTIONS: usize = 40;

/// A hole in a function, in the format of HumanEval-Infilling; nothing here runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hole {
    task_id: String,
    entry_point: String,
    prompt: String,
    suffix: String,
    canonical_solution: String,
    test: String,
}

/// The functions of the held-back crate whose body is one line, with that line as the hole.
pub(crate) fn holes(crates: &[Unpacked]) -> Result<Vec<Hole>, Failure> {
    let held_back = crates.iter().filter(|found| HELD_BACK.contains(&found.name.as_str()));
    let mut holes = Vec::new();
    for found in held_back {
        for path in sources(&found.directory.join("src"))? {
            let pairs = pairs::extract(&files::read(&path)?);
            holes.extend(pairs.iter().filter_map(|pair| hole(&pair.function)));
        }
    }
    holes.truncate(FUNCTIONS);
    for (number, hole) in holes.iter_mut().enumerate() {
        hole.task_id = format!("Held-back/{number}");
    }
    Ok(holes)
}

/// The files of a folder, without those below it, by name.
fn sources(folder: &Path) -> Result<Vec<std::path::PathBuf>, Failure> {
    let listed = std::fs::read_dir(folder)
        .map_err(|error| Failure::io(format!("cannot read {}: {error}", folder.display())))?;
    let mut paths: Vec<_> = listed
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .collect();
    paths.sort();
    Ok(paths)
}

fn hole(function: &str) -> Option<Hole> {
    let lines: Vec<&str> = function.trim_end().lines().collect();
    let [signature, body, end] = lines.as_slice() else { return None };
    // A blank before a word belongs to the word's token.
    let indent = body.len() - body.trim_start().len();
    let (blanks, body) = body.split_at(indent.checked_sub(1)?);
    Some(Hole {
        task_id: String::new(),
        entry_point: String::new(),
        prompt: format!("{signature}\n{blanks}"),
        suffix: format!("\n{end}\n"),
        canonical_solution: body.to_owned(),
        test: String::new(),
    })
}

/// Measures the likelihood bound of a run's model on the rows that its shard set holds out.
pub(crate) fn likelihood(
    manifest: &Path,
    shards: &Path,
    run: &Path,
    out: &Path,
) -> Result<(), Failure> {
    let text = process::capture(
        process::sibling("coda-trainer")?
            .args(["eval", "--nll", "--levels", LEVELS, "--rows", ROWS, "--json", "--manifest"])
            .arg(manifest)
            .arg("--shards")
            .arg(shards)
            .arg("--checkpoint")
            .arg(run),
    )?;
    files::write(out, text.as_bytes())
}

/// Fills the holes, greedily and one token at a step.
pub(crate) fn fill(holes: &Path, run: &Path, out: &Path) -> Result<(), Failure> {
    process::run(
        process::sibling("coda-trainer")?
            .args(["eval", "code", "--generate-only", "--temperature", "0", "--data"])
            .arg(holes)
            .arg("--checkpoint")
            .arg(run)
            .arg("--out")
            .arg(out),
    )
}

/// Reads what the steps have left: a likelihood for each stage, and the filled holes.
pub(crate) fn read(
    stages: &[(&str, &Path)],
    holes: &Path,
    samples: &Path,
) -> Result<Evaluation, Failure> {
    #[derive(Deserialize)]
    struct Measured {
        nll: BTreeMap<String, Nll>,
    }
    #[derive(Deserialize)]
    struct Line {
        task_id: String,
        answer: String,
    }
    let bad = |path: &Path| {
        let path = path.display().to_string();
        move |error| Failure::incompatible(format!("{path} is not as expected: {error}"))
    };
    let mut likelihoods = Vec::new();
    for (title, path) in stages {
        let measured: Measured = serde_json::from_str(&files::read(path)?).map_err(bad(path))?;
        likelihoods.push(((*title).to_owned(), measured.nll));
    }
    let parsed = |path: &Path| {
        Ok::<_, Failure>(files::read(path)?.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let mut filled = Vec::new();
    let lines: Vec<Line> = parsed(samples)?
        .iter()
        .map(|line| serde_json::from_str(line).map_err(bad(samples)))
        .collect::<Result<_, _>>()?;
    for line in parsed(holes)? {
        let hole: Hole = serde_json::from_str(&line).map_err(bad(holes))?;
        let answer = lines.iter().find(|line| line.task_id == hole.task_id);
        filled.extend(answer.map(|line| Filled {
            original: hole.canonical_solution.trim().to_owned(),
            answer: line.answer.trim().to_owned(),
        }));
    }
    Ok(Evaluation { likelihoods, filled })
}

#[cfg(test)]
mod tests {
    use super::hole;

    #[test]
    fn a_hole_and_what_stands_around_it_make_the_function() {
        let function = "pub fn len(&self) -> usize {\n    self.core.len()\n}\n";
        let hole = hole(function).expect("one line");
        assert_eq!(hole.canonical_solution, " self.core.len()");
        assert_eq!(format!("{}{}{}", hole.prompt, hole.canonical_solution, hole.suffix), function);
        assert_eq!(super::hole("fn f() {\n    a();\n    b();\n}\n"), None);
        assert_eq!(super::hole("fn f() {}\n"), None);
    }
}
