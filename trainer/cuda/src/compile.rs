//! Kernels: their text, and what NVRTC makes of it.

use crate::{CudaError, Library};
use coda_shards::commit::write_atomic;
use cudarc::nvrtc::{
    result::{self, NvrtcError},
    sys,
};
use std::{
    env,
    ffi::{CStr, CString},
    fs,
    path::{Path, PathBuf},
};

/// What every kernel begins with.
const COMMON: &str = include_str!("../kernels/common.cuh");

/// A file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFile {
    /// Its name in `trainer/cuda/kernels`.
    pub name: &'static str,
    text: &'static str,
}

/// All kernels.
pub const KERNEL_FILES: [KernelFile; 5] = [
    KernelFile { name: "norm.cu", text: include_str!("../kernels/norm.cu") },
    KernelFile { name: "pointwise.cu", text: include_str!("../kernels/pointwise.cu") },
    KernelFile { name: "loss.cu", text: include_str!("../kernels/loss.cu") },
    KernelFile { name: "optimizer.cu", text: include_str!("../kernels/optimizer.cu") },
    KernelFile { name: "attention.cu", text: include_str!("../kernels/attention.cu") },
];

impl KernelFile {
    /// What the compiler is given: the common part, then the file.
    #[must_use]
    pub fn source(&self) -> String {
        format!("{COMMON}\n#line 1 \"{}\"\n{}", self.name, self.text)
    }

    /// Machine code for an architecture such as `sm_90`. A program for one card rather than
    /// portable PTX: a driver takes programs of newer toolkits of its generation, but not their PTX.
    ///
    /// # Errors
    /// If NVRTC is missing or refuses the kernels.
    pub fn compile(&self, arch: &str) -> Result<Vec<u8>, CudaError> {
        self.compile_with(arch, &[]).map(|(code, _)| code)
    }

    /// As [`KernelFile::compile`], with more options of the compiler, and with what it said.
    ///
    /// # Errors
    /// As there.
    pub fn compile_with(
        &self,
        arch: &str,
        options: &[&str],
    ) -> Result<(Vec<u8>, String), CudaError> {
        Library::Nvrtc.open()?;
        let refused =
            |log: String| CudaError::Compile { file: self.name, arch: arch.to_owned(), log };
        let c_string =
            |text: String| CString::new(text).map_err(|error| refused(error.to_string()));
        let (text, name) = (c_string(self.source())?, c_string(self.name.to_owned())?);
        let failed = |call| {
            move |error: NvrtcError| CudaError::Library { call, status: format!("{:?}", error.0) }
        };
        let program = Program(
            result::create_program(&text, Some(&name)).map_err(failed("nvrtcCreateProgram"))?,
        );
        let own = [format!("--gpu-architecture={arch}"), "--std=c++17".to_owned()];
        let options: Vec<String> =
            own.into_iter().chain(options.iter().map(|&option| option.to_owned())).collect();
        // SAFETY: the program was created above and lives until the end of the function.
        unsafe {
            let compiled = result::compile_program(program.0, &options);
            let log = result::get_program_log(program.0).unwrap_or_else(|_| vec![0]);
            let log = CStr::from_ptr(log.as_ptr()).to_string_lossy().trim().to_owned();
            if compiled.is_err() {
                return Err(refused(log));
            }
            let mut size = 0;
            sys::nvrtcGetCUBINSize(program.0, &raw mut size)
                .result()
                .map_err(failed("nvrtcGetCUBINSize"))?;
            let mut code = vec![0_u8; size];
            sys::nvrtcGetCUBIN(program.0, code.as_mut_ptr().cast())
                .result()
                .map_err(failed("nvrtcGetCUBIN"))?;
            Ok((code, log))
        }
    }

    /// As [`KernelFile::compile`], from `folder` if it has the code already; a folder that cannot
    /// be written costs time only.
    ///
    /// # Errors
    /// As [`KernelFile::compile`].
    pub fn compiled(&self, arch: &str, folder: Option<&Path>) -> Result<Vec<u8>, CudaError> {
        let Some(folder) = folder else { return self.compile(arch) };
        Library::Nvrtc.open()?;
        let path = folder.join(format!("{}.cubin", self.key(arch, nvrtc_version()?)));
        // The file appeared whole or not at all.
        if let Ok(code) = fs::read(&path)
            && !code.is_empty()
        {
            return Ok(code);
        }
        self.compiled_anew(arch, Some(folder))
    }

    /// As [`KernelFile::compiled`], whatever the folder has: it gets the new code.
    ///
    /// # Errors
    /// As [`KernelFile::compile`].
    pub fn compiled_anew(&self, arch: &str, folder: Option<&Path>) -> Result<Vec<u8>, CudaError> {
        let code = self.compile(arch)?;
        if let Some(folder) = folder
            && fs::create_dir_all(folder).is_ok()
        {
            let path = folder.join(format!("{}.cubin", self.key(arch, nvrtc_version()?)));
            let _ = write_atomic(&path, |out| out.write_all(&code));
        }
        Ok(code)
    }

    /// All that the code depends on.
    fn key(&self, arch: &str, (major, minor): (i32, i32)) -> String {
        let all = format!("{arch} {major}.{minor} {}", self.source());
        blake3::hash(all.as_bytes()).to_hex()[..32].to_owned()
    }
}

/// Major and minor version of NVRTC.
fn nvrtc_version() -> Result<(i32, i32), CudaError> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: two places for two numbers.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }.result().map_err(|error| {
        CudaError::Library { call: "nvrtcVersion", status: format!("{:?}", error.0) }
    })?;
    Ok((major, minor))
}

/// Where compiled kernels are kept: `$CODA_CUDA_CACHE`, or `coda/cuda` in the user's cache.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    let own = env::var_os("CODA_CUDA_CACHE").map(PathBuf::from);
    own.or_else(|| {
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
        cache.map(|cache| cache.join("coda").join("cuda"))
    })
}

struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::KERNEL_FILES;

    #[test]
    fn code_is_kept_by_all_that_it_depends_on() {
        let [norm, pointwise, ..] = KERNEL_FILES;
        let key = norm.key("sm_90", (13, 0));
        assert_eq!(key, norm.key("sm_90", (13, 0)));
        for other in [
            norm.key("sm_80", (13, 0)),
            norm.key("sm_90", (12, 4)),
            pointwise.key("sm_90", (13, 0)),
        ] {
            assert_ne!(key, other);
        }
    }
}
