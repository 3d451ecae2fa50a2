//! Safetensors, read strictly and written in one stream.
//!
//! The format: eight bytes length of the header (little endian), the header as a JSON object, the
//! data. The reader refuses whatever the format forbids and what readers tend to let through: an
//! oversized header, a header that does not begin with `{`, duplicate names, unknown dtypes, sizes
//! that do not follow from shapes, gaps, overlaps and trailing bytes.

use super::CheckpointError;
use coda_shards::read_at;
use half::bf16;
use rayon::prelude::*;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    fs::File,
    io::{self, Read as _, Write},
    path::{Path, PathBuf},
};

/// The largest header that is read, as in the reference implementation.
const MAX_HEADER: u64 = 100_000_000;
/// The name under which the header keeps free text.
const METADATA: &str = "__metadata__";

/// The element types that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// The upper half of a single.
    Bf16,
    /// 32-bit signed integers.
    I32,
    /// 64-bit signed integers.
    I64,
}

impl Dtype {
    const fn bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Bf16 => "BF16",
            Self::I32 => "I32",
            Self::I64 => "I64",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "F32" => Self::F32,
            "BF16" => Self::Bf16,
            "I32" => Self::I32,
            "I64" => Self::I64,
            _ => return None,
        })
    }
}

/// Where one tensor lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its first byte in the data.
    begin: u64,
    /// The byte after its last.
    end: u64,
}

/// An open safetensors file whose header is sound. Data is read when asked for.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    tensors: BTreeMap<String, TensorInfo>,
    metadata: BTreeMap<String, String>,
}

impl SafetensorsFile {
    /// Opens a file and checks its header against its length.
    ///
    /// # Errors
    /// If the file cannot be read, or breaks the format in any of the ways named above.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let read = |error| CheckpointError::file("read", path, error);
        let damaged = |problem: String| CheckpointError::damaged(path, problem);
        let mut file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let mut prefix = [0; 8];
        file.read_exact(&mut prefix)
            .map_err(|_| damaged(format!("{length} bytes are too few for a safetensors file")))?;
        let header_length = u64::from_le_bytes(prefix);
        if header_length > MAX_HEADER || header_length > length - 8 {
            return Err(damaged(format!(
                "the header claims {header_length} bytes, the file has {length} (at most \
                 {MAX_HEADER} are read)"
            )));
        }
        let size = usize::try_from(header_length).map_err(|e| damaged(e.to_string()))?;
        let mut header = vec![0; size];
        file.read_exact(&mut header).map_err(read)?;
        if header.first() != Some(&b'{') {
            return Err(damaged("the header does not begin with {".to_owned()));
        }
        let header: Header = serde_json::from_slice(&header)
            .map_err(|error| damaged(format!("the header is not sound: {error}")))?;
        let data_start = 8 + header_length;
        let tensors = header.checked(length - data_start).map_err(damaged)?;
        Ok(Self { path: path.to_path_buf(), file, data_start, tensors, metadata: header.metadata })
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor by name.
    #[must_use]
    pub const fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// The free text of the header.
    #[must_use]
    pub const fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Reads a tensor of `f32` or `bf16` and gives it as `f32`; on all threads, since the memory of a large
    /// model takes longer to come by than to fill.
    ///
    /// # Errors
    /// If there is no such tensor, it holds integers, or reading fails.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let (info, size) = self.info(name)?;
        let decode: fn(&[u8], &mut [f32]) = match info.dtype {
            Dtype::F32 => |bytes, values| fill(values, words(bytes).map(f32::from_le_bytes)),
            Dtype::Bf16 => {
                |bytes, values| fill(values, words(bytes).map(|b| bf16::from_le_bytes(b).to_f32()))
            }
            Dtype::I32 | Dtype::I64 => {
                return Err(self.wrong_type(name, "F32 or BF16", info.dtype));
            }
        };
        let width = info.dtype.bytes();
        let mut values = vec![0.0; size / width];
        let one = |bytes: &mut Vec<u8>, (part, values): (usize, &mut [f32])| {
            bytes.resize(values.len() * width, 0);
            let before = (part * PART * width) as u64;
            read_at(&self.file, bytes, self.data_start + info.begin + before)?;
            decode(bytes, values);
            Ok(())
        };
        values
            .par_chunks_mut(PART)
            .enumerate()
            .try_for_each_init(Vec::new, one)
            .map_err(|error| CheckpointError::file("read", &self.path, error))?;
        Ok(values)
    }

    /// Reads a tensor of 32- or 64-bit integers as token ids.
    ///
    /// # Errors
    /// If there is no such tensor, it holds floats or a number that is no id, or reading fails.
    pub fn read_ids(&self, name: &str) -> Result<Vec<u32>, CheckpointError> {
        let (info, size) = self.info(name)?;
        let mut bytes = vec![0; size];
        read_at(&self.file, &mut bytes, self.data_start + info.begin)
            .map_err(|error| CheckpointError::file("read", &self.path, error))?;
        let wide: Vec<i64> = match info.dtype {
            Dtype::I32 => words(&bytes).map(|b| i64::from(i32::from_le_bytes(b))).collect(),
            Dtype::I64 => words(&bytes).map(i64::from_le_bytes).collect(),
            Dtype::F32 | Dtype::Bf16 => {
                return Err(self.wrong_type(name, "I32 or I64", info.dtype));
            }
        };
        wide.into_iter()
            .map(|id| {
                u32::try_from(id).map_err(|_| {
                    CheckpointError::damaged(&self.path, format!("{name}: {id} is no token id"))
                })
            })
            .collect()
    }

    fn wrong_type(&self, name: &str, expected: &str, found: Dtype) -> CheckpointError {
        CheckpointError::misfit(
            &self.path,
            format!("{name} is {found:?}, not {expected}"),
            "convert the tensor",
        )
    }

    /// What the header says of a tensor, and its bytes' number.
    fn info(&self, name: &str) -> Result<(&TensorInfo, usize), CheckpointError> {
        let info = self.tensors.get(name).ok_or_else(|| {
            CheckpointError::misfit(
                &self.path,
                format!("there is no tensor {name}"),
                "`coda-trainer inspect` lists the tensors",
            )
        })?;
        // The header was held against the file's length, so nobody allocates more than the file.
        let size = usize::try_from(info.end - info.begin)
            .map_err(|e| CheckpointError::damaged(&self.path, e.to_string()))?;
        Ok((info, size))
    }
}

