//! Where plugins are found.

use crate::PjrtError;
use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Which sort of plugin is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginKind {
    /// The first that there is, accelerators before the CPU.
    Any,
    /// XLA's CPU plugin.
    Cpu,
    /// libtpu.
    Tpu,
    /// A CUDA plugin.
    Gpu,
}

/// The variables that name a plugin, with the kind that each is for; `Any` is for all.
const VARIABLES: [(&str, PluginKind); 3] = [
    ("CODA_PJRT_CPU_PLUGIN", PluginKind::Cpu),
    ("PJRT_PLUGIN_LIBRARY_PATH", PluginKind::Any),
    ("TPU_LIBRARY_PATH", PluginKind::Tpu),
];

/// Where Python packages keep their plugin, below `site-packages`. A `*` stands for the rest of a
/// folder's name.
const WHEELS: [(PluginKind, &str); 5] = [
    (PluginKind::Tpu, "libtpu/libtpu.so"),
    (PluginKind::Gpu, "jax_plugins/xla_cuda*/xla_cuda_plugin.so"),
    (PluginKind::Cpu, "lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so"),
    (PluginKind::Cpu, "fastatomstruct_xla_cpu/libpjrt_cpu.so"),
    (PluginKind::Cpu, "xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so"),
];

impl PluginKind {
    fn takes(self, other: Self) -> bool {
        self == other || self == Self::Any || other == Self::Any
    }

    fn words(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Cpu => " for the CPU",
            Self::Tpu => " for TPUs",
            Self::Gpu => " for GPUs",
        }
    }

    fn install(self) -> &'static str {
        match self {
            Self::Cpu => {
                "run `cargo xtask plugin` in the repository, or \
                 `pip install --no-deps lammps-jax-pjrt-cpu==0.11.2`, or name one with --plugin"
            }
            Self::Tpu => "run `pip install --no-deps libtpu` (Google's, under its terms)",
            Self::Gpu => "run `pip install jax-cuda13-plugin`",
            Self::Any => {
                "name one with --plugin, or install one: `pip install --no-deps libtpu` for TPUs, \
                 `pip install jax-cuda13-plugin` for GPUs, \
                 `pip install --no-deps lammps-jax-pjrt-cpu==0.11.2` for the CPU"
            }
        }
    }
}

/// Finds a plugin: the one that is named (`--plugin`), then those that the variables
/// `CODA_PJRT_CPU_PLUGIN`, `PJRT_PLUGIN_LIBRARY_PATH` and `TPU_LIBRARY_PATH` name, then installed
/// Python packages (of `VIRTUAL_ENV`, then of `python3`), then `pjrt/` in the target folder of this
/// program, where `cargo xtask plugin` puts one for the CPU.
///
/// # Errors
/// If a named file does not exist, or if there is no plugin anywhere; the error lists every place.
pub fn discover(explicit: Option<&Path>, kind: PluginKind) -> Result<PathBuf, PjrtError> {
    let variables = VARIABLES
        .iter()
        .filter_map(|(name, _)| Some((*name, PathBuf::from(env::var_os(name)?))))
        .filter(|(_, path)| !path.as_os_str().is_empty())
        .collect();
    let places = Places {
        variables,
        packages: environment_packages().into_iter().chain(python_packages()).collect(),
        beside: beside_this_program(),
    };
    places.search(explicit, kind)
}

/// All that discovery depends on.
struct Places {
    variables: HashMap<&'static str, PathBuf>,
    packages: Vec<PathBuf>,
    beside: Vec<PathBuf>,
}

impl Places {
    fn search(&self, explicit: Option<&Path>, kind: PluginKind) -> Result<PathBuf, PjrtError> {
        let mut looked = Vec::new();
        let missing =
            |looked| PjrtError::NotFound { kind: kind.words(), looked, install: kind.install() };
        let mut named = explicit.map(|path| ("--plugin", path)).into_iter().chain(
            VARIABLES
                .iter()
                .filter(|(_, of)| kind.takes(*of))
                .filter_map(|(name, _)| Some((*name, self.variables.get(name)?.as_path()))),
        );
        if let Some((by, path)) = named.next() {
            if path.is_file() {
                return Ok(path.to_owned());
            }
            // Whoever names a file means that one and no other.
            return Err(missing(vec![format!("  {}, which {by} names", path.display())]));
        }
        looked.push("  --plugin and the variables: not given".to_owned());
        for (of, pattern) in WHEELS.iter().filter(|(of, _)| kind.takes(*of)) {
            let beside = self.beside.iter().filter(|_| *of == PluginKind::Cpu);
            for folder in self.packages.iter().chain(beside) {
                if let Some(found) = matching(folder, pattern) {
                    return Ok(found);
                }
                looked.push(format!("  {}", folder.join(pattern).display()));
            }
        }
        Err(missing(looked))
    }
}

