//! The fast encoder gives the ids of Hugging Face `tokenizers`, or says that it cannot.

use super::common::{self, TEXTS};
use coda_ingest::tokenize::{Encode as _, FastEncoder, HfEncoder, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{fmt::Write as _, path::Path, sync::OnceLock};

/// The fast encoder and its judge, with control tokens as text (first) and matched (second).
fn pairs() -> &'static [(FastEncoder, HfEncoder); 2] {
    static PAIRS: OnceLock<[(FastEncoder, HfEncoder); 2]> = OnceLock::new();
    PAIRS.get_or_init(|| {
        let json = common::train_here(4096).json;
        [false, true].map(|matching| pair(&json, matching))
    })
}

fn pair(json: &str, matching: bool) -> (FastEncoder, HfEncoder) {
    let fast = FastEncoder::new(json.as_bytes(), matching).expect("covered");
    let bytes = json.to_owned().into_bytes();
    (fast, HfEncoder::from_json(Path::new("tokenizer.json"), bytes, matching).expect("loads"))
}

fn check(text: &str) -> Result<(), TestCaseError> {
    for (fast, judge) in pairs() {
        prop_assert_eq!(fast.encode(text).expect("ids"), judge.encode(text).expect("ids"));
    }
    Ok(())
}

/// For texts too long to be printed.
fn check_long(text: &str, what: &str) {
    for (fast, judge) in pairs() {
        assert!(fast.encode(text).expect("ids") == judge.encode(text).expect("ids"), "{what}");
    }
}

#[test]
fn every_kind_of_text() {
    for text in TEXTS {
        check(text).expect("the ids of the judge");
    }
}

#[test]
fn every_character_of_all_planes() {
    let mut text = String::new();
    // All planes that have characters, and some of the others.
    let every = |code: &u32| {
        *code < 0x2_0000 || (0xE_0000..0xE_0200).contains(code) || code.is_multiple_of(61)
    };
    for character in (0..=char::MAX as u32).filter(every).filter_map(char::from_u32) {
        let _ =
            writeln!(text, "{character}a{character}{character} {character}\u{301}1'{character}");
        if text.len() > 100_000 {
            check_long(&text, &format!("up to {:x}", character as u32));
            text.clear();
        }
    }
    check_long(&text, "the last ones");
}

#[test]
fn bytes_that_are_no_text_arrive_as_replacement_characters() {
    let bytes: Vec<u8> = (0..=255).chain((0..=255).rev()).cycle().take(20_000).collect();
    check_long(&String::from_utf8_lossy(&bytes), "all bytes");
}

#[test]
fn long_runs_of_one_character() {
    for unit in [
        "a", " ", "\n", "=", "é", "漢", "\u{301}", "\u{1161}", "\t ", " \n", "ab", "-=", "1", "<",
        "'s",
    ] {
        for length in [15, 16, 17, 63, 64, 65, 127, 159, 160, 161, 4096, 70_000] {
            check_long(&unit.repeat(length), &format!("{length} times {unit:?}"));
        }
    }
}

#[test]
fn threads_and_repetition_change_nothing() {
    let text = TEXTS.concat().repeat(40);
    let (fast, judge) = &pairs()[0];
    let expected = judge.encode(&text).expect("ids");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..3 {
                    assert!(fast.encode(&text).expect("ids") == expected);
                }
            });
        }
    });
}

#[test]
fn the_vocabulary_is_that_of_the_judge() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokenizer.json");
    let json = &common::tokenizer().json;
    std::fs::write(&path, json).expect("written");
    let ours = Tokenizer::load(&path, false).expect("loads");
    assert!(ours.slow_because().is_none(), "covered");
    let judge: tokenizers::Tokenizer = json.parse().expect("loads");
    let all = judge.get_vocab(true);
    for (token, id) in &all {
        assert_eq!(ours.id(token), Some(*id), "{token:?}");
    }
    assert_eq!(ours.id("no such token"), None);
    assert_eq!(ours.id_limit(), all.into_values().max().expect("tokens") + 1);
    // Both name the same control tokens when one is missing.
    let reference = HfEncoder::load(&path, false).expect("loads");
    let hint = |error: coda_ingest::tokenize::TokenizerError| error.hint().expect("a hint");
    assert_eq!(
        hint(ours.require("<none>", "tokenizer.mask").expect_err("missing")),
        hint(reference.require("<none>", "tokenizer.mask").expect_err("missing")),
    );
}

