//! Checksums: BLAKE3 over the file, CRC-32C over every block of 1 MiB.

use crate::index::FileEntry;
use rayon::prelude::*;
use std::io::{self, Write};

/// Bytes per checksummed block.
pub(crate) const BLOCK: usize = 1 << 20;

/// The checksums of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Checksums {
    pub(crate) bytes: u64,
    pub(crate) blake3: String,
    pub(crate) crc32c: Vec<u32>,
}

/// Passes bytes on and sums them on the way.
pub(crate) struct Summing<W> {
    inner: W,
    bytes: u64,
    hasher: blake3::Hasher,
    crc32c: Vec<u32>,
    in_block: usize,
}

impl<W: Write> Summing<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, bytes: 0, hasher: blake3::Hasher::new(), crc32c: Vec::new(), in_block: BLOCK }
    }

    /// What has passed up to now.
    pub(crate) fn so_far(&self) -> FileEntry {
        FileEntry { bytes: self.bytes, blake3: self.hasher.finalize().to_hex().to_string() }
    }

    /// The same sums over another sink, for a file whose beginning was only read.
    pub(crate) fn into<V: Write>(self, inner: V) -> Summing<V> {
        let Self { bytes, hasher, crc32c, in_block, .. } = self;
        Summing { inner, bytes, hasher, crc32c, in_block }
    }

    pub(crate) const fn get_ref(&self) -> &W {
        &self.inner
    }

    pub(crate) fn finish(self) -> (W, Checksums) {
        let blake3 = self.hasher.finalize().to_hex().to_string();
        (self.inner, Checksums { bytes: self.bytes, blake3, crc32c: self.crc32c })
    }

    fn sum(&mut self, mut bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.in_block == BLOCK {
                self.crc32c.push(0);
                self.in_block = 0;
            }
            let (head, tail) = bytes.split_at(bytes.len().min(BLOCK - self.in_block));
            if let Some(crc) = self.crc32c.last_mut() {
                *crc = crc32c::crc32c_append(*crc, head);
            }
            self.in_block += head.len();
            bytes = tail;
        }
    }
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The numbers of the blocks whose checksum differs, ascending; all cores take part.
pub(crate) fn damaged_blocks(bytes: &[u8], crc32c: &[u32]) -> Vec<usize> {
    bytes
        .par_chunks(BLOCK)
        .zip(crc32c)
        .enumerate()
        .filter(|(_, (block, crc))| crc32c::crc32c(block) != **crc)
        .map(|(number, _)| number)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Summing, damaged_blocks};
    use std::io::Write;

    #[test]
    fn sums_do_not_depend_on_how_the_bytes_arrive() {
        let bytes: Vec<u8> = (0..=250).cycle().take(BLOCK * 2 + 77).collect();
        let sums = |piece: usize| {
            let mut summing = Summing::new(std::io::sink());
            bytes.chunks(piece).for_each(|piece| summing.write_all(piece).unwrap());
            summing.finish().1
        };
        let whole = sums(bytes.len());
        for piece in [4099, BLOCK, BLOCK + 1] {
            assert_eq!(sums(piece), whole);
        }
        assert_eq!(whole.blake3, blake3::hash(&bytes).to_hex().to_string());
        assert_eq!(whole.crc32c.len(), 3);
        assert_eq!(damaged_blocks(&bytes, &whole.crc32c), Vec::<usize>::new());
        let mut bad = bytes;
        bad[BLOCK] ^= 1;
        bad[BLOCK * 2 + 76] ^= 0x80;
        assert_eq!(damaged_blocks(&bad, &whole.crc32c), [1, 2]);
    }

    #[test]
    fn crc_is_castagnoli() {
        let mut summing = Summing::new(std::io::sink());
        summing.write_all(b"123456789").unwrap();
        assert_eq!(summing.finish().1.crc32c, [0xE306_9283]);
    }
}
