//! Libraries of others that the tests load: XLA's CPU plugin and NVIDIA's compiler of kernels, each
//! from `PyPI`, one wheel pinned by its hash.

use crate::{process, python};
use coda_cli::Failure;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Compares a file with the hash that the wheel's own list has for it.
const CHECK: &str = "
import base64, csv, hashlib, pathlib, sys
root, file = pathlib.Path(sys.argv[1]), sys.argv[2]
for record in root.glob('*.dist-info/RECORD'):
    for name, told, _ in csv.reader(record.open()):
        if told and name == file:
            with (root / name).open('rb') as file:
                digest = hashlib.file_digest(file, 'sha256').digest()
            found = 'sha256=' + base64.urlsafe_b64encode(digest).rstrip(b'=').decode()
            sys.exit(0 if found == told else 1)
sys.exit(1)
";

/// A wheel of which one file is needed.
struct Wheel {
    /// The folder in the target folder where it is unpacked, and the one in `tests` that pins it.
    unpacked: &'static str,
    pinned: &'static str,
    file: &'static str,
    hint: &'static str,
}

const PJRT: Wheel = Wheel {
    unpacked: "pjrt",
    pinned: "pjrt",
    file: "lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so",
    hint: "where this wheel does not run, CODA_PJRT_CPU_PLUGIN can name another plugin",
};

const NVRTC: Wheel = Wheel {
    unpacked: "nvrtc",
    pinned: "cuda",
    file: "nvidia/cu13/lib/libnvrtc.so.13",
    hint: "NVIDIA's wheels run on Linux with glibc; elsewhere leave out the tests of coda-cuda",
};

/// `cargo xtask plugin`: prints the paths.
pub(crate) fn run() -> Result<(), Failure> {
    let paths = [prepare()?, prepare_nvrtc()?];
    let lines: Vec<String> = paths.iter().map(|path| format!("{}\n", path.display())).collect();
    coda_cli::print_text(&lines.concat())
}

/// Downloads XLA's plugin if it is not there or damaged, and gives its path. It lies in `pjrt` in
/// the target folder, as pip lays it out, with its licences.
pub(crate) fn prepare() -> Result<PathBuf, Failure> {
    PJRT.prepare()
}

/// The same for NVRTC, in `nvrtc` in the target folder.
pub(crate) fn prepare_nvrtc() -> Result<PathBuf, Failure> {
    NVRTC.prepare()
}

impl Wheel {
    fn prepare(&self) -> Result<PathBuf, Failure> {
        let target = python::target()?;
        let folder = target.join(self.unpacked);
        let temporary = target.join(format!("{}.tmp", self.unpacked));
        let requirements = process::root().join("tests").join(self.pinned).join("requirements.txt");
        let wanted = fs::read_to_string(&requirements)
            .map_err(|e| Failure::io(format!("cannot read {}: {e}", requirements.display())))?;
        let stamp = Path::new("requirements.txt");
        let file = folder.join(self.file);
        let same = fs::read_to_string(folder.join(stamp)).is_ok_and(|found| found == wanted);
        if same && self.whole(&folder) {
            return Ok(file);
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
        // Its dependencies are for those who use it from Python.
        process::run(
            Command::new(interpreter)
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .args(["--no-deps", "--only-binary=:all:", "--require-hashes", "--no-compile"])
                .arg("--target")
                .arg(&temporary)
                .arg("-r")
                .arg(&requirements),
        )
        .map_err(|failure| failure.hint(self.hint))?;
        // The folder appears whole or not at all.
        fs::write(temporary.join(stamp), wanted)
            .and_then(|()| fs::rename(&temporary, &folder))
            .map_err(|e| Failure::io(format!("cannot write {}: {e}", folder.display())))?;
        Ok(file)
    }

    fn whole(&self, folder: &Path) -> bool {
        Command::new("python3")
            .args(["-I", "-c", CHECK])
            .arg(folder)
            .arg(self.file)
            .status()
            .is_ok_and(|status| status.success())
    }
}
