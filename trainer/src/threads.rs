//! Who does the work of the CPU's operations.

use rayon::ThreadPoolBuilder;
use std::{env, thread};

/// Makes the calling thread, for the rest of its life, one of those that share the work of every operation it
/// starts. `RAYON_NUM_THREADS` says how many there are; without it, as many as processors.
///
/// Other threads hand each operation to a pool and sleep until it is done, which with a small model takes much
/// of the processors' time. Not for a thread that only waits for others: the pool would lack it. No bit
/// of a result depends on it.
pub fn share_this_thread() {
    let threads = wanted_threads();
    // Alone in its pool, it would have to work for other threads while it waits for them.
    if rayon::current_thread_index().is_some() || threads < 2 {
        return;
    }
    let pool = || ThreadPoolBuilder::new().num_threads(threads).use_current_thread();
    // There is a pool already when somebody has worked before; then this thread has one of its own.
    if pool().build_global().is_err()
        && let Ok(own) = pool().build()
    {
        // A pool that is dropped ends, and this thread is a part of it.
        std::mem::forget(own);
    }
}

fn wanted_threads() -> usize {
    let named = env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.parse().ok());
    let here = || thread::available_parallelism().map_or(1, usize::from);
    named.filter(|&threads| threads > 0).unwrap_or_else(here)
}
