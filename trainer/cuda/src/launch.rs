//! Launching kernels.

use crate::{CudaError, KERNEL_FILES, Stream, device::refused};
use cudarc::driver::{
    result::{function, launch_kernel, module},
    sys::{self, CUfunction_attribute as Attribute},
};
use std::{
    cell::RefCell,
    collections::HashMap,
    ffi::{CString, c_void},
    path::PathBuf,
};

/// Shared memory that a kernel is given at launch without asking: the card's 48 KiB, less what kernels may
/// have of their own.
const PLAIN_SHARED: u32 = 40 << 10;

/// A kernel by its name, the file that has it, and the threads of its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) file: &'static str,
    pub(crate) name: &'static str,
    pub(crate) threads: u32,
}

/// Blocks of a launch, and bytes of shared memory that each is given at launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) grid: [u32; 3],
    pub(crate) shared: u32,
}

impl Geometry {
    /// So many blocks in a line.
    pub(crate) fn line(blocks: usize) -> Result<Self, CudaError> {
        Self::grid([blocks, 1, 1])
    }

    /// Blocks in three dimensions; the card's limits are checked.
    pub(crate) fn grid(blocks: [usize; 3]) -> Result<Self, CudaError> {
        let limits = [0x7fff_ffff, 65_535, 65_535];
        let fits = blocks.iter().zip(limits).all(|(&n, limit)| (1..=limit).contains(&n));
        let grid = blocks.map(u32::try_from);
        match grid {
            [Ok(x), Ok(y), Ok(z)] if fits => Ok(Self { grid: [x, y, z], shared: 0 }),
            _ => Err(CudaError::Shape(format!("{blocks:?} blocks are more than a card takes"))),
        }
    }
}

/// An argument of a kernel, of the type that its source says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Argument {
    Pointer(u64),
    Int(i32),
    Long(u64),
    Float(f32),
    Double(f64),
}

impl Argument {
    fn address(&mut self) -> *mut c_void {
        match self {
            Self::Pointer(value) | Self::Long(value) => (&raw mut *value).cast(),
            Self::Int(value) => (&raw mut *value).cast(),
            Self::Float(value) => (&raw mut *value).cast(),
            Self::Double(value) => (&raw mut *value).cast(),
        }
    }
}

/// The kernels of a card, compiled and loaded file by file when one is first launched.
#[derive(Debug)]
pub(crate) struct Kernels {
    stream: Stream,
    arch: String,
    cache: Option<PathBuf>,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    modules: HashMap<&'static str, sys::CUmodule>,
    /// Functions with the shared memory that they were allowed.
    functions: HashMap<&'static str, (sys::CUfunction, u32)>,
}

impl Kernels {
    pub(crate) fn new(stream: &Stream, cache: Option<PathBuf>) -> Self {
        let (major, minor) = stream.device().info().capability;
        let arch = format!("sm_{major}{minor}");
        Self { stream: stream.clone(), arch, cache, state: RefCell::default() }
    }

    /// Queues a kernel.
    ///
    /// The caller vouches for the arguments: that they are those of the kernel's source, that the
    /// memory they point to is as large as the kernel's sizes say, and that it is used on this
    /// stream alone.
    pub(crate) fn launch(
        &self,
        kernel: Kernel,
        geometry: Geometry,
        arguments: &mut [Argument],
    ) -> Result<(), CudaError> {
        self.stream.device().bind()?;
        let function = self.function(kernel, geometry.shared)?;
        let mut addresses: Vec<*mut c_void> = arguments.iter_mut().map(Argument::address).collect();
        let [x, y, z] = geometry.grid;
        // SAFETY: the function is loaded; the arguments are as the caller vouches.
        unsafe {
            launch_kernel(
                function,
                (x, y, z),
                (kernel.threads, 1, 1),
                geometry.shared,
                self.stream.handle(),
                &mut addresses,
            )
        }
        .map_err(refused(kernel.name))?;
        self.stream.queued(|| kernel.name.into())
    }

    fn function(&self, kernel: Kernel, shared: u32) -> Result<sys::CUfunction, CudaError> {
        let mut state = self.state.borrow_mut();
        let (function, allowed) = if let Some(known) = state.functions.get(kernel.name) {
            *known
        } else {
            let module = self.module(&mut state, kernel.file)?;
            let name = CString::new(kernel.name).expect("names have no zero bytes");
            // SAFETY: the module stays loaded as long as `self`.
            let function = unsafe { module::get_function(module, name) }
                .map_err(refused("cuModuleGetFunction"))?;
            (function, PLAIN_SHARED)
        };
        let allowed = allowed.max(shared);
        if allowed > PLAIN_SHARED {
            let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(allowed).expect("far below");
            // SAFETY: as above.
            unsafe { function::set_function_attribute(function, attribute, bytes) }
                .map_err(refused("cuFuncSetAttribute"))?;
        }
        state.functions.insert(kernel.name, (function, allowed));
        Ok(function)
    }

    fn module(&self, state: &mut State, file: &'static str) -> Result<sys::CUmodule, CudaError> {
        if let Some(module) = state.modules.get(file) {
            return Ok(*module);
        }
        let file = KERNEL_FILES.iter().find(|known| known.name == file).expect("a file of ours");
        // SAFETY: NVRTC made the code, whole.
        let load = |code: Vec<u8>| unsafe { module::load_data(code.as_ptr().cast()) };
        let module = match load(file.compiled(&self.arch, self.cache.as_deref())?) {
            Ok(module) => module,
            // What was kept is damaged, or was made for what is no longer there.
            Err(_) => load(file.compiled_anew(&self.arch, self.cache.as_deref())?)
                .map_err(refused("cuModuleLoadData"))?,
        };
        state.modules.insert(file.name, module);
        Ok(module)
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        let _ = self.stream.synchronize();
        for module in self.state.borrow_mut().modules.drain().map(|(_, module)| module) {
            // SAFETY: loaded once, unloaded once; nothing queued uses it any more.
            let _ = unsafe { module::unload(module) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Geometry;

    #[test]
    fn launches_stay_within_a_cards_limits() {
        assert_eq!(Geometry::line(7).unwrap().grid, [7, 1, 1]);
        for blocks in [[0, 1, 1], [1, 65_536, 1], [1, 1, 70_000], [1 << 31, 1, 1]] {
            assert!(Geometry::grid(blocks).is_err(), "{blocks:?}");
        }
    }
}
