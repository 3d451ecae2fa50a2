//! What stands around the masks: a prompt to continue, or text with holes to fill.

use tokenizers::Tokenizer;

/// The ids that sampling starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canvas {
    /// All ids; the mask id where a token is to be found.
    pub ids: Vec<u32>,
    /// The position of the first mask.
    pub first_mask: usize,
    /// Whether the masks reach to the end, so that text after an end token is cut off.
    pub open_ended: bool,
}

/// A prompt that cannot be sampled from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// The text could not be tokenized.
    #[error("the prompt cannot be tokenized: {0}")]
    Tokenizer(String),
    /// The tokenizer does not know the mask.
    #[error("the tokenizer has no token {0}")]
    NoMask(String),
    /// There is nothing to fill.
    #[error("there is nothing to fill in: no {0} in the text and no new tokens asked for")]
    NothingMasked(String),
}

impl Canvas {
    /// A prompt followed by `new_tokens` masks.
    ///
    /// # Errors
    /// If the text cannot be tokenized, or nothing is masked.
    pub fn continuing(
        tokenizer: &Tokenizer,
        mask: (&str, u32),
        prompt: &str,
        new_tokens: usize,
    ) -> Result<Self, PromptError> {
        let mut ids = with_masks(tokenizer, mask, prompt)?;
        ids.resize(ids.len() + new_tokens, mask.1);
        Self::of(ids, mask)
    }

    /// `prefix`, a span of `span` masks, `suffix`.
    ///
    /// # Errors
    /// If the text cannot be tokenized, or nothing is masked.
    pub fn infilling(
        tokenizer: &Tokenizer,
        mask: (&str, u32),
        prefix: &str,
        span: usize,
        suffix: &str,
    ) -> Result<Self, PromptError> {
        let mut ids = with_masks(tokenizer, mask, prefix)?;
        ids.resize(ids.len() + span, mask.1);
        ids.extend(with_masks(tokenizer, mask, suffix)?);
        Self::of(ids, mask)
    }

    /// Ids in which the mask id stands where a token is to be found.
    ///
    /// # Errors
    /// If nothing is masked.
    pub fn of(ids: Vec<u32>, (name, mask): (&str, u32)) -> Result<Self, PromptError> {
        let first_mask = ids
            .iter()
            .position(|&id| id == mask)
            .ok_or_else(|| PromptError::NothingMasked(name.to_owned()))?;
        let open_ended = ids[first_mask..].iter().all(|&id| id == mask);
        Ok(Self { ids, first_mask, open_ended })
    }

    /// The ids with everything from the first end token among the filled ones on cut off, when the
    /// masks reached to the end.
    #[must_use]
    pub fn cut<'a>(&self, filled: &'a [u32], ends: &[u32]) -> &'a [u32] {
        if !self.open_ended {
            return filled;
        }
        let end = filled[self.first_mask..].iter().position(|id| ends.contains(id));
        end.map_or(filled, |end| &filled[..self.first_mask + end])
    }
}

/// Text between mask names is tokenized piece by piece; each name becomes one mask id.
pub(super) fn with_masks(
    tokenizer: &Tokenizer,
    (name, mask): (&str, u32),
    text: &str,
) -> Result<Vec<u32>, PromptError> {
    let mut ids = Vec::new();
    for (index, piece) in text.split(name).enumerate() {
        if index > 0 {
            ids.push(mask);
        }
        if !piece.is_empty() {
            let encoding = tokenizer
                .encode(piece, false)
                .map_err(|error| PromptError::Tokenizer(error.to_string()))?;
            ids.extend_from_slice(encoding.get_ids());
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::Canvas;

    const MASK: (&str, u32) = ("<|mask|>", 9);

    fn canvas(ids: &[u32]) -> Canvas {
        Canvas::of(ids.to_vec(), MASK).expect("something is masked")
    }

    #[test]
    fn text_is_cut_at_the_end_token_only_after_the_prompt() {
        let canvas = canvas(&[1, 7, 9, 9, 9, 9]);
        assert!(canvas.open_ended);
        assert_eq!(canvas.cut(&[1, 7, 2, 7, 3, 4], &[7, 8]), [1, 7, 2]);
        assert_eq!(canvas.cut(&[1, 7, 2, 3, 3, 4], &[7, 8]), [1, 7, 2, 3, 3, 4]);
    }

    #[test]
    fn a_hole_in_the_middle_is_not_cut() {
        let canvas = canvas(&[1, 9, 9, 2]);
        assert_eq!((canvas.first_mask, canvas.open_ended), (1, false));
        assert_eq!(canvas.cut(&[1, 7, 3, 2], &[7]), [1, 7, 3, 2]);
    }

    #[test]
    fn nothing_to_fill_is_an_error() {
        let error = Canvas::of(vec![1, 2], MASK).expect_err("no mask");
        assert!(error.to_string().contains("<|mask|>"));
    }
}