/// Elements that a thread reads at a time.
const PART: usize = 1 << 18;

fn fill(values: &mut [f32], from: impl Iterator<Item = f32>) {
    for (value, from) in values.iter_mut().zip(from) {
        *value = from;
    }
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.chunks_exact(N).map(|word| word.try_into().expect("chunks of N"))
}

/// The header as it stands in the file.
#[derive(Default)]
struct Header {
    tensors: BTreeMap<String, RawInfo>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInfo {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl Header {
    /// Holds every tensor against its shape and all of them against the data's length.
    fn checked(&self, data: u64) -> Result<BTreeMap<String, TensorInfo>, String> {
        let mut tensors = BTreeMap::new();
        for (name, raw) in &self.tensors {
            tensors.insert(name.clone(), raw.checked(name)?);
        }
        let mut by_place: Vec<(&String, &TensorInfo)> = tensors.iter().collect();
        by_place.sort_by_key(|(_, info)| (info.begin, info.end));
        let mut at = 0;
        for (name, info) in by_place {
            if info.begin != at {
                return Err(format!("{name} begins at byte {}, not at {at}", info.begin));
            }
            at = info.end;
        }
        if at == data {
            Ok(tensors)
        } else {
            Err(format!("the tensors take {at} bytes, the file holds {data} after its header"))
        }
    }
}

impl RawInfo {
    fn checked(&self, name: &str) -> Result<TensorInfo, String> {
        let dtype = Dtype::parse(&self.dtype)
            .ok_or_else(|| format!("{name} has dtype {}, which is not read", self.dtype))?;
        let [begin, end] = self.data_offsets;
        let bytes =
            self.shape.iter().try_fold(dtype.bytes() as u64, |size, &n| size.checked_mul(n));
        if bytes.is_none() || end.checked_sub(begin) != bytes {
            return Err(format!(
                "{name} with shape {:?} cannot lie at bytes {begin}..{end}",
                self.shape
            ));
        }
        let shape: Result<Vec<usize>, _> = self.shape.iter().map(|&n| n.try_into()).collect();
        Ok(TensorInfo {
            dtype,
            shape: shape.map_err(|_| format!("{name} is too large"))?,
            begin,
            end,
        })
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NoDuplicates;
        impl<'de> Visitor<'de> for NoDuplicates {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header::default();
                let mut seen = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(serde::de::Error::custom(format!("{name} comes twice")));
                    }
                    if name == METADATA {
                        header.metadata = map.next_value()?;
                    } else {
                        header.tensors.insert(name, map.next_value()?);
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(NoDuplicates)
    }
}

/// The element type that a model's weights are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum WeightType {
    /// Single precision: what training goes on from, without loss.
    #[default]
    F32,
    /// Half the size: rounded to the nearest, ties to even. Published models mostly have this.
    Bf16,
}

impl WeightType {
    /// Its name in PyTorch, as `config.json` gives it.
    #[must_use]
    pub const fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
        }
    }

