//! The command line.

use clap::{Parser, ValueEnum, ValueHint};
use coda_cli::{Exit, Failure};
use coda_trainer::sample::{Accept, Algorithm, Cache, Decoding, Sampler};
use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

const EXAMPLES: &str = "\
Examples:
  coda-serve --checkpoint runs/post
  coda-serve --checkpoint runs/post --listen 127.0.0.1:9000 --model coda --api-key-file key.txt
  curl http://127.0.0.1:8080/v1/completions -H 'content-type: application/json' \\
      -d '{\"prompt\": \"fn len(&self) -> usize {\", \"suffix\": \"}\", \"max_tokens\": 8}'

GET / is a page on which holes can be marked and watched while they are filled.

The API key comes from --api-key-file or the variable CODA_API_KEY; without either, none is asked for.
SIGTERM and SIGINT end the server when the requests that it has are answered.

Exit codes: 0 stopped after answering everything; 1 stopped with requests unanswered after --grace;
2 usage error; 3 a file cannot be read or the address cannot be bound; 4 the model is damaged.";

/// What runs the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EngineArg {
    /// A CUDA card if there is one that can be used, with kernels for the model, else the CPU.
    #[default]
    Auto,
    /// The CPU, f32, all cores.
    Cpu,
    /// The first NVIDIA card, bf16 with sums in f32.
    Cuda,
}

/// Serve a model over HTTP, as OpenAI's API does.
#[derive(Clone, Debug, Parser)]
#[command(name = "coda-serve", version, after_help = EXAMPLES)]
pub struct Options {
    /// A checkpoint, Hugging Face directory or run.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub checkpoint: PathBuf,
    /// What runs the model.
    #[arg(long, value_enum, value_name = "ENGINE", default_value_t)]
    pub engine: EngineArg,
    /// Where to listen. Behind anything but the loopback address, set an API key.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// The model's name in the API; without it the directory's.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// A file with the API key that requests must carry.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub api_key_file: Option<PathBuf>,
    /// Rows that go through the model together.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub max_rows: usize,
    /// Rows that may wait; more are refused with status 429.
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub max_queue: usize,
    /// Tokens of a row, prompt and answer together.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub max_context: usize,
    /// Connections at a time; more wait to be accepted.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub max_connections: usize,
    /// Bytes of a request's body.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    pub max_body: usize,
    /// Seconds for a request, from its last byte to the end of its answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,
    /// Seconds for a request to arrive, head and body each.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub read_timeout: u64,
    /// Seconds that running requests get after a signal.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub grace: u64,
    /// Positions in a block, where a request does not say; without it, blocks go from a mask to the last
    /// of the next 128 positions (without a cache the text is one block).
    #[arg(long, value_name = "N")]
    pub block_length: Option<usize>,
    /// What is kept while a block is filled, where a request does not say.
    #[arg(long, value_name = "NAME", default_value = "dual")]
    pub cache: Cache,
    /// The probability from which a step reveals a token, where a request does not say.
    #[arg(long, value_name = "P", default_value_t = 0.9)]
    pub threshold: f64,
}

impl Options {
    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// With the first option that cannot.
    pub fn check(&self) -> Result<(), Failure> {
        let counts = [
            ("--max-rows", self.max_rows),
            ("--max-context", self.max_context),
            ("--max-connections", self.max_connections),
            ("--max-body", self.max_body),
        ];
        if let Some((name, _)) = counts.into_iter().find(|&(_, count)| count == 0) {
            return Err(Failure::usage(format!("{name} must be at least 1")));
        }
        if self.timeout == 0 || self.read_timeout == 0 {
            return Err(Failure::usage("time-outs are at least a second"));
        }
        self.decoding().check().map_err(|error| Failure::from_error(Exit::Usage, &error))
    }

    /// How rows are sampled where a request does not say.
    pub(crate) fn decoding(&self) -> Decoding {
        Decoding {
            sampler: Sampler { algorithm: Algorithm::MaskgitPlus, ..Sampler::default() },
            accept: Accept::Threshold(self.threshold),
            block_length: self.block_length,
            cache: self.cache,
        }
    }

    /// The time a request has.
    pub(crate) const fn time_limit(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// The key that requests must carry, if any.
    pub(crate) fn api_key(&self) -> Result<Option<String>, Failure> {
        let key = match &self.api_key_file {
            Some(path) => Some(fs::read_to_string(path).map_err(|error| {
                Failure::io(format!("cannot read the API key {}: {error}", path.display()))
            })?),
            None => std::env::var("CODA_API_KEY").ok(),
        };
        match key.map(|key| key.trim().to_owned()) {
            Some(key) if key.is_empty() => Err(Failure::usage("the API key is empty")
                .hint("put the key into the file of --api-key-file, or into CODA_API_KEY")),
            key => Ok(key),
        }
    }
}
