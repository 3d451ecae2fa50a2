//! Self-contained pages: one file, no script, nothing fetched, light or dark as the reader's system is.

/// Colours of pictures; a picture that stands alone carries them too.
pub(crate) const COLOURS: &str = include_str!("style.css");
const PAGE: &str = include_str!("page.css");

/// A page with a title and a body that is HTML already.
pub(crate) fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{COLOURS}{PAGE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

/// Text that is none of the page's own, made harmless.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A sentence, made harmless, whose numbers do not break at the hyphen of `1e-3` on narrow screens.
pub(crate) fn prose(text: &str) -> String {
    let (mut out, mut before) = (String::new(), [' '; 2]);
    for c in escape(text).chars() {
        // A word joiner: nothing to see, and nowhere to break.
        if before == ['e', '-'] && c.is_ascii_digit() {
            out.push('\u{2060}');
        }
        out.push(c);
        before = [before[1], c];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{escape, page, prose};

    #[test]
    fn numbers_in_sentences_stay_whole() {
        assert_eq!(prose("from 1e-3 to 2e-4<"), "from 1e-\u{2060}3 to 2e-\u{2060}4&lt;");
        assert_eq!(prose("pre-training, e-mail, 5-7"), "pre-training, e-mail, 5-7");
    }

    #[test]
    fn names_cannot_break_out_of_the_page() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
        assert!(page("</title><script>", "").contains("&lt;/title&gt;&lt;script&gt;"));
    }
}
