//! Which `tokenizer.json` files the fast encoder covers, and what it takes from them.

use super::{merges::MOST_MERGES, words::MOST_IDS};
use crate::tokenize::{hf::is_control_text, ids::Ids, split::is_qwen2, vocabulary::Controls};
use rayon::prelude::*;
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use serde_json::{Value, json};
use std::{borrow::Cow, collections::BTreeMap, fmt};

/// Merges whose tokens a thread looks up at a time.
const LOOKED_TOGETHER: usize = 4096;

/// Why a tokenizer is left to the reference encoder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotCovered(pub(super) String);

/// What the fast encoder needs.
pub(super) struct Model {
    /// The symbols of every merge, numbered as [`super::merges`] says.
    pub(super) merges: Vec<(u32, u32)>,
    /// The id of every symbol.
    pub(super) ids: Vec<u32>,
    /// Whether text is normalized to NFC first.
    pub(super) nfc: bool,
    /// Added tokens with their ids, or without where they stay plain text. Empty when all do.
    pub(super) added: Vec<(String, Option<u32>)>,
    /// The ids of all tokens, added ones included.
    pub(super) vocabulary: Ids,
    /// Control tokens with their ids.
    pub(super) controls: Controls,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(borrow)]
    model: BpeFile<'a>,
}

#[derive(Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "the file has them")]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct BpeFile<'a> {
    #[serde(default)]
    r#type: Value,
    #[serde(default)]
    vocab: Ids,
    #[serde(default)]
    #[serde(borrow)]
    merges: Merges<'a>,
    #[serde(flatten)]
    options: BTreeMap<String, Value>,
}

type Merges<'a> = Vec<Merge<'a>>;

/// In either of the two ways in which files write it.
enum Merge<'a> {
    Pair([Text<'a>; 2]),
    Text(Text<'a>),
}

/// Borrowed where the file has no escapes in it.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Not `untagged`, which would copy each of some hundred thousand merges into a value of its own first.
impl<'de: 'a, 'a> Deserialize<'de> for Merge<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Merge<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two tokens, in a list or with a space between them")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Merge::Text(Text(text.into())))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Merge::Text(Text(text.to_owned().into())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(Merge::Pair)
            }
        }
        from.deserialize_any(Either)
    }
}

/// What stands for the merges where they were taken out: no merge is empty.
const TAKEN_OUT: &str = "\"merges\":[\"\"]}}";

/// A file as `tokenizers` writes it, with the merges as the last thing in it, in two: the rest, which has
/// [`TAKEN_OUT`] for the merges, and their list. Each is about half of the work of reading the file.
fn apart(json: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let key = memchr::memmem::rfind(json, b"\"merges\"")?;
    let list = json[key..].trim_ascii_end().strip_suffix(b"}")?.trim_ascii_end();
    let list = list.strip_suffix(b"}")?.trim_ascii_end();
    let list = list.strip_prefix(b"\"merges\"")?.trim_ascii_start().strip_prefix(b":")?;
    Some(([&json[..key], TAKEN_OUT.as_bytes()].concat(), list))
}

impl<'a> File<'a> {
    /// Reads a file, in two halves at once where [`apart`] has taken it apart.
    fn read(json: &'a [u8], apart: Option<(&'a [u8], &'a [u8])>) -> serde_json::Result<Self> {
        let halves = apart.map(|(rest, merges)| {
            rayon::join(
                || serde_json::from_slice::<File>(rest),
                || serde_json::from_slice::<Merges>(merges),
            )
        });
        if let Some((Ok(mut file), Ok(merges))) = halves
            && let [Merge::Text(Text(text))] = file.model.merges.as_slice()
            && text.is_empty()
        {
            file.model.merges = merges;
            return Ok(file);
        }
        // Written otherwise, or damaged: then this says where.
        serde_json::from_slice(json)
    }
}