    const fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::Bf16,
        }
    }

    fn extend(self, bytes: &mut Vec<u8>, values: &[f32]) {
        match self {
            Self::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::Bf16 => {
                bytes.extend(values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()));
            }
        }
    }
}

/// A tensor to write.
#[derive(Clone, Debug)]
pub struct TensorSource<'a> {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: &'a [f32],
}

/// Writes tensors as `weight_type`, in the order given, with free text in the header.
///
/// # Errors
/// If writing fails.
pub fn write_safetensors(
    out: &mut dyn Write,
    tensors: &[TensorSource<'_>],
    metadata: &BTreeMap<String, String>,
    weight_type: WeightType,
) -> io::Result<()> {
    let mut header = serde_json::Map::new();
    header.insert(METADATA.to_owned(), serde_json::json!(metadata));
    let mut at = 0;
    for tensor in tensors {
        let end = at + (weight_type.dtype().bytes() * tensor.values.len()) as u64;
        let entry = serde_json::json!({
            "dtype": weight_type.dtype().name(), "shape": tensor.shape, "data_offsets": [at, end],
        });
        if header.insert(tensor.name.clone(), entry).is_some() {
            return Err(io::Error::other(format!("{} would be written twice", tensor.name)));
        }
        at = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    // Spaces at the end bring the data to a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    let mut buffer = Vec::with_capacity(1 << 16);
    for tensor in tensors {
        for chunk in tensor.values.chunks(1 << 14) {
            buffer.clear();
            weight_type.extend(&mut buffer, chunk);
            out.write_all(&buffer)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Dtype, PART, SafetensorsFile, TensorSource, WeightType, write_safetensors};
    use std::{collections::BTreeMap, fs, path::PathBuf};

    struct Scratch(tempfile::TempDir);
    impl Scratch {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a temporary directory"))
        }
        fn file(&self, bytes: &[u8]) -> PathBuf {
            let path = self.0.path().join("model.safetensors");
            fs::write(&path, bytes).expect("write");
            path
        }
    }

    fn with_header(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        let tensors = [
            TensorSource { name: "b".to_owned(), shape: vec![3], values: &[1.5, -0.0, f32::MIN] },
            TensorSource { name: "a".to_owned(), shape: vec![1, 2], values: &[7.0, 1e-40] },
        ];
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        write_safetensors(&mut bytes, &tensors, &metadata, WeightType::F32)
            .expect("write to memory");
        bytes
    }

    #[test]
    fn half_precision_is_rounded_to_the_nearest_and_reads_back() {
        let scratch = Scratch::new();
        let values = [1.0 + 1.0 / 256.0, -std::f32::consts::PI, f32::INFINITY];
        let tensors = [TensorSource { name: "w".to_owned(), shape: vec![3], values: &values }];
        let mut bytes = Vec::new();
        write_safetensors(&mut bytes, &tensors, &BTreeMap::new(), WeightType::Bf16)
            .expect("write to memory");
        let file = SafetensorsFile::open(&scratch.file(&bytes)).expect("sound");
        assert_eq!(file.tensors()["w"].dtype, Dtype::Bf16);
        assert_eq!(file.read_f32("w").expect("w"), [1.0, -3.140_625, f32::INFINITY]);
    }

    #[test]
    fn tensors_larger_than_a_thread_reads_at_a_time_are_whole() {
        let values: Vec<f32> = (0..2 * PART + 5).map(|i| (i % 251) as f32 - 125.0).collect();
        let tensor = |name: &str, values| TensorSource {
            name: name.to_owned(),
            shape: vec![2 * PART + 5],
            values,
        };
        // The second begins somewhere in the file.
        let tensors = [tensor("first", &values), tensor("second", &values)];
        for kind in [WeightType::F32, WeightType::Bf16] {
            let (scratch, mut bytes) = (Scratch::new(), Vec::new());
            write_safetensors(&mut bytes, &tensors, &BTreeMap::new(), kind).expect("memory");
            let file = SafetensorsFile::open(&scratch.file(&bytes)).expect("sound");
            for name in ["first", "second"] {
                assert!(file.read_f32(name).expect("there") == values, "{kind:?} {name}");
            }
        }
    }

    #[test]
    fn what_is_written_is_read_back_bit_for_bit() {
        let scratch = Scratch::new();
        let file = SafetensorsFile::open(&scratch.file(&sample())).expect("sound");
        assert_eq!(file.metadata()["format"], "pt");
        assert_eq!(file.tensors()["a"].shape, [1, 2]);
        let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let b = file.read_f32("b").expect("b");
        assert_eq!(bits(b), bits(vec![1.5, -0.0, f32::MIN]));
        assert_eq!(bits(file.read_f32("a").expect("a")), bits(vec![7.0, 1e-40]));
        assert!(file.read_f32("c").unwrap_err().to_string().contains("no tensor c"));
    }

    #[test]
    fn the_reference_reader_reads_our_files() {
        let bytes = sample();
        let theirs = safetensors::SafeTensors::deserialize(&bytes).expect("valid");
        let b = theirs.tensor("b").expect("b");
        assert_eq!((b.shape(), b.dtype()), ([3].as_slice(), safetensors::Dtype::F32));
        assert_eq!(b.data()[..4], 1.5_f32.to_le_bytes());
    }

    #[test]
    fn we_read_the_reference_writers_files() {
        let data: Vec<u8> =
            [0x3f80_u16, 0xc040].iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, vec![2], &data)
            .expect("a view");
        let bytes = safetensors::serialize([("x", view)], None).expect("bytes");
        let scratch = Scratch::new();
        let file = SafetensorsFile::open(&scratch.file(&bytes)).expect("sound");
        assert_eq!(file.read_f32("x").expect("x"), [1.0, -3.0]);
    }

    #[test]
    fn hostile_files_are_refused_with_the_reason() {
        let one = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let two = |a: &str, b: &str| {
            format!(
                r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":{a}}},"b":{{"dtype":"F32","shape":[2],"data_offsets":{b}}}}}"#
            )
        };
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (vec![], "too few"),
            (vec![1, 2, 3], "too few"),
            (u64::MAX.to_le_bytes().to_vec(), "the header claims"),
            (100_000_001_u64.to_le_bytes().to_vec(), "the header claims"),
            (with_header(one, 8)[..30].to_vec(), "the header claims"),
            (with_header(&format!(" {one}"), 8), "does not begin with {"),
            (with_header("{", 0), "not sound"),
            (with_header("{}x", 0), "not sound"),
            (with_header(one, 7), "the file holds 7"),
            (with_header(one, 9), "the file holds 9"),
            (with_header(&two("[0,8]", "[0,8]"), 8), "begins at byte 0, not at 8"),
            (with_header(&two("[0,8]", "[12,20]"), 20), "begins at byte 12, not at 8"),
            (with_header(&two("[0,8]", "[8,12]"), 12), "cannot lie at bytes 8..12"),
            (with_header(&two("[8,0]", "[8,16]"), 16), "cannot lie at bytes 8..0"),
            (with_header(&one.replace("[2]", "[-2]"), 8), "not sound"),
            (with_header(&one.replace("[2]", "[4611686018427387904,4]"), 8), "cannot lie"),
            (with_header(&one.replace("F32", "F31"), 8), "dtype F31"),
            (with_header(&one.replace(r#""shape""#, r#""form""#), 8), "not sound"),
            (
                with_header(
                    r#"{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#,
                    0,
                ),
                "a comes twice",
            ),
        ];
        for (bytes, reason) in cases {
            let scratch = Scratch::new();
            let error = SafetensorsFile::open(&scratch.file(&bytes)).expect_err(reason).to_string();
            assert!(error.contains(reason), "{error} should say {reason}");
        }
    }

    #[test]
    fn every_truncation_is_noticed() {
        let bytes = sample();
        let scratch = Scratch::new();
        for length in 0..bytes.len() {
            assert!(SafetensorsFile::open(&scratch.file(&bytes[..length])).is_err(), "{length}");
        }
    }
}
