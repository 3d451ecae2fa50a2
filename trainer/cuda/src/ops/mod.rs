//! The model's operations: what each is given, how it is laid out over blocks, what it needs.
//!
//! All of them are queued on the card's stream and return at once. Matrices are row-major; widths
//! are multiples of 8, since threads move 16 bytes at a time.

mod attention;
mod loss;
mod norm;
mod optimizer;
mod pointwise;

pub use attention::{AttentionSizes, Statistics};
pub use norm::{Columns, RopeTables};
pub use optimizer::{AdafactorStep, AdamwStep, FactoredMoments, Parameter};

use crate::CudaError;

/// A size as a kernel's `int`.
fn int(value: usize) -> Result<i32, CudaError> {
    i32::try_from(value)
        .map_err(|_| CudaError::Shape(format!("{value} is more than a kernel counts")))
}

/// Eights of a number of values.
fn eights(what: &str, values: usize) -> Result<usize, CudaError> {
    if values.is_multiple_of(8) {
        return Ok(values / 8);
    }
    Err(CudaError::Shape(format!("{what}: {values} is no multiple of 8")))
}
