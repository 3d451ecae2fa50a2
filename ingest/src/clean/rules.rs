//! The rules by which documents are left out.

use super::{
    counts::Counts,
    measure::{Characters, LOOKED_AT, Lines, Repeated, repeated_ngrams, top_ngram},
    text::{Changes, has_control},
};
use crate::words::Words;
use coda_manifests::{Clean, ControlCharacters};
use serde::Serialize;
use std::{borrow::Cow, cell::RefCell};

/// What one rule says about a document.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The code by which drops are counted.
    pub reason: &'static str,
    /// The key of the manifest that sets the rule.
    pub key: &'static str,
    /// Words of an n-gram, for the rules that have several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    /// What was measured.
    pub value: f64,
    /// The smallest or largest value that stays.
    pub bound: f64,
    /// Whether the document is left out.
    pub dropped: bool,
}

impl Finding {
    fn most(reason: &'static str, key: &'static str, value: f64, bound: f64) -> Self {
        Self { reason, key, n: None, value, bound, dropped: value > bound }
    }

    fn least(reason: &'static str, key: &'static str, value: f64, bound: f64) -> Self {
        Self { reason, key, n: None, value, bound, dropped: value < bound }
    }
}

/// Cleans the documents of a source.
#[derive(Clone, Debug, Default)]
pub struct Cleaner {
    clean: Clean,
    changes: Changes,
}

thread_local! {
    /// Every document needs a table, and its memory is worth keeping.
    static COUNTS: RefCell<Counts> = RefCell::default();
}

impl Cleaner {
    /// A cleaner with these values ([`Clean::resolve`] has spelled the profile out).
    #[must_use]
    pub fn new(clean: Clean) -> Self {
        Self { changes: Changes::new(&clean), clean }
    }

    /// The values.
    #[must_use]
    pub const fn values(&self) -> &Clean {
        &self.clean
    }

