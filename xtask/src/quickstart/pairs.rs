//! Documented functions of Rust sources, as pairs of instruction and answer.
//!
//! Line based with brace matching: a run of `///` lines, attributes, then a function. Strings,
//! characters, lifetimes and comments are told apart, so a brace inside one does not count. What
//! the reader does not understand (an attribute over several lines, a macro's `$name`) is left out:
//! a pair less is better than a wrong pair.

/// The longest function, in bytes after removing its indentation.
const LONGEST_FUNCTION: usize = 600;
/// The longest instruction text taken from a doc comment.
const LONGEST_DOC: usize = 300;
/// A shorter doc comment says nothing to learn from.
const SHORTEST_DOC: usize = 20;

/// A function with what its doc comment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    /// First paragraph of the doc comment, on one line.
    pub(crate) doc: String,
    /// From the visibility to before the opening brace.
    pub(crate) signature: String,
    /// The whole function without its indentation.
    pub(crate) function: String,
}

impl Pair {
    /// What the model is asked: the doc comment, then the signature.
    pub(crate) fn instruction(&self) -> String {
        format!("{}\n\n{}", self.doc, self.signature)
    }
}

/// All documented functions of one source file that are short enough to learn from.
pub(crate) fn extract(source: &str) -> Vec<Pair> {
    let lines: Vec<&str> = source.split_inclusive('\n').collect();
    let starts: Vec<usize> = lines
        .iter()
        .scan(0, |at, line| {
            let start = *at;
            *at += line.len();
            Some(start)
        })
        .collect();
    let mut pairs = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        if !is_doc(lines[at]) {
            at += 1;
            continue;
        }
        let first = at;
        while at < lines.len() && is_doc(lines[at]) {
            at += 1;
        }
        let doc = first_paragraph(&lines[first..at]);
        while at < lines.len() && is_whole_attribute(lines[at]) {
            at += 1;
        }
        if at < lines.len() && starts_function(lines[at]) {
            pairs.extend(pair(&source[starts[at]..], doc));
        }
    }
    pairs
}

fn is_doc(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("///") && !line.starts_with("////")
}

fn is_whole_attribute(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("#[") && line.ends_with(']')
}

fn starts_function(line: &str) -> bool {
    line.split_whitespace()
        .find(|word| {
            let kind = word.split('(').next().unwrap_or_default();
            !matches!(kind, "pub" | "const" | "async" | "unsafe")
        })
        .is_some_and(|word| word == "fn")
}

/// The lines up to the first empty one or the first heading, code fence or table.
fn first_paragraph(lines: &[&str]) -> String {
    lines
        .iter()
        .map(|line| line.trim().trim_start_matches("///").trim())
        .skip_while(|line| line.is_empty())
        .take_while(|line| {
            !line.is_empty()
                && !line.starts_with('#')
                && !line.starts_with("```")
                && !line.starts_with('|')
        })
        .collect::<Vec<_>>()
        .join(" ")
}

fn pair(source: &str, doc: String) -> Option<Pair> {
    let fits = (SHORTEST_DOC..=LONGEST_DOC).contains(&doc.len());
    let (open, end) = body(source)?;
    let text = source[..end].trim_end();
    if !fits || text.contains('$') {
        return None;
    }
    let indent = source.len() - source.trim_start_matches([' ', '\t']).len();
    let function = without_indent(text, indent)?;
    let signature = without_indent(source[..open].trim_end(), indent)?;
    // A body on one line, or an empty one, teaches nothing about bodies.
    let short = function.len() <= LONGEST_FUNCTION;
    (short && function.lines().count() >= 3).then_some(Pair { doc, signature, function })
}

/// Removes `indent` blanks from every line; none if a line has less (a literal over lines).
fn without_indent(text: &str, indent: usize) -> Option<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let blanks = line.len() - line.trim_start_matches([' ', '\t']).len();
        if line.trim().is_empty() {
            lines.push("");
        } else if blanks >= indent {
            lines.push(&line[indent..]);
        } else {
            return None;
        }
    }
    Some(lines.join("\n"))
}

/// Where the body of the function at the start of `source` opens, and the end of the function.
/// None for a declaration without a body, or if the braces do not close.
fn body(source: &str) -> Option<(usize, usize)> {
    let bytes = source.as_bytes();
    let mut depth = 0_i32;
    let mut round = 0_i32;
    let mut open = None;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at += source[at..].find('\n').unwrap_or(bytes.len() - at);
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => at = after_block_comment(bytes, at)?,
            b'r' if starts_raw_string(bytes, at) => at = after_raw_string(source, at)?,
            b'"' => at = after_string(bytes, at)?,
            b'\'' => at = after_quote(source, at),
            byte => {
                match byte {
                    b'(' | b'[' => round += 1,
                    b')' | b']' => round -= 1,
                    b';' if depth == 0 && round == 0 => return None,
                    b'{' => {
                        if depth == 0 && round == 0 && open.is_none() {
                            open = Some(at);
                        }
                        depth += 1;
                    }
                    b'}' => {
                        depth -= 1;
                        if depth < 0 {
                            return None;
                        }
                        if let (0, Some(open)) = (depth, open) {
                            return Some((open, at + 1));
                        }
                    }
                    _ => {}
                }
                at += 1;
            }
        }
    }
    None
}

