//! What the tests of this crate share: a small trained tokenizer, made in the test.

use coda_ingest::{
    source::{Container, InputFile},
    train_tokenizer::{DEFAULT_SPECIALS, TrainOptions, Trained, train},
};
use std::{path::Path, sync::OnceLock};

/// Text of many kinds: code, prose, other scripts, decomposed characters, odd spaces.
pub(crate) const TEXTS: &[&str] = &[
    "fn main() {\n    println!(\"hello, world\");\n}\n",
    "def area(r):\n\treturn 3.14159 * r ** 2  # circle\n",
    "The quick brown fox doesn't jump; it's asleep, they'll say.\r\nNext line.\r\n\r\n",
    "e\u{301}te\u{301} d\u{e9}j\u{e0} vu \u{1100}\u{1161}\u{11a8}",
    "数据集のトークン化 — Ελληνικά, кириллица, עברית, हिन्दी",
    "   leading and trailing   \n\n\n\t\tx\u{a0}y\u{2003}z\u{200d}\u{1f468}\u{200d}\u{1f469}",
    "0123456789 1,000,000.00 0xDEADBEEF 1e-9 v2.3.4-rc.1",
    "<|im_start|>user\n<think>not a token</think><|im_end|><|endoftext|>",
    "a",
    "\n",
    "\u{0}nul and \u{fffd} and \u{feff}bom",
    "......!!!!????----====>>>>////\\\\\\\\",
    "if x>=10&&y<=20||!z{return[a,b,c];}else{a+=1;b-=2;c*=3;}",
];

/// A tokenizer of 600 ids, trained on [`TEXTS`] and this crate's own sources.
pub(crate) fn tokenizer() -> &'static Trained {
    static TRAINED: OnceLock<Trained> = OnceLock::new();
    TRAINED.get_or_init(|| train_here(600))
}

/// Trains a fresh tokenizer.
pub(crate) fn train_here(vocab_size: usize) -> Trained {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("texts.txt");
    let mut text = TEXTS.join("\n");
    for source in [include_str!("../../src/pack.rs"), include_str!("../../src/pipeline/mod.rs")] {
        text.push_str(source);
    }
    std::fs::write(&path, text).expect("written");
    train(&[input(&path, Container::Text)], &options(vocab_size), &|_| ()).expect("trained")
}

/// The defaults of `train-tokenizer`.
pub(crate) fn options(vocab_size: usize) -> TrainOptions {
    TrainOptions {
        vocab_size,
        specials: DEFAULT_SPECIALS.iter().map(|&s| s.to_owned()).collect(),
        text_field: "text".to_owned(),
        max_bytes: u64::MAX,
        max_document_bytes: 1 << 20,
    }
}

/// A file as the lister would give it.
pub(crate) fn input(path: &Path, container: Container) -> InputFile {
    let bytes = std::fs::metadata(path).map_or(0, |m| m.len());
    let (path, name) = (path.to_owned(), path.display().to_string());
    InputFile { path, name, container, bytes, origin: None, vendored: false }
}
