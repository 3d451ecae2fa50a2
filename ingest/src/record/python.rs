//! What Python's `repr` writes: some corpora hold dicts and bytes as text that it made.

use serde_json::{Map, Number, Value};

/// Literals nested deeper than this are refused.
const MAX_DEPTH: u32 = 64;

/// The bytes that `b'…'` stands for; nothing when the text is no such literal from end to end.
pub(crate) fn bytes(text: &str) -> Option<Vec<u8>> {
    let quoted = text.strip_prefix('b')?;
    let mut cursor = Cursor { rest: quoted, depth: 0 };
    let bytes = cursor.quoted(true)?;
    cursor.rest.is_empty().then_some(bytes)
}

/// A dict, list, tuple, string, number, `True`, `False` or `None` as JSON; nothing when the text is
/// no such literal from end to end.
pub(crate) fn literal(text: &str) -> Option<Value> {
    let mut cursor = Cursor { rest: text, depth: 0 };
    let value = cursor.value()?;
    cursor.skip_space();
    cursor.rest.is_empty().then_some(value)
}

struct Cursor<'a> {
    rest: &'a str,
    depth: u32,
}

impl Cursor<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn value(&mut self) -> Option<Value> {
        self.skip_space();
        for (word, value) in
            [("None", Value::Null), ("True", Value::Bool(true)), ("False", Value::Bool(false))]
        {
            if self.eat(word) {
                return Some(value);
            }
        }
        match self.rest.chars().next()? {
            '{' => self.nested(Self::dict),
            '[' => self.nested(|cursor| cursor.list("[", "]")),
            '(' => self.nested(|cursor| cursor.list("(", ")")),
            '\'' | '"' => self.string(),
            'b' => {
                self.eat("b");
                self.quoted(true).and_then(|b| String::from_utf8(b).ok()).map(Value::String)
            }
            _ => self.number(),
        }
    }

    fn string(&mut self) -> Option<Value> {
        self.quoted(false).and_then(|bytes| String::from_utf8(bytes).ok()).map(Value::String)
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Option<Value>) -> Option<Value> {
        self.depth += 1;
        let value = if self.depth <= MAX_DEPTH { read(self) } else { None };
        self.depth -= 1;
        value
    }

    fn dict(&mut self) -> Option<Value> {
        let mut map = Map::new();
        self.eat("{");
        loop {
            self.skip_space();
            if self.eat("}") {
                return Some(Value::Object(map));
            }
            let key = match self.value()? {
                Value::String(key) => key,
                other => other.to_string(),
            };
            self.skip_space();
            if !self.eat(":") {
                return None;
            }
            let value = self.value()?;
            map.insert(key, value);
            self.skip_space();
            if !self.eat(",") && !self.rest.starts_with('}') {
                return None;
            }
        }
    }

    fn list(&mut self, open: &str, close: &str) -> Option<Value> {
        let mut values = Vec::new();
        self.eat(open);
        loop {
            self.skip_space();
            if self.eat(close) {
                return Some(Value::Array(values));
            }
            values.push(self.value()?);
            self.skip_space();
            if !self.eat(",") && !self.rest.starts_with(close) {
                return None;
            }
        }
    }

    fn number(&mut self) -> Option<Value> {
        let end = self
            .rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c)))
            .unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        if let Ok(whole) = text.parse::<i64>() {
            return Some(Value::from(whole));
        }
        text.parse().ok().and_then(Number::from_f64).map(Value::Number)
    }

    /// A quoted literal with its escapes, as bytes. `\x` is a byte in bytes, a character in text.
    fn quoted(&mut self, is_bytes: bool) -> Option<Vec<u8>> {
        let quote = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        self.rest = &self.rest[1..];
        let mut out = Vec::new();
        loop {
            let next = self.rest.chars().next()?;
            self.rest = &self.rest[next.len_utf8()..];
            if next == quote {
                return Some(out);
            }
            if next != '\\' {
                // Python writes bytes above 127 as escapes.
                if is_bytes && !next.is_ascii() {
                    return None;
                }
                out.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            self.escape(is_bytes, &mut out)?;
        }
    }

    fn escape(&mut self, is_bytes: bool, out: &mut Vec<u8>) -> Option<()> {
        let kind = self.rest.chars().next()?;
        self.rest = &self.rest[kind.len_utf8()..];
        let simple = match kind {
            'n' => b'\n',
            't' => b'\t',
            'r' => b'\r',
            '\\' => b'\\',
            '\'' => b'\'',
            '"' => b'"',
            'x' | 'u' | 'U' if kind == 'x' || !is_bytes => {
                let digits = match kind {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let hex = self.rest.get(..digits)?;
                let code = u32::from_str_radix(hex, 16).ok()?;
                self.rest = &self.rest[digits..];
                if is_bytes {
                    out.push(u8::try_from(code).ok()?);
                } else {
                    let character = char::from_u32(code)?;
                    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                return Some(());
            }
            // Python keeps what it does not know; its repr never writes one.
            _ => return None,
        };
        out.push(simple);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, literal};
    use proptest::prelude::*;
    use serde_json::json;
    use std::fmt::Write as _;

    #[test]
    fn bytes_as_python_writes_them() {
        assert_eq!(bytes(r"b'Solve 0 = 4*b + b + 15 for b.\n'"), {
            Some(b"Solve 0 = 4*b + b + 15 for b.\n".to_vec())
        });
        assert_eq!(bytes(r#"b"it's""#), Some(b"it's".to_vec()));
        assert_eq!(bytes(r"b'\xe2\x82\xac \\ \'\t'"), Some("\u{20ac} \\ '\t".into()));
        assert_eq!(bytes(r"b'\xff'"), Some(vec![0xff]));
        assert_eq!(bytes("b''"), Some(Vec::new()));
        for none in ["", "b", "b'", "'x'", "b'x' ", "b'x'y", r"b'\x4'", r"b'\q'", "b'\u{e9}'", "-3"]
        {
            assert_eq!(bytes(none), None, "{none}");
        }
    }

    #[test]
    fn dicts_as_python_writes_them() {
        let text = r#"{'timestamp': '2023-03-08T15:00:01', 'n': -1.5, "it's": [1, (2, 3,), None],
                      'ok': True, 'no': False, 'e': {}, 'u': '\u20ac\x41', 7: b'x'}"#;
        let wanted = json!({
            "timestamp": "2023-03-08T15:00:01", "n": -1.5, "it's": [1, [2, 3], null],
            "ok": true, "no": false, "e": {}, "u": "\u{20ac}A", "7": "x",
        });
        assert_eq!(literal(text), Some(wanted));
        for none in ["{", "{'a'}", "{'a': }", "{'a': 1", "[1 2]", "nan?", "{'a': 1} x", "os.exit"] {
            assert_eq!(literal(none), None, "{none}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(literal(&deep), None);
    }

    proptest! {
        /// What Python's rule for printable ASCII would write reads back.
        #[test]
        fn every_byte_string_reads_back(wanted: Vec<u8>) {
            let mut text = String::from("b'");
            for &byte in &wanted {
                match byte {
                    b'\\' | b'\'' => text.extend(['\\', char::from(byte)]),
                    b'\n' => text.push_str("\\n"),
                    0x20..=0x7e => text.push(char::from(byte)),
                    _ => write!(text, "\\x{byte:02x}").expect("in memory"),
                }
            }
            text.push('\'');
            prop_assert_eq!(bytes(&text), Some(wanted));
        }

        #[test]
        fn nothing_panics(text: String) {
            let _ = (bytes(&text), literal(&text));
        }
    }
}
