//! One self-contained page: the picture and the table.

use crate::{
    table::{HEADINGS, cells},
    timeline::Timeline,
};
use std::fmt::Write as _;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --rule: #ddd; --faint: #666 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181c; --rule: #3a3d44; --faint: #a0a4ab } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1080px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.3rem }
figure { margin: 1.5rem 0; background: #fff; border: 1px solid var(--rule); border-radius: 6px;
  padding: .5rem } figure svg { width: 100%; height: auto; display: block }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; white-space: nowrap }
th, td { text-align: right; padding: .25rem .55rem; border-bottom: 1px solid var(--rule) }
th { font-weight: 600 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; font-size: 13px }
dt { font-weight: 600 } dd { margin: 0; color: var(--faint) }
";

/// The page. `svg` is the picture of [`crate::chart::svg`].
pub(crate) fn html(timeline: &Timeline, svg: &str) -> String {
    let mut page =
        String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    let name = escape(&timeline.name);
    let _ = write!(page, "<title>Curriculum of {name}</title>\n<style>{STYLE}</style>\n</head>\n");
    let _ = write!(page, "<body>\n<h1>Curriculum of {name}</h1>\n");
    let _ = write!(page, "<figure>\n{}</figure>\n", fluid(svg));
    page.push_str("<div class=\"scroll\"><table>\n<thead><tr>");
    for heading in HEADINGS {
        let _ = write!(page, "<th>{heading}</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for line in &timeline.lines {
        page.push_str("<tr>");
        for cell in cells(line) {
            let _ = write!(page, "<td>{}</td>", escape(&cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n<dl>\n");
    for (term, meaning) in timeline.legend() {
        let _ = writeln!(page, "<dt>{term}</dt><dd>{}</dd>", escape(&meaning));
    }
    page.push_str("</dl>\n</body>\n</html>\n");
    page
}

/// Takes the fixed size off the picture's root element; its `viewBox` then fits the page.
fn fluid(svg: &str) -> String {
    let Some((root, rest)) = svg.split_once('>') else { return svg.to_owned() };
    let keep = |word: &&str| !word.starts_with("width=") && !word.starts_with("height=");
    let root: Vec<&str> = root.split(' ').collect();
    // viewBox="0 0 w h" holds spaces itself, none of its words begins like the two taken off.
    let root: Vec<&str> = root.iter().copied().filter(|word| keep(word)).collect();
    format!("{}>{rest}", root.join(" "))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{escape, fluid};

    #[test]
    fn names_cannot_break_out_of_the_page() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }

    #[test]
    fn the_picture_loses_its_fixed_size() {
        let svg = "<svg width=\"960\" height=\"968\" viewBox=\"0 0 960 968\" xmlns=\"x\">\n<rect width=\"1\"/>";
        let shown = "<svg viewBox=\"0 0 960 968\" xmlns=\"x\">\n<rect width=\"1\"/>";
        assert_eq!(fluid(svg), shown);
    }
}