fn after_block_comment(bytes: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0;
    let mut at = start;
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => at += 1,
        }
    }
    None
}

fn after_string(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

fn starts_raw_string(bytes: &[u8], at: usize) -> bool {
    let in_a_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    // `br"…"` is a raw string too.
    let after_b =
        at > 0 && bytes[at - 1] == b'b' && (at < 2 || !bytes[at - 2].is_ascii_alphanumeric());
    let hashes = bytes[at + 1..].iter().take_while(|&&b| b == b'#').count();
    (!in_a_word || after_b) && bytes.get(at + 1 + hashes) == Some(&b'"')
}

fn after_raw_string(source: &str, start: usize) -> Option<usize> {
    let hashes = source.as_bytes()[start + 1..].iter().take_while(|&&b| b == b'#').count();
    let text = start + 1 + hashes + 1;
    let close = format!("\"{}", "#".repeat(hashes));
    source[text..].find(&close).map(|found| text + found + close.len())
}

/// After a character literal, or after the quote of a lifetime or label.
fn after_quote(source: &str, start: usize) -> usize {
    let rest = &source[start + 1..];
    if rest.starts_with('\\') {
        // '\'' and '\\': the escaped character cannot close the literal.
        return start + 3 + rest.get(2..).and_then(|r| r.find('\'')).map_or(0, |found| found + 1);
    }
    let mut chars = rest.chars();
    match (chars.next(), chars.next()) {
        (Some(c), Some('\'')) => start + 1 + c.len_utf8() + 1,
        _ => start + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::{Pair, extract};

    fn one(source: &str) -> Pair {
        let mut pairs = extract(source);
        assert_eq!(pairs.len(), 1, "{pairs:?}");
        pairs.remove(0)
    }

    #[test]
    fn a_method_with_attributes_loses_its_indentation() {
        let pair = one(
            "impl X {\n    /// Whether there is nothing in it\n    /// at all.\n    ///\n    /// # Panics\n    /// Never.\n    #[inline]\n    #[must_use]\n    pub const fn is_empty(&self) -> bool {\n        self.len() == 0\n    }\n}\n",
        );
        assert_eq!(pair.doc, "Whether there is nothing in it at all.");
        assert_eq!(pair.signature, "pub const fn is_empty(&self) -> bool");
        assert_eq!(pair.function, "pub const fn is_empty(&self) -> bool {\n    self.len() == 0\n}");
        assert_eq!(
            pair.instruction(),
            "Whether there is nothing in it at all.\n\npub const fn is_empty(&self) -> bool"
        );
    }

    #[test]
    fn braces_in_literals_and_comments_do_not_count() {
        let body = concat!(
            "pub(crate) fn tricky<'a>(x: &'a str) -> [u8; { 1 + 1 }] {\n",
            "    // a } in a comment\n",
            "    let a = \"} \\\" }\"; /* } /* } */ */\n",
            "    let b = ('}', '\\'', '\\u{7d}', '{', b'}', br\"}\");\n",
            "    let c = r#\"} \"} \"#;\n",
            "    'outer: loop { break 'outer; }\n",
            "}"
        );
        let source = format!("/// A function that is hard to read.\n{body}\n\nfn next() {{}}\n");
        assert_eq!(one(&source).function, body);
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        let doc = "/// A perfectly good doc comment.\n";
        for rest in [
            "fn declared(&self);\n",
            "fn short() {}\n",
            "fn open() {\n    loop {\n",
            "struct NotAFunction {\n    a: u8,\n}\n",
            "#[cfg(\n    test\n)]\nfn f() {\n    g();\n}\n",
            "fn $name() {\n    g();\n}\n",
            "\nfn f() -> u8 {\n    1\n}\n",
            "    fn f() {\n        g(\"a literal\nover lines\");\n    }\n",
        ] {
            assert_eq!(extract(&format!("{doc}{rest}")), [], "{rest}");
        }
        let long = format!("{doc}fn f() {{\n{}}}\n", "    call_something();\n".repeat(40));
        assert_eq!(extract(&long), []);
        assert_eq!(extract("/// Too short.\nfn f() {\n    g();\n}\n"), []);
        assert_eq!(extract("//// Not a doc comment at all, really.\nfn f() {\n    g();\n}\n"), []);
    }

    #[test]
    fn a_signature_over_lines_stays_as_it_is() {
        let pair = one(
            "/// Adds two numbers that are given.\nunsafe fn add(\n    a: u32,\n    b: u32,\n) -> u32\nwhere\n    u32: Copy,\n{\n    a + b\n}\n",
        );
        assert!(pair.signature.ends_with("where\n    u32: Copy,"), "{}", pair.signature);
        assert!(pair.function.ends_with("{\n    a + b\n}"));
    }

    #[test]
    fn hostile_text_ends_without_a_panic() {
        let whole = "/// A perfectly good doc comment.\nfn f() {\n '\\é' '🦀' r##\" \"# /* \"\\";
        for end in 0..whole.len() {
            if whole.is_char_boundary(end) {
                assert_eq!(extract(&whole[..end]), []);
            }
        }
    }
}
