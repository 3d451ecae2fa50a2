//! A small model with a tokenizer of bytes, the server over it, and a client that speaks plain HTTP.

#![allow(dead_code, reason = "each test target uses its part")]

use coda_shards::Specials;
use coda_trainer::{
    checkpoint::{TokenizerFiles, export_model},
    model::{ModelConfig, Params},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

const CONTROLS: [&str; 6] =
    ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<|mask|>"];

/// Writes a model directory: random weights, and a tokenizer with a token for each byte.
pub(crate) fn write_model(dir: &Path) {
    let mut vocabulary = serde_json::Map::new();
    // The printable names that byte-level tokenizers give to bytes.
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut others = 256;
    for byte in 0..256_u32 {
        let name = if printable(byte) {
            byte
        } else {
            others += 1;
            others - 1
        };
        let name = char::from_u32(name).expect("a character");
        vocabulary.insert(name.to_string(), json!(byte));
    }
    let added: Vec<Value> = CONTROLS
        .iter()
        .zip(256..)
        .map(|(name, id)| {
            json!({"id": id, "content": name, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": !name.contains("think")})
        })
        .collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                       "use_regex": false});
    let tokenizer = json!({
        "version": "1.0", "added_tokens": added, "pre_tokenizer": bytes, "decoder": bytes,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    });
    let path = dir.join("made-tokenizer.json");
    fs::write(&path, tokenizer.to_string()).expect("write");
    let config = ModelConfig {
        hidden_size: 32,
        num_hidden_layers: 2,
        intermediate_size: 48,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 16,
        vocab_size: 262,
        rope_theta: 1e4,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: false,
        mask_token_id: Some(261),
    };
    let mut params = Params::init(&config, 3);
    for values in params.slices_mut() {
        for value in values.iter_mut().filter(|value| (**value - 1.0).abs() > f32::EPSILON) {
            *value *= 8.0;
        }
    }
    let specials = Specials { eos: 258, pad: 256, mask: 261 };
    let tokenizer = TokenizerFiles { path, specials, row_length: 256 };
    export_model(&dir.join("tiny"), &config, &params, &tokenizer, 1).expect("write");
}

/// A running server; killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        write_model(dir.path());
        let mut child = Command::new(env!("CARGO_BIN_EXE_coda-serve"))
            .arg("--checkpoint")
            .arg(dir.path().join("tiny"))
            .args(["--listen", "127.0.0.1:0"])
            .args(options)
            .env("RAYON_NUM_THREADS", "2")
            .env_remove("CODA_API_KEY")
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let mut told = lines.by_ref().map(|line| line.expect("text"));
        let address = told.find_map(|line| line.split("http://").nth(1)?.parse().ok());
        let address = address.expect("a line with the address");
        // Read on, so that the server never waits for us.
        thread::spawn(move || lines.for_each(drop));
        Self { child, address, _dir: dir }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_mins(1))).expect("a time-out");
        stream
    }

    /// Sends bytes as they are; everything that comes back until the connection ends.
    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may refuse before it has read everything.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        split(&self.raw(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, String) {
        split(&self.raw(&request(path, &body.to_string())))
    }

    /// A completion that must succeed.
    pub(crate) fn complete(&self, body: &Value) -> Value {
        let (status, text) = self.post("/v1/completions", body);
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().expect("kill");
        assert!(status.success());
    }

    /// The exit code, when it has ended.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        for _ in 0..600 {
            if let Some(status) = self.child.try_wait().expect("waits") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("the server does not end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn request(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

pub(crate) fn split(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer}"));
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    (status, body.to_owned())
}

/// The events of a stream: name and data.
pub(crate) fn events(body: &str) -> Vec<(String, String)> {
    body.split("\n\n")
        .filter(|event| !event.is_empty() && !event.starts_with(':'))
        .map(|event| {
            let field = |name: &str| {
                event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default()
            };
            (field("event: ").to_owned(), field("data: ").to_owned())
        })
        .collect()
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{what} does not come");
}