/// The file of that pattern; the last in order where several folders match, which is the newest
/// version of the package.
fn matching(folder: &Path, pattern: &str) -> Option<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for part in pattern.split('/') {
        found = match part.strip_suffix('*') {
            None => found.into_iter().map(|path| path.join(part)).collect(),
            Some(start) => found.iter().flat_map(|path| starting_with(path, start)).collect(),
        };
    }
    found.into_iter().rfind(|path| path.is_file())
}

fn starting_with(folder: &Path, start: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(start))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

/// `site-packages` of the virtual environment that is active.
fn environment_packages() -> Vec<PathBuf> {
    let Some(environment) = env::var_os("VIRTUAL_ENV") else { return Vec::new() };
    starting_with(&Path::new(&environment).join("lib"), "python")
        .into_iter()
        .map(|python| python.join("site-packages"))
        .collect()
}

/// Where `python3` looks for packages; nothing if there is none.
fn python_packages() -> Vec<PathBuf> {
    let program = "import sys; print('\\n'.join(sys.path))";
    let Ok(output) = Command::new("python3").args(["-I", "-c", program]).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| line.ends_with("-packages"))
        .map(PathBuf::from)
        .collect()
}

/// `pjrt` in the target folder: `target/release/program`, `target/release/deps/test`.
fn beside_this_program() -> Vec<PathBuf> {
    let Ok(own) = env::current_exe() else { return Vec::new() };
    own.ancestors().skip(2).take(2).map(|folder| folder.join("pjrt")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &Path, file: &str) -> PathBuf {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, "").expect("written");
        path
    }

    fn places(packages: &[&Path], beside: &Path) -> Places {
        Places {
            variables: HashMap::new(),
            packages: packages.iter().map(|path| (*path).to_owned()).collect(),
            beside: vec![beside.to_owned()],
        }
    }

    #[test]
    fn named_plugins_come_before_installed_ones_and_these_before_our_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let (packages, beside) = (folder.path().join("site-packages"), folder.path().join("pjrt"));
        let mut places = places(&[&packages], &beside);
        let find = |places: &Places, kind| places.search(None, kind).expect("found");

        let own = place(&beside, "lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so");
        assert_eq!(find(&places, PluginKind::Cpu), own);
        let installed = place(&packages, "lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so");
        assert_eq!(find(&places, PluginKind::Cpu), installed);
        assert_eq!(find(&places, PluginKind::Any), installed);
        place(&packages, "jax_plugins/xla_cuda12/xla_cuda_plugin.so");
        let gpu = place(&packages, "jax_plugins/xla_cuda13/xla_cuda_plugin.so");
        assert_eq!(find(&places, PluginKind::Any), gpu);
        let tpu = place(&packages, "libtpu/libtpu.so");
        assert_eq!(find(&places, PluginKind::Any), tpu);
        assert_eq!(find(&places, PluginKind::Gpu), gpu);

        let other = place(folder.path(), "other/libtpu.so");
        places.variables.insert("TPU_LIBRARY_PATH", other.clone());
        assert_eq!(find(&places, PluginKind::Tpu), other);
        assert_eq!(find(&places, PluginKind::Cpu), installed);
        let any = place(folder.path(), "any.so");
        places.variables.insert("PJRT_PLUGIN_LIBRARY_PATH", any.clone());
        assert_eq!(find(&places, PluginKind::Tpu), any);
        places.variables.insert("CODA_PJRT_CPU_PLUGIN", own.clone());
        assert_eq!(find(&places, PluginKind::Cpu), own);
        assert_eq!(places.search(Some(&gpu), PluginKind::Cpu).expect("named"), gpu);
    }

    #[test]
    fn a_named_file_that_is_missing_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut places = places(&[], folder.path());
        place(folder.path(), "lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so");
        let gone = folder.path().join("gone.so");
        let error = places.search(Some(&gone), PluginKind::Cpu).expect_err("missing").to_string();
        assert!(error.contains("gone.so, which --plugin names"), "{error}");
        places.variables.insert("CODA_PJRT_CPU_PLUGIN", gone);
        let error = places.search(None, PluginKind::Cpu).expect_err("missing").to_string();
        assert!(error.contains("which CODA_PJRT_CPU_PLUGIN names"), "{error}");
    }

    #[test]
    fn an_error_lists_every_place_and_what_to_install() {
        let folder = tempfile::tempdir().expect("a folder");
        let packages = folder.path().join("site-packages");
        let places = places(&[&packages], &folder.path().join("pjrt"));
        let error = places.search(None, PluginKind::Cpu).expect_err("none");
        let text = error.to_string();
        assert!(text.starts_with("found no PJRT plugin for the CPU; looked at:\n"), "{text}");
        assert!(text.contains("site-packages/fastatomstruct_xla_cpu/libpjrt_cpu.so"), "{text}");
        assert!(text.contains("pjrt/lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so"), "{text}");
        assert!(!text.contains("libtpu"), "{text}");
        assert!(error.hint().expect("a hint").contains("cargo xtask plugin"));
        let error = places.search(None, PluginKind::Tpu).expect_err("none");
        assert!(error.to_string().contains("libtpu/libtpu.so"), "{error}");
    }
}
