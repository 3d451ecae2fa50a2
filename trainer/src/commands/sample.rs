//! `coda-trainer sample`.

use super::engines::EngineArgs;
use crate::{
    engine::decoder_of,
    fit::engine_failure,
    sample::{
        Accept, Algorithm, Cache, Canvas, Decoding, DecodingError, Denoiser, Length, PromptError,
        Sampler, SamplingModel, Step, Tally, chat_prompt, denoise_rows, most_confident,
    },
};
use clap::Args;
use coda_cli::{Exit, Failure, Progress, ProgressArgs, print_json, print_text};
use coda_manifests::{Engine as EngineKey, Recompute};
use coda_shards::commit::{AtomicFile, FileError};
use serde::Serialize;
use serde_json::json;
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Instant,
};

const EXAMPLES: &str = "\
Examples:
  coda-trainer sample --checkpoint runs/post --chat --prompt 'Reverse a list in Rust.' --json
  coda-trainer sample --checkpoint runs/post --prompt 'fn main() {' --max-new-tokens 256 \\
      --cache dual --threshold 0.9
  coda-trainer sample --checkpoint runs/post --prefix 'fn len(&self) -> usize {' --suffix '}' \\
      --span-lengths 4,8,16";

/// The options of sampling (method §6).
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Sample {
    /// A checkpoint, Hugging Face directory or run.
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    /// Text to continue. Mask tokens spelled in it are filled too.
    #[arg(long, value_name = "TEXT", group = "canvas")]
    prompt: Option<String>,
    /// The same from a file.
    #[arg(long, value_name = "FILE", group = "canvas")]
    prompt_file: Option<PathBuf>,
    /// A text with holes: each <|mask|> in it is one token to fill.
    #[arg(long, value_name = "FILE", group = "canvas")]
    infill_file: Option<PathBuf>,
    /// The text before a hole of --span tokens.
    #[arg(long, value_name = "TEXT", group = "canvas", requires = "hole")]
    prefix: Option<String>,
    /// The text after the hole.
    #[arg(long, value_name = "TEXT", default_value = "", requires = "prefix")]
    suffix: String,
    /// Tokens in the hole.
    #[arg(long, value_name = "N", requires = "prefix", group = "hole")]
    span: Option<usize>,
    /// Fill holes of several lengths, and keep the one whose tokens had the highest mean log
    /// probability when they were chosen.
    #[arg(long, value_name = "N,…", requires = "prefix", group = "hole", value_delimiter = ',')]
    span_lengths: Vec<usize>,
    /// Put the prompt into the chat template, as a user's turn that the model answers.
    #[arg(long)]
    chat: bool,
    /// Tokens after a prompt.
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_new_tokens: usize,
    /// Denoising steps; without it, as many as there are masks.
    #[arg(long, value_name = "N")]
    steps: Option<u32>,
    /// Fill this many positions before going on to the next; without it the text is one block,
    /// or with --cache, blocks go from a mask to the last of the next 128 positions.
    #[arg(long, value_name = "N")]
    block_length: Option<usize>,
    /// Keys and values to keep while a block is filled: `none`, `prefix` (what stands before it) or
    /// `dual` (everything around it).
    #[arg(long, value_name = "NAME", default_value = "none")]
    cache: Cache,
    /// A step reveals every token of this probability, and at least one; --steps has no say then.
    #[arg(long, value_name = "P", conflicts_with_all = ["factor", "steps"])]
    threshold: Option<f64>,
    /// A step reveals the most tokens, n, whose probabilities are all at least 1 - F / (n + 1), and at
    /// least one.
    #[arg(long, value_name = "F", conflicts_with = "steps")]
    factor: Option<f64>,
    /// How positions are chosen: `origin`, `maskgit_plus`, `topk_margin` or `entropy`.
    #[arg(long, value_name = "NAME", default_value = "entropy")]
    alg: Algorithm,
    /// Above 0, positions are drawn from their confidences instead of ranked.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    alg_temp: f64,
    /// Above 0, tokens are drawn instead of the best taken.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f64,
    /// Draw only from the best tokens that together have this probability.
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Draw only from this many best tokens.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// The last time; the first is 1.
    #[arg(long, value_name = "EPS", default_value_t = 1e-3)]
    eps: f64,
    /// Decides every draw.
    #[arg(long, value_name = "SEED", default_value_t = 17)]
    seed: u64,
    /// Write every step as a line of JSON: step, tokens, revealed positions, their probabilities.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
    /// Print one JSON object instead of the text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

#[derive(Serialize)]
struct Sampled<'a> {
    text: String,
    completion: String,
    tokens: &'a [u32],
    masked: usize,
    sampler: Decoding,
    checkpoint: &'a Path,
    seconds: f64,
    #[serde(flatten)]
    tally: Tally,
    tokens_per_forward: f64,
    lengths: Vec<Length>,
    trace: Option<&'a Path>,
}

