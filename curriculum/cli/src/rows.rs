//! The page of `draw --html`: rows as text, with what happens to every part.

use crate::{
    heat,
    html::{escape, page},
    text::{Part, harmless, note},
    words::grouped,
};
use coda_curriculum::MaskPlan;
use std::fmt::Write as _;

/// Rows after these are folded up.
const OPEN_ROWS: usize = 12;

const KEYS: &str = "<p class=\"keys\"><span><mark class=\"prefix\">unmaskable prefix</mark></span>\
    <span><mark class=\"hidden\">masked: the model must find it</mark></span>\
    <span><mark class=\"cut\"><s>cut off by S2</s></mark></span>\
    <span><mark class=\"cut\">\u{2592} padding</mark></span><span>the rest the model sees</span></p>";

/// A row of the page.
pub(crate) struct RowText {
    /// What the row is, in one line.
    pub(crate) head: String,
    pub(crate) parts: Vec<Part>,
}

/// The page for the rows drawn at a step.
pub(crate) fn html(
    name: &str,
    step: u64,
    length: u32,
    plans: &[MaskPlan],
    rows: &[RowText],
) -> String {
    let title = format!("{name} at step {}", grouped(step));
    let mut body = format!("<h1>{}</h1>\n", escape(&title));
    let _ = writeln!(
        body,
        "<p>{} rows of {} tokens, with the masks that the trainer draws for them.</p>",
        rows.len(),
        grouped(u64::from(length))
    );
    let _ = writeln!(
        body,
        "<h2>All rows</h2>\n{}\n<figure class=\"heat\">{}<div class=\"ends\"><span>position 0</span>\
         <span>{}</span></div><figcaption>{}.</figcaption></figure>",
        heat::KEYS,
        heat::svg("The masks of all rows", plans, length),
        grouped(u64::from(length.saturating_sub(1))),
        heat::cell(length)
    );
    let _ = writeln!(body, "<h2>Row by row</h2>\n{KEYS}");
    for (i, row) in rows.iter().enumerate() {
        let open = if i < OPEN_ROWS { " open" } else { "" };
        let _ = write!(body, "<details{open}><summary>{}</summary><pre>", escape(&row.head));
        for part in &row.parts {
            push(&mut body, part);
        }
        body.push_str("</pre></details>\n");
    }
    page(&title, &body)
}

fn push(body: &mut String, part: &Part) {
    let _ = match part {
        Part::Prefix(text) => write!(body, "<mark class=\"prefix\">{}</mark>", shown(text)),
        Part::Masked(text) => write!(body, "<mark class=\"hidden\">{}</mark>", shown(text)),
        Part::Open(text) => write!(body, "{}", shown(text)),
        Part::Cut { text, tokens, masked } => write!(
            body,
            "<mark class=\"cut\"><s>{}</s>{}</mark>",
            shown(text),
            escape(&note(*tokens, "tokens cut off", *masked))
        ),
        Part::Pads { tokens, masked } => {
            write!(body, "<mark class=\"cut\">{}</mark>", escape(&note(*tokens, "pads", *masked)))
        }
    };
}

/// Text of a corpus, harmless and visible: a part of nothing but blanks must be seen too.
fn shown(text: &str) -> String {
    let visible = |c: char| match c {
        '\n' => "\u{21b5}\n".to_owned(),
        '\t' => "\u{2192}\t".to_owned(),
        c => c.to_string(),
    };
    escape(&harmless(text).chars().map(visible).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::{RowText, html, shown};
    use crate::text::Part;

    #[test]
    fn text_of_a_corpus_stays_text() {
        assert_eq!(shown("<b>\u{1b}[0m\n"), "&lt;b&gt;\u{fffd}[0m\u{21b5}\n");
        let parts = vec![
            Part::Prefix("</pre><script>".to_owned()),
            Part::Cut { text: "end".to_owned(), tokens: 1, masked: 0 },
            Part::Pads { tokens: 4, masked: 2 },
        ];
        let row = RowText { head: "row 1 <x>".to_owned(), parts };
        let page = html("a & b", 5, 8, &[], &[row]);
        assert!(
            page.contains("<mark class=\"prefix\">&lt;/pre&gt;&lt;script&gt;</mark>"),
            "{page}"
        );
        assert!(page.contains("<s>end</s>\u{2592}[1 tokens cut off]"), "{page}");
        assert!(
            page.contains("\u{2592}[4 pads, 2 of them masked]") && page.contains("row 1 &lt;x&gt;")
        );
    }
}
