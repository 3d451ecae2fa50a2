//! One shard of the store: a pack that only grows, and an index beside it.
//!
//! `xx.pack`: 8 bytes that name the format, then records: id (20), length (u32), CRC-32C of both and
//! of the content (u32), content. A length of `u32::MAX` has no content and says that the archive
//! does not have the blob. `xx.idx`: 8 bytes, how many bytes of the pack it covers (u64), CRC-32C of
//! the entries (u32), then entries sorted by id: id (20), place of the content (u64), length (u32).
//! All numbers are little-endian.
//!
//! The pack is the truth. An index that is absent, damaged or too long is made again by reading the
//! pack; what lies behind a record that a crash left half-written does not count.

use super::{BlobError, BlobId};
use coda_shards::commit;
use memmap2::Mmap;
use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

pub(super) const PACK_MAGIC: &[u8; 8] = b"CODABLB1";
const INDEX_MAGIC: &[u8; 8] = b"CODABLX1";
/// Bytes of a record before its content.
pub(super) const RECORD_HEAD: usize = BlobId::BYTES + 8;
const INDEX_HEAD: usize = 20;
const ENTRY: usize = BlobId::BYTES + 12;
/// The length that says that the archive does not have the blob.
pub(super) const GONE: u32 = u32::MAX;

/// Where the content of a blob lies in its pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) len: u32,
}

/// The head of a record, ready to be written.
pub(super) fn record_head(id: BlobId, len: u32, content: &[u8]) -> [u8; RECORD_HEAD] {
    let mut head = [0; RECORD_HEAD];
    head[..BlobId::BYTES].copy_from_slice(id.as_bytes());
    head[BlobId::BYTES..BlobId::BYTES + 4].copy_from_slice(&len.to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&head[..BlobId::BYTES + 4]), content);
    head[BlobId::BYTES + 4..].copy_from_slice(&sum.to_le_bytes());
    head
}

/// The entries of one shard: the sorted ones of the index file, and the younger ones in memory.
pub(super) struct Shard {
    pub(super) pack: PathBuf,
    index: PathBuf,
    sorted: Option<Mmap>,
    pub(super) young: HashMap<BlobId, Place>,
    /// Where the next record goes: behind the last whole one.
    pub(super) end: u64,
}