impl Model {
    /// Reads a `tokenizer.json`. `match_special_text`: whether control tokens are matched.
    pub(super) fn read(json: &[u8], match_special_text: bool) -> Result<Self, NotCovered> {
        let apart = apart(json);
        let file =
            File::read(json, apart.as_ref().map(|(rest, merges)| (rest.as_slice(), *merges)))
                .map_err(|e| NotCovered(format!("its tokenizer.json has another layout: {e}")))?;
        let nfc = match &file.normalizer {
            Value::Null => false,
            normalizer if *normalizer == json!({"type": "NFC"}) => true,
            other => return Err(not_covered("normalizer", other)),
        };
        if !is_qwen2(&file.pre_tokenizer) {
            return Err(not_covered("pre-tokenizer", &file.pre_tokenizer));
        }
        file.model.check_options()?;
        let added = added(&file.added_tokens, match_special_text)?;
        let (merges, ids) = file.model.symbols()?;
        let mut vocabulary = file.model.vocab;
        let mut next = vocabulary.limit();
        let mut controls = Vec::new();
        for Added { id, content, special, .. } in file.added_tokens {
            // Ids that neither go on from the model's nor are the model's own are given anew when
            // `tokenizers` loads the file.
            if id != vocabulary.get(&content).unwrap_or(next) {
                return Err(NotCovered(format!("its added token {content:?} has the id {id}")));
            }
            next = next.max(id + 1);
            if special || is_control_text(&content) {
                controls.push((id, content.clone()));
            }
            vocabulary.insert(&content, id);
        }
        Ok(Self { merges, ids, nfc, added, vocabulary, controls })
    }
}

fn not_covered(what: &str, value: &Value) -> NotCovered {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(120) {
        text.replace_range(end.., "…");
    }
    NotCovered(format!("its {what} is {text}"))
}

fn added(
    tokens: &[Added],
    match_special_text: bool,
) -> Result<Vec<(String, Option<u32>)>, NotCovered> {
    let is_matched =
        |token: &Added| match_special_text || !(token.special || is_control_text(&token.content));
    if !tokens.iter().any(is_matched) {
        return Ok(Vec::new());
    }
    let literal = |token: &Added| {
        let special = token.single_word || token.lstrip || token.rstrip || token.normalized;
        if special || token.content.is_empty() {
            let name = &token.content;
            return Err(NotCovered(format!("its added token {name:?} is not matched literally")));
        }
        Ok((token.content.clone(), is_matched(token).then_some(token.id)))
    };
    tokens.iter().map(literal).collect()
}

/// The symbols of every merge, and the id of every symbol.
type Symbols = (Vec<(u32, u32)>, Vec<u32>);

impl BpeFile<'_> {
    fn check_options(&self) -> Result<(), NotCovered> {
        if self.r#type != "BPE" {
            return Err(not_covered("model", &self.r#type));
        }
        for (name, value) in &self.options {
            let is_off = value.is_null() || *value == json!(false) || *value == json!("");
            // An unknown token is never needed: every byte is in the vocabulary.
            if !is_off && name != "unk_token" {
                return Err(not_covered(name, value));
            }
        }
        Ok(())
    }

    fn symbols(&self) -> Result<Symbols, NotCovered> {
        if self.merges.len() > MOST_MERGES {
            return Err(NotCovered(format!("it has {} merges", self.merges.len())));
        }
        if let Some((token, id)) = self.vocab.iter().find(|(_, id)| *id >= MOST_IDS) {
            return Err(NotCovered(format!("its token {token:?} has the id {id}")));
        }
        let missing = |token: &str| NotCovered(format!("its vocabulary has no {token:?}"));
        // By id: which symbol a token is, once it has been made.
        let mut symbols: Vec<Option<u32>> = vec![None; self.vocab.limit() as usize];
        let mut ids = Vec::with_capacity(256 + self.merges.len());
        for (symbol, character) in (0..).zip(byte_characters()) {
            let character = character.encode_utf8(&mut [0; 4]).to_owned();
            let id = self.vocab.get(&character).ok_or_else(|| missing(&character))?;
            ids.push(id);
            symbols[id as usize] = Some(symbol);
        }
        let look = |token: &mut String, merge: &Merge<'_>| {
            let (left, right) = merge.parts()?;
            token.clear();
            token.extend([left, right]);
            Ok([left, right, token.as_str()].map(|text| self.vocab.get(text)))
        };
        let looked =
            self.merges.par_iter().with_min_len(LOOKED_TOGETHER).map_init(String::new, look);
        let looked = looked.collect::<Result<Vec<_>, NotCovered>>()?;
        let mut merges = Vec::with_capacity(self.merges.len());
        for ((found, merge), result) in looked.iter().zip(&self.merges).zip(256..) {
            // Every part must be made before it is used, and nothing twice: then the order of
            // results is the order of merges.
            let symbol = |id: Option<u32>| id.and_then(|id| symbols[id as usize]);
            let (Some(left), Some(right)) = (symbol(found[0]), symbol(found[1])) else {
                let (left, right) = merge.parts()?;
                let text = format!("a merge uses {left:?} or {right:?} before it exists");
                return Err(NotCovered(text));
            };
            merges.push((left, right));
            let token = || merge.parts().map(|(left, right)| [left, right].concat());
            let Some(id) = found[2] else { return Err(missing(&token()?)) };
            ids.push(id);
            if symbols[id as usize].replace(result).is_some() {
                return Err(NotCovered(format!("two merges make {}", token()?)));
            }
        }
        Ok((merges, ids))
    }
}

