//! From the bytes of a blob to its text.

use crate::decode::Fault;
use encoding_rs::{Encoding, UTF_8, UTF_16LE};
use flate2::bufread::MultiGzDecoder;
use std::{borrow::Cow, io::Read as _};

/// Unpacks a gzip blob of at most `most` bytes of content.
///
/// # Errors
/// A [`Fault`]: `corrupt_blob` when it is no whole gzip file, `too_long` when there is more in it.
pub fn unpack(gzip: &[u8], most: usize) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    MultiGzDecoder::new(gzip)
        .take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Fault::new("corrupt_blob", format!("the blob is no whole gzip file: {e}")))?;
    if bytes.len() > most {
        let message =
            format!("the blob holds more than data.max_document_bytes ({most}) bytes of text");
        return Err(Fault::new("too_long", message));
    }
    Ok(bytes)
}

/// The text of a blob's content. With the name of an encoding it must be valid in it; without one it
/// is UTF-8 with U+FFFD for what is not valid.
///
/// Names are those that character-set detectors give. `iso-8859-1` and `ascii` are what they say and
/// not windows-1252, as browsers read them.
///
/// # Errors
/// A [`Fault`]: `unknown_encoding` or `invalid_encoding`.
pub fn decode(content: Vec<u8>, encoding: Option<&str>) -> Result<String, Fault> {
    let Some(name) = encoding.map(str::trim).filter(|name| !name.is_empty()) else {
        return Ok(match String::from_utf8_lossy(&content) {
            Cow::Owned(text) => text,
            // Valid, as was just seen: no copy is needed.
            Cow::Borrowed(_) => String::from_utf8(content).unwrap_or_default(),
        });
    };
    let invalid = || Fault::new("invalid_encoding", format!("the blob is not valid {name}"));
    let plain = name.to_ascii_lowercase().replace('_', "-");
    let text = match plain.as_str() {
        "utf-8" | "utf8" => return String::from_utf8(content).map_err(|_| invalid()),
        "utf-8-sig" => {
            let text = String::from_utf8(content).map_err(|_| invalid())?;
            return Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text));
        }
        "ascii" | "us-ascii" if content.is_ascii() => Cow::Owned(latin1(&content)),
        "ascii" | "us-ascii" => return Err(invalid()),
        "iso-8859-1" | "iso8859-1" | "latin-1" | "latin1" | "l1" => Cow::Owned(latin1(&content)),
        // The byte order mark decides, without one it is little-endian.
        "utf-16" => {
            let (encoding, mark) = Encoding::for_bom(&content).unwrap_or((UTF_16LE, 0));
            let encoding = if encoding == UTF_8 { UTF_16LE } else { encoding };
            let body = &content[mark..];
            encoding
                .decode_without_bom_handling_and_without_replacement(body)
                .ok_or_else(invalid)?
        }
        other => {
            let label = match other {
                "cp949" | "uhc" => "euc-kr",
                "cp932" | "ms932" => "shift-jis",
                "cp936" => "gbk",
                "macroman" | "mac-roman" => "macintosh",
                "maccyrillic" | "mac-cyrillic" => "x-mac-cyrillic",
                other => other,
            };
            let encoding = Encoding::for_label_no_replacement(label.as_bytes())
                .or_else(|| Encoding::for_label_no_replacement(name.as_bytes()))
                .ok_or_else(|| {
                    let start: String = name.chars().take(40).collect();
                    Fault::new("unknown_encoding", format!("the encoding {start:?} is not known"))
                })?;
            encoding
                .decode_without_bom_handling_and_without_replacement(&content)
                .ok_or_else(invalid)?
        }
    };
    Ok(text.into_owned())
}

