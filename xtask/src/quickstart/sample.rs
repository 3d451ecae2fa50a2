//! Filling in the held-back function with the last checkpoint, and reading the trace.

use super::{files, held_back::Question, tokens::Vocabulary};
use crate::{
    process,
    report::data::{Frame, Infill},
};
use coda_cli::Failure;
use serde::Deserialize;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Masks in place of the body: about as many tokens as it has.
const SPAN: &str = "6";

/// What names the newest checkpoint of a run: there once the run has saved its model.
pub(crate) fn newest_checkpoint(run: &Path) -> PathBuf {
    run.join("checkpoints").join("latest")
}

/// Samples the body and writes the trace, one JSON object a step. The question is put as
/// post-training puts it: the instruction as the user's turn, the function as the answer. `engine`: the
/// options by which it is taken.
pub(crate) fn infill(
    run: &Path,
    engine: &[OsString],
    question: &Question,
    trace: &Path,
) -> Result<(), Failure> {
    let prefix = format!(
        "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n{}",
        question.instruction, question.prefix
    );
    let text = process::capture(
        process::sibling("coda-trainer")?
            .arg("sample")
            .args(engine)
            .arg("--checkpoint")
            .arg(run)
            .args(["--prefix", &prefix, "--span", SPAN, "--suffix"])
            .arg(format!("{}<|im_end|>", question.suffix))
            .arg("--trace")
            .arg(trace),
    )?;
    eprintln!("{text}");
    Ok(())
}

/// What the report uses of a line of the trace.
#[derive(Deserialize)]
struct Line {
    step: u64,
    tokens: Vec<u64>,
    revealed: Vec<usize>,
}

/// Reads a trace back as frames of the masked span.
pub(crate) fn read(trace: &Path, question: &Question, tokenizer: &Path) -> Result<Infill, Failure> {
    let vocabulary = Vocabulary::load(tokenizer)?;
    let lines: Vec<Line> = files::read(trace)?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .map_err(|e| Failure::incompatible(format!("{}: {e}", trace.display())))?;
    Ok(Infill {
        from: question.from.clone(),
        original: question.body.clone(),
        prefix: question.prefix.clone(),
        suffix: question.suffix.clone(),
        frames: frames(&lines, &vocabulary),
    })
}

/// The masked positions are those that some step reveals; a position shows its token from then on.
fn frames(lines: &[Line], vocabulary: &Vocabulary) -> Vec<Frame> {
    let mut span: Vec<usize> = lines.iter().flat_map(|line| line.revealed.clone()).collect();
    span.sort_unstable();
    let mut tokens: Vec<Option<String>> = vec![None; span.len()];
    let mut frames = vec![Frame { step: 0, tokens: tokens.clone() }];
    for line in lines {
        for position in &line.revealed {
            let token = line.tokens.get(*position).map(|&id| vocabulary.text(id));
            if let Ok(index) = span.binary_search(position) {
                tokens[index] = token;
            }
        }
        frames.push(Frame { step: line.step + 1, tokens: tokens.clone() });
    }
    frames
}
