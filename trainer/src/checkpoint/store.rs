//! The checkpoints of a run: `OUT/checkpoints/step-000200`, and which one is the newest.

use super::{
    CheckpointError, CheckpointManifest, HfWeights, RunState, SafetensorsFile,
    save::{RUN_FILE, STATE_FILE, STATE_KIND},
};
use crate::{
    model::{ModelConfig, Params},
    optim::{Optimizer, StateError},
};
use coda_shards::commit::{remove_dir, remove_leftovers, write_atomic};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The file that names the newest checkpoint.
const LATEST: &str = "latest";

/// The folder of a run's checkpoints.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

/// A checkpoint that is whole.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its directory.
    pub dir: PathBuf,
    /// Its `run.json`.
    pub run: RunState,
}

impl Store {
    /// The checkpoints of the run in `out`.
    #[must_use]
    pub fn of_run(out: &Path) -> Self {
        Self { dir: out.join("checkpoints") }
    }

    /// The folder itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the checkpoint of a step lies.
    #[must_use]
    pub fn path(&self, step: u64) -> PathBuf {
        self.dir.join(format!("step-{step:06}"))
    }

    /// Creates the folder and removes what crashed runs left.
    ///
    /// # Errors
    /// If that fails.
    pub fn prepare(&self) -> Result<(), CheckpointError> {
        fs::create_dir_all(&self.dir)
            .map_err(|error| CheckpointError::file("create", &self.dir, error))?;
        remove_leftovers(&self.dir)?;
        Ok(())
    }

    /// The steps that have a directory, ascending.
    ///
    /// # Errors
    /// If the folder cannot be read; a missing one has none.
    pub fn steps(&self) -> Result<Vec<u64>, CheckpointError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(CheckpointError::file("read", &self.dir, error)),
        };
        let mut steps = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| CheckpointError::file("read", &self.dir, error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            steps.extend(name.strip_prefix("step-").and_then(|n| n.parse::<u64>().ok()));
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// The newest whole checkpoint. Damaged ones are told to `warn` and passed over.
    ///
    /// # Errors
    /// If there are checkpoints but none of them is whole: starting anew in silence would lose the
    /// run.
    pub fn newest(&self, mut warn: impl FnMut(&str)) -> Result<Option<Found>, CheckpointError> {
        let mut steps = self.steps()?;
        let mut last = None;
        while let Some(step) = steps.pop() {
            let dir = self.path(step);
            match read_whole(&dir) {
                Ok(run) => return Ok(Some(Found { dir, run })),
                Err(error) => {
                    warn(&format!("warning: passing over a damaged checkpoint: {error}"));
                    last = Some(error);
                }
            }
        }
        last.map_or(Ok(None), Err)
    }

    /// Names `step` the newest and removes all but the newest `keep`.
    ///
    /// # Errors
    /// If a file cannot be written or removed.
    pub fn published(&self, step: u64, keep: u32) -> Result<(), CheckpointError> {
        let name = format!("step-{step:06}\n");
        write_atomic(&self.dir.join(LATEST), |out| out.write_all(name.as_bytes()))?;
        let mut steps = self.steps()?;
        steps.retain(|&other| other <= step);
        let surplus = steps.len().saturating_sub(keep.max(1) as usize);
        for old in &steps[..surplus] {
            remove_dir(&self.path(*old))?;
        }
        Ok(())
    }

    /// The model directory that a path on the command line means: itself, or the newest checkpoint
    /// of the run that it is.
    ///
    /// # Errors
    /// If it is neither.
    pub fn locate(path: &Path) -> Result<PathBuf, CheckpointError> {
        if super::is_model_dir(path) {
            return Ok(path.to_path_buf());
        }
        for dir in [path.join("checkpoints"), path.to_path_buf()] {
            if let Ok(name) = fs::read_to_string(dir.join(LATEST)) {
                let found = dir.join(name.trim());
                if super::manifest::is_plain_name(name.trim()) && super::is_model_dir(&found) {
                    return Ok(found);
                }
            }
        }
        Err(CheckpointError::NotOne {
            dir: path.to_path_buf(),
            missing: super::MODEL_FILE.to_owned(),
        })
    }
}

/// Checks every byte of a checkpoint and reads its `run.json`.
fn read_whole(dir: &Path) -> Result<RunState, CheckpointError> {
    CheckpointManifest::verify(dir)?;
    let path = dir.join(RUN_FILE);
    let text = fs::read(&path).map_err(|error| CheckpointError::file("read", &path, error))?;
    serde_json::from_slice(&text)
        .map_err(|error| CheckpointError::damaged(&path, error.to_string()))
}

impl Found {
    /// Reads the weights and gives the optimizer its state back.
    ///
    /// # Errors
    /// If the model or the state does not fit.
    pub fn restore(
        &self,
        optimizer: &mut Optimizer,
    ) -> Result<(ModelConfig, Params), CheckpointError> {
        let model = HfWeights::open(&self.dir)?.read()?;
        let path = self.dir.join(STATE_FILE);
        let file = SafetensorsFile::open(&path)?;
        let misfit = |problem: String| {
            CheckpointError::misfit(&path, problem, "resume with the recipe that wrote it")
        };
        let kind = file.metadata().get(STATE_KIND).cloned().unwrap_or_default();
        if kind != optimizer.kind() {
            return Err(misfit(format!("it is of {kind}, the recipe has {}", optimizer.kind())));
        }
        let steps = file.metadata().get("steps").and_then(|steps| steps.parse().ok());
        let steps = steps.ok_or_else(|| misfit("it does not say how many steps".to_owned()))?;
        let expected = optimizer.state().len();
        if expected != file.tensors().len() {
            let found = file.tensors().len();
            return Err(misfit(format!("{found} tensors, {expected} are needed")));
        }
        let restored = optimizer.restore(steps, |name, shape| {
            let problem = |problem| StateError { name: name.to_owned(), problem };
            match file.tensors().get(name) {
                None => Err(problem("missing".to_owned())),
                Some(info) if info.shape != shape => {
                    Err(problem(format!("shape {:?}, not {shape:?}", info.shape)))
                }
                Some(_) => file.read_f32(name).map_err(|error| problem(error.to_string())),
            }
        });
        restored.map_err(|error| misfit(error.to_string()))?;
        Ok(model)
    }
}
