//! The corpora of the method as they are published: one table, from which `preset: NAME` fills in
//! the keys that a source does not give itself. A preset can do nothing that keys cannot.

use crate::node::{Entry, Node, Value};
use crate::{ManifestError, load};
use std::path::Path;

/// A published corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// What `preset` calls it.
    pub name: &'static str,
    /// What it is, and what is odd about it.
    pub about: &'static str,
    /// The keys that it stands for, as YAML.
    pub keys: &'static str,
    /// What its publishers say about it.
    pub published: Published,
}

/// What the publishers of a corpus say about it: figures that nobody has counted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where its files are.
    pub paths: &'static str,
    /// How many files.
    pub files: Option<u64>,
    /// Their bytes, as they are stored.
    pub bytes: Option<u64>,
    /// Documents, or pairs of question and answer.
    pub documents: Option<u64>,
    /// The documents of its subsets, by what their paths hold.
    pub subsets: &'static [(&'static str, u64)],
    /// Tokens, by the publisher's tokenizer.
    pub tokens: Option<u64>,
}

const fn at(paths: &'static str) -> Published {
    Published { paths, files: None, bytes: None, documents: None, subsets: &[], tokens: None }
}

const BILLION: u64 = 1_000_000_000;
const MILLION: u64 = 1_000_000;

/// Conversations, of a repository whose history keeps each subset under a second name, with hyphens.
const SFT_STAGE1: &str = "{format: parquet, kind: sft, \
    fields: {instruction: instruction, output: output}, \
    exclude: ['**/{filtered-infinity,largescale-diverse,realuser}-instruct*', \
    '**/{filtered-infinity,largescale-diverse,realuser}-instruct*/**']}";
const SFT_STAGE2: &str = "{format: parquet, kind: sft, \
    fields: {instruction: instruction, output: output}, license: MIT}";
const ANNEALING: &str = "{format: arrow, text_field: text, license: ODC-By-1.0}";

/// All presets, by name.
#[must_use]
pub const fn presets() -> &'static [Preset] {
    PRESETS
}

