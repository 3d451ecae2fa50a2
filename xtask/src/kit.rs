//! `cargo xtask gpu-kit`: what a machine with a card needs, in one folder.

use crate::process::{self, cargo, root};
use clap::Args;
use coda_cli::Failure;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Build `target/gpu-kit`: the trainer, the tests that run on a card, and `run.py`, which runs them and
/// measures beside `PyTorch` (see docs/cuda.md).
#[derive(Args)]
pub(crate) struct GpuKit {
    /// Another folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl GpuKit {
    /// Builds what is missing and copies it.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let out = self.out.clone().unwrap_or_else(|| root().join("target").join("gpu-kit"));
        fs::create_dir_all(out.join("manifests"))
            .map_err(|error| Failure::io(format!("cannot make {}: {error}", out.display())))?;
        process::run(cargo().args(["build", "--release", "--locked", "-p", "coda-trainer"]))?;
        for (package, test, name) in [
            ("coda-cuda", "emulated", "kernels-test"),
            ("coda-trainer", "cuda", "engine-test"),
            ("coda-trainer", "cuda_ranks", "ranks-test"),
        ] {
            copy(&executable(package, test)?, &out.join(name))?;
        }
        let built = process::sibling("coda-trainer")?;
        copy(Path::new(built.get_program()), &out.join("coda-trainer"))?;
        let scripts = root().join("benches").join("gpu");
        for script in ["run.py", "gradients.py", "torch_step.py"] {
            copy(&scripts.join(script), &out.join(script))?;
        }
        copy(&root().join("tests").join("judges").join("model.py"), &out.join("model.py"))?;
        let manifest = Path::new("manifests").join("pretrain.yaml");
        copy(&root().join(&manifest), &out.join(&manifest))?;
        eprintln!("on a machine with a card: python3 {}/run.py --out results", out.display());
        println!("{}", out.display());
        Ok(())
    }
}

/// Builds a test and says where it lies.
fn executable(package: &str, test: &str) -> Result<PathBuf, Failure> {
    let args = ["test", "--release", "--locked", "--no-run", "--message-format", "json"];
    let said = process::capture(cargo().args(args).args(["-p", package, "--test", test]))?;
    said.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == test)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| Failure::check_failed(format!("cargo names no executable of test {test}")))
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::copy(from, to).map(|_| ()).map_err(|error| {
        Failure::io(format!("cannot copy {} to {}: {error}", from.display(), to.display()))
    })
}
