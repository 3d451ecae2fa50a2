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

/// The row's text. `decode` turns the ids of a range of positions into text; tokens are decoded in
/// runs of one kind, since a character may span several tokens.
pub(crate) fn render<E>(
    plan: &MaskPlan,
    length: u32,
    marks: Marks,
    mut decode: impl FnMut(Range<u32>) -> Result<String, E>,
) -> Result<String, E> {
    let mut text = String::new();
    let kind = |position: u32| match plan.masked.binary_search(&position) {
        Ok(_) => Kind::Masked,
        Err(_) if position < plan.prefix_len => Kind::Prefix,
        Err(_) => Kind::Open,
    };
    let valid = plan.valid_len.min(length);
    let mut from = 0;
    while from < valid {
        let here = kind(from);
        let to = (from..valid).find(|&position| kind(position) != here).unwrap_or(valid);
        let part = decode(from..to)?;
        match here {
            Kind::Prefix => text.push_str(&marks.prefix(&part)),
            Kind::Masked => text.push_str(&marks.masked(&hide(&part))),
            Kind::Open => text.push_str(&part),
        }
        from = to;
    }
    if valid < length {
        let masked = plan.masked.iter().filter(|&&position| position >= valid).count();
        let what = if plan.s2 { "tokens cut off" } else { "pads" };
        let mut note = format!("{CUT}[{} {what}", length - valid);
        if masked > 0 {
            let _ = write!(note, ", {masked} of them masked");
        }
        note.push(']');
        text.push_str(&marks.cut(&note));
    }
    Ok(text)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Prefix,
    Masked,
    Open,
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
    use super::{Marks, render};
    use coda_curriculum::MaskPlan;
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
            masked: masked.to_vec(),
        }
    }

    fn show(plan: &MaskPlan, marks: Marks) -> String {
        let words: Vec<&str> = "fn| f|()| {|\n|}".split('|').collect();
        let decode = |range: std::ops::Range<u32>| {
            let words = range.map(|i| *words.get(i as usize).unwrap_or(&"P"));
            Ok::<_, Infallible>(words.collect::<String>())
        };
        render(plan, 8, marks, decode).unwrap_or_else(|never| match never {})
    }

    #[test]
    fn parts_are_marked_and_lines_stay() {
        assert_eq!(show(&plan(false, 2, 6, &[2, 4]), Marks::Plain), "⟦fn f⟧██ {█\n}▒[2 pads]");
        assert_eq!(
            show(&plan(false, 0, 6, &[0, 6, 7]), Marks::Plain),
            "██ f() {\n}▒[2 pads, 2 of them masked]"
        );
        assert_eq!(show(&plan(true, 0, 3, &[1]), Marks::Plain), "fn██()▒[5 tokens cut off]");
        assert_eq!(
            show(&plan(true, 1, 3, &[1]), Marks::Colour),
            "\u{1b}[36mfn\u{1b}[0m\u{1b}[33m██\u{1b}[0m()\u{1b}[31m▒[5 tokens cut off]\u{1b}[0m"
        );
    }
}
