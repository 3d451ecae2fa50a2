//! Counter-based randomness: every draw is a pure function of its key.
//!
//! Nothing here holds a state. A draw is named by *(seed, row key, epoch, purpose, index)*, so the
//! same row gets the same masks on any engine, in any batch split, on any number of workers, and
//! after any restart. The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as
//! easy as 1, 2, 3", SC 2011); the layout of its counter is part of the shard-format document.
//!
//! * [`Stream`] gives the draws of one purpose for one row.
//! * [`Permutation`] is a keyed bijection of `0..n` in O(1), the row order of an epoch.
//! * [`bernoulli_threshold`] and [`survival_threshold`] turn probabilities into integers, so that
//!   any other implementation decides each draw alike, bit for bit.
//!
//! ```
//! use coda_random::{bernoulli_threshold, Purpose, Stream};
//!
//! let draws = Stream::new(17, 0x00C0_FFEE, 0, Purpose::TokenMask);
//! let threshold = bernoulli_threshold(0.25);
//! let masked = (0..4000).filter(|&i| u64::from(draws.u32_at(i)) < threshold).count();
//! assert!((900..1100).contains(&masked));
//! ```

mod permutation;
mod philox;
mod stream;
mod threshold;

pub use permutation::Permutation;
pub use philox::philox4x32;
pub use stream::{Purpose, Stream};
pub use threshold::{bernoulli_threshold, survival_threshold};
