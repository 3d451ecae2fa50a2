//! What of a row is final, as text.

use crate::scheduler::Revealed;
use coda_trainer::sample::{Canvas, SamplingModel};

/// One answer on its way.
pub(crate) struct Answer {
    ids: Vec<u32>,
    /// The answered part of the row.
    first: usize,
    end: usize,
    open: bool,
    /// What is final.
    text: String,
    /// How many bytes of it have been given out.
    given: usize,
    /// Tokens of the answer, when it is complete.
    tokens: usize,
    finish: Option<&'static str>,
}

impl Answer {
    pub(crate) fn new(canvas: &Canvas, end: usize) -> Self {
        Self {
            ids: canvas.ids.clone(),
            first: canvas.first_mask,
            end,
            open: canvas.open_ended,
            text: String::new(),
            given: 0,
            tokens: 0,
            finish: None,
        }
    }

    /// Takes tokens that a step revealed.
    pub(crate) fn reveal(&mut self, revealed: &[Revealed]) {
        for token in revealed {
            self.ids[token.position] = token.token;
        }
    }

    /// Takes what has become final; `done` when the row is. What can be given out now, which may be
    /// nothing. Text that may still become a stop text, or half a character, waits.
    pub(crate) fn advance(
        &mut self,
        model: &SamplingModel,
        stops: &[String],
        done: bool,
    ) -> Option<String> {
        if self.finish.is_some() {
            return None;
        }
        let part = &self.ids[self.first..self.end];
        let mask = model.controls.mask;
        let mut settled = part.iter().position(|&id| id == mask).unwrap_or(part.len());
        let ended = part[..settled].iter().position(|id| model.controls.ends.contains(id));
        if let Some(end) = ended.filter(|_| self.open) {
            settled = end;
        }
        let over = done || settled == part.len() || (self.open && ended.is_some());
        // Ids of the model's own tokenizer decode; should one not, nothing is given out.
        let mut text = model.text(&part[..settled]).unwrap_or_default();
        let stop = stops.iter().filter_map(|stop| text.find(stop.as_str())).min();
        self.tokens = settled;
        if let Some(at) = stop {
            text.truncate(at);
        } else if !over {
            let whole = text.trim_end_matches('\u{fffd}').len();
            text.truncate(whole - held_back(&text[..whole], stops));
        }
        if stop.is_some() || over {
            let full = self.open && ended.is_none() && stop.is_none();
            self.finish = Some(if full { "length" } else { "stop" });
        }
        if text.len() <= self.given || !text.is_char_boundary(self.given) {
            return None;
        }
        let more = text[self.given..].to_owned();
        self.given = text.len();
        self.text = text;
        Some(more)
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) const fn tokens(&self) -> usize {
        self.tokens
    }

    /// Why it ended, if it has.
    pub(crate) const fn finish(&self) -> Option<&'static str> {
        self.finish
    }

    /// The positions in the row that are still masked.
    pub(crate) fn masked(&self, mask: u32) -> Vec<usize> {
        (self.first..self.end).filter(|&at| self.ids[at] == mask).collect()
    }
}

/// How many bytes at the end of `text` may be the beginning of a stop text.
fn held_back(text: &str, stops: &[String]) -> usize {
    let longest = |stop: &String| {
        stop.char_indices()
            .map(|(at, _)| at)
            .filter(|&at| at > 0 && text.ends_with(&stop[..at]))
            .max()
            .unwrap_or(0)
    };
    stops.iter().map(longest).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::held_back;

    #[test]
    fn what_may_become_a_stop_text_waits() {
        let stops = ["\n\n".to_owned(), "end".to_owned(), "éé".to_owned()];
        assert_eq!(held_back("a\n", &stops), 1);
        assert_eq!(held_back("a en", &stops), 2);
        assert_eq!(held_back("aé", &stops), 2);
        assert_eq!(held_back("abc", &stops), 0);
        assert_eq!(held_back("", &stops), 0);
    }
}
