//! What is mended in a text before it becomes a document.

use super::python;
use crate::decode::Fault;
use coda_manifests::Transform;
use std::borrow::Cow;

/// Applies the transforms in their order.
pub(super) fn mend<'a>(
    mut text: Cow<'a, str>,
    transforms: &[Transform],
) -> Result<Cow<'a, str>, Fault> {
    for transform in transforms {
        text = match transform {
            Transform::PythonBytes => match python::bytes(&text) {
                None => text,
                Some(bytes) => Cow::Owned(String::from_utf8(bytes).map_err(|e| {
                    let valid = e.utf8_error().valid_up_to();
                    Fault::new("invalid_utf8", format!("the bytes of a Python literal: {e}"))
                        .at(valid)
                })?),
            },
            Transform::Lf => line_feeds(text),
            Transform::Trim => match text {
                Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
                Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
            },
        };
    }
    Ok(text)
}

/// CR LF, and CR alone, become LF.
fn line_feeds(text: Cow<'_, str>) -> Cow<'_, str> {
    if memchr::memchr(b'\r', text.as_bytes()).is_none() {
        return text;
    }
    Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n"))
}

#[cfg(test)]
mod tests {
    use super::mend;
    use coda_manifests::Transform::{Lf, PythonBytes, Trim};
    use std::borrow::Cow;

    #[test]
    fn transforms_apply_in_their_order() {
        let of = |text: &'static str, transforms: &[_]| {
            mend(Cow::Borrowed(text), transforms).map(Cow::into_owned).map_err(|f| f.reason)
        };
        assert_eq!(of("a\r\nb\rc\n\r\n\r\r\n", &[Lf]).as_deref(), Ok("a\nb\nc\n\n\n\n"));
        assert_eq!(of(r"b'4\n'", &[PythonBytes, Trim]).as_deref(), Ok("4"));
        assert_eq!(of(r"b'a\r\nb'", &[PythonBytes, Lf]).as_deref(), Ok("a\nb"));
        assert_eq!(of(r"b'a\r\nb'", &[Lf, PythonBytes]).as_deref(), Ok("a\r\nb"));
        assert_eq!(of("b", &[PythonBytes]).as_deref(), Ok("b"), "no literal: as it is");
        assert_eq!(of(r"b'\xff'", &[PythonBytes]), Err("invalid_utf8"));
        let same = mend(Cow::Borrowed("plain\n"), &[PythonBytes, Lf]).expect("fine");
        assert!(matches!(same, Cow::Borrowed(_)), "nothing to mend, nothing copied");
    }
}
