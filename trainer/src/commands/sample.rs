//! `coda-trainer sample`.

use super::engines::EngineArgs;
use crate::{
    checkpoint::{HfWeights, Store},
    engine::Ids,
    sample::{Algorithm, Canvas, PromptError, Sampler, Step, denoise},
};
use clap::Args;
use coda_cli::{Exit, Failure, Progress, ProgressArgs, print_json, print_text};
use coda_manifests::{Engine as EngineKey, Recompute};
use coda_shards::commit::{AtomicFile, FileError};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Instant,
};
use tokenizers::Tokenizer;

/// The options of sampling (method §6).
#[derive(Args)]
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
    #[arg(long, value_name = "TEXT", group = "canvas", requires = "span")]
    prefix: Option<String>,
    /// The text after the hole.
    #[arg(long, value_name = "TEXT", default_value = "", requires = "prefix")]
    suffix: String,
    /// Tokens in the hole.
    #[arg(long, value_name = "N", requires = "prefix")]
    span: Option<usize>,
    /// Put the prompt into the chat template, as a user's turn that the model answers.
    #[arg(long)]
    chat: bool,
    /// Tokens after a prompt.
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_new_tokens: usize,
    /// Denoising steps; without it, as many as there are masks.
    #[arg(long, value_name = "N")]
    steps: Option<u32>,
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
    /// Write every step as a line of JSON: step, tokens, revealed positions.
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
    sampler: Sampler,
    checkpoint: &'a Path,
    seconds: f64,
    trace: Option<&'a Path>,
}

/// The control tokens of a model directory.
struct Controls {
    mask: u32,
    mask_name: String,
    ends: Vec<u32>,
}