const PRESETS: &[Preset] = &[
    Preset {
        name: "dclm-baseline-1.0",
        about: "Web text. One JSON object a line, of which only `text` is read: some of its other \
                keys come and go, and lines and zstd frames may end anywhere.",
        keys: "{format: jsonl, text_field: text, license: CC-BY-4.0}",
        published: Published {
            documents: Some(3 * BILLION),
            tokens: Some(4000 * BILLION),
            ..at("hf://datasets/mlfoundations/dclm-baseline-1.0/\
                  global-shard_*_of_10/local-shard_*_of_10/*.jsonl.zst")
        },
    },
    Preset {
        name: "deepmind-mathematics",
        about: "Exercises: archives of text files in which a question and its answer follow each \
                other line by line. Only the training parts are read, not the two of the tests.",
        keys: "{format: pairs, members: ['**/train-*/*.txt'], \
               text_template: \"{question}\\n{answer}\", license: Apache-2.0}",
        // 56 modules, and in each three training parts of 666,666 exercises.
        published: Published {
            files: Some(1),
            bytes: Some(2_330 * MILLION),
            documents: Some(56 * 3 * 666_666),
            ..at("gs://mathematics-dataset/mathematics_dataset-v1.0.tar.gz")
        },
    },
    Preset {
        name: "deepmind-mathematics-hf",
        about: "The same exercises as tables, whose texts are Python's way to write bytes: \
                b'…\\n'.",
        keys: "{text_template: \"{question}\\n{answer}\", transforms: [python_bytes, trim], \
               license: Apache-2.0}",
        published: at("hf://datasets/deepmind/math_dataset"),
    },
    Preset {
        name: "gutenberg-english",
        about: "Books, in English (sedthh). Its lines end in CR LF.",
        keys: "{format: parquet, text_field: TEXT, transforms: [lf], \
               license: public domain in the USA}",
        published: Published {
            bytes: Some(10_700 * MILLION),
            documents: Some(48_284),
            ..at("hf://datasets/sedthh/gutenberg_english/**/*.parquet")
        },
    },
    Preset {
        name: "opc-annealing-algorithmic",
        about: "Code from competitions. Arrow IPC streams; the language is in `lang`.",
        keys: ANNEALING,
        published: Published {
            documents: Some(10_600_000),
            ..at("hf://datasets/OpenCoder-LLM/opc-annealing-corpus/algorithmic_corpus/*.arrow")
        },
    },
    Preset {
        name: "opc-annealing-corpus",
        about: "All three parts of the annealing corpus. Arrow IPC streams; the language is in \
                `lang` or, for synthetic_qa, in `program_lang`.",
        keys: ANNEALING,
        published: Published {
            bytes: Some(24 * BILLION),
            ..at("hf://datasets/OpenCoder-LLM/opc-annealing-corpus/**/*.arrow")
        },
    },
    Preset {
        name: "opc-annealing-qa",
        about: "Questions and answers on code, as text. Arrow IPC streams; the language is in \
                `program_lang`.",
        keys: ANNEALING,
        published: at("hf://datasets/OpenCoder-LLM/opc-annealing-corpus/synthetic_qa/*.arrow"),
    },
    Preset {
        name: "opc-annealing-snippet",
        about: "Functions rewritten by a model. Arrow IPC streams; the language is in `lang`.",
        keys: ANNEALING,
        published: at("hf://datasets/OpenCoder-LLM/opc-annealing-corpus/\
                       synthetic_code_snippet/*.arrow"),
    },
    Preset {
        name: "opc-sft-stage1",
        about: "Instructions and answers, all three subsets. Its history keeps them a second time \
                under names with hyphens, which are left out.",
        keys: SFT_STAGE1,
        published: Published {
            documents: Some(4_216_000),
            subsets: &[
                ("filtered_infinity_instruct", 1_030_000),
                ("largescale_diverse_instruct", 2_510_000),
                ("realuser_instruct", 676_000),
            ],
            ..at("hf://datasets/OpenCoder-LLM/opc-sft-stage1/data/*.parquet")
        },
    },
    Preset {
        name: "opc-sft-stage2",
        about: "Instructions and answers on code, all four subsets.",
        keys: SFT_STAGE2,
        published: Published {
            bytes: Some(537 * MILLION),
            documents: Some(435_900),
            subsets: &[
                ("educational_instruct", 118_000),
                ("evol_instruct", 111_000),
                ("mceval_instruct", 35_900),
                ("package_instruct", 171_000),
            ],
            ..at("hf://datasets/OpenCoder-LLM/opc-sft-stage2/**/*.parquet")
        },
    },
    Preset {
        name: "open-web-math",
        about: "Web pages with mathematics.",
        keys: "{format: parquet, text_field: text, license: ODC-By-1.0}",
        published: Published {
            documents: Some(6_300_000),
            tokens: Some(14_700 * MILLION),
            ..at("hf://datasets/open-web-math/open-web-math/**/*.parquet")
        },
    },
    Preset {
        name: "project-gutenberg",
        about: "Books, by language (manu); the files of English begin with en-.",
        keys: "{format: parquet, text_field: text, license: public domain in the USA}",
        published: Published {
            files: Some(52),
            bytes: Some(14 * BILLION),
            ..at("hf://datasets/manu/project_gutenberg/data/en-*.parquet")
        },
    },
    Preset {
        name: "redpajama-arxiv",
        about: "Papers in LaTeX. One JSON object a line; `meta` is an object, or one written as \
                text.",
        keys: "{format: jsonl, text_field: text, license: by paper}",
        published: Published {
            tokens: Some(28 * BILLION),
            ..at("hf://datasets/togethercomputer/RedPajama-Data-1T")
        },
    },
    Preset {
        name: "redpajama-v2",
        about: "Web text by crawl and language: documents in json.gz, one object a line.",
        keys: "{format: jsonl, text_field: raw_content|text, license: Common Crawl terms of use}",
        published: Published {
            documents: Some(20_800 * MILLION),
            ..at("hf://datasets/togethercomputer/RedPajama-Data-V2")
        },
    },
    Preset {
        name: "smollm-python-edu",
        about: "Python files with a score for how much they teach. Lists blobs by id; their \
                encoding is not told, so they are read as UTF-8.",
        keys: "{format: parquet, license: 'permissive, by file', \
               blobs: {store: blobs, id: blob_id}}",
        published: Published {
            bytes: Some(643_903_049),
            documents: Some(7_678_448),
            ..at("hf://datasets/HuggingFaceTB/smollm-corpus/python-edu/*.parquet")
        },
    },
    Preset {
        name: "stack-v3-train",
        about: "Source files by repository, with their text in `files.content`.",
        keys: "{format: parquet, unnest: {list: files}, text_field: files.content, \
               license: ODC-By-1.0}",
        published: at("hf://datasets/HuggingFaceCode/stack-v3-train/**/*.parquet"),
    },
    Preset {
        name: "the-stack-v2-python",
        about: "Python files, one a row. Lists blobs by id.",
        keys: "{format: parquet, license: 'permissive, by file', \
               blobs: {store: blobs, id: blob_id, encoding: src_encoding}, keep: {\
               language: [Python], license_type: [permissive, no_license], \
               is_vendor: [false, null], is_generated: [false, null]}}",
        published: at("hf://datasets/bigcode/the-stack-v2/data/Python/*.parquet"),
    },
    Preset {
        name: "the-stack-v2-train-smol-ids",
        about: "Source files of 17 languages by repository, in the list `files`. Lists blobs by \
                id.",
        keys: "{format: parquet, license: 'permissive, by file', unnest: {list: files}, \
               blobs: {store: blobs, id: files.blob_id, encoding: files.src_encoding}, keep: {\
               files.license_type: [permissive, no_license, null], \
               files.is_vendor: [false, null], files.is_generated: [false, null]}}",
        published: Published {
            bytes: Some(59_300 * MILLION),
            ..at("hf://datasets/bigcode/the-stack-v2-train-smol-ids/data/*.parquet")
        },
    },
    Preset {
        name: "wikipedia",
        about: "Articles without markup, by language and date.",
        keys: "{format: parquet, text_field: text, license: CC-BY-SA-3.0}",
        published: Published {
            files: Some(41),
            documents: Some(6_400_000),
            ..at("hf://datasets/wikimedia/wikipedia/20231101.en/*.parquet")
        },
    },
];

