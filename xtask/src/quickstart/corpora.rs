//! The quickstart's corpora: real code, documentation and documented functions.
//!
//! `code/<crate>/….rs` for pre- and mid-training, `docs.jsonl` for pre-training, `pairs.jsonl` for
//! post-training. What is taken is capped and in a fixed order. `selection.json` is written last.

use super::{
    files,
    pairs::{self, Pair},
    unpacked::{self, HELD_BACK, Unpacked},
};
use coda_cli::{Failure, human};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    collections::HashSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// Bytes of code in all.
const CODE: u64 = 12 << 20;
/// Bytes of code from one crate, so that no crate is most of what is learned.
const CODE_OF_ONE_CRATE: u64 = 384 << 10;
/// A larger file is usually a table.
const LARGEST_FILE: u64 = 96 << 10;
/// Bytes of documentation in all.
const DOCS: usize = 4 << 20;
/// Bytes of documentation in one record.
const LARGEST_DOC: usize = 64 << 10;
/// Pairs in all.
const PAIRS: usize = 6000;

/// What decides the selection besides the crates themselves.
pub(crate) fn key(lock: &str) -> String {
    format!("{CODE} {CODE_OF_ONE_CRATE} {LARGEST_FILE} {DOCS} {PAIRS} {HELD_BACK:?}\n{lock}")
}

/// What was taken.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Selection {
    /// `name-version` of every crate something was taken from.
    pub(crate) crates: Vec<String>,
    /// Source files copied.
    pub(crate) code_files: u64,
    /// Their bytes.
    pub(crate) code_bytes: u64,
    /// Records of documentation.
    pub(crate) docs: u64,
    /// Doc comment and function pairs.
    pub(crate) pairs: u64,
    /// Crates that are never ingested.
    pub(crate) held_back: Vec<String>,
}

impl Selection {
    /// One line for people.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{} files of code ({}) from {} crates, {} pages of documentation, {} documented functions",
            self.code_files,
            human::bytes(self.code_bytes),
            self.crates.len(),
            self.docs,
            self.pairs
        )
    }
}

/// Fills `directory` from the crates cargo has unpacked.
pub(crate) fn prepare(
    lock: &Path,
    cargo_home: &Path,
    directory: &Path,
) -> Result<Selection, Failure> {
    files::remove(directory)?;
    let unpacked = unpacked::list(&files::read(lock)?, cargo_home)?;
    let mut selection = Selection::default();
    let mut docs = String::new();
    let mut functions: Vec<Pair> = Vec::new();
    let mut seen = HashSet::new();
    for unpacked in &unpacked {
        if HELD_BACK.contains(&unpacked.name.as_str()) {
            selection.held_back.push(unpacked.id.clone());
            continue;
        }
        let sources = sources(unpacked)?;
        let before = selection.code_files;
        let mut bytes = 0;
        for source in &sources {
            let text = &source.text;
            let header = module_docs(text);
            add_doc(&mut docs, &mut selection.docs, &header);
            if (SMALLEST_SOURCE..=LARGEST_FILE).contains(&(text.len() as u64))
                && bytes + text.len() as u64 <= CODE_OF_ONE_CRATE
                && selection.code_bytes + text.len() as u64 <= CODE
            {
                let to = directory.join("code").join(&unpacked.id).join(&source.relative);
                files::write(&to, text.as_bytes())?;
                bytes += text.len() as u64;
                selection.code_bytes += text.len() as u64;
                selection.code_files += 1;
            }
            for pair in pairs::extract(text) {
                if seen.insert(pair.function.clone()) {
                    functions.push(pair);
                }
            }
        }
        for page in ["README.md", "CHANGELOG.md"] {
            if let Ok(text) = fs::read_to_string(unpacked.directory.join(page)) {
                add_doc(&mut docs, &mut selection.docs, &text);
            }
        }
        if selection.code_files > before {
            selection.crates.push(unpacked.id.clone());
        }
    }
    if selection.code_files == 0 || functions.is_empty() {
        return Err(Failure::io(format!(
            "found too few unpacked crates under {}",
            cargo_home.join("registry").join("src").display()
        ))
        .hint("`cargo fetch --locked` downloads and unpacks the crates of Cargo.lock"));
    }
    let functions = evenly(functions, PAIRS);
    selection.pairs = functions.len() as u64;
    let mut lines = String::new();
    for pair in &functions {
        let record = json!({"instruction": pair.instruction(), "output": pair.function});
        let _ = writeln!(lines, "{record}");
    }
    files::write(&directory.join("docs.jsonl"), docs.as_bytes())?;
    files::write(&directory.join("pairs.jsonl"), lines.as_bytes())?;
    let text = serde_json::to_string_pretty(&selection).expect("plain data");
    files::write(&directory.join("selection.json"), text.as_bytes())?;
    Ok(selection)
}

/// A smaller file holds little more than re-exports.
const SMALLEST_SOURCE: u64 = 512;

struct Source {
    relative: PathBuf,
    text: String,
}

