//! Python's word on our files and numbers: the cross-checks of every test run, and the outside
//! judges. Each has an environment of its own with pinned packages from `PyPI`.

use crate::{plugin, process};
use clap::Args;
use coda_cli::Failure;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Makes the environment of the cross-checks if it is not there, and gives its interpreter.
pub(crate) fn prepare() -> Result<PathBuf, Failure> {
    environment("venv-py", &process::root().join("tests").join("python"))
}

/// Builds a shard set and holds it against Python.
pub(crate) fn cross_check() -> Result<(), Failure> {
    let root = process::root();
    let python = prepare()?;
    // Before another process reads the programs, they have to be those of this tree.
    process::build_programs()?;
    let work = target()?.join("python-check");
    if work.exists() {
        fs::remove_dir_all(&work)
            .map_err(|e| Failure::io(format!("cannot remove {}: {e}", work.display())))?;
    }
    let programs = target()?.join("release");
    process::run(
        Command::new(&python)
            .arg(root.join("tests").join("python").join("run.py"))
            .env("PYTHONPATH", package(&root))
            .arg("--programs")
            .arg(&programs)
            .arg("--work")
            .arg(&work)
            .arg("--browser")
            .arg(target()?.join("chromium"))
            .current_dir(&root),
    )
}

/// Holds the programs against PyTorch, transformers and plain Python.
#[derive(Args)]
pub(crate) struct Judges {
    /// Only these judges; `tests/judges/run.py` lists them, and there is attention-plans.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Only make their environment: downloads that can go on beside other work.
    #[arg(long, conflicts_with = "only")]
    prepare: bool,
}

impl Judges {
    /// Makes the environment if it is not there (some GB), and runs the judges.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let root = process::root();
        let judges = root.join("tests").join("judges");
        let python = environment("venv-judges", &judges)?;
        if self.prepare {
            return Ok(());
        }
        let mut others = self.only.clone();
        others.retain(|name| name != ATTENTION);
        if others.len() < self.only.len() || self.only.is_empty() {
            plan_attention(&target()?.join("venv-judges"))?;
        }
        if others.is_empty() && !self.only.is_empty() {
            return Ok(());
        }
        let plugin = plugin::prepare()?;
        process::build_programs()?;
        let mut command = Command::new(&python);
        command
            .env("PYTHONPATH", package(&root))
            .env("CODA_PJRT_CPU_PLUGIN", plugin)
            .arg(judges.join("run.py"))
            .arg("--programs")
            .arg(target()?.join("release"))
            .arg("--work")
            .arg(target()?.join("judges"))
            .current_dir(&root);
        if !others.is_empty() {
            command.arg("--only").arg(others.join(","));
        }
        process::run(&mut command)
    }
}

/// The judge that is cuDNN itself: whether it takes our graphs of attention.
const ATTENTION: &str = "attention-plans";

/// Runs the tests that need cuDNN, with that of `PyTorch`'s environment.
fn plan_attention(environment: &Path) -> Result<(), Failure> {
    let lib = environment.join("lib");
    let found = |e| Failure::io(format!("cannot read {}: {e}", lib.display()));
    let mut folders = Vec::new();
    for entry in fs::read_dir(&lib).map_err(found)? {
        let packages = entry.map_err(found)?.path().join("site-packages").join("nvidia");
        folders.extend(["cudnn", "cu13"].map(|package| packages.join(package).join("lib")));
    }
    let folders = std::env::join_paths(folders)
        .map_err(|e| Failure::io(format!("{} cannot be named: {e}", lib.display())))?;
    process::run(
        process::cargo()
            // All of the workspace, so that nothing is built anew with other features.
            .args(["test", "--release", "--locked", "--workspace", "--test", "cudnn_plans"])
            .args(["--", "--ignored", "--test-threads=1", "--show-output"])
            .env("CODA_CUDA_LIBRARIES", folders),
    )
}

/// The folder of our own Python package.
fn package(root: &Path) -> PathBuf {
    root.join("shards").join("python")
}

/// The target folder that this program was built in.
pub(crate) fn target() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()
        .map_err(|e| Failure::io(format!("cannot find this program's own path: {e}")))?;
    own.ancestors()
        .nth(2)
        .map(Path::to_owned)
        .ok_or_else(|| Failure::io(format!("{} lies in no target folder", own.display())))
}

/// The interpreter of the virtual environment of that name, with exactly the packages that
/// `requirements.txt` in `folder` pins, and those that `alone.txt` pins, if it is there, without what
/// they say they need: some want the clients of services that nothing here calls.
fn environment(name: &str, folder: &Path) -> Result<PathBuf, Failure> {
    let directory = target()?.join(name);
    let python = directory.join("bin").join("python");
    if !stands(&directory, &folder.join("requirements.txt"))? {
        make(&directory)?;
        install(&python, &directory, &folder.join("requirements.txt"), &[])?;
    }
    let alone = folder.join("alone.txt");
    if alone.exists() && !stands(&directory, &alone)? {
        install(&python, &directory, &alone, &["--no-deps"])?;
    }
    Ok(python)
}

/// Whether what a file pins was installed: then a copy of the file lies in the environment.
fn stands(directory: &Path, pinned: &Path) -> Result<bool, Failure> {
    let wanted = fs::read_to_string(pinned)
        .map_err(|e| Failure::io(format!("cannot read {}: {e}", pinned.display())))?;
    let stamp = directory.join(pinned.file_name().unwrap_or_default());
    Ok(fs::read_to_string(stamp).is_ok_and(|found| found == wanted))
}

fn install(python: &Path, directory: &Path, pinned: &Path, more: &[&str]) -> Result<(), Failure> {
    process::run(
        Command::new(python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(more)
            .arg("-r")
            .arg(pinned),
    )?;
    let stamp = directory.join(pinned.file_name().unwrap_or_default());
    fs::copy(pinned, &stamp)
        .map_err(|e| Failure::io(format!("cannot write {}: {e}", stamp.display())))?;
    Ok(())
}

/// Makes an empty virtual environment.
pub(crate) fn make(directory: &Path) -> Result<(), Failure> {
    eprintln!("python: making {}", directory.display());
    process::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(directory)).map_err(
        |failure| {
            failure.hint("the cross-checks need python3 (3.11 or later) with its venv module")
        },
    )
}