impl Published {
    /// The documents below these paths: those of the subsets that they name, or all of them.
    #[must_use]
    pub fn documents_of(&self, paths: &[String]) -> Option<u64> {
        let named = |subset: &str| paths.iter().any(|path| path.contains(subset));
        let of_subsets: u64 =
            self.subsets.iter().filter(|(subset, _)| named(subset)).map(|(_, count)| count).sum();
        if of_subsets > 0 { Some(of_subsets) } else { self.documents }
    }
}

impl Preset {
    /// The preset of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// The keys that it stands for.
    ///
    /// # Panics
    /// Never: every preset's keys are YAML (a test reads them all).
    #[must_use]
    pub fn expansion(&self) -> serde_json::Value {
        serde_saphyr::from_str(self.keys).expect("the keys of a preset are YAML")
    }

    /// The same as YAML, one key a line.
    ///
    /// # Panics
    /// Never: every preset's keys are YAML.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(&self.expansion()).expect("plain values")
    }

    fn entries(&self) -> Vec<Entry> {
        match load::parse(self.keys).map(|node| node.value) {
            Ok(Value::Map(entries)) => entries,
            other => unreachable!("the keys of {} are a map: {other:?}", self.name),
        }
    }

    /// The names of the keys that it gives.
    pub(crate) fn key_names(&self) -> impl Iterator<Item = String> {
        self.entries().into_iter().map(|entry| entry.key)
    }
}

/// Gives every source with a preset the keys that it does not have.
pub(crate) fn expand(root: &mut Node, path: &Path) -> Result<(), ManifestError> {
    for (index, source) in sources(root).iter_mut().enumerate() {
        let Value::Map(entries) = &mut source.value else { continue };
        let Some(named) = entries.iter().find(|entry| entry.key == "preset") else { continue };
        // A value of another kind is refused with the types.
        let Value::Text(name) = &named.node.value else { continue };
        let place = named.node.place.clone();
        let wrong = |message: String, hint: String| ManifestError::Value {
            path: path.to_owned(),
            place: place.clone(),
            key: format!("data.sources.{index}.preset"),
            message,
            hint: Some(hint.into_boxed_str()),
        };
        let Some(preset) = Preset::named(name) else {
            let known: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
            let hint = load::nearest(name, &known).map_or_else(
                || "`coda-ingest presets` lists them".to_owned(),
                |nearest| format!("did you mean `{nearest}`? `coda-ingest presets` lists them"),
            );
            return Err(wrong(format!("there is no preset {name:?}"), hint));
        };
        // A column that carries the text makes blobs needless.
        let has_text = entries.iter().any(|e| e.key == "text_field" || e.key == "text_template");
        for mut entry in preset.entries() {
            entry.key_place = place.clone();
            entry.node.relocate(&place);
            let is_blobs = entry.key == "blobs";
            match entries.iter_mut().find(|given| given.key == entry.key) {
                Some(given) if is_blobs => complete(&mut given.node, entry.node),
                Some(_) => {}
                None if is_blobs && has_text => {}
                None => entries.push(entry),
            }
        }
    }
    Ok(())
}

/// Adds the keys of a map that another one has more.
fn complete(node: &mut Node, more: Node) {
    if let (Value::Map(given), Value::Map(more)) = (&mut node.value, more.value) {
        for entry in more {
            if given.iter().all(|known| known.key != entry.key) {
                given.push(entry);
            }
        }
    }
}

fn sources(root: &mut Node) -> &mut [Node] {
    let mut node = root;
    for key in ["data", "sources"] {
        let Value::Map(entries) = &mut node.value else { return &mut [] };
        let Some(entry) = entries.iter_mut().find(|entry| entry.key == key) else {
            return &mut [];
        };
        node = &mut entry.node;
    }
    match &mut node.value {
        Value::List(nodes) => nodes,
        _ => &mut [],
    }
}
