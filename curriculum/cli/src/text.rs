//! A row as text, with its masks.

use coda_curriculum::MaskPlan;
use std::{fmt::Write as _, ops::Range};

/// Stands for each character of a masked token.
const MASKED: char = '█';
/// Begins the note of what S2 cut off.
const CUT: char = '▒';

/// How parts are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    /// By colour: a terminal.
    Colour,
    /// By characters alone: `⟦prefix⟧`, `█`, `▒`.
    Plain,
}

/// What the marks mean, in one line.
pub(crate) fn legend(marks: Marks) -> String {
    let (prefix, masked, cut) =
        (marks.prefix("prefix"), marks.masked("█ masked"), marks.cut("▒ cut off or padding"));
    format!("{prefix}  {masked}  {cut}\n")
}

/// A stretch of a row that has one thing happen to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Never masked: S1's prefix or the protected part of the prompt.
    Prefix(String),
    /// What the model has to find.
    Masked(String),
    /// What the model sees.
    Open(String),
    /// What S2 took away: the text that is there no more.
    Cut { text: String, tokens: u32, masked: u32 },
    /// The row's own padding.
    Pads { tokens: u32, masked: u32 },
}

/// The row's parts in order. `own_valid` is where its own padding begins. `decode` turns the ids of a
/// range of positions into text; tokens are decoded in runs of one kind, since a character may span
/// several tokens.
pub(crate) fn parts<E>(
    plan: &MaskPlan,
    length: u32,
    own_valid: u32,
    mut decode: impl FnMut(Range<u32>) -> Result<String, E>,
) -> Result<Vec<Part>, E> {
    let is_masked = |position: u32| plan.masked.binary_search(&position).is_ok();
    let kind = |position: u32| (is_masked(position), position < plan.prefix_len);
    let valid = plan.valid_len.min(length);
    let mut parts = Vec::new();
    let mut from = 0;
    while from < valid {
        let here = kind(from);
        let to = (from..valid).find(|&position| kind(position) != here).unwrap_or(valid);
        let text = decode(from..to)?;
        parts.push(match here {
            (true, _) => Part::Masked(text),
            (_, true) => Part::Prefix(text),
            _ => Part::Open(text),
        });
        from = to;
    }
    let count = |range: Range<u32>| {
        let masked = plan.masked.iter().filter(|position| range.contains(position)).count();
        u32::try_from(masked).unwrap_or(u32::MAX)
    };
    let pads = own_valid.clamp(valid, length);
    if valid < pads {
        let (text, masked) = (decode(valid..pads)?, count(valid..pads));
        parts.push(Part::Cut { text, tokens: pads - valid, masked });
    }
    if pads < length {
        parts.push(Part::Pads { tokens: length - pads, masked: count(pads..length) });
    }
    Ok(parts)
}

/// The parts as text for a terminal.
pub(crate) fn render(parts: &[Part], marks: Marks) -> String {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Prefix(part) => text.push_str(&marks.prefix(&harmless(part))),
            Part::Masked(part) => text.push_str(&marks.masked(&hide(part))),
            Part::Open(part) => text.push_str(&harmless(part)),
            Part::Cut { tokens, masked, .. } => {
                text.push_str(&marks.cut(&note(*tokens, "tokens cut off", *masked)));
            }
            Part::Pads { tokens, masked } => {
                text.push_str(&marks.cut(&note(*tokens, "pads", *masked)));
            }
        }
    }
    text
}

/// Text of a corpus may hold what commands a terminal; only lines and tabs stay.
pub(crate) fn harmless(text: &str) -> String {
    let keep = |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
    text.chars().map(keep).collect()
}

/// `▒[12 pads, 3 of them masked]`.
pub(crate) fn note(tokens: u32, what: &str, masked: u32) -> String {
    let mut note = format!("{CUT}[{tokens} {what}");
    if masked > 0 {
        let _ = write!(note, ", {masked} of them masked");
    }
    note.push(']');
    note
}

/// A block for each character; lines stay where they are, so that code keeps its shape.
fn hide(text: &str) -> String {
    let mut hidden = String::new();
    for character in text.chars() {
        hidden.push(MASKED);
        if character == '\n' {
            hidden.push('\n');
        }
    }
    // A token without a visible character is masked all the same.
    if hidden.is_empty() {
        hidden.push(MASKED);
    }
    hidden
}

impl Marks {
    fn prefix(self, text: &str) -> String {
        match self {
            Self::Colour => format!("\x1b[36m{text}\x1b[0m"),
            Self::Plain => format!("⟦{text}⟧"),
        }
    }

    fn masked(self, text: &str) -> String {
        match self {
            Self::Colour => format!("\x1b[33m{text}\x1b[0m"),
            Self::Plain => text.to_owned(),
        }
    }

    fn cut(self, text: &str) -> String {
        match self {
            Self::Colour => format!("\x1b[31m{text}\x1b[0m"),
            Self::Plain => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Marks, Part, parts, render};
    use coda_curriculum::MaskPlan;
    use coda_manifests::MaskBlocks;
    use std::convert::Infallible;

    fn plan(s2: bool, prefix_len: u32, valid_len: u32, masked: &[u32]) -> MaskPlan {
        MaskPlan {
            row_key: 0,
            sigma: 0.5,
            s1: false,
            s2,
            s3: false,
            prefix_len,
            valid_len,
            block_size: None,
            mask_blocks: MaskBlocks::Tokens,
            masked: masked.to_vec(),
        }
    }

    fn show(plan: &MaskPlan, own_valid: u32, marks: Marks) -> String {
        let words: Vec<&str> = "fn| f|()| {|\n|}".split('|').collect();
        let decode = |range: std::ops::Range<u32>| {
            let words = range.map(|i| *words.get(i as usize).unwrap_or(&"P"));
            Ok::<_, Infallible>(words.collect::<String>())
        };
        let parts = parts(plan, 8, own_valid, decode).unwrap_or_else(|never| match never {});
        render(&parts, marks)
    }

    #[test]
    fn text_of_a_corpus_commands_no_terminal() {
        let parts = [Part::Open("a\u{1b}[2Jb\tc\n".to_owned()), Part::Masked("\u{7}".to_owned())];
        assert_eq!(render(&parts, Marks::Plain), "a\u{fffd}[2Jb\tc\n█");
    }

    #[test]
    fn parts_are_marked_and_lines_stay() {
        assert_eq!(show(&plan(false, 2, 6, &[2, 4]), 6, Marks::Plain), "⟦fn f⟧██ {█\n}▒[2 pads]");
        assert_eq!(
            show(&plan(false, 0, 6, &[0, 6, 7]), 6, Marks::Plain),
            "██ f() {\n}▒[2 pads, 2 of them masked]"
        );
        assert_eq!(show(&plan(true, 0, 3, &[1]), 8, Marks::Plain), "fn██()▒[5 tokens cut off]");
        assert_eq!(
            show(&plan(true, 0, 3, &[1]), 6, Marks::Plain),
            "fn██()▒[3 tokens cut off]▒[2 pads]"
        );
        assert_eq!(
            show(&plan(true, 1, 3, &[1]), 8, Marks::Colour),
            "\u{1b}[36mfn\u{1b}[0m\u{1b}[33m██\u{1b}[0m()\u{1b}[31m▒[5 tokens cut off]\u{1b}[0m"
        );
    }
}