fn latin1(content: &[u8]) -> String {
    content.iter().map(|&byte| char::from(byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::{decode, unpack};
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::Write as _;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).expect("in memory");
        encoder.finish().expect("in memory")
    }

    #[test]
    fn encodings_are_read_as_python_reads_them() {
        // Made with `"…".encode(name)` of Python 3.11.
        let cases: &[(&str, &[u8], &str)] = &[
            ("UTF-8", b"\xc3\xa9\xe6\x95\xb0", "é数"),
            ("UTF-8-SIG", b"\xef\xbb\xbfa", "a"),
            ("utf-8", b"\xef\xbb\xbfa", "\u{feff}a"),
            ("ascii", b"plain", "plain"),
            ("ISO-8859-1", b"caf\xe9 \x85\x80", "café \u{85}\u{80}"),
            ("latin-1", b"\xa4", "¤"),
            ("ISO-8859-15", b"\xa4", "€"),
            ("Windows-1252", b"\x80\x93x\x94", "€“x”"),
            ("windows-1251", b"\xcf\xf0\xe8\xe2\xe5\xf2", "Привет"),
            ("KOI8-R", b"\xf0\xd2\xc9\xd7\xc5\xd4", "Привет"),
            ("GB2312", b"\xca\xfd\xbe\xdd", "数据"),
            ("Big5", b"\xb8\xea\xae\xc6", "資料"),
            ("SHIFT_JIS", b"\x93\xfa\x96\x7b", "日本"),
            ("EUC-JP", b"\xc6\xfc\xcb\xdc", "日本"),
            ("EUC-KR", b"\xc7\xd1\xb1\xdb", "한글"),
            ("CP949", b"\xc7\xd1\xb1\xdb", "한글"),
            ("UTF-16", b"\xff\xfea\x00\xe9\x00", "aé"),
            ("UTF-16", b"\xfe\xff\x00a\x00\xe9", "aé"),
            ("UTF-16LE", b"a\x00", "a"),
        ];
        for (name, bytes, text) in cases {
            assert_eq!(decode(bytes.to_vec(), Some(name)).as_deref(), Ok(*text), "{name}");
        }
    }

    #[test]
    fn what_is_not_valid_is_named() {
        let reason =
            |bytes: &[u8], name| decode(bytes.to_vec(), Some(name)).expect_err("no").reason;
        assert_eq!(reason(b"\xff", "utf-8"), "invalid_encoding");
        assert_eq!(reason(b"\xe9", "ascii"), "invalid_encoding");
        assert_eq!(reason(b"\x00\xd8", "utf-16le"), "invalid_encoding");
        assert_eq!(reason(b"\xff\xff", "euc-jp"), "invalid_encoding");
        assert_eq!(reason(b"a", "utf-32"), "unknown_encoding");
        assert_eq!(reason(b"a", "rot13"), "unknown_encoding");
        assert_eq!(decode(b"a\xffb".to_vec(), None).as_deref(), Ok("a\u{fffd}b"));
        assert_eq!(decode(b"a\xffb".to_vec(), Some(" ")).as_deref(), Ok("a\u{fffd}b"));
    }

    #[test]
    fn the_cap_is_exact_and_bombs_stop_at_it() {
        let packed = gzip(&[b'x'; 1000]);
        assert_eq!(unpack(&packed, 1000).expect("fits").len(), 1000);
        assert_eq!(unpack(&packed, 999).expect_err("too long").reason, "too_long");
        let bomb = gzip(&vec![0; 64 << 20]);
        assert_eq!(unpack(&bomb, 1 << 10).expect_err("too long").reason, "too_long");
        assert_eq!(unpack(b"no gzip", 10).expect_err("damaged").reason, "corrupt_blob");
        assert_eq!(unpack(b"", 10).expect_err("damaged").reason, "corrupt_blob");
    }

    proptest! {
        #[test]
        fn any_damage_to_a_blob_is_found(content: Vec<u8>, cut in 0_usize..1000, bit in 0_u8..8) {
            let packed = gzip(&content);
            let cut = cut % packed.len();
            prop_assert!(unpack(&packed[..cut], 1 << 20).is_err());
            let mut flipped = packed.clone();
            flipped[cut] ^= 1 << bit;
            // The header's time and system are not part of the content.
            if let Ok(found) = unpack(&flipped, 1 << 20) {
                prop_assert_eq!(found, content);
            }
        }

        #[test]
        fn utf8_comes_back(text: String) {
            prop_assert_eq!(decode(text.clone().into_bytes(), Some("utf-8")), Ok(text.clone()));
            prop_assert_eq!(decode(text.clone().into_bytes(), None), Ok(text));
        }
    }
}