    /// The text with its changes.
    #[must_use]
    pub fn change<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        self.changes.apply(text)
    }

    /// The code of the first rule that leaves the document out. `words` must not have read anything
    /// or the start of `text`; afterwards they may have read more of it.
    #[must_use]
    pub fn reason(&self, text: &str, words: &mut Words) -> Option<&'static str> {
        let mut reason = None;
        self.look(text, words, &mut |finding| {
            reason = finding.dropped.then_some(finding.reason);
            reason.is_none()
        });
        reason
    }

    /// What every rule says about a text that was changed already.
    #[must_use]
    pub fn findings(&self, text: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.look(text, &mut Words::default(), &mut |finding| {
            findings.push(finding);
            true
        });
        findings
    }

    /// Measures one rule after the other, the cheap ones first, as long as `visit` wants more.
    fn look(&self, text: &str, words: &mut Words, visit: &mut dyn FnMut(Finding) -> bool) {
        if self.clean.is_off() {
            return;
        }
        COUNTS.with_borrow_mut(|counts| {
            // Any rule that wants no more ends the chain.
            let _ = self.characters(text, visit)
                && self.lines(text, visit)
                && self.repeated(text, counts, visit)
                && self.ngrams(text, words, counts, visit);
        });
    }

    fn characters(&self, text: &str, visit: &mut dyn FnMut(Finding) -> bool) -> bool {
        let clean = &self.clean;
        if clean.control == Some(ControlCharacters::Drop) {
            let found = f64::from(u8::from(has_control(text)));
            if !visit(Finding::most("control_characters", "control", found, 0.0)) {
                return false;
            }
        }
        let chars = Characters::of(text);
        let all = chars.all as f64;
        // Taking characters out may have left nothing.
        if !visit(Finding::least("empty", "min_chars", all, 1.0)) {
            return false;
        }
        let share = |part: u64| part as f64 / all.max(1.0);
        let least = clean
            .min_chars
            .map(|least| Finding::least("too_short", "min_chars", all, least as f64));
        let most =
            clean.max_chars.map(|most| Finding::most("too_long", "max_chars", all, most as f64));
        let replacement = clean.max_replacement_share.map(|most| {
            let found = share(chars.replacement);
            Finding::most("replacement_characters", "max_replacement_share", found, most)
        });
        let alnum = clean.min_alnum_share.map(|least| {
            let found = share(chars.alphanumeric);
            Finding::least("few_alphanumerics", "min_alnum_share", found, least)
        });
        [least, most, replacement, alnum].into_iter().flatten().all(visit)
    }

    fn lines(&self, text: &str, visit: &mut dyn FnMut(Finding) -> bool) -> bool {
        let Clean { min_lines, max_lines, max_line_chars, max_mean_line_chars, .. } = self.clean;
        let counted = min_lines.or(max_lines).or(max_line_chars).is_some();
        if !counted && max_mean_line_chars.is_none() {
            return true;
        }
        let lines = Lines::of(text);
        let count = lines.count as f64;
        let most = |reason, key, value, bound: Option<u64>| {
            bound.map(|bound| Finding::most(reason, key, value, bound as f64))
        };
        let least = min_lines
            .map(|least| Finding::least("too_few_lines", "min_lines", count, least as f64));
        let mean = max_mean_line_chars
            .map(|most| Finding::most("long_lines", "max_mean_line_chars", lines.mean(), most));
        let longest = lines.longest as f64;
        [
            least,
            most("too_many_lines", "max_lines", count, max_lines),
            most("too_long_line", "max_line_chars", longest, max_line_chars),
            mean,
        ]
        .into_iter()
        .flatten()
        .all(visit)
    }

    fn repeated(
        &self,
        text: &str,
        counts: &mut Counts,
        visit: &mut dyn FnMut(Finding) -> bool,
    ) -> bool {
        let clean = &self.clean;
        let mut both = |pieces: Option<f64>, bytes: Option<f64>, found: Repeated, names: [_; 4]| {
            let pieces = pieces.map(|most| Finding::most(names[0], names[1], found.pieces, most));
            let bytes = bytes.map(|most| Finding::most(names[2], names[3], found.bytes, most));
            [pieces, bytes].into_iter().flatten().all(&mut *visit)
        };
        let (pieces, bytes) = (clean.max_repeated_line_share, clean.max_repeated_line_bytes_share);
        let names = [
            "repeated_lines",
            "max_repeated_line_share",
            "repeated_line_bytes",
            "max_repeated_line_bytes_share",
        ];
        if pieces.or(bytes).is_some() && !both(pieces, bytes, Repeated::lines(text, counts), names)
        {
            return false;
        }
        let pieces = clean.max_repeated_paragraph_share;
        let bytes = clean.max_repeated_paragraph_bytes_share;
        let names = [
            "repeated_paragraphs",
            "max_repeated_paragraph_share",
            "repeated_paragraph_bytes",
            "max_repeated_paragraph_bytes_share",
        ];
        pieces.or(bytes).is_none() || both(pieces, bytes, Repeated::paragraphs(text, counts), names)
    }

    fn ngrams(
        &self,
        text: &str,
        words: &mut Words,
        counts: &mut Counts,
        visit: &mut dyn FnMut(Finding) -> bool,
    ) -> bool {
        let top = self.clean.max_top_ngram_share.as_deref().unwrap_or_default();
        let repeated = self.clean.max_repeated_ngram_share.as_deref().unwrap_or_default();
        if top.is_empty() && repeated.is_empty() {
            return true;
        }
        words.read(text, LOOKED_AT);
        for &(n, most) in top {
            let found = top_ngram(words, n as usize, counts);
            let finding = Finding::most("top_ngram", "max_top_ngram_share", found, most);
            if !visit(Finding { n: Some(n), ..finding }) {
                return false;
            }
        }
        for &(n, most) in repeated {
            let found = repeated_ngrams(words, n as usize, counts);
            let finding = Finding::most("repeated_ngrams", "max_repeated_ngram_share", found, most);
            if !visit(Finding { n: Some(n), ..finding }) {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Cleaner;
    use crate::words::Words;
    use coda_manifests::{Clean, CleanProfile, ControlCharacters};

    fn reason(clean: Clean, text: &str) -> Option<&'static str> {
        Cleaner::new(clean).reason(text, &mut Words::default())
    }

    /// Every rule at its bound, just inside it and just outside.
    #[test]
    fn rules_hold_to_their_bounds() {
        type Rule = (&'static str, Clean, Clean, &'static str);
        let of = |set: fn(&mut Clean)| {
            let mut clean = Clean::default();
            set(&mut clean);
            clean
        };
        let rules: Vec<Rule> = vec![
            ("too_short", of(|c| c.min_chars = Some(3)), of(|c| c.min_chars = Some(4)), "aéb"),
            ("too_long", of(|c| c.max_chars = Some(3)), of(|c| c.max_chars = Some(2)), "aéb"),
            (
                "too_few_lines",
                of(|c| c.min_lines = Some(2)),
                of(|c| c.min_lines = Some(3)),
                "a\nb\n",
            ),
            (
                "too_many_lines",
                of(|c| c.max_lines = Some(2)),
                of(|c| c.max_lines = Some(1)),
                "a\nb\n",
            ),
            (
                "too_long_line",
                of(|c| c.max_line_chars = Some(3)),
                of(|c| c.max_line_chars = Some(2)),
                "a\naéb\r\nb",
            ),
            (
                "long_lines",
                of(|c| c.max_mean_line_chars = Some(2.0)),
                of(|c| c.max_mean_line_chars = Some(1.9)),
                "a\nbcd\n",
            ),
            (
                "few_alphanumerics",
                of(|c| c.min_alnum_share = Some(0.5)),
                of(|c| c.min_alnum_share = Some(0.51)),
                "é1--",
            ),
            (
                "replacement_characters",
                of(|c| c.max_replacement_share = Some(0.25)),
                of(|c| c.max_replacement_share = Some(0.24)),
                "abc\u{fffd}",
            ),
            (
                "repeated_lines",
                of(|c| c.max_repeated_line_share = Some(0.25)),
                of(|c| c.max_repeated_line_share = Some(0.2)),
                "a\nb\n\n  a \nccc",
            ),
            (
                "repeated_line_bytes",
                of(|c| c.max_repeated_line_bytes_share = Some(0.4)),
                of(|c| c.max_repeated_line_bytes_share = Some(0.39)),
                "aa\nb\naa",
            ),
            (
                "repeated_paragraphs",
                of(|c| c.max_repeated_paragraph_share = Some(0.5)),
                of(|c| c.max_repeated_paragraph_share = Some(0.4)),
                "a\nb\n\na\nb\n",
            ),
            (
                "repeated_paragraph_bytes",
                of(|c| c.max_repeated_paragraph_bytes_share = Some(0.25)),
                of(|c| c.max_repeated_paragraph_bytes_share = Some(0.24)),
                "a\n\nbb\n \na",
            ),
            (
                "top_ngram",
                of(|c| c.max_top_ngram_share = Some(vec![(2, 0.8)])),
                of(|c| c.max_top_ngram_share = Some(vec![(3, 0.9), (2, 0.79)])),
                "a b, A B. c",
            ),
            (
                "repeated_ngrams",
                of(|c| c.max_repeated_ngram_share = Some(vec![(2, 0.4)])),
                of(|c| c.max_repeated_ngram_share = Some(vec![(2, 0.39)])),
                "a b a b c",
            ),
            (
                "control_characters",
                of(|c| c.control = Some(ControlCharacters::Keep)),
                of(|c| c.control = Some(ControlCharacters::Drop)),
                "a\0b",
            ),
        ];
        for (code, inside, outside, text) in rules {
            assert_eq!(reason(inside, text), None, "{code}");
            assert_eq!(reason(outside, text), Some(code));
        }
    }

    #[test]
    fn stripping_everything_leaves_an_empty_document() {
        let cleaner =
            Cleaner::new(Clean { control: Some(ControlCharacters::Strip), ..Clean::default() });
        let text = cleaner.change("\0\x01".into());
        assert_eq!(cleaner.reason(&text, &mut Words::default()), Some("empty"));
        assert_eq!(Cleaner::default().reason("", &mut Words::default()), None, "off is off");
    }

    #[test]
    fn profiles_keep_usual_documents_and_leave_out_the_others() {
        let code = include_str!("rules.rs");
        assert_eq!(reason(CleanProfile::Code.values(), code), None);
        assert_eq!(
            reason(CleanProfile::Code.values(), &"0x00, ".repeat(400)),
            Some("too_long_line")
        );
        let prose = include_str!("../../../ARCHITECTURE.md");
        let findings = Cleaner::new(CleanProfile::Prose.values()).findings(prose);
        assert_eq!(findings.iter().find(|finding| finding.dropped), None);
        assert_eq!(findings.len(), 13, "every rule of the profile is shown: {findings:?}");
        let menu = "Home\nAbout us and our terms\nContact\n\n".repeat(20);
        assert_eq!(reason(CleanProfile::Prose.values(), &menu), Some("repeated_lines"));
    }
}
