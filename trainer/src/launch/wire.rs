//! How processes talk about the store. Numbers are little-endian.
//!
//! ```text
//! greeting:  "CODAKV" 1 0 | count u32 | process u32 | life u64       answer: frame
//! request:   what u8 | timeout ms u64 | key u32 | value u32 | key | value
//! frame:     status u8 | length u32 | bytes
//! ```
//!
//! `life` is drawn when a process starts, so that two processes of one number are told apart.

use coda_pjrt::{ErrorCode, StoreError};
use std::{
    io::{self, Read, Write},
    time::Duration,
};

const MAGIC: [u8; 8] = *b"CODAKV\x01\0";
/// Longer keys and values are refused: what is exchanged are addresses and topologies.
const LONGEST_KEY: usize = 64 << 10;
const LONGEST_VALUE: usize = 64 << 20;

/// What a process says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) count: u32,
    pub(super) process: u32,
    pub(super) life: u64,
}

impl Greeting {
    pub(super) fn write(self, to: &mut impl Write) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.count.to_le_bytes());
        bytes.extend(self.process.to_le_bytes());
        bytes.extend(self.life.to_le_bytes());
        to.write_all(&bytes)
    }

    pub(super) fn read(from: &mut impl Read) -> io::Result<Self> {
        if array::<8>(from)? != MAGIC {
            return Err(damaged("no process of ours, or one of another version"));
        }
        Ok(Self {
            count: u32::from_le_bytes(array(from)?),
            process: u32::from_le_bytes(array(from)?),
            life: u64::from_le_bytes(array(from)?),
        })
    }
}

/// What a process asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Put { key: Vec<u8>, value: Vec<u8> },
    Get { key: Vec<u8>, timeout: Duration },
    TryGet { key: Vec<u8> },
}

impl Request {
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let none: &[u8] = &[];
        let (what, timeout, key, value) = match self {
            Self::Put { key, value } => (1_u8, Duration::ZERO, key, value.as_slice()),
            Self::Get { key, timeout } => (2, *timeout, key, none),
            Self::TryGet { key } => (3, Duration::ZERO, key, none),
        };
        let mut bytes = vec![what];
        bytes.extend(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).to_le_bytes());
        bytes.extend(length(key, LONGEST_KEY, "key")?.to_le_bytes());
        bytes.extend(length(value, LONGEST_VALUE, "value")?.to_le_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        to.write_all(&bytes)
    }

    /// The next request, or none at the end of the connection.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut what = [0];
        if from.read(&mut what)? == 0 {
            return Ok(None);
        }
        let timeout = Duration::from_millis(u64::from_le_bytes(array(from)?));
        let (key, value) = (u32::from_le_bytes(array(from)?), u32::from_le_bytes(array(from)?));
        let key = bytes(from, key, LONGEST_KEY, "key")?;
        let value = bytes(from, value, LONGEST_VALUE, "value")?;
        match what[0] {
            1 => Ok(Some(Self::Put { key, value })),
            2 => Ok(Some(Self::Get { key, timeout })),
            3 => Ok(Some(Self::TryGet { key })),
            other => Err(damaged(format!("there is no request {other}"))),
        }
    }
}

/// What the store answers.
pub(super) type Answer = Result<Option<Vec<u8>>, StoreError>;

pub(super) fn write_answer(answer: &Answer, to: &mut impl Write) -> io::Result<()> {
    let (status, content) = match answer {
        Ok(Some(value)) => (0, value.clone()),
        Ok(None) => (1, Vec::new()),
        Err(error) => {
            // Codes have no more than two digits.
            let mut content = vec![u8::try_from(error.code.number()).unwrap_or(2)];
            content.extend(error.message.bytes().take(4096));
            (2_u8, content)
        }
    };
    let mut bytes = vec![status];
    bytes.extend(length(&content, LONGEST_VALUE, "value")?.to_le_bytes());
    bytes.extend(content);
    to.write_all(&bytes)
}

