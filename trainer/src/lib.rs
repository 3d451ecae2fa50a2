//! The trainer: feed, optimizers, fit loop, checkpoints, metrics, sampling, around a model that is
//! written once and run by an engine.
//!
//! ```text
//! shard set ──feed──▶ Batch ──Engine──▶ Grads ──optim──▶ Params ──checkpoint──▶ HF directory
//!                                └──▶ metrics                     └──sample──▶ text
//! ```

pub mod ahead;
pub mod card;
pub mod checkpoint;
pub mod commands;
pub mod engine;
pub mod evaluate;
pub mod feed;
pub mod fit;
pub mod forecast;
pub mod launch;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod optim;
pub mod parallel;
pub mod sample;
pub mod threads;
