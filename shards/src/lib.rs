//! The shard set: packed rows in Arrow IPC files, and the order in which training reads them.
//!
//! A shard set is a directory: `index.json` (written last), `shard-00000.arrow …`, `tokenizer.json`,
//! `rejects.jsonl` and `README.md`. `docs/shard-format.md` describes every byte of it.
//!
//! * [`ShardWriter`] streams rows into a new set; it holds at most one record batch. Stopped at any
//!   moment, it goes on behind the last shard that it has noted.
//! * [`ShardSet`] maps a set and hands out [`Row`]s that borrow from the mapping, without a copy.
//! * [`verify()`] reads everything and names what is damaged, missing or surplus.
//! * [`export`] writes a set in the formats of other trainers.
//! * [`DatasetCard`] describes a set to people and to a hub.
//! * [`Order`] says which row a position of training reads, in O(1) and without any state.
//! * [`commit`] writes files and directories that either appear whole or not at all; checkpoints
//!   use it too. [`read_at()`] is for several threads that read one file.

mod arrow;
mod behind;
mod blocks;
mod card;
pub mod commit;
mod dataset_card;
mod error;
pub mod export;
mod growing;
mod index;
mod lock;
mod order;
mod progress;
mod read_at;
mod reader;
mod row;
mod verify;
mod writer;

pub use dataset_card::{CardOptions, DatasetCard};
pub use error::{ErrorClass, ShardError};
pub use index::{
    FORMAT, FORMAT_VERSION, FORMAT_VERSION_SPANS, FileEntry, INDEX_FILE, Index, README_FILE,
    REJECTS_FILE, ShardEntry, SourceEntry, Specials, TOKENIZER_FILE, Totals,
};
pub use lock::{DirLock, FileLock, LOCK_FILE};
pub use order::{Order, OrderError, Position, SourceRange, held_out_rows};
pub use read_at::read_at;
pub use reader::{Check, ShardSet};
pub use row::{Row, RowBuf, Span, SyntaxSpan, SyntaxSpans, row_key};
pub use verify::{Problem, VerifyReport, verify};
pub use writer::{ShardWriter, SourceReport, WriterOptions, tidy};