impl Merge<'_> {
    fn parts(&self) -> Result<(&str, &str), NotCovered> {
        match self {
            Self::Pair([Text(left), Text(right)]) => Ok((left, right)),
            Self::Text(Text(text)) => text
                .split_once(' ')
                .ok_or_else(|| NotCovered(format!("its merge {text:?} has no two parts"))),
        }
    }
}

/// The characters that stand for the 256 bytes in byte-level vocabularies (GPT-2's table): printable
/// ones for themselves, the others from U+0100 on.
pub(crate) fn byte_characters() -> impl Iterator<Item = char> {
    let is_printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut next = 0x100;
    (0..256).map(move |byte| {
        let code = if is_printable(byte) {
            byte
        } else {
            next += 1;
            next - 1
        };
        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
    })
}

#[cfg(test)]
mod tests {
    use super::{File, Merge, Text, apart};

    /// Both ways of reading give the same; says whether the file was taken apart, and its merges.
    fn read(json: &str) -> (bool, Option<Vec<String>>) {
        let apart = apart(json.as_bytes());
        let halves = apart.as_ref().map(|(rest, merges)| (rest.as_slice(), *merges));
        let merges = |file: serde_json::Result<File<'_>>| {
            let text = |merge: &Merge<'_>| match merge {
                Merge::Pair([Text(left), Text(right)]) => format!("{left} {right}"),
                Merge::Text(Text(text)) => text.to_string(),
            };
            file.ok().map(|file| file.model.merges.iter().map(text).collect::<Vec<_>>())
        };
        let whole = merges(serde_json::from_str(json));
        assert_eq!(merges(File::read(json.as_bytes(), halves)), whole, "{json}");
        (halves.is_some(), whole)
    }

    #[test]
    fn a_file_in_two_halves_is_the_file() {
        let vocab = r#""vocab":{"a":0,"\"merges\": [":1,"merges":2}"#;
        let merges = |merges: &[&str]| Some(merges.iter().map(|&m| m.to_owned()).collect());
        let sound = format!(r#"{{"model":{{{vocab},"merges":[["a","b"],["c","\u0064"]]}}}}"#);
        assert_eq!(read(&sound), (true, merges(&["a b", "c d"])));
        let spaced = format!("{{\"model\": {{{vocab}, \"merges\" : [ \"a b\" ]\n }}\n}}\n");
        assert_eq!(read(&spaced), (true, merges(&["a b"])));
        // Not last, not the model's, not a list, not there, or not whole.
        let others = [
            (format!(r#"{{"model":{{"merges":["a b"],{vocab}}}}}"#), merges(&["a b"])),
            (format!(r#"{{"model":{{{vocab}}},"more":{{"merges":["a b"]}}}}"#), merges(&[])),
            (
                format!(r#"{{"model":{{{vocab},"merges":["x y"]}},"more":{{"merges":[]}}}}"#),
                merges(&["x y"]),
            ),
            (format!(r#"{{"model":{{{vocab},"merges":7}}}}"#), None),
            (format!(r#"{{"model":{{{vocab}}}}}"#), merges(&[])),
            (format!(r#"{{"model":{{{vocab},"merges":[["a","b"]}}}}"#), None),
            (format!(r#"{{"model":{{{vocab},"merges":[["a","b"]]}}}}x"#), None),
            (format!(r#"{{"model":{{{vocab},"merges":[]}},"n":{{}}}}"#), merges(&[])),
        ];
        for (json, expected) in others {
            assert_eq!(read(&json).1, expected, "{json}");
        }
    }
}
