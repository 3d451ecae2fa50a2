//! Programs on XLA's CPU plugin, and plugins that are none.

mod common;
mod fakes;
mod memory;
mod refused;
mod running;
mod sharded;
mod stores;
