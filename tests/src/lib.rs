//! Promises that no room can keep alone: one test target each, under `tests/`.
//!
//! The targets run the real programs, built in release, on small corpora made of this repository's
//! own sources.
