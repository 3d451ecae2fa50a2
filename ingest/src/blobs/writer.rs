//! Filling the store: one process at a time.

use super::{
    BlobError, BlobId,
    shard::{GONE, PACK_MAGIC, Place, RECORD_HEAD, Shard, record_head},
    store::SHARDS,
};
use coda_shards::{
    FileLock,
    commit::{self, FileError},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

/// An index is written anew when this many blobs are not in it, or a quarter of those that are.
const YOUNG: usize = 4096;
const LOCK_FILE: &str = ".writing";

/// A store of blobs, to fill.
///
/// What [`BlobWriter::flush`] has put on disk survives any crash; what came after it may be there or
/// not, but never half.
pub struct BlobWriter {
    folder: PathBuf,
    shards: Vec<Option<Open>>,
    _lock: FileLock,
}

struct Open {
    shard: Shard,
    pack: File,
    dirty: bool,
}

impl BlobWriter {
    /// Opens the store in `folder`, which is made if it does not exist.
    ///
    /// # Errors
    /// If another process writes to it, or the system refuses.
    pub fn open(folder: &Path) -> Result<Self, BlobError> {
        fs::create_dir_all(folder).map_err(|e| FileError::new("create", folder, e))?;
        let path = folder.join(LOCK_FILE);
        let lock = FileLock::acquire(&path)?.ok_or_else(|| BlobError::Locked(folder.to_owned()))?;
        commit::remove_leftovers(folder)?;
        let shards = (0..SHARDS).map(|_| None).collect();
        Ok(Self { folder: folder.to_owned(), shards, _lock: lock })
    }

    /// Whether a blob was fetched, or is known not to exist.
    ///
    /// # Errors
    /// If its shard cannot be read.
    pub fn knows(&mut self, id: &BlobId) -> Result<bool, BlobError> {
        Ok(self.shard(id)?.shard.find(id).is_some())
    }

    /// Stores a blob's content, packed as the archive delivers it.
    ///
    /// # Errors
    /// If it cannot be written, or has 4 GiB or more.
    pub fn put(&mut self, id: BlobId, content: &[u8]) -> Result<(), BlobError> {
        let len = u32::try_from(content.len()).ok().filter(|&len| len != GONE);
        self.append(id, len.ok_or(BlobError::Large { id, bytes: content.len() })?, content)
    }

    /// Notes that the archive does not have a blob.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put_gone(&mut self, id: BlobId) -> Result<(), BlobError> {
        self.append(id, GONE, &[])
    }

    /// Forces everything to disk, and brings the indexes up to date where it is due.
    ///
    /// # Errors
    /// If that fails.
    pub fn flush(&mut self) -> Result<(), BlobError> {
        self.settle(false)
    }

    /// Forces everything to disk, with all indexes up to date.
    ///
    /// # Errors
    /// If that fails.
    pub fn finish(mut self) -> Result<(), BlobError> {
        self.settle(true)
    }

    fn settle(&mut self, all: bool) -> Result<(), BlobError> {
        let mut wrote = false;
        for open in self.shards.iter_mut().flatten().filter(|open| open.dirty) {
            open.pack.sync_data().map_err(|e| FileError::new("write", &open.shard.pack, e))?;
            open.dirty = false;
            wrote = true;
        }
        if wrote {
            commit::sync_dir(&self.folder)?;
        }
        for Open { shard, .. } in self.shards.iter_mut().flatten() {
            let young = shard.young.len();
            if young > 0 && (all || young >= YOUNG.max(shard.sorted_len() / 4)) {
                shard.write_index()?;
            }
        }
        Ok(())
    }

    fn append(&mut self, id: BlobId, len: u32, content: &[u8]) -> Result<(), BlobError> {
        let open = self.shard(&id)?;
        let mut record = record_head(id, len, content).to_vec();
        record.extend_from_slice(content);
        let at = open.shard.end;
        open.dirty = true;
        open.pack.write_all(&record).map_err(|e| {
            // The half-written record must not come before the next one.
            let _ = open.pack.set_len(at).and_then(|()| open.pack.seek(SeekFrom::Start(at)));
            FileError::new("write", &open.shard.pack, e)
        })?;
        open.shard.young.insert(id, Place { offset: at + RECORD_HEAD as u64, len });
        open.shard.end = at + record.len() as u64;
        Ok(())
    }

    fn shard(&mut self, id: &BlobId) -> Result<&mut Open, BlobError> {
        let slot = &mut self.shards[id.shard()];
        if slot.is_none() {
            *slot = Some(Open::new(&self.folder, id.shard())?);
        }
        slot.as_mut().ok_or_else(|| BlobError::Locked(self.folder.clone()))
    }
}

impl Open {
    fn new(folder: &Path, number: usize) -> Result<Self, BlobError> {
        let shard = Shard::open(folder, number)?;
        let error = |e| FileError::new("open", &shard.pack, e);
        let mut pack = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&shard.pack)
            .map_err(error)?;
        // What a crash left behind the last whole record.
        pack.set_len(shard.end).map_err(error)?;
        pack.write_all(PACK_MAGIC).map_err(error)?;
        pack.seek(SeekFrom::Start(shard.end)).map_err(error)?;
        Ok(Self { shard, pack, dirty: false })
    }
}