impl Sample {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        self.engine.check(EngineKey::Auto)?;
        self.decoding(1).check().map_err(|error| usage(&error))?;
        let model = SamplingModel::open(&self.checkpoint)?;
        let canvases = self.canvases(&model)?;
        let mask = model.controls.mask;
        let mut rows = Vec::new();
        for canvas in &canvases {
            model.check_ids(&canvas.ids)?;
            let masked = canvas.ids.iter().filter(|&&id| id == mask).count();
            let decoding = self.decoding(u32::try_from(masked).unwrap_or(u32::MAX));
            let ids = canvas.ids.clone();
            rows.push((
                masked,
                decoding,
                Denoiser::new(ids, mask, decoding, 0, &model.controls.ends),
            ));
        }
        let mut trace = self.trace.as_deref().map(Trace::create).transpose()?;
        let started = Instant::now();
        let mut denoisers: Vec<Denoiser> = rows.iter().map(|(_, _, row)| row.clone()).collect();
        let steps = self.fill(&model, &mut denoisers)?;
        let seconds = started.elapsed().as_secs_f64();
        let kept = most_confident(&denoisers);
        if let Some(trace) = &mut trace {
            steps[kept].iter().try_for_each(|step| trace.step(step))?;
        }
        if let Some(trace) = trace {
            trace.finish()?;
        }
        let (canvas, (masked, decoding, _)) = (&canvases[kept], &rows[kept]);
        let tally = denoisers[kept].tally();
        let ids = canvas.cut(denoisers[kept].ids(), &model.controls.ends);
        let text = model.text(ids)?;
        let completion = model.text(&ids[canvas.first_mask.min(ids.len())..])?;
        if !self.json {
            print_text(&format!("{}\n", if self.chat { completion } else { text }))?;
            return Ok(Exit::Done);
        }
        let lengths = if self.span_lengths.is_empty() { &[] } else { denoisers.as_slice() };
        print_json(&Sampled {
            text,
            completion,
            tokens: ids,
            masked: *masked,
            sampler: *decoding,
            checkpoint: &model.dir,
            seconds,
            tally,
            tokens_per_forward: tally.revealed as f64 / tally.forwards.max(1) as f64,
            lengths: self
                .span_lengths
                .iter()
                .zip(lengths)
                .map(|(&span, row)| Length {
                    span,
                    mean_log_probability: row.tally().mean_log_probability(),
                })
                .collect(),
            trace: self.trace.as_deref(),
        })?;
        Ok(Exit::Done)
    }

    /// Takes all rows through the engine; each row's steps.
    fn fill(
        &self,
        model: &SamplingModel,
        rows: &mut [Denoiser],
    ) -> Result<Vec<Vec<Step>>, Failure> {
        let mut engine = self.engine.open(&model.config, Recompute::None)?;
        let vocabulary = model.config.vocab_size;
        let mut decoder = decoder_of(engine.as_mut(), &model.params, vocabulary)
            .map_err(|error| engine_failure(&error))?;
        let progress = Progress::start(self.progress, "sample", "steps", None);
        let mut steps = vec![Vec::new(); rows.len()];
        let keep = self.trace.is_some();
        denoise_rows(decoder.as_mut(), rows, |row, step| {
            progress.advance(1);
            if keep {
                steps[row].push(step.clone());
            }
        })
        .map_err(|error| engine_failure(&error))?;
        progress.finish();
        Ok(steps)
    }

    /// The settings of a row with so many masks.
    fn decoding(&self, masked: u32) -> Decoding {
        let accept = match (self.threshold, self.factor) {
            (Some(threshold), _) => Accept::Threshold(threshold),
            (None, Some(factor)) => Accept::Factor(factor),
            (None, None) => Accept::Schedule,
        };
        Decoding {
            sampler: Sampler {
                steps: self.steps.unwrap_or(masked),
                eps: self.eps,
                algorithm: self.alg,
                alg_temp: self.alg_temp,
                temperature: self.temperature,
                top_p: self.top_p,
                top_k: self.top_k,
                seed: self.seed,
            },
            accept,
            block_length: self.block_length,
            cache: self.cache,
        }
    }

    /// What is filled: one text, or the same with holes of several lengths.
    fn canvases(&self, model: &SamplingModel) -> Result<Vec<Canvas>, Failure> {
        let mask = (model.controls.mask_name.as_str(), model.controls.mask);
        let tokenizer = &model.tokenizer;
        let chat = |text: String| if self.chat { chat_prompt(&text) } else { text };
        let continuing = |text: &str, new| Canvas::continuing(tokenizer, mask, text, new);
        let made = if let Some(prefix) = &self.prefix {
            let prefix = chat(prefix.clone());
            self.span
                .iter()
                .chain(&self.span_lengths)
                .map(|&span| Canvas::infilling(tokenizer, mask, &prefix, span, &self.suffix))
                .collect()
        } else if let Some(path) = &self.infill_file {
            continuing(&read(path)?, 0).map(|canvas| vec![canvas])
        } else if let Some(path) = &self.prompt_file {
            continuing(&chat(read(path)?), self.max_new_tokens).map(|canvas| vec![canvas])
        } else if let Some(prompt) = &self.prompt {
            continuing(&chat(prompt.clone()), self.max_new_tokens).map(|canvas| vec![canvas])
        } else {
            return Err(Failure::usage("there is nothing to sample from")
                .hint("give --prompt, --prompt-file, --infill-file, or --prefix with --span"));
        };
        made.map_err(|error| {
            let exit = match error {
                PromptError::NothingMasked(_) => Exit::Usage,
                PromptError::Tokenizer(_) | PromptError::NoMask(_) => Exit::Incompatible,
            };
            Failure::from_error(exit, &error)
        })
    }
}

fn usage(error: &DecodingError) -> Failure {
    Failure::from_error(Exit::Usage, error)
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map_err(|error| Failure::from_error(Exit::Io, &FileError::new("read", path, error)))
}

/// The file of `--trace`: a line for every step.
struct Trace {
    path: PathBuf,
    file: AtomicFile,
}

impl Trace {
    fn create(path: &Path) -> Result<Self, Failure> {
        let file =
            AtomicFile::create(path).map_err(|error| Failure::from_error(Exit::Io, &error))?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    fn step(&mut self, step: &Step) -> Result<(), Failure> {
        writeln!(self.file, "{}", json!(step)).map_err(|error| {
            Failure::from_error(Exit::Io, &FileError::new("write", &self.path, error))
        })
    }

    fn finish(self) -> Result<(), Failure> {
        self.file.commit().map_err(|error| Failure::from_error(Exit::Io, &error))
    }
}