#[test]
fn a_tokenizer_that_is_not_covered_goes_to_the_judge_with_its_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_str(&common::tokenizer().json).expect("JSON");
    tokenizer["normalizer"] = json!({"type": "NFKC"});
    std::fs::write(&path, tokenizer.to_string()).expect("written");
    let ours = Tokenizer::load(&path, false).expect("loads");
    assert!(ours.slow_because().expect("a reason").to_string().contains("NFKC"));
    let judge: tokenizers::Tokenizer = tokenizer.to_string().parse().expect("loads");
    let text = "\u{fb01}x \u{2460}";
    let expected = judge.encode(text, false).expect("encodes").get_ids().to_vec();
    assert_eq!(ours.encoder().encode(text).expect("ids"), expected);
}

#[test]
fn what_is_not_covered_is_refused_with_a_reason() {
    let tokenizer: Value = serde_json::from_str(&common::tokenizer().json).expect("JSON");
    let change = |path: &str, value: Value| {
        let mut changed = tokenizer.clone();
        *changed.pointer_mut(path).expect("is there") = value;
        changed.to_string()
    };
    let ids = |tokens: &Value| -> Vec<u64> {
        let each = tokens.as_array().expect("a list").iter();
        each.map(|token| token["id"].as_u64().expect("an id")).collect()
    };
    let in_model = tokenizer["model"]["vocab"].as_object().expect("a vocabulary").len() as u64;
    let next =
        ids(&tokenizer["added_tokens"]).into_iter().fold(in_model, |next, id| next.max(id + 1));
    let with_added = |content: &str, id: u64| {
        let mut changed = tokenizer.clone();
        let added = json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true});
        changed["added_tokens"].as_array_mut().expect("a list").push(added);
        changed.to_string()
    };
    let cases = [
        (change("/normalizer", json!({"type": "NFKC"})), "normalizer"),
        (change("/model/type", json!("Unigram")), "model"),
        (change("/model/byte_fallback", json!(true)), "byte_fallback"),
        (change("/model/ignore_merges", json!(true)), "ignore_merges"),
        (change("/pre_tokenizer", json!({"type": "Whitespace"})), "pre-tokenizer"),
        (
            change("/pre_tokenizer/pretokenizers/0/pattern", json!({"Regex": "\\w+"})),
            "pre-tokenizer",
        ),
        (change("/model/merges/3", json!(["zzzz", "y"])), "before it exists"),
        (with_added("a", next), "added token \"a\" has the id"),
        (with_added("<|far|>", next + 1), "added token \"<|far|>\" has the id"),
        ("{".to_owned(), "another layout"),
    ];
    FastEncoder::new(with_added("<|next|>", next).as_bytes(), false).expect("is covered");
    for (json, expected) in cases {
        let Err(error) = FastEncoder::new(json.as_bytes(), false) else {
            panic!("{expected} was accepted")
        };
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn added_tokens_that_need_more_than_a_literal_match_are_refused_only_when_matched() {
    let mut tokenizer: Value = serde_json::from_str(&common::tokenizer().json).expect("JSON");
    tokenizer["added_tokens"][0]["lstrip"] = json!(true);
    let json = tokenizer.to_string();
    assert!(FastEncoder::new(json.as_bytes(), true).is_err());
    let (fast, judge) = pair(&json, false);
    let text = "x <|endoftext|> y";
    assert_eq!(fast.encode(text).expect("ids"), judge.encode(text).expect("ids"));
}

#[test]
fn a_tokenizer_without_normalizer_keeps_what_is_not_nfc() {
    let mut tokenizer: Value = serde_json::from_str(&common::tokenizer().json).expect("JSON");
    tokenizer["normalizer"] = Value::Null;
    let (fast, judge) = pair(&tokenizer.to_string(), false);
    let text = "e\u{301} \u{1100}\u{1161} \u{212b}";
    let ids = fast.encode(text).expect("ids");
    assert_eq!(ids, judge.encode(text).expect("ids"));
    assert_ne!(ids, pairs()[0].0.encode(text).expect("ids"), "the other one normalizes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn any_text(text in any::<String>()) {
        check(&text)?;
    }

    #[test]
    fn text_of_words_signs_and_control_tokens(
        text in "(\\PC|[a-z]{1,20}|[A-Z]|[0-9]{1,4}| {1,9}|\n{1,3}|\r|\t|'s|'LL|'ſ|\u{301}|e\u{301}|_|\\(|é|漢字|return |self\\.|<\\|im_end\\|>|<think>|<\\|){0,60}"
    ) {
        check(&text)?;
    }
}
