//! Ids in the widths of other formats.

use std::io::{self, Write};

/// How ids are written, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdWidth {
    /// Two bytes, unsigned.
    U16,
    /// Four bytes, unsigned.
    U32,
    /// Four bytes, signed: what Megatron has instead of [`IdWidth::U32`].
    I32,
}

impl IdWidth {
    /// As `NumPy` calls it.
    #[must_use]
    pub const fn dtype(self) -> &'static str {
        match self {
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::I32 => "int32",
        }
    }

    /// Bytes of an id.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::U16 => 2,
            Self::U32 | Self::I32 => 4,
        }
    }

    const fn greatest(self) -> u32 {
        match self {
            Self::U16 => 0xffff,
            Self::U32 => u32::MAX,
            Self::I32 => 0x7fff_ffff,
        }
    }

    /// The first id that does not fit.
    pub(super) fn misfit(self, ids: &[u32]) -> Option<u32> {
        ids.iter().copied().find(|&id| id > self.greatest())
    }

    /// Writes ids that were found to fit.
    pub(super) fn write(
        self,
        ids: &[u32],
        buffer: &mut Vec<u8>,
        sink: &mut dyn Write,
    ) -> io::Result<()> {
        buffer.clear();
        match self {
            #[allow(clippy::cast_possible_truncation, reason = "every id was found to fit")]
            Self::U16 => buffer.extend(ids.iter().flat_map(|&id| (id as u16).to_le_bytes())),
            Self::U32 | Self::I32 => buffer.extend(ids.iter().flat_map(|id| id.to_le_bytes())),
        }
        sink.write_all(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::IdWidth;

    #[test]
    fn every_width_ends_where_its_type_does() {
        for (width, last) in [
            (IdWidth::U16, u32::from(u16::MAX)),
            (IdWidth::U32, u32::MAX),
            (IdWidth::I32, i32::MAX.unsigned_abs()),
        ] {
            assert_eq!(width.misfit(&[0, last]), None, "{width:?}");
            let above = last.checked_add(1);
            assert_eq!(above.and_then(|id| width.misfit(&[0, id, 1])), above, "{width:?}");
            let (mut buffer, mut out) = (Vec::new(), Vec::new());
            width.write(&[1, last], &mut buffer, &mut out).unwrap();
            assert_eq!(out.len() as u64, 2 * width.bytes());
            assert_eq!(out[0], 1, "little-endian");
        }
    }
}
