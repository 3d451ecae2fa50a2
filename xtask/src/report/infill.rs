//! The infill as frames: what was masked, what each step found.

use super::{
    chart::escape,
    data::{Frame, Infill},
};
use std::fmt::Write as _;

/// Frames shown at once; the others lie in a fold.
const SHOWN: usize = 6;

/// The section's HTML without its heading.
pub(crate) fn render(infill: &Infill) -> String {
    let masked = infill.frames.first().map_or(0, |frame| frame.tokens.len());
    let steps = infill.frames.last().map_or(0, |frame| frame.step);
    let mut html = format!(
        "<p>The body of this function was replaced by {masked} masks and filled in over {steps} \
         steps, the surest tokens first. It is from {}, which was in none of the corpora. Grey text \
         was given; a box is a mask; a coloured token was found since the frame before.</p>",
        escape(&infill.from)
    );
    let chosen = evenly(infill.frames.len(), SHOWN);
    html.push_str("<div class=\"frames\">");
    let mut before: Option<&Frame> = None;
    for &index in &chosen {
        let frame = &infill.frames[index];
        html.push_str(&picture(infill, frame, before, steps));
        before = Some(frame);
    }
    html.push_str("</div>");
    let _ = write!(
        html,
        "<h3>As people wrote it</h3><div class=\"frame\"><pre><span class=\"g\">{}</span>{}<span \
         class=\"g\">{}</span></pre></div>",
        escape(&infill.prefix),
        escape(&infill.original),
        escape(&infill.suffix)
    );
    html.push_str(&verdict(infill));
    if infill.frames.len() > chosen.len() {
        html.push_str("<details><summary>Every step</summary><div class=\"frames\">");
        let mut before = None;
        for frame in &infill.frames {
            html.push_str(&picture(infill, frame, before, steps));
            before = Some(frame);
        }
        html.push_str("</div></details>");
    }
    html
}

/// Says plainly whether the model wrote what people wrote.
fn verdict(infill: &Infill) -> String {
    let Some(last) = infill.frames.last() else { return String::new() };
    let written: String = last.tokens.iter().flatten().map(String::as_str).collect();
    let text = if squeeze(&written) == squeeze(&infill.original) {
        "The model wrote the same body."
    } else {
        "The model's body is not the original. After a few minutes of training on two cores it has \
         the look of Rust more than its sense; it is shown as it came, not picked from several."
    };
    format!("<p>{text}</p>")
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect()
}

fn picture(infill: &Infill, frame: &Frame, before: Option<&Frame>, steps: u64) -> String {
    let mut body = String::new();
    for (index, token) in frame.tokens.iter().enumerate() {
        let was_masked =
            before.is_some_and(|frame| frame.tokens.get(index).is_none_or(Option::is_none));
        match token {
            None => body.push_str("<span class=\"m\">██</span>"),
            Some(text) if was_masked => {
                let _ = write!(body, "<span class=\"n\">{}</span>", visible(text));
            }
            Some(text) => body.push_str(&visible(text)),
        }
    }
    format!(
        "<div class=\"frame\"><h3>step {} of {steps}</h3><pre><span class=\"g\">{}</span>{body}<span \
         class=\"g\">{}</span></pre></div>",
        frame.step,
        escape(&infill.prefix),
        escape(&infill.suffix)
    )
}

/// The text of a token, with a sign where it breaks the line: a found line end is a find too.
fn visible(text: &str) -> String {
    escape(text).replace('\n', "↵\n")
}

/// Up to `most` indices below `count`, with the first and the last.
fn evenly(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    (0..most).map(|i| (i * (count - 1) + (most - 1) / 2) / (most - 1)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::{evenly, render};
    use crate::report::data::{Frame, Infill};

    pub(in crate::report) fn infill() -> Infill {
        let frame = |step, tokens: [Option<&str>; 3]| Frame {
            step,
            tokens: tokens.map(|t| t.map(str::to_owned)).to_vec(),
        };
        Infill {
            from: "indexmap-1.0.0".to_owned(),
            original: "self.len() == 0".to_owned(),
            prefix: "fn is_empty(&self) -> bool {\n    ".to_owned(),
            suffix: "\n}".to_owned(),
            frames: vec![
                frame(0, [None, None, None]),
                frame(1, [None, Some(".len()"), None]),
                frame(2, [Some("self"), Some(".len()"), Some(" < 0")]),
            ],
        }
    }

    #[test]
    fn masks_new_and_known_tokens_are_told_apart() {
        let html = render(&infill());
        assert!(html.contains("replaced by 3 masks and filled in over 2 steps"), "{html}");
        assert!(html.contains("<span class=\"m\">██</span><span class=\"n\">.len()</span>"));
        assert!(
            html.contains("<span class=\"n\">self</span>.len()<span class=\"n\"> &lt; 0</span>")
        );
        assert!(html.contains("is not the original"));
        assert!(!html.contains("<details>"), "all frames are already shown");
    }

    #[test]
    fn the_same_body_is_said_to_be_the_same() {
        let mut same = infill();
        same.frames[2].tokens[2] = Some(" == 0".to_owned());
        assert!(render(&same).contains("wrote the same body"));
    }

    #[test]
    fn the_first_and_last_frames_are_always_shown() {
        assert_eq!(evenly(3, 6), [0, 1, 2]);
        let some = evenly(33, 6);
        assert_eq!((some.len(), some[0], some[5]), (6, 0, 32));
        assert!(some.windows(2).all(|w| w[0] < w[1]));
    }
}
