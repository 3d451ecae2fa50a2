//! XLA's CPU plugin, on which the tests run programs: from `PyPI`, one wheel pinned by its hash.

use crate::{process, python};
use coda_cli::Failure;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Compares every file with the hash that the wheel's own list has for it.
const CHECK: &str = "
import base64, csv, hashlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
for record in root.glob('*.dist-info/RECORD'):
    for name, told, _ in csv.reader(record.open()):
        if told and name.startswith('lammps_jax_pjrt_cpu/') and name.endswith('.so'):
            with (root / name).open('rb') as file:
                digest = hashlib.file_digest(file, 'sha256').digest()
            found = 'sha256=' + base64.urlsafe_b64encode(digest).rstrip(b'=').decode()
            sys.exit(0 if found == told else 1)
sys.exit(1)
";

/// `cargo xtask plugin`: prints the path.
pub(crate) fn run() -> Result<(), Failure> {
    let path = prepare()?;
    coda_cli::print_text(&format!("{}\n", path.display()))
}

/// Downloads the plugin if it is not there or damaged, and gives its path. It lies in `pjrt` in the
/// target folder, as pip lays it out, with its licences.
pub(crate) fn prepare() -> Result<PathBuf, Failure> {
    let target = python::target()?;
    let (folder, temporary) = (target.join("pjrt"), target.join("pjrt.tmp"));
    let requirements = process::root().join("tests").join("pjrt").join("requirements.txt");
    let wanted = fs::read_to_string(&requirements)
        .map_err(|e| Failure::io(format!("cannot read {}: {e}", requirements.display())))?;
    let stamp = Path::new("requirements.txt");
    let plugin = folder.join("lammps_jax_pjrt_cpu").join("pjrt_c_api_cpu_plugin.so");
    let same = fs::read_to_string(folder.join(stamp)).is_ok_and(|found| found == wanted);
    if same && whole(&folder) {
        return Ok(plugin);
    }
    for old in [&temporary, &folder] {
        if old.exists() {
            fs::remove_dir_all(old)
                .map_err(|e| Failure::io(format!("cannot remove {}: {e}", old.display())))?;
        }
    }
    let environment = target.join("venv-plugin");
    let interpreter = environment.join("bin").join("python");
    if !interpreter.exists() {
        python::make(&environment)?;
    }
    // Its dependencies, jax among them, are for those who use it from Python.
    process::run(
        Command::new(interpreter)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"])
            .args(["--only-binary=:all:", "--require-hashes", "--no-compile", "--target"])
            .arg(&temporary)
            .arg("-r")
            .arg(&requirements),
    )
    .map_err(|failure| {
        failure.hint("where this wheel does not run, CODA_PJRT_CPU_PLUGIN can name another plugin")
    })?;
    // The folder appears whole or not at all.
    fs::write(temporary.join(stamp), wanted)
        .and_then(|()| fs::rename(&temporary, &folder))
        .map_err(|e| Failure::io(format!("cannot write {}: {e}", folder.display())))?;
    Ok(plugin)
}

fn whole(folder: &Path) -> bool {
    Command::new("python3")
        .args(["-I", "-c", CHECK])
        .arg(folder)
        .status()
        .is_ok_and(|status| status.success())
}
