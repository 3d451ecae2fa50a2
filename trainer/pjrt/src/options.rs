//! Options of clients, topologies and compilations.

use crate::PjrtError;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// The value of an option or an attribute.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say all")]
pub enum OptionValue {
    Text(String),
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
    Bool(bool),
}

macro_rules! from {
    ($($type:ty: $variant:ident),*) => { $(
        impl From<$type> for OptionValue {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        }
    )* };
}
from!(&str: Text, String: Text, i64: Int, i32: Int, Vec<i64>: Ints, f32: Float, bool: Bool);

/// How a program is compiled: one replica, over some partitions, with Shardy as the partitioner.
#[derive(Clone, Debug, PartialEq)]
pub struct CompileOptions {
    /// Over how many devices the program is spread.
    pub partitions: usize,
    /// The ids of these devices in the order of the mesh; empty means `0..partitions`.
    pub device_ids: Vec<i64>,
    /// Settings of XLA's `DebugOptions` by name, as `XLA_FLAGS` has them.
    pub overrides: Vec<(String, OptionValue)>,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self { partitions: 1, device_ids: Vec::new(), overrides: Vec::new() }
    }
}

impl CompileOptions {
    /// The serialized `CompileOptionsProto`.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, PjrtError> {
        let arguments = |message: String| PjrtError::Arguments { message };
        let partitions = i64::try_from(self.partitions)
            .ok()
            .filter(|partitions| (1..=1 << 20).contains(partitions))
            .ok_or_else(|| arguments(format!("cannot spread over {} devices", self.partitions)))?;
        let ids = match self.device_ids.as_slice() {
            [] => (0..partitions).collect(),
            ids if ids.len() == self.partitions => ids.to_vec(),
            ids => {
                let message = format!("{} device ids for {partitions} partitions", ids.len());
                return Err(arguments(message));
            }
        };
        // Plugins do not check this, and some abort the process.
        let distinct: BTreeSet<i64> = ids.iter().copied().collect();
        if distinct.len() != ids.len() {
            return Err(arguments(format!("device ids {ids:?} name a device twice")));
        }
        let overrides = self
            .overrides
            .iter()
            .map(|(name, value)| {
                Ok((name.clone(), Override { value: Some(overriding(name, value)?) }))
            })
            .collect::<Result<_, PjrtError>>()?;
        let build = BuildOptions {
            // Unset, as XLA writes it: the devices come from the assignment.
            device_ordinal: -1,
            replicas: 1,
            partitions,
            spmd: partitions > 1,
            assignment: Some(Assignment {
                replicas: 1,
                computations: i32::try_from(partitions).unwrap_or(i32::MAX),
                devices: ids.into_iter().map(|id| Computation { ids: vec![id] }).collect(),
            }),
            shardy: true,
        };
        Ok(Options { build: Some(build), overrides }.encode_to_vec())
    }
}

fn overriding(name: &str, value: &OptionValue) -> Result<OverrideValue, PjrtError> {
    Ok(match value {
        OptionValue::Text(text) => OverrideValue::Text(text.clone()),
        OptionValue::Bool(flag) => OverrideValue::Bool(*flag),
        OptionValue::Int(int) => OverrideValue::Int(*int),
        OptionValue::Float(float) => OverrideValue::Float((*float).into()),
        OptionValue::Ints(_) => {
            let message = "a list cannot override a setting of XLA";
            return Err(PjrtError::Option { name: name.to_owned(), message });
        }
    })
}

// The fields that are used of XLA's messages, with the numbers of its `compile_options.proto` and
// `xla_data.proto`. Numbers of protobuf fields are never used again for something else.

#[derive(Clone, PartialEq, Message)]
struct Options {
    #[prost(message, optional, tag = "3")]
    build: Option<BuildOptions>,
    #[prost(btree_map = "string, message", tag = "7")]
    overrides: BTreeMap<String, Override>,
}

#[derive(Clone, PartialEq, Message)]
struct BuildOptions {
    #[prost(int64, tag = "1")]
    device_ordinal: i64,
    #[prost(int64, tag = "4")]
    replicas: i64,
    #[prost(int64, tag = "5")]
    partitions: i64,
    #[prost(bool, tag = "6")]
    spmd: bool,
    #[prost(message, optional, tag = "9")]
    assignment: Option<Assignment>,
    #[prost(bool, tag = "19")]
    shardy: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Assignment {
    #[prost(int32, tag = "1")]
    replicas: i32,
    #[prost(int32, tag = "2")]
    computations: i32,
    #[prost(message, repeated, tag = "3")]
    devices: Vec<Computation>,
}

#[derive(Clone, PartialEq, Message)]
struct Computation {
    #[prost(int64, repeated, tag = "1")]
    ids: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Override {
    #[prost(oneof = "OverrideValue", tags = "1, 2, 3, 4")]
    value: Option<OverrideValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum OverrideValue {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Float(f64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_wire_format() {
        let options = CompileOptions {
            partitions: 2,
            device_ids: vec![3, 300],
            overrides: vec![("a".to_owned(), true.into())],
        };
        let minus_one = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let assignment: &[u8] =
            &[0x08, 1, 0x10, 2, 0x1a, 3, 0x0a, 1, 3, 0x1a, 4, 0x0a, 2, 0xac, 0x02];
        let build = [
            [&[0x08][..], &minus_one].concat(),
            vec![0x20, 1, 0x28, 2, 0x30, 1],
            [&[0x4a, 15][..], assignment].concat(),
            vec![0x98, 0x01, 1],
        ]
        .concat();
        let length = u8::try_from(build.len()).expect("short");
        let map = [0x3a, 7, 0x0a, 1, b'a', 0x12, 2, 0x10, 1];
        let expected = [&[0x1a, length][..], &build, &map].concat();
        assert_eq!(options.encode().expect("valid"), expected);
    }

    #[test]
    fn no_partitions_wrong_ids_and_lists_are_refused() {
        let none = CompileOptions { partitions: 0, ..CompileOptions::default() };
        assert!(none.encode().is_err());
        let ids = CompileOptions { device_ids: vec![0, 1], ..CompileOptions::default() };
        assert_eq!(
            ids.encode().expect_err("two for one").to_string(),
            "2 device ids for 1 partitions"
        );
        let twice =
            CompileOptions { partitions: 2, device_ids: vec![5, 5], ..CompileOptions::default() };
        assert!(twice.encode().expect_err("twice").to_string().contains("[5, 5]"));
        let list = vec![("xla_x".to_owned(), OptionValue::Ints(vec![1]))];
        let list = CompileOptions { overrides: list, ..CompileOptions::default() };
        assert!(list.encode().expect_err("a list").to_string().contains("xla_x"));
    }
}
