//! Stand-ins for NVIDIA's libraries, by which tests run the CUDA engine on a machine without a card.
//!
//! `libcuda`, `libnvrtc`, `libcublasLt` and `libnccl` as small C++ programs that have the functions that
//! `coda-cuda` calls. The compiler of kernels compiles *the kernels' own text* for the CPU; a launch
//! runs every thread of a block as a coroutine, with barriers, shuffles and the tensor cores'
//! products as the PTX manual defines them. So index arithmetic, shared memory, barriers and launch
//! geometry are those of the real run.
//!
//! It is stricter than a card where that is cheap: memory and shared memory begin as NaN; a write
//! past an allocation is found; work runs only when something waits for it, so that a missing wait
//! shows; threads run in one order or in the opposite one ([`reverse`]), so that a missing barrier
//! shows.
//!
//! It cannot show what the hardware does: rounding inside a tensor core, speed, real concurrency.

use std::path::{Path, PathBuf};

/// The variable that limits the memory of the emulated card, in bytes.
pub const MEMORY: &str = "CODA_EMULATOR_MEMORY";

/// The variable that says how many cards there are, 8 at most; one without it.
pub const CARDS: &str = "CODA_EMULATOR_CARDS";

/// The variable that lets a card of a program fail as [`fail`] does: the card, the deed's place in [`Deed`]
/// and the number, such as `2,0,500`.
pub const BREAK: &str = "CODA_EMULATOR_BREAK";

/// The variable by which `coda-cuda` is told where libraries lie.
pub const LIBRARIES: &str = "CODA_CUDA_LIBRARIES";

/// The folder with the libraries, for [`LIBRARIES`].
#[must_use]
pub fn folder() -> &'static Path {
    Path::new(env!("OUT_DIR"))
}

/// The stand-in for the driver.
#[must_use]
pub fn driver() -> PathBuf {
    folder().join("libcuda.so.1")
}

/// Loads a `libcuda` that has no card and lets cuDNN make plans, for the rest of this process.
///
/// # Panics
/// If it cannot be loaded, which the build script has made.
pub fn load_planning_driver() {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    let path = folder().join("planning/libcuda.so.1");
    // SAFETY: the library has no initialisers.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
    std::mem::forget(library.expect("the stand-in that was built"));
}

/// How many cards there are from now on, in this process; 8 at most.
///
/// # Panics
/// If the stand-in for the driver cannot be loaded, which the build script has made.
pub fn set_cards(count: u8) {
    tell(b"emulator_set_cards", i32::from(count));
}

/// Whether the threads of a block run from the last to the first, from the next launch on, in this
/// process.
///
/// # Panics
/// If the stand-in for the driver cannot be loaded, which the build script has made.
pub fn reverse(reverse: bool) {
    tell(b"emulator_reverse", i32::from(reverse));
}

/// What a card does that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A kernel, a copy, an exchange: the card answers nothing else from then on.
    Task,
    /// Room in its memory: there is none any more.
    Allocation,
    /// A group of NCCL's calls: this once it is refused.
    Group,
}

/// Lets what a card does for the `nth` time from now on fail, or never with 0. For all of this process.
///
/// # Panics
/// If there is no such card, or the stand-in for the driver cannot be loaded, which the build script has
/// made.
pub fn fail(card: u8, deed: Deed, nth: u32) {
    ask(b"emulator_break", card, deed, nth);
}

/// How often a card has done it since [`fail`] was last called for it.
///
/// # Panics
/// As [`fail`].
#[must_use]
pub fn done(card: u8, deed: Deed) -> u32 {
    ask(b"emulator_done", card, deed, 0)
}

fn ask(function: &[u8], card: u8, deed: Deed, nth: u32) -> u32 {
    assert!(card < 8, "8 cards at most");
    let nth = i32::try_from(nth).expect("few");
    // SAFETY: the library has no initialisers that matter, and the functions take three numbers.
    let count = unsafe {
        let library = libloading::Library::new(driver()).expect("the stand-in that was built");
        let function: libloading::Symbol<unsafe extern "C" fn(i32, i32, i32) -> i32> =
            library.get(function).expect("a function of ours");
        let count = function(i32::from(card), deed as i32, nth);
        // The driver stays loaded.
        std::mem::forget(library);
        count
    };
    u32::try_from(count).expect("a count")
}

fn tell(function: &[u8], value: i32) {
    // SAFETY: the library has no initialisers that matter, and the function takes one number.
    unsafe {
        let library = libloading::Library::new(driver()).expect("the stand-in that was built");
        let set: libloading::Symbol<unsafe extern "C" fn(i32) -> i32> =
            library.get(function).expect("a function of ours");
        set(value);
        // The driver stays loaded.
        std::mem::forget(library);
    }
}
