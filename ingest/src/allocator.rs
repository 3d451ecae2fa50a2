//! The program's allocator, set to keep what it has.
//!
//! Decoders make arrays of many megabytes, row group after row group. The system's allocator gives such
//! memory back when it is free, and every page of the next array is then mapped and cleared anew: a tenth
//! of the time that code from Parquet takes. jemalloc that never gives back takes it from the last one. Two
//! arenas for all threads: what one gave up another finds. Eight, the default on two cores, measured slower and
//! larger, one slower.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// A pointer that jemalloc reads once, when the program starts.
#[repr(transparent)]
struct Options(*const std::ffi::c_char);

// SAFETY: it points to a constant that nobody writes.
unsafe impl Sync for Options {}

/// What jemalloc looks for under this name: options, ended by a zero.
// SAFETY: the name is jemalloc's own prefix with the name that its manual gives for this variable, and the
// type has the layout of a pointer to characters, as declared there.
#[unsafe(export_name = "_rjem_malloc_conf")]
static OPTIONS: Options = Options(c"narenas:2,dirty_decay_ms:-1,muzzy_decay_ms:-1".as_ptr());
