//! Conversations to ids: the Qwen3 chat template, thinking off.
//!
//! Every turn is `<|im_start|>ROLE\nCONTENT<|im_end|>\n`. Assistant turns after the last question
//! carry a think block; the last one always does, empty when there is no reasoning:
//! `<think>\n\n</think>\n\n`. Earlier assistant turns carry none. Control tokens become ids directly,
//! contents go through the encoder, so that a control token spelled in a content stays plain text
//! (unless the encoder was told to match it).

use super::{Encode, EncodeError, TokenizerError, Vocabulary};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions that hold for the whole conversation.
    System,
    /// The question.
    User,
    /// The answer: what the model learns to write.
    Assistant,
}

impl Role {
    /// The role of a name as data sets spell it, or nothing for names the template does not know.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "system" => Some(Self::System),
            "user" | "human" => Some(Self::User),
            "assistant" | "gpt" => Some(Self::Assistant),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// Why a conversation cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// There is no final answer to learn.
    #[error("the conversation does not end with an assistant turn")]
    NoAnswer,
    /// The tokenizer failed on a content.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatRow {
    /// All ids.
    pub ids: Vec<u32>,
    /// How many of them are the prompt: up to and including the last `<|im_start|>assistant`.
    pub prompt_len: usize,
}

/// Renders conversations with one tokenizer.
pub struct ChatEncoder {
    im_start: u32,
    im_end: u32,
    think: Option<(u32, u32)>,
}

enum Piece {
    Id(u32),
    Text(String),
}

impl ChatEncoder {
    /// Looks up the template's control tokens. Without `<think>` and `</think>` in the vocabulary the
    /// think block is plain text.
    ///
    /// # Errors
    /// If `<|im_start|>` or `<|im_end|>` is missing.
    pub fn new(tokenizer: &Vocabulary) -> Result<Self, TokenizerError> {
        let role = "the chat template";
        Ok(Self {
            im_start: tokenizer.require("<|im_start|>", role)?,
            im_end: tokenizer.require("<|im_end|>", role)?,
            think: tokenizer.id("<think>").zip(tokenizer.id("</think>")),
        })
    }

    /// The ids of a conversation and the length of its prompt.
    ///
    /// # Errors
    /// If the last turn is not the assistant's, or the tokenizer fails.
    pub fn encode(&self, encoder: &dyn Encode, messages: &[Message]) -> Result<ChatRow, ChatError> {
        if messages.last().is_none_or(|last| last.role != Role::Assistant) {
            return Err(ChatError::NoAnswer);
        }
        let (pieces, answer_piece) = self.render(messages);
        let mut ids = Vec::new();
        let mut prompt_len = 0;
        for (index, piece) in pieces.iter().enumerate() {
            match piece {
                Piece::Id(id) => ids.push(*id),
                Piece::Text(text) => {
                    if index == answer_piece {
                        prompt_len = ids.len() + encoder.encode(Role::Assistant.name())?.len();
                    }
                    encoder.encode_into(text, &mut ids)?;
                }
            }
        }
        Ok(ChatRow { ids, prompt_len })
    }

    /// The pieces, and which of them starts with the role of the last answer.
    fn render(&self, messages: &[Message]) -> (Vec<Piece>, usize) {
        let last = messages.len() - 1;
        let last_query = messages.iter().rposition(is_query).unwrap_or(last);
        let mut pieces = Vec::new();
        let mut answer_piece = 0;
        for (index, message) in messages.iter().enumerate() {
            pieces.push(Piece::Id(self.im_start));
            if index == last {
                answer_piece = pieces.len();
            }
            text(&mut pieces, message.role.name());
            text(&mut pieces, "\n");
            if message.role == Role::Assistant {
                let (reasoning, content) = split_reasoning(&message.content);
                // The template leaves the block out when nothing was asked; here the last answer
                // always has one, since that is how generation starts.
                if index == last || (index > last_query && !reasoning.is_empty()) {
                    self.think_block(&mut pieces, reasoning.trim_matches('\n'));
                    text(&mut pieces, content.trim_start_matches('\n'));
                } else {
                    text(&mut pieces, content);
                }
            } else {
                text(&mut pieces, &message.content);
            }
            pieces.push(Piece::Id(self.im_end));
            text(&mut pieces, "\n");
        }
        (pieces, answer_piece)
    }

    fn think_block(&self, pieces: &mut Vec<Piece>, reasoning: &str) {
        if let Some((open, close)) = self.think {
            pieces.push(Piece::Id(open));
            text(pieces, &format!("\n{reasoning}\n"));
            pieces.push(Piece::Id(close));
            text(pieces, "\n\n");
        } else {
            text(pieces, &format!("<think>\n{reasoning}\n</think>\n\n"));
        }
    }
}

/// Adjacent texts are one text: a token may reach across them.
fn text(pieces: &mut Vec<Piece>, more: &str) {
    if let Some(Piece::Text(last)) = pieces.last_mut() {
        last.push_str(more);
    } else if !more.is_empty() {
        pieces.push(Piece::Text(more.to_owned()));
    }
}

/// A user turn that is a question and not a tool's answer.
fn is_query(message: &Message) -> bool {
    message.role == Role::User
        && !(message.content.starts_with("<tool_response>")
            && message.content.ends_with("</tool_response>"))
}

/// Reasoning and answer of an assistant turn, cut at `</think>` as the template does.
fn split_reasoning(content: &str) -> (&str, &str) {
    let Some((before, _)) = content.split_once("</think>") else { return ("", content) };
    let (_, answer) = content.rsplit_once("</think>").unwrap_or((before, ""));
    let before = before.trim_end_matches('\n');
    let reasoning = before.rsplit_once("<think>").map_or(before, |(_, after)| after);
    (reasoning.trim_start_matches('\n'), answer.trim_start_matches('\n'))
}
