//! `coda-trainer verify`.

use crate::checkpoint::{CHECKPOINT_FILE, CheckpointManifest, HfWeights, Store};
use clap::Args;
use coda_cli::{Exit, Failure, print_json, print_text};
use serde_json::json;
use std::path::PathBuf;

/// The options of a verification.
#[derive(Args)]
pub(super) struct Verify {
    /// A checkpoint, Hugging Face directory or run.
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let dir = Store::locate(&self.checkpoint)?;
        // A directory from elsewhere has no hashes; its structure can still be checked.
        let hashes = dir.join(CHECKPOINT_FILE).is_file();
        let files = if hashes { CheckpointManifest::verify(&dir)?.files.len() } else { 0 };
        let weights = HfWeights::open(&dir)?;
        let parameters = weights.config().parameters();
        if self.json {
            print_json(&json!({
                "checkpoint": dir, "whole": true, "hashes": hashes, "files": files,
                "parameters": parameters,
            }))?;
        } else if hashes {
            print_text(&format!("{}: whole, {files} files as written\n", dir.display()))?;
        } else {
            print_text(&format!(
                "{}: sound, but without {CHECKPOINT_FILE} changed bytes cannot be seen\n",
                dir.display()
            ))?;
        }
        Ok(Exit::Done)
    }
}
