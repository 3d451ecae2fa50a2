//! Prompts in the Qwen3 chat template, thinking off, as post-training renders them (method §5).

use super::{PromptError, SamplingModel};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said. Control tokens spelled in it are plain text.
    pub content: String,
}

/// A user's turn and the head of the answer, as a text in which control tokens are spelled.
#[must_use]
pub fn chat_prompt(text: &str) -> String {
    format!("<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
}

impl SamplingModel {
    /// The ids of a conversation and the head of the answer. Control tokens become ids directly, so that
    /// no content can spell them. Earlier answers lose their reasoning, as in the template.
    ///
    /// # Errors
    /// If the tokenizer does not know the template's control tokens, or fails on a content.
    pub fn chat_ids(&self, turns: &[Turn]) -> Result<Vec<u32>, PromptError> {
        let control =
            |name: &str| self.token_id(name).ok_or_else(|| PromptError::NoMask(name.to_owned()));
        let (start, end) = (control("<|im_start|>")?, control("<|im_end|>")?);
        let mut ids = Vec::new();
        let mut text = String::new();
        for Turn { role, content } in turns {
            ids.extend(self.plain_ids(&std::mem::take(&mut text))?);
            ids.push(start);
            let said = match role.as_str() {
                "assistant" => content
                    .rsplit_once("</think>")
                    .map_or(content.as_str(), |(_, answer)| answer.trim_start_matches('\n')),
                _ => content,
            };
            ids.extend(self.plain_ids(&format!("{role}\n{said}"))?);
            ids.push(end);
            text.push('\n');
        }
        ids.extend(self.plain_ids(&text)?);
        ids.push(start);
        match self.token_id("<think>").zip(self.token_id("</think>")) {
            Some((open, close)) => {
                ids.extend(self.plain_ids("assistant\n")?);
                ids.push(open);
                ids.extend(self.plain_ids("\n\n")?);
                ids.push(close);
                ids.extend(self.plain_ids("\n\n")?);
            }
            None => ids.extend(self.plain_ids("assistant\n<think>\n\n</think>\n\n")?),
        }
        Ok(ids)
    }
}
