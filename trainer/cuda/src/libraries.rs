//! NVIDIA's libraries: where they are, and that they are there before the first call.
//!
//! cudarc opens a library when a function of it is first called, and panics if there is none. So
//! every way to the card begins with [`Library::open`]. Beyond the system's own search it looks
//! where toolkits and Python's wheels put libraries: once a library is loaded by its path, the
//! system finds it by its name.

use crate::CudaError;
use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Mutex,
};

/// A library of NVIDIA's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// The driver's `libcuda`.
    Driver,
    /// The compiler of kernels.
    Nvrtc,
    /// Matrix products.
    CublasLt,
    /// Graphs of attention.
    Cudnn,
    /// Collectives among cards.
    Nccl,
}

/// Libraries that were loaded by their paths; they stay until the process ends.
static LOADED: Mutex<Vec<libloading::os::unix::Library>> = Mutex::new(Vec::new());

impl Library {
    /// Makes sure that calls into the library find it.
    ///
    /// # Errors
    /// [`CudaError::NoLibrary`] if it is nowhere.
    pub fn open(self) -> Result<(), CudaError> {
        if self.present() || self.load_from_known_places() && self.present() {
            return Ok(());
        }
        let (library, purpose, hint) = self.words();
        Err(CudaError::NoLibrary { library, purpose, hint })
    }

    /// Whether cudarc finds the library.
    fn present(self) -> bool {
        // SAFETY: these load NVIDIA's libraries, whose initialisers are made to be run at any time.
        unsafe {
            match self {
                Self::Driver => cudarc::driver::sys::is_culib_present(),
                Self::Nvrtc => cudarc::nvrtc::sys::is_culib_present(),
                Self::CublasLt => cudarc::cublaslt::sys::is_culib_present(),
                Self::Cudnn => cudarc::cudnn::sys::is_culib_present(),
                Self::Nccl => cudarc::nccl::sys::is_culib_present(),
            }
        }
    }

    /// File names, newest first.
    const fn files(self) -> &'static [&'static str] {
        match self {
            Self::Driver => &["libcuda.so.1"],
            Self::Nvrtc => &["libnvrtc.so.13", "libnvrtc.so.12"],
            Self::CublasLt => &["libcublasLt.so.13", "libcublasLt.so.12"],
            Self::Cudnn => &["libcudnn.so.9"],
            Self::Nccl => &["libnccl.so.2"],
        }
    }

    const fn words(self) -> (&'static str, &'static str, &'static str) {
        const TOOLKIT: &str = "install CUDA 12.4 or later (or `pip install torch`, which brings its \
             libraries), or name their folders in CODA_CUDA_LIBRARIES";
        match self {
            Self::Driver => (
                "libcuda.so.1",
                "the cuda engine",
                "install NVIDIA's driver, or use --engine cpu, or --engine xla with a plugin for \
                 your card",
            ),
            Self::Nvrtc => ("libnvrtc", "compiling kernels", TOOLKIT),
            Self::CublasLt => ("libcublasLt", "matrix products", TOOLKIT),
            Self::Cudnn => ("libcudnn.so.9", "cuDNN's attention", TOOLKIT),
            Self::Nccl => ("libnccl.so.2", "several cards", TOOLKIT),
        }
    }

    fn load_from_known_places(self) -> bool {
        use libloading::os::unix::{Library as Loaded, RTLD_GLOBAL, RTLD_NOW};
        for folder in folders() {
            for file in self.files() {
                let path = folder.join(file);
                if !path.is_file() {
                    continue;
                }
                // SAFETY: as in `present`.
                if let Ok(library) = unsafe { Loaded::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) } {
                    LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(library);
                    return true;
                }
            }
        }
        false
    }
}

/// Folders in which libraries may lie: those of `CODA_CUDA_LIBRARIES`, toolkits, the wheels of the
/// active Python environment.
fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = env::var_os("CODA_CUDA_LIBRARIES")
        .map(|list| env::split_paths(&list).collect())
        .unwrap_or_default();
    let toolkits =
        ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    folders
        .extend(toolkits.chain([PathBuf::from("/usr/local/cuda")]).map(|root| root.join("lib64")));
    if let Some(environment) = env::var_os("VIRTUAL_ENV").or_else(|| env::var_os("CONDA_PREFIX")) {
        folders.extend(wheel_folders(Path::new(&environment)));
    }
    folders
}

/// `lib/python*/site-packages/nvidia/*/lib` of a Python environment.
fn wheel_folders(environment: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
            .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect())
            .unwrap_or_default();
        paths.sort();
        paths
    };
    let python = |path: &PathBuf| {
        path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("python"))
    };
    entries(&environment.join("lib"))
        .iter()
        .filter(|path| python(path))
        .flat_map(|path| entries(&path.join("site-packages").join("nvidia")))
        .map(|package| package.join("lib"))
        .filter(|folder| folder.is_dir())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::wheel_folders;

    #[test]
    fn libraries_of_wheels_are_found_by_their_layout() {
        let root = tempfile::tempdir().unwrap();
        let packages = root.path().join("lib/python3.12/site-packages/nvidia");
        for package in ["cu13/lib", "cudnn/lib", "nothing"] {
            std::fs::create_dir_all(packages.join(package)).unwrap();
        }
        let found = wheel_folders(root.path());
        assert_eq!(found, [packages.join("cu13/lib"), packages.join("cudnn/lib")]);
        assert!(wheel_folders(&root.path().join("elsewhere")).is_empty());
    }
}
