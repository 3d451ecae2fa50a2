//! `coda-ingest`: corpora to shard sets.

#[cfg(target_os = "linux")]
mod allocator;
mod commands;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  coda-ingest --manifest manifests/pretrain.yaml --dry-run
  coda-ingest --manifest manifests/pretrain.yaml --out shards/pre --jobs 8
  coda-ingest --manifest my.yaml data.row_length=1024 data.max_reject_rate=0.01
  coda-ingest fetch --manifest manifests/pretrain.yaml
  coda-ingest --manifest my.yaml --task 2/8 --out parts/2
  coda-ingest merge parts/* --out shards/pre
  coda-ingest --manifest my.yaml --explain docs:corpora/docs.jsonl:17
  coda-ingest presets open-web-math
  coda-ingest records hf://datasets/org/name/data --head 2
  coda-ingest inspect shards/pre --row 0 --text
  coda-ingest verify shards/pre
  coda-ingest export shards/pre --to megatron --out megatron/pre
  coda-ingest card shards/pre --out README.md --folder data
  coda-ingest train-tokenizer --input src/ --vocab-size 4096 --out tokenizer.json

Exit codes: 0 done; 1 done with more rejects than data.max_reject_rate allows; 2 usage or
manifest error; 3 a file cannot be read or written; 4 a shard set is damaged or does not fit;
130/143 stopped by a signal.";

/// Corpora to shard sets: decode, tokenize exactly, pack to rows, write with checksums.
#[derive(Parser)]
#[command(name = "coda-ingest", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    build: commands::build::Build,
}

#[derive(Subcommand)]
enum Command {
    /// Show what a shard set holds.
    Inspect(commands::inspect::Inspect),
    /// Check every byte of a shard set against its checksums.
    Verify(commands::verify::Verify),
    /// Fetch the remote files and blobs of a manifest ahead of a build.
    Fetch(commands::fetch::Fetch),
    /// Write a shard set in the format of another trainer.
    Export(commands::export::Export),
    /// Make a shard set of ids that another program has tokenized.
    Import(commands::import::Import),
    /// Print a dataset card for a hub.
    Card(commands::card::Card),
    /// Merge the parts of `--task` runs into one shard set.
    Merge(commands::merge::Merge),
    /// List the published corpora that a manifest can name, and the keys that they stand for.
    Presets(commands::presets::Presets),
    /// Write the records of files, local or remote, as JSON lines.
    Records(commands::records::Records),
    /// Train a byte-level BPE tokenizer on code and text.
    TrainTokenizer(commands::train::Train),
}

fn main() -> ExitCode {
    give_large_blocks_back();
    quiet_readers();
    coda_cli::run(|| {
        let cli = Cli::parse();
        match cli.command {
            None => cli.build.run(),
            Some(Command::Inspect(inspect)) => inspect.run(),
            Some(Command::Verify(verify)) => verify.run(),
            Some(Command::Fetch(fetch)) => fetch.run(),
            Some(Command::Export(export)) => export.run(),
            Some(Command::Import(import)) => import.run(),
            Some(Command::Card(card)) => card.run(),
            Some(Command::Merge(merge)) => merge.run(),
            Some(Command::Presets(presets)) => presets.run(),
            Some(Command::Records(records)) => records.run(),
            Some(Command::TrainTokenizer(train)) => train.run(),
        }
    })
}

/// Makes the allocator give every block above 256 KiB back to the system when it is freed.
///
/// Batches are filled on one thread and freed on another. glibc raises its threshold with the first
/// of them that is freed, keeps the later ones in the threads' arenas, and these then grow with the
/// length of the run (12 % from 50 MB to 500 MB of text).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_large_blocks_back() {
    // From glibc's malloc.h.
    const M_MMAP_THRESHOLD: i32 = -3;
    unsafe extern "C" {
        fn mallopt(parameter: i32, value: i32) -> i32;
    }
    // SAFETY: the signature is glibc's; no other thread exists yet, and a refused value (the result
    // is then 0) changes nothing.
    unsafe {
        mallopt(M_MMAP_THRESHOLD, 256 << 10);
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_large_blocks_back() {}

/// Damaged files can make a decoder panic on a reader thread; that becomes a reject, so the default
/// message would only confuse.
fn quiet_readers() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current();
        if thread.name() != Some(coda_ingest::pipeline::READER_THREAD) {
            default(info);
        }
    }));
}
