//! What must stand in the environment before a plugin is loaded.
//!
//! libtpu asks the metadata server of Google's cloud about its machine, many times over and for
//! minutes where there is none. A program that only compiles must not do that.

use crate::{PjrtError, error::SKIP_METADATA};
use std::{env, ffi::OsStr, fs, path::Path};

const SETTINGS: [(&str, &str); 2] = [(SKIP_METADATA, "1"), ("TF_CPP_MIN_LOG_LEVEL", "2")];

/// Sets `TPU_SKIP_MDS_QUERY=1`, and `TF_CPP_MIN_LOG_LEVEL=2` by which XLA logs errors only, each
/// unless the user has set it. Call it at the start of `main`, before any other thread exists: other
/// threads may read the environment while it changes.
///
/// # Errors
/// If one of them is not set and other threads run already.
#[expect(unsafe_code, reason = "changing the environment is unsafe; checked as described")]
pub fn prepare_environment() -> Result<(), PjrtError> {
    let unset = |name: &str| !is_set(env::var_os(name).as_deref());
    let missing: Vec<_> = SETTINGS.into_iter().filter(|(name, _)| unset(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    // Where there is no such folder there is no libtpu either, which exists for Linux only.
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Ok(()) };
    let threads = threads.count();
    if threads > 1 {
        return Err(PjrtError::TooLate { threads });
    }
    for (name, value) in missing {
        // SAFETY: this is the only thread of the process.
        unsafe { env::set_var(name, value) };
    }
    Ok(())
}

/// Refuses libtpu as long as its queries are neither forbidden nor expressly allowed.
pub(crate) fn check(path: &Path) -> Result<(), PjrtError> {
    let named = env::var_os("TPU_LIBRARY_PATH");
    if is_tpu(path, named.as_deref()) && !is_set(env::var_os(SKIP_METADATA).as_deref()) {
        return Err(PjrtError::Environment { path: path.to_owned() });
    }
    Ok(())
}

fn is_set(value: Option<&OsStr>) -> bool {
    value.is_some_and(|value| !value.is_empty())
}

/// Whether the file is libtpu by its name, by that of the file behind it, or by the user's word.
fn is_tpu(path: &Path, named: Option<&OsStr>) -> bool {
    let by_name = |path: &Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().contains("libtpu"))
    };
    by_name(path)
        || path.canonicalize().is_ok_and(|real| by_name(&real))
        || named.is_some_and(|named| Path::new(named) == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtpu_is_known_by_its_name_by_its_target_and_by_the_variable() {
        assert!(is_tpu(Path::new("/a/libtpu.so"), None));
        assert!(is_tpu(Path::new("libtpu-0.0.52.so"), None));
        assert!(is_tpu(Path::new("/a/other.so"), Some(OsStr::new("/a/other.so"))));
        assert!(!is_tpu(Path::new("/libtpu/cpu.so"), Some(OsStr::new("/a/other.so"))));
        assert!(!is_tpu(Path::new("/"), None));
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("libtpu.so");
        fs::write(&target, "").expect("written");
        let link = folder.path().join("accelerator.so");
        std::os::unix::fs::symlink(&target, &link).expect("linked");
        assert!(is_tpu(&link, None));
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        assert!(!is_set(None));
        assert!(!is_set(Some(OsStr::new(""))));
        assert!(is_set(Some(OsStr::new("0"))));
    }
}
