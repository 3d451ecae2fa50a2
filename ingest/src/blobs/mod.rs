//! Texts that a corpus names by id: blobs of Software Heritage's archive, kept in a local store.
//!
//! An archive has billions of small files; the store keeps them in 256 packs, one for each first byte
//! of an id. [`BlobWriter`] appends to them and survives a crash at any moment; [`BlobStore`] reads
//! them, from any number of threads. Content is kept packed, as it was delivered.

mod id;
mod shard;
mod store;
mod text;
mod writer;

pub use id::BlobId;
pub use store::{BlobStore, Lookup};
pub use text::{decode, unpack};
pub use writer::BlobWriter;

use coda_shards::commit::FileError;
use std::{io, path::PathBuf};

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Another process fills it.
    #[error("another process writes to the blob store {}", .0.display())]
    Locked(PathBuf),
    /// A blob is larger than the format can say.
    #[error("blob {id} has {bytes} bytes, more than a store can hold")]
    Large {
        /// The blob.
        id: BlobId,
        /// Its size.
        bytes: usize,
    },
    /// A pack or an index cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// Something could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl BlobError {
    fn read(path: &std::path::Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }
}
