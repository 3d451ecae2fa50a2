//! Conversations render as the Qwen3 chat template does: frozen cases of `tests/judges/rendering.py`,
//! where `transformers` rendered them.

use super::common;
use coda_ingest::tokenize::{ChatEncoder, HfEncoder, Message, Role};
use serde_json::Value;
use std::{fs, path::Path};

#[test]
fn frozen_conversations_render_as_transformers_does() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/frozen/rendering/conversations.json");
    let cases: Vec<Value> =
        serde_json::from_slice(&fs::read(path).expect("the frozen cases")).expect("JSON");
    assert_eq!(cases.len(), 60);
    let json = common::tokenizer().json.clone().into_bytes();
    let encoder = HfEncoder::from_json(Path::new("tokenizer.json"), json, false).expect("loads");
    let chat = ChatEncoder::new(&encoder).expect("control tokens");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    for (number, case) in cases.iter().enumerate() {
        let messages: Vec<Message> = case["messages"]
            .as_array()
            .expect("messages")
            .iter()
            .map(|message| Message {
                role: Role::parse(&text(&message["role"])).expect("a role"),
                content: text(&message["content"]),
            })
            .collect();
        let row = chat.encode(&encoder, &messages).expect("it renders");
        let decoded = |ids: &[u32]| encoder.decode(ids).expect("it decodes");
        assert_eq!(decoded(&row.ids), text(&case["text"]), "conversation {number}");
        let prompt = decoded(&row.ids[..row.prompt_len]);
        assert_eq!(prompt, text(&case["prompt"]), "prompt of conversation {number}");
    }
}
