//! NVIDIA's libraries: where they are, and that they are there before the first call.
//!
//! cudarc opens a library when a function of it is first called, and panics if there is none. So
//! every way to the card begins with [`Library::open`]. It looks first in the folders that it was
//! told of, then where the system does, then where toolkits and Python's wheels put libraries: once
//! a library is loaded by its path, the system finds it by its name.

use crate::CudaError;
use libloading::os::unix::{RTLD_GLOBAL, RTLD_NOW};
use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
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
static LOADED: Mutex<Vec<(PathBuf, libloading::os::unix::Library)>> = Mutex::new(Vec::new());

/// Folders that [`look_in`] was told of.
static TOLD: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

impl Library {
    /// Makes sure that calls into the library find it.
    ///
    /// # Errors
    /// [`CudaError::NoLibrary`] if it is nowhere.
    pub fn open(self) -> Result<(), CudaError> {
        self.load_from(&told_of());
        if self.present() || self.load_from(&known_places()) && self.present() {
            return Ok(());
        }
        let (library, purpose, hint) = self.words();
        Err(CudaError::NoLibrary { library, purpose, hint })
    }

    /// The library itself: from the folders that were told of, then from toolkits and the active
    /// Python environment, then where the system looks. It stays loaded.
    ///
    /// # Errors
    /// [`CudaError::NoLibrary`] if it is nowhere.
    pub(crate) fn load(self) -> Result<&'static libloading::os::unix::Library, CudaError> {
        let folders = [told_of(), known_places()].concat();
        let files = folders.iter().flat_map(|f| self.files().iter().map(move |file| f.join(file)));
        let files = files.filter(|path| path.is_file());
        let by_name = self.files().iter().map(PathBuf::from);
        let opened = files.chain(by_name).find_map(|path| {
            // SAFETY: NVIDIA's libraries, whose initialisers are made to be run at any time.
            unsafe { libloading::os::unix::Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.ok()
        });
        let (library, purpose, hint) = self.words();
        opened.map(|opened| &*Box::leak(Box::new(opened))).ok_or(CudaError::NoLibrary {
            library,
            purpose,
            hint,
        })
    }

    /// Whether cudarc finds the library.
    fn present(self) -> bool {
        // SAFETY: these load NVIDIA's libraries, whose initialisers are made to be run at any time.
        unsafe {
            match self {
                Self::Driver => cudarc::driver::sys::is_culib_present(),
                Self::Nvrtc => cudarc::nvrtc::sys::is_culib_present(),
                Self::CublasLt => cudarc::cublaslt::sys::is_culib_present(),
                Self::Cudnn => self.load().is_ok(),
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
            Self::Driver => {
                ("libcuda.so.1", "the cuda engine", "install NVIDIA's driver, or use --engine cpu")
            }
            Self::Nvrtc => ("libnvrtc", "compiling kernels", TOOLKIT),
            Self::CublasLt => ("libcublasLt", "matrix products", TOOLKIT),
            Self::Cudnn => ("libcudnn.so.9", "cuDNN's attention", TOOLKIT),
            Self::Nccl => ("libnccl.so.2", "several cards", TOOLKIT),
        }
    }

    /// Loads the library from the first folder that has it.
    fn load_from(self, folders: &[PathBuf]) -> bool {
        let files = folders.iter().flat_map(|f| self.files().iter().map(move |file| f.join(file)));
        for path in files.filter(|path| path.is_file()) {
            // NVRTC looks for this one by name alone.
            if self == Self::Nvrtc {
                for path in siblings(&path, "libnvrtc-builtins.so") {
                    load(&path);
                }
            }
            if load(&path) {
                return true;
            }
        }
        false
    }
}

/// Adds a folder in which libraries are looked for before anywhere else.
pub fn look_in(folder: &Path) {
    let mut told = lock(&TOLD);
    if !told.iter().any(|known| known == folder) {
        told.push(folder.to_owned());
    }
}

/// Folders that the user or the program has named.
fn told_of() -> Vec<PathBuf> {
    let variable = env::var_os("CODA_CUDA_LIBRARIES");
    let of_user = variable.iter().flat_map(env::split_paths);
    lock(&TOLD).iter().cloned().chain(of_user).collect()
}

/// Folders of toolkits and of the active Python environment's wheels.
fn known_places() -> Vec<PathBuf> {
    let toolkits =
        ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    let mut folders: Vec<PathBuf> =
        toolkits.chain([PathBuf::from("/usr/local/cuda")]).map(|root| root.join("lib64")).collect();
    let named = env::var_os("VIRTUAL_ENV").or_else(|| env::var_os("CONDA_PREFIX"));
    if let Some(environment) = named.map(PathBuf::from).or_else(environment_of_python) {
        folders.extend(wheel_folders(&environment));
    }
    folders
}

/// The environment whose `python3` a shell would run.
fn environment_of_python() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let programs = env::split_paths(&path).find(|folder| folder.join("python3").is_file())?;
    programs.parent().map(Path::to_owned)
}

fn load(path: &Path) -> bool {
    use libloading::os::unix::Library as Loaded;
    let mut loaded = lock(&LOADED);
    if loaded.iter().any(|(known, _)| known == path) {
        return true;
    }
    // SAFETY: NVIDIA's libraries, whose initialisers are made to be run at any time.
    match unsafe { Loaded::open(Some(path), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => {
            loaded.push((path.to_owned(), library));
            true
        }
        Err(_) => false,
    }
}

fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Files beside `path` whose names begin so.
fn siblings(path: &Path, start: &str) -> Vec<PathBuf> {
    let begins = |path: &PathBuf| {
        path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(start))
    };
    path.parent().map(entries).unwrap_or_default().into_iter().filter(begins).collect()
}

/// What a folder holds, by name.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    paths.sort();
    paths
}

/// `lib/python*/site-packages/nvidia/*/lib` of a Python environment.
fn wheel_folders(environment: &Path) -> Vec<PathBuf> {
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
