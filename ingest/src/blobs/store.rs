//! Reading the store: any number of threads and processes, also while one writes.

use super::{
    BlobError, BlobId,
    shard::{GONE, Place, RECORD_HEAD, Shard, record_head},
    text::{decode, unpack},
};
use crate::decode::Fault;
use coda_shards::read_at;
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Shards of a store: one for each first byte of an id.
pub(super) const SHARDS: usize = 256;

/// What the store knows of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Its content, packed with gzip as the archive delivers it.
    Found(Vec<u8>),
    /// The archive does not have it.
    Gone,
    /// It was never fetched.
    Absent,
}

/// A store of blobs, to read.
pub struct BlobStore {
    folder: PathBuf,
    shards: Vec<OnceLock<Result<Opened, String>>>,
}

struct Opened {
    shard: Shard,
    pack: Option<File>,
}

impl BlobStore {
    /// Opens the store in `folder`; one that does not exist is empty. Sees what was written before.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        let shards = (0..SHARDS).map(|_| OnceLock::new()).collect();
        Self { folder: folder.to_owned(), shards }
    }

    /// The content of a blob.
    ///
    /// # Errors
    /// A [`Fault`] with reason `corrupt_blob` when the store is damaged or cannot be read.
    pub fn get(&self, id: &BlobId) -> Result<Lookup, Fault> {
        let unreadable = |what: &dyn std::fmt::Display| {
            let folder = self.folder.display();
            Fault::new("corrupt_blob", format!("blob {id} cannot be read from {folder}: {what}"))
        };
        let opened = self.opened(id.shard()).map_err(|error| unreadable(&error))?;
        let Some(Place { offset, len }) = opened.shard.find(id) else { return Ok(Lookup::Absent) };
        if len == GONE {
            return Ok(Lookup::Gone);
        }
        let pack = opened.pack.as_ref().ok_or_else(|| unreadable(&"its pack is not there"))?;
        let mut record = vec![0; RECORD_HEAD + len as usize];
        read_at(pack, &mut record, offset - RECORD_HEAD as u64).map_err(|e| unreadable(&e))?;
        let content = record.split_off(RECORD_HEAD);
        if record_head(*id, len, &content)[..] != record {
            return Err(unreadable(&"its checksum does not fit"));
        }
        Ok(Lookup::Found(content))
    }

    /// The text of the blob that `id` spells, unpacked and decoded ([`decode`]).
    ///
    /// # Errors
    /// A [`Fault`] with reason `bad_blob_id`, `missing_blob`, `corrupt_blob`, `too_long`,
    /// `unknown_encoding`, `invalid_encoding`, or `empty_text`.
    pub fn text(
        &self,
        id: &str,
        encoding: Option<&str>,
        max_bytes: usize,
    ) -> Result<String, Fault> {
        let id = BlobId::parse(id)?;
        let missing = |why: &str| Fault::new("missing_blob", format!("blob {id} {why}"));
        let packed = match self.get(&id)? {
            Lookup::Found(packed) => packed,
            Lookup::Gone => return Err(missing("does not exist in the archive")),
            Lookup::Absent => {
                return Err(missing("is not in the store: coda-ingest fetch brings it"));
            }
        };
        let text = decode(unpack(&packed, max_bytes)?, encoding)?;
        if text.is_empty() {
            return Err(Fault::new("empty_text", format!("blob {id} is empty")));
        }
        Ok(text)
    }

    /// BLAKE3 over ids and sizes of all blobs in order of their ids: the same for stores with the same
    /// blobs, however they were fetched.
    ///
    /// # Errors
    /// If a shard cannot be read.
    pub fn digest(&self) -> Result<blake3::Hash, BlobError> {
        let mut all = blake3::Hasher::new();
        for number in 0..SHARDS {
            for (id, place) in Shard::open(&self.folder, number)?.in_order() {
                all.update(id.as_bytes());
                all.update(&place.len.to_le_bytes());
            }
        }
        Ok(all.finalize())
    }

    fn opened(&self, number: usize) -> Result<&Opened, String> {
        let open = || {
            let shard = Shard::open(&self.folder, number).map_err(|e| e.to_string())?;
            let pack = match File::open(&shard.pack) {
                Ok(pack) => Some(pack),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error.to_string()),
            };
            Ok(Opened { shard, pack })
        };
        self.shards[number].get_or_init(open).as_ref().map_err(Clone::clone)
    }
}

impl std::fmt::Debug for BlobStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobStore").field("folder", &self.folder).finish_non_exhaustive()
    }
}