pub(super) fn read_answer(from: &mut impl Read) -> io::Result<Answer> {
    let [status] = array(from)?;
    let length = u32::from_le_bytes(array(from)?);
    let content = bytes(from, length, LONGEST_VALUE, "value")?;
    match (status, content.split_first()) {
        (0, _) => Ok(Ok(Some(content))),
        (1, None) => Ok(Ok(None)),
        (2, Some((code, message))) => {
            let message = String::from_utf8_lossy(message);
            Ok(Err(StoreError::new(ErrorCode::from_number(i32::from(*code)), message)))
        }
        _ => Err(damaged("no answer of ours")),
    }
}

fn array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// As many bytes as were announced; memory follows what comes, not what is announced.
fn bytes(from: &mut impl Read, length: u32, longest: usize, what: &str) -> io::Result<Vec<u8>> {
    if length as usize > longest {
        return Err(damaged(format!("a {what} of {length} bytes; at most {longest} are taken")));
    }
    let mut bytes = Vec::new();
    from.take(length.into()).read_to_end(&mut bytes)?;
    if bytes.len() < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

fn length(bytes: &[u8], longest: usize, what: &str) -> io::Result<u32> {
    u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= longest).ok_or_else(|| {
        let found = bytes.len();
        io::Error::other(format!("a {what} of {found} bytes; at most {longest} are sent"))
    })
}

fn damaged(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn requests() -> impl Strategy<Value = Request> {
        let key = || prop::collection::vec(any::<u8>(), 0..40);
        prop_oneof![
            (key(), key()).prop_map(|(key, value)| Request::Put { key, value }),
            (key(), any::<u32>()).prop_map(|(key, ms)| Request::Get {
                key,
                timeout: Duration::from_millis(ms.into())
            }),
            key().prop_map(|key| Request::TryGet { key }),
        ]
    }

    fn answers() -> impl Strategy<Value = Answer> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40).prop_map(|value| Ok(Some(value))),
            Just(Ok(None)),
            (1..16_i32, "[a-z]{0,9}")
                .prop_map(|(code, text)| Err(StoreError::new(ErrorCode::from_number(code), text))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(request in requests(), answer in answers()) {
            let mut wire = Vec::new();
            request.write(&mut wire).expect("short");
            write_answer(&answer, &mut wire).expect("short");
            let mut from = wire.as_slice();
            prop_assert_eq!(Request::read(&mut from).expect("whole"), Some(request));
            prop_assert_eq!(read_answer(&mut from).expect("whole"), answer);
            prop_assert_eq!(Request::read(&mut from).expect("the end"), None);
        }

        #[test]
        fn a_cut_request_is_an_error(request in requests(), cut in any::<prop::sample::Index>()) {
            let mut wire = Vec::new();
            request.write(&mut wire).expect("short");
            let end = 1 + cut.index(wire.len() - 1);
            prop_assume!(end < wire.len());
            prop_assert!(Request::read(&mut &wire[..end]).is_err());
        }

        #[test]
        fn any_bytes_are_read_without_panic(wire in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Greeting::read(&mut wire.as_slice());
            let _ = Request::read(&mut wire.as_slice());
            let _ = read_answer(&mut wire.as_slice());
        }
    }

    #[test]
    fn lengths_that_are_announced_are_not_believed() {
        let mut wire = vec![1_u8];
        wire.extend(0_u64.to_le_bytes());
        wire.extend(u32::MAX.to_le_bytes());
        wire.extend(0_u32.to_le_bytes());
        let error = Request::read(&mut wire.as_slice()).expect_err("4 GiB").to_string();
        assert!(error.contains("a key of 4294967295 bytes"), "{error}");
        let long = Request::TryGet { key: vec![0; LONGEST_KEY + 1] };
        assert!(long.write(&mut Vec::new()).is_err());
    }

    #[test]
    fn a_greeting_of_another_kind_is_refused() {
        let greeting = Greeting { count: 4, process: 3, life: 9 };
        let mut wire = Vec::new();
        greeting.write(&mut wire).expect("written");
        assert_eq!(Greeting::read(&mut wire.as_slice()).expect("ours"), greeting);
        wire[6] = 2;
        assert!(Greeting::read(&mut wire.as_slice()).is_err());
        assert!(Greeting::read(&mut &b"GET / HTTP/1.1\r\n\r\n......"[..]).is_err());
    }
}