/// The UTF-8 `.rs` files under `src/`, sorted by path.
fn sources(unpacked: &Unpacked) -> Result<Vec<Source>, Failure> {
    let root = unpacked.directory.join("src");
    let mut sources = Vec::new();
    let mut open = vec![root];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries {
            let entry = entry
                .map_err(|e| Failure::io(format!("cannot read {}: {e}", directory.display())))?;
            let path = entry.path();
            let kind = entry
                .file_type()
                .map_err(|e| Failure::io(format!("cannot read {}: {e}", path.display())))?;
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file()
                && path.extension().is_some_and(|e| e == "rs")
                && let Ok(text) = fs::read_to_string(&path)
            {
                let relative = path.strip_prefix(&unpacked.directory).unwrap_or(&path);
                sources.push(Source { relative: relative.to_owned(), text });
            }
        }
    }
    sources.sort_by(|a, b| a.relative.cmp(&b.relative));
    Ok(sources)
}

/// The text of the `//!` lines.
fn module_docs(source: &str) -> String {
    let mut text = String::new();
    for line in source.lines() {
        if let Some(line) = line.trim_start().strip_prefix("//!") {
            text.push_str(line.strip_prefix(' ').unwrap_or(line));
            text.push('\n');
        }
    }
    text
}

fn add_doc(docs: &mut String, count: &mut u64, text: &str) {
    let text = text.trim();
    // Shorter ones are a title or a pointer to another file.
    let fits = (200..=LARGEST_DOC).contains(&text.len());
    if fits && docs.len() + text.len() <= DOCS {
        let _ = writeln!(docs, "{}", json!({"text": text}));
        *count += 1;
    }
}

/// At most `most` items, spread evenly over all of them, in a fixed order that mixes neighbours:
/// what the last rows hold back then looks like the rest.
fn evenly<T>(items: Vec<T>, most: usize) -> Vec<T> {
    let kept = items.len().min(most);
    let total = items.len();
    let mut slots: Vec<Option<T>> = items.into_iter().map(Some).collect();
    // A step that shares no factor with the length visits every slot once.
    let mut step = total * 618 / 1000;
    while step > 1 && gcd(step, total) != 1 {
        step -= 1;
    }
    (0..kept).filter_map(|i| slots[i * step.max(1) % total].take()).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::{evenly, module_docs, prepare};
    use std::{collections::HashSet, fs, path::Path};

    fn file(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        fs::write(path, text).expect("write");
    }

    #[test]
    fn the_corpora_hold_code_docs_and_pairs_and_leave_out_the_held_back() {
        let home = tempfile::tempdir().expect("a directory");
        let registry = home.path().join("registry/src/index");
        let doc = "//! A crate that shows things.\n".repeat(10);
        let function = "/// Adds the two numbers it is given.\npub fn add(a: u32, b: u32) -> u32 {\n    a + b\n}\n";
        let filler = "// filler\n".repeat(60);
        file(&registry.join("shown-1.0.0/src/lib.rs"), &format!("{doc}{function}{filler}"));
        file(&registry.join("shown-1.0.0/src/table.rs"), &"// 1\n".repeat(30_000));
        file(&registry.join("shown-1.0.0/README.md"), &"Read me. ".repeat(30));
        file(&registry.join("indexmap-1.0.0/src/lib.rs"), &format!("{function}{filler}"));
        let package = |name| {
            format!(
                "[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\nsource = \"registry+x\"\n"
            )
        };
        let lock = home.path().join("Cargo.lock");
        file(&lock, &(package("shown") + &package("indexmap")));
        let out = home.path().join("corpora");

        let first = prepare(&lock, home.path(), &out).expect("corpora");
        assert_eq!((first.code_files, first.docs, first.pairs), (1, 2, 1));
        assert_eq!(
            (first.crates[0].as_str(), first.held_back[0].as_str()),
            ("shown-1.0.0", "indexmap-1.0.0")
        );
        let pairs = fs::read_to_string(out.join("pairs.jsonl")).expect("pairs");
        let pair: serde_json::Value = serde_json::from_str(&pairs).expect("one record");
        assert_eq!(
            pair["instruction"],
            "Adds the two numbers it is given.\n\npub fn add(a: u32, b: u32) -> u32"
        );
        assert!(out.join("code/shown-1.0.0/src/lib.rs").is_file());
        assert!(!out.join("code/shown-1.0.0/src/table.rs").exists());
        assert!(!out.join("code/indexmap-1.0.0").exists());

        let docs = fs::read_to_string(out.join("docs.jsonl")).expect("docs");
        prepare(&lock, home.path(), &out).expect("corpora again");
        assert_eq!(docs, fs::read_to_string(out.join("docs.jsonl")).expect("docs"));
    }

    #[test]
    fn evenly_takes_each_item_at_most_once() {
        for total in 1..60 {
            for most in [1, 7, 100] {
                let taken = evenly((0..total).collect::<Vec<_>>(), most);
                assert_eq!(taken.len(), total.min(most));
                assert_eq!(taken.iter().collect::<HashSet<_>>().len(), taken.len());
            }
        }
    }

    #[test]
    fn module_docs_are_the_inner_doc_lines() {
        assert_eq!(module_docs("//! A.\n//!\n//!   code\nfn f() {}\n// no\n"), "A.\n\n  code\n");
    }
}