impl Sample {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let started = Instant::now();
        self.check()?;
        let dir = Store::locate(&self.checkpoint)?;
        let (config, params) = HfWeights::open(&dir)?.read()?;
        let tokenizer = load_tokenizer(&dir)?;
        let controls = Controls::read(&dir, config.mask_token_id, &tokenizer)?;
        let canvas = self.canvas(&tokenizer, &controls)?;
        if let Some(&id) = canvas.ids.iter().find(|&&id| id as usize >= config.vocab_size) {
            return Err(Failure::incompatible(format!(
                "the tokenizer gives id {id}, the model has {} rows in its embedding",
                config.vocab_size
            )));
        }
        let masked = canvas.ids.iter().filter(|&&id| id == controls.mask).count();
        let steps = self.steps.unwrap_or_else(|| u32::try_from(masked).unwrap_or(u32::MAX));
        let sampler = self.sampler(steps);
        let mut engine = self.engine.open(&config, Recompute::None)?;
        let mut trace = self.trace.as_deref().map(Trace::create).transpose()?;
        let progress = Progress::start(self.progress, "sample", "steps", Some(u64::from(steps)));
        let mut ids = canvas.ids.clone();
        let mut written = Ok(());
        denoise(
            &mut ids,
            controls.mask,
            &sampler,
            0,
            |ids, positions| {
                let input = Ids { rows: 1, len: ids.len(), ids, segment_ids: None };
                engine.logits(&params, &input, Some(positions))
            },
            |step| {
                progress.advance(1);
                if let (Some(trace), Ok(())) = (&mut trace, &written) {
                    written = trace.step(step);
                }
            },
        )
        .map_err(|error| Failure::from_error(Exit::CheckFailed, &error))?;
        progress.finish();
        written?;
        if let Some(trace) = trace {
            trace.finish()?;
        }
        let kept = canvas.cut(&ids, &controls.ends);
        let decode = |ids: &[u32]| {
            tokenizer.decode(ids, true).map_err(|error| {
                Failure::incompatible(format!("the tokens cannot be decoded: {error}"))
            })
        };
        let text = decode(kept)?;
        let completion = decode(&kept[canvas.first_mask.min(kept.len())..])?;
        if self.json {
            let result = Sampled {
                text,
                completion,
                tokens: kept,
                masked,
                sampler,
                checkpoint: &dir,
                seconds: started.elapsed().as_secs_f64(),
                trace: self.trace.as_deref(),
            };
            print_json(&result)?;
        } else {
            print_text(&format!("{}\n", if self.chat { completion } else { text }))?;
        }
        Ok(Exit::Done)
    }

    fn check(&self) -> Result<(), Failure> {
        self.engine.check(EngineKey::Auto)?;
        let refuse = |message: &str| Err(Failure::usage(message.to_owned()));
        if self.steps == Some(0) {
            return refuse("--steps must be at least 1");
        }
        if !(self.temperature >= 0.0 && self.alg_temp >= 0.0) {
            return refuse("temperatures are 0 or more");
        }
        if self.top_p.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return refuse("--top-p is from 0 to 1");
        }
        if !(self.eps >= 0.0 && self.eps < 1.0) {
            return refuse("--eps is at least 0 and below 1");
        }
        if self.top_k == Some(0) {
            return refuse("--top-k must be at least 1");
        }
        Ok(())
    }

    fn sampler(&self, steps: u32) -> Sampler {
        Sampler {
            steps,
            eps: self.eps,
            algorithm: self.alg,
            alg_temp: self.alg_temp,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            seed: self.seed,
        }
    }

    fn canvas(&self, tokenizer: &Tokenizer, controls: &Controls) -> Result<Canvas, Failure> {
        let mask = (controls.mask_name.as_str(), controls.mask);
        let chat = |text: String| if self.chat { chat_prompt(&text) } else { text };
        let made = if let Some(prefix) = &self.prefix {
            let prefix = chat_or(self.chat, prefix);
            Canvas::infilling(tokenizer, mask, &prefix, self.span.unwrap_or(0), &self.suffix)
        } else if let Some(path) = &self.infill_file {
            Canvas::continuing(tokenizer, mask, &read(path)?, 0)
        } else if let Some(path) = &self.prompt_file {
            Canvas::continuing(tokenizer, mask, &chat(read(path)?), self.max_new_tokens)
        } else if let Some(prompt) = &self.prompt {
            Canvas::continuing(tokenizer, mask, &chat(prompt.clone()), self.max_new_tokens)
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

fn chat_or(chat: bool, text: &str) -> String {
    if chat { chat_prompt(text) } else { text.to_owned() }
}

/// A user's turn and the head of the answer: the Qwen3 template with thinking off.
fn chat_prompt(text: &str) -> String {
    format!("<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map_err(|error| Failure::from_error(Exit::Io, &FileError::new("read", path, error)))
}

/// The tokenizer of a model directory.
fn load_tokenizer(dir: &Path) -> Result<Tokenizer, Failure> {
    let path = dir.join("tokenizer.json");
    if !path.is_file() {
        return Err(Failure::incompatible(format!("{} is missing", path.display()))
            .hint("copy the tokenizer.json of the model into the directory"));
    }
    Tokenizer::from_file(&path).map_err(|error| {
        Failure::incompatible(format!("{} is not a tokenizer: {error}", path.display()))
    })
}

impl Controls {
    fn read(dir: &Path, mask: Option<u32>, tokenizer: &Tokenizer) -> Result<Self, Failure> {
        let mask = mask.ok_or_else(|| {
            Failure::incompatible(format!(
                "{} names no mask_token_id",
                dir.join("config.json").display()
            ))
            .hint("add the id of the mask token to config.json")
        })?;
        // Without a name no text can spell it.
        let mask_name = tokenizer.id_to_token(mask).unwrap_or_else(|| "<|mask|>".to_owned());
        let path = dir.join("generation_config.json");
        let value: Value = if path.is_file() {
            serde_json::from_str(&read(&path)?)
                .map_err(|e| Failure::incompatible(format!("{}: {e}", path.display())))?
        } else {
            Value::Null
        };
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ends = match &value["eos_token_id"] {
            Value::Array(ids) => ids.iter().filter_map(id).collect(),
            one => id(one).into_iter().collect(),
        };
        Ok(Self { mask, mask_name, ends })
    }
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
