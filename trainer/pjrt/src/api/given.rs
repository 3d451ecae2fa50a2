//! What is given to a plugin: options and programs.

use super::layout::{Head, Int, NamedUnion, NamedValue, Padded, Program, Span};
use super::owned::{characters, span};
use crate::OptionValue;
use std::marker::PhantomData;

/// Options as the C API wants them, borrowing from where they are.
pub(super) struct Options<'a> {
    values: Vec<NamedValue>,
    borrowed: PhantomData<&'a OptionValue>,
}

impl<'a> Options<'a> {
    pub(super) fn new(options: &'a [(String, OptionValue)]) -> Self {
        let values = options.iter().map(|(name, value)| {
            let (kind, value, len) = match value {
                OptionValue::Text(text) => {
                    (0, NamedUnion { text: text.as_ptr().cast() }, text.len())
                }
                OptionValue::Int(int) => (1, NamedUnion { int: *int }, 1),
                OptionValue::Ints(ints) => (2, NamedUnion { ints: ints.as_ptr() }, ints.len()),
                OptionValue::Float(float) => (3, NamedUnion { float: *float }, 1),
                OptionValue::Bool(flag) => (4, NamedUnion { flag: u8::from(*flag) }, 1),
            };
            NamedValue {
                head: Head::sized(size_of::<NamedValue>()),
                name: characters(name.as_bytes()),
                kind: Int { value: kind, spare: 0 },
                value,
                len,
            }
        });
        Self { values: values.collect(), borrowed: PhantomData }
    }

    pub(super) fn span(&self) -> Span<NamedValue> {
        span(&self.values)
    }
}

/// The text of a program as the C API wants it.
pub(super) fn program(text: &str) -> Padded<Program> {
    let head = Head::sized(size_of::<Padded<Program>>());
    Padded::new(Program { head, code: characters(text.as_bytes()), format: characters(b"mlir") })
}
