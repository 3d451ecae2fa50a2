//! Types of elements, ours and those of PJRT.

use crate::api::Plain;
use half::{bf16, f16};
use std::{borrow::Cow, fmt};

/// What a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say all")]
pub enum ElementType {
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F16,
    F32,
    F64,
    Bf16,
    /// Another one, by its number in the C API.
    Other(i32),
}

impl ElementType {
    const NUMBERS: [(i32, Self, &'static str); 13] = [
        (1, Self::Bool, "bool"),
        (2, Self::I8, "i8"),
        (3, Self::I16, "i16"),
        (4, Self::I32, "i32"),
        (5, Self::I64, "i64"),
        (6, Self::U8, "u8"),
        (7, Self::U16, "u16"),
        (8, Self::U32, "u32"),
        (9, Self::U64, "u64"),
        (10, Self::F16, "f16"),
        (11, Self::F32, "f32"),
        (12, Self::F64, "f64"),
        (13, Self::Bf16, "bf16"),
    ];

    pub(crate) fn from_number(number: i32) -> Self {
        Self::NUMBERS
            .into_iter()
            .find(|(known, ..)| *known == number)
            .map_or(Self::Other(number), |(_, element, _)| element)
    }

    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Other(number) => number,
            known => Self::NUMBERS.into_iter().find(|(_, e, _)| *e == known).map_or(0, |(n, ..)| n),
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NUMBERS.into_iter().find(|(_, element, _)| element == self) {
            Some((_, _, name)) => f.write_str(name),
            None => write!(f, "element type {}", self.number()),
        }
    }
}

/// A Rust type that a buffer can hold.
pub trait Element: Sealed + Copy + 'static {
    /// Its type in PJRT.
    const TYPE: ElementType;
}

/// How elements go into memory that a plugin reads or writes.
pub trait Sealed: Sized + Copy {
    /// A type of the same layout that takes any bits.
    #[expect(private_bounds, reason = "nobody outside has to name it")]
    type Memory: Plain;

    /// As the plugin reads them.
    fn memory(elements: &[Self]) -> Cow<'_, [Self::Memory]>;

    /// From what the plugin wrote.
    fn elements(memory: Vec<Self::Memory>) -> Vec<Self>;
}

macro_rules! elements {
    ($($type:ty: $name:ident),*) => { $(
        impl Element for $type {
            const TYPE: ElementType = ElementType::$name;
        }

        impl Sealed for $type {
            type Memory = Self;

            fn memory(elements: &[Self]) -> Cow<'_, [Self]> {
                Cow::Borrowed(elements)
            }

            fn elements(memory: Vec<Self>) -> Vec<Self> {
                memory
            }
        }
    )* };
}
elements!(f32: F32, f64: F64, i8: I8, i16: I16, i32: I32, i64: I64);
elements!(u8: U8, u16: U16, u32: U32, u64: U64, bf16: Bf16, f16: F16);

impl Element for bool {
    const TYPE: ElementType = ElementType::Bool;
}

impl Sealed for bool {
    // A plugin might write a byte that is no `bool`.
    type Memory = u8;

    fn memory(elements: &[Self]) -> Cow<'_, [u8]> {
        Cow::Owned(elements.iter().map(|element| u8::from(*element)).collect())
    }

    fn elements(memory: Vec<u8>) -> Vec<Self> {
        memory.into_iter().map(|byte| byte != 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_header() {
        for (number, element, name) in ElementType::NUMBERS {
            assert_eq!((element.number(), ElementType::from_number(number)), (number, element));
            assert_eq!(element.to_string(), name);
        }
        assert_eq!(ElementType::from_number(14), ElementType::Other(14));
        assert_eq!(ElementType::Other(14).to_string(), "element type 14");
        assert_eq!((<f32 as Element>::TYPE.number(), <bf16 as Element>::TYPE.number()), (11, 13));
    }
}
