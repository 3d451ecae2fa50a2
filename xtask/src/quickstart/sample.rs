//! Filling in the held-back function with the last checkpoint, and reading the trace.

use super::{files, held_back::Question, tokens::Vocabulary};
use crate::{
    process,
    report::data::{Frame, Infill},
};
use coda_cli::Failure;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The directory that a finished run leaves its model in.
pub(crate) fn final_checkpoint(run: &Path) -> PathBuf {
    run.join("final")
}

/// Samples the body and writes the trace, one JSON object a step.
pub(crate) fn infill(run: &Path, question: &Question, trace: &Path) -> Result<(), Failure> {
    let _ = (run, question, trace, process::root());
    Err(Failure::usage("sampling is not wired up"))
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
