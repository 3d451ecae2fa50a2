//! What this crate promises, from the outside: exact ids, hostile input, the command line.

mod blobs;
mod cleaning;
mod columns;
mod command_line;
mod common;
mod containers;
mod deduplicating;
mod fast;
mod fetching;
mod hostile;
mod killed;
mod parts;
mod published;
mod records;
mod rendering;
mod resuming;
mod spans;
mod tokenizing;
