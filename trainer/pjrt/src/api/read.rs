//! Copies of what a plugin shows, so that no lifetime of its memory matters afterwards.

use super::layout::{NamedValue, Span, Text};
use crate::OptionValue;
use std::slice;

/// The elements.
///
/// # Safety
/// The span is empty, or points to that many elements that are alive.
pub(super) unsafe fn list<T: Copy>(span: Span<T>) -> Vec<T> {
    if span.start.is_null() || span.len == 0 {
        return Vec::new();
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(span.start, span.len) }.to_vec()
}

/// The bytes.
///
/// # Safety
/// As for [`list`].
pub(super) unsafe fn bytes(text: Text) -> Vec<u8> {
    // SAFETY: the caller's promise; a `char` is a byte.
    unsafe { list(Span { start: text.start.cast::<u8>(), len: text.len }) }
}

/// The text; what is not UTF-8 in it is shown as such.
///
/// # Safety
/// As for [`list`].
pub(super) unsafe fn text(text: Text) -> String {
    // SAFETY: the caller's promise.
    String::from_utf8_lossy(&unsafe { bytes(text) }).into_owned()
}

/// Attributes or properties. Kinds that no header knew when this was written are left out.
///
/// # Safety
/// As for [`list`], and the pointers in the values are alive too.
pub(super) unsafe fn named_values(span: Span<NamedValue>) -> Vec<(String, OptionValue)> {
    if span.start.is_null() || span.len == 0 {
        return Vec::new();
    }
    // A newer plugin's values may be longer than ours; they say so themselves.
    // SAFETY: there is at least one value, and its size stands at its beginning.
    let told = unsafe { (*span.start).head.struct_size };
    let stride = told.max(size_of::<NamedValue>()).next_multiple_of(align_of::<NamedValue>());
    (0..span.len)
        .filter_map(|index| {
            // SAFETY: the array has `len` values of that stride, each beginning with our fields.
            let value = unsafe { &*span.start.byte_add(index * stride) };
            let len = value.len;
            // SAFETY: the kind says which field of the union was written, and arrays have `len`
            // elements.
            let read = unsafe {
                match value.kind.value {
                    0 => OptionValue::Text(text(Span { start: value.value.text, len })),
                    1 => OptionValue::Int(value.value.int),
                    2 => OptionValue::Ints(list(Span { start: value.value.ints, len })),
                    3 => OptionValue::Float(value.value.float),
                    4 => OptionValue::Bool(value.value.flag != 0),
                    _ => return None,
                }
            };
            // SAFETY: the caller's promise.
            Some((unsafe { text(value.name) }, read))
        })
        .collect()
}
