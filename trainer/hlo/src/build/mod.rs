//! The builders of a graph's operations: each checks its operands and knows the result's shape.

mod dot;
mod elementwise;
mod index;
mod layout;
pub(crate) mod scan;