impl Shard {
    /// Opens a shard that may not exist yet, in a folder that does.
    pub(super) fn open(folder: &Path, number: usize) -> Result<Self, BlobError> {
        let pack = folder.join(format!("{number:02x}.pack"));
        let index = folder.join(format!("{number:02x}.idx"));
        let mut shard =
            Self { pack, index, sorted: None, young: HashMap::new(), end: PACK_MAGIC.len() as u64 };
        let file = match File::open(&shard.pack) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(shard),
            Err(error) => return Err(BlobError::read(&shard.pack, error)),
        };
        shard.load(file).map_err(|error| BlobError::read(&shard.pack, error))?;
        Ok(shard)
    }

    fn load(&mut self, file: File) -> io::Result<()> {
        let size = file.metadata()?.len();
        if let Some((map, covered)) = self.read_index(size)? {
            self.sorted = Some(map);
            self.end = covered;
        }
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut magic = Vec::new();
        (&mut reader).take(PACK_MAGIC.len() as u64).read_to_end(&mut magic)?;
        // A pack that a crash left without its first bytes is empty; another file is refused.
        if magic != PACK_MAGIC && !PACK_MAGIC.starts_with(&magic) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no pack of blobs"));
        }
        reader.seek(SeekFrom::Start(self.end))?;
        let mut head = [0; RECORD_HEAD];
        let mut content = Vec::new();
        while self.end + RECORD_HEAD as u64 <= size {
            reader.read_exact(&mut head)?;
            let mut id = [0; BlobId::BYTES];
            id.copy_from_slice(&head[..BlobId::BYTES]);
            let id = BlobId::from_bytes(id);
            let len = le_u32(&head[BlobId::BYTES..]);
            let held = if len == GONE { 0 } else { u64::from(len) };
            let offset = self.end + RECORD_HEAD as u64;
            if offset + held > size {
                break;
            }
            content.clear();
            (&mut reader).take(held).read_to_end(&mut content)?;
            if record_head(id, len, &content) != head {
                break;
            }
            self.young.insert(id, Place { offset, len });
            self.end = offset + held;
        }
        Ok(())
    }

    /// The index file, if it is whole and fits the pack.
    fn read_index(&self, pack_size: u64) -> io::Result<Option<(Mmap, u64)>> {
        let file = match File::open(&self.index) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() < INDEX_HEAD as u64 {
            return Ok(None);
        }
        // SAFETY: index files are put in place by a rename and never changed afterwards, so the
        // mapped bytes stay as they are; that whoever can write to the folder keeps to it is the
        // same trust as for the shards that training maps. Reading them into memory would make the
        // memory of a build grow with the store.
        let map = unsafe { Mmap::map(&file)? };
        let covered = u64::from_le_bytes(map[8..16].try_into().unwrap_or_default());
        let entries = &map[INDEX_HEAD..];
        let whole = map.starts_with(INDEX_MAGIC)
            && entries.len().is_multiple_of(ENTRY)
            && covered >= PACK_MAGIC.len() as u64
            && covered <= pack_size
            && crc32c::crc32c(entries) == le_u32(&map[16..]);
        Ok(whole.then_some((map, covered)))
    }

    fn entries(&self) -> &[u8] {
        self.sorted.as_deref().map_or(&[], |map| &map[INDEX_HEAD..])
    }

    pub(super) fn sorted_len(&self) -> usize {
        self.entries().len() / ENTRY
    }

    /// Where a blob lies.
    pub(super) fn find(&self, id: &BlobId) -> Option<Place> {
        if let Some(place) = self.young.get(id) {
            return Some(*place);
        }
        let entries = self.entries();
        let (mut low, mut high) = (0, self.sorted_len());
        while low < high {
            let middle = low.midpoint(high);
            let entry = &entries[middle * ENTRY..][..ENTRY];
            match entry[..BlobId::BYTES].cmp(id.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(place(entry)),
            }
        }
        None
    }

    /// All entries in the order of their ids, each id once.
    pub(super) fn in_order(&self) -> Vec<(BlobId, Place)> {
        let sorted = self.entries().chunks_exact(ENTRY).map(|entry| {
            let mut id = [0; BlobId::BYTES];
            id.copy_from_slice(&entry[..BlobId::BYTES]);
            (BlobId::from_bytes(id), place(entry))
        });
        let older = sorted.filter(|(id, _)| !self.young.contains_key(id));
        let mut all: Vec<_> = older.chain(self.young.iter().map(|(&id, &at)| (id, at))).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    /// Writes the index anew, with everything in it. The pack must be on disk up to `end`.
    pub(super) fn write_index(&mut self) -> Result<(), BlobError> {
        let mut entries = Vec::new();
        for (id, place) in self.in_order() {
            entries.extend_from_slice(id.as_bytes());
            entries.extend_from_slice(&place.offset.to_le_bytes());
            entries.extend_from_slice(&place.len.to_le_bytes());
        }
        commit::write_atomic(&self.index, |out| {
            out.write_all(INDEX_MAGIC)?;
            out.write_all(&self.end.to_le_bytes())?;
            out.write_all(&crc32c::crc32c(&entries).to_le_bytes())?;
            out.write_all(&entries)
        })?;
        let read = self.read_index(self.end).map_err(|e| BlobError::read(&self.index, e))?;
        self.sorted = read.map(|(map, _)| map);
        self.young.clear();
        Ok(())
    }
}

fn place(entry: &[u8]) -> Place {
    let offset = u64::from_le_bytes(entry[BlobId::BYTES..][..8].try_into().unwrap_or_default());
    Place { offset, len: le_u32(&entry[BlobId::BYTES + 8..]) }
}

fn le_u32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |four| u32::from_le_bytes(*four))
}
