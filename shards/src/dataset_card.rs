//! A dataset card for a hub: what a set holds, under which licences, how it came about and how to
//! read it. It goes beside a set: the `README.md` inside is part of the set and hashed in its index.

use crate::{Index, SourceEntry};
use coda_manifests::SpanKinds;
use serde::Serialize;
use std::{collections::BTreeSet, fmt::Write as _};

/// What the index does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CardOptions {
    /// The title.
    pub title: String,
    /// Languages, as ISO 639 codes.
    pub languages: Vec<String>,
    /// The folder of the shards as seen from the card; empty: the same folder.
    pub folder: String,
    /// The program that writes the card, with its version.
    pub program: String,
}

/// A dataset card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DatasetCard {
    /// The title.
    pub pretty_name: String,
    /// Licences as the hub names them, each once.
    pub license: Vec<String>,
    /// What stands behind `other`, if that is among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license_name: Option<String>,
    /// ISO 639 codes.
    pub language: Vec<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// What it is for.
    pub task_categories: Vec<String>,
    /// The hub's class of its number of rows.
    pub size_categories: Vec<String>,
    /// The files of its one split.
    pub data_files: String,
    /// Everything below the front matter.
    pub body: String,
}

impl DatasetCard {
    /// The card of a set.
    #[must_use]
    pub fn new(index: &Index, options: &CardOptions) -> Self {
        let (license, license_name) = licenses(&index.sources);
        let folder = options.folder.trim_end_matches('/');
        let slash = if folder.is_empty() { "" } else { "/" };
        let prompts = "text-generation".to_owned();
        Self {
            pretty_name: options.title.clone(),
            license,
            license_name,
            language: options.languages.clone(),
            tags: ["masked-diffusion", "diffusion-language-model", "tokenized", "arrow", "coda"]
                .map(str::to_owned)
                .into(),
            task_categories: vec![prompts],
            size_categories: vec![size_category(index.rows).to_owned()],
            data_files: format!("{folder}{slash}shard-*.arrow"),
            body: body(index, options),
        }
    }

    /// The whole file: front matter between its marks, then the text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = "---\n".to_owned();
        line(&mut out, 0, "pretty_name", &self.pretty_name);
        if let [license] = self.license.as_slice() {
            line(&mut out, 0, "license", license);
        } else {
            list(&mut out, "license", &self.license);
        }
        if let Some(name) = &self.license_name {
            line(&mut out, 0, "license_name", name);
        }
        list(&mut out, "language", &self.language);
        list(&mut out, "tags", &self.tags);
        list(&mut out, "task_categories", &self.task_categories);
        list(&mut out, "size_categories", &self.size_categories);
        out.push_str("configs:\n- config_name: default\n  data_files:\n  - split: train\n");
        line(&mut out, 4, "path", &self.data_files);
        out.push_str("---\n\n");
        out + &self.body
    }
}

/// A string of JSON is a string of YAML, whatever is in it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

// Writing to a string cannot fail.
fn line(out: &mut String, indent: usize, key: &str, value: &str) {
    let _ = writeln!(out, "{}{key}: {}", " ".repeat(indent), quoted(value));
}

fn list(out: &mut String, key: &str, values: &[String]) {
    if values.is_empty() {
        return;
    }
    let _ = writeln!(out, "{key}:");
    for value in values {
        let _ = writeln!(out, "- {}", quoted(value));
    }
}

/// The hub's classes.
fn size_category(rows: u64) -> &'static str {
    const CLASSES: [(u64, &str); 10] = [
        (1_000, "n<1K"),
        (10_000, "1K<n<10K"),
        (100_000, "10K<n<100K"),
        (1_000_000, "100K<n<1M"),
        (10_000_000, "1M<n<10M"),
        (100_000_000, "10M<n<100M"),
        (1_000_000_000, "100M<n<1B"),
        (10_000_000_000, "1B<n<10B"),
        (100_000_000_000, "10B<n<100B"),
        (1_000_000_000_000, "100B<n<1T"),
    ];
    CLASSES.iter().find(|(below, _)| rows < *below).map_or("n>1T", |(_, name)| name)
}

/// Licences that the hub has a name for, of those that corpora come under.
const KNOWN: [&str; 38] = [
    "afl-3.0",
    "agpl-3.0",
    "apache-2.0",
    "artistic-2.0",
    "bigcode-openrail-m",
    "bsd",
    "bsd-2-clause",
    "bsd-3-clause",
    "bsd-3-clause-clear",
    "bsl-1.0",
    "cc",
    "cc-by-2.0",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "cdla-permissive-1.0",
    "cdla-permissive-2.0",
    "cdla-sharing-1.0",
    "epl-2.0",
    "gpl-2.0",
    "gpl-3.0",
    "isc",
    "lgpl-2.1",
    "lgpl-3.0",
    "mit",
    "mpl-2.0",
    "odbl",
    "odc-by",
    "openrail",
    "pddl",
    "unlicense",
    "unknown",
    "wtfpl",
    "zlib",
];

/// The hub's names, and for what it has no name the manifests' own words.
fn licenses(sources: &[SourceEntry]) -> (Vec<String>, Option<String>) {
    let (mut named, mut others) = (BTreeSet::new(), BTreeSet::new());
    for source in sources {
        let Some(license) = &source.license else {
            named.insert("unknown".to_owned());
            continue;
        };
        let lower = license.trim().to_ascii_lowercase().replace(' ', "-");
        let plain = ["-only", "-or-later"].iter().find_map(|end| lower.strip_suffix(end));
        let plain = plain.unwrap_or(&lower);
        // Versions that the hub's name leaves out.
        let plain = match plain {
            "odc-by-1.0" => "odc-by",
            "odbl-1.0" => "odbl",
            "pddl-1.0" => "pddl",
            other => other,
        };
        if KNOWN.contains(&plain) {
            named.insert(plain.to_owned());
        } else {
            named.insert("other".to_owned());
            others.insert(license.clone());
        }
    }
    if named.is_empty() {
        named.insert("unknown".to_owned());
    }
    let others = others.into_iter().collect::<Vec<_>>().join(", ");
    (named.into_iter().collect(), (!others.is_empty()).then_some(others))
}

fn body(index: &Index, options: &CardOptions) -> String {
    let totals = &index.totals;
    let mut out = format!(
        "# {}\n\n\
         Packed rows of {} token ids for training masked diffusion language models, in {} Arrow files \
         that any Arrow reader maps without a copy.\n\n\
         | | |\n|---|--:|\n\
         | rows | {} |\n\
         | documents | {} |\n\
         | tokens | {} |\n\
         | padding | {} |\n\
         | records rejected as faulty | {} |\n\
         | records left out by a rule | {} |\n\
         | bytes of text that went in | {} |\n\
         | bytes of the set | {} |\n\n",
        heading(&options.title),
        index.row_length,
        index.shards.len(),
        index.rows,
        totals.documents,
        totals.tokens,
        totals.padding_tokens,
        totals.rejected,
        index.sources.iter().map(SourceEntry::dropped).fold(0, u64::saturating_add),
        totals.input_bytes,
        index.bytes(),
    );
    sources(&mut out, index);
    counts(&mut out, index, "Rejected", "reason", |source| &source.rejects);
    counts(&mut out, index, "Left out by a rule", "rule", |source| &source.drops);
    let _ = write!(
        out,
        "## Tokenizer\n\n\
         `tokenizer.json` of the set made the ids; its BLAKE3 is `{}`. Documents end with id {}, rows \
         are filled with id {}, and id {} stands for a masked token.\n\n",
        index.tokenizer_fingerprint(),
        index.specials.eos,
        index.specials.pad,
        index.specials.mask,
    );
    out.push_str(COLUMNS);
    if let Some(kinds) = index.spans {
        let _ = writeln!(
            out,
            "| `spans` | where the text's {} lie: start, length, kind |",
            named(kinds)
        );
    }
    out.push_str(MASKS);
    reading(&mut out, options);
    let _ = write!(
        out,
        "## Where it comes from\n\n\
         The bytes follow from a manifest, a tokenizer and the inputs alone, on any machine. To make the \
         set again and to check it:\n\n\
         ```sh\n\
         coda-ingest --manifest MANIFEST.yaml --out DIR\n\
         coda-ingest verify DIR\n\
         ```\n\n\
         * recipe (manifest, tokenizer and inputs): `{}`\n\
         * fingerprint of the set: `{}`\n\
         * format: {} {}; this card: {}\n",
        index.manifest_hash, index.fingerprint, index.format, index.format_version, options.program,
    );
    out
}

fn sources(out: &mut String, index: &Index) {
    out.push_str(
        "## Sources\n\n\
         | source | licence | documents | tokens | rows | rejected | left out |\n\
         |---|---|--:|--:|--:|--:|--:|\n",
    );
    for source in &index.sources {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} |",
            cell(&source.name),
            cell(source.license.as_deref().unwrap_or("not stated")),
            source.documents,
            source.tokens,
            source.rows,
            source.rejected(),
            source.dropped(),
        );
    }
    out.push('\n');
    for source in index.sources.iter().filter(|source| !source.origins.is_empty()) {
        let origins: Vec<String> =
            source.origins.iter().map(|origin| format!("`{}`", cell(origin))).collect();
        let _ = writeln!(out, "* {} was read from {}", cell(&source.name), origins.join(", "));
    }
    if index.sources.iter().any(|source| !source.origins.is_empty()) {
        out.push('\n');
    }
}

/// A table of counts by source and reason; nothing when there are none.
fn counts(
    out: &mut String,
    index: &Index,
    title: &str,
    what: &str,
    of: impl Fn(&SourceEntry) -> &std::collections::BTreeMap<String, u64>,
) {
    if index.sources.iter().all(|source| of(source).is_empty()) {
        return;
    }
    let _ = write!(out, "## {title}\n\n| source | {what} | records |\n|---|---|--:|\n");
    for source in &index.sources {
        for (reason, count) in of(source) {
            let _ = writeln!(out, "| {} | `{}` | {count} |", cell(&source.name), cell(reason));
        }
    }
    out.push('\n');
}

const COLUMNS: &str = "\
## Columns

| column | meaning |
|---|---|
| `tokens` | the ids of the row |
| `segments` | where each document of the row starts; the first may go on from the row before |
| `row_key` | the key of every random draw for this row: masks can be drawn again, bit for bit |
| `source` | number of the source in `index.json` |
| `prefix_len` | tokens of the prompt, which is never scored; 0: no prompt |
| `valid_len` | tokens before the padding |
| `maskable` | spans in which blocks of masks may be placed |
";

const MASKS: &str = "
Nothing is masked in the files: masks are drawn while training, from the seed, the row's key and the
epoch. The set's format describes order and masks precisely.

";

/// `lines (0) and brackets (1)`: with the numbers that stand for the kinds.
fn named(kinds: SpanKinds) -> String {
    let names: Vec<String> =
        kinds.iter().map(|kind| format!("{} ({})", kind.name(), kind.code())).collect();
    names.join(" and ")
}

fn reading(out: &mut String, options: &CardOptions) {
    let folder = options.folder.trim_end_matches('/');
    let (folder, slash) = if folder.is_empty() { (".", "") } else { (folder, "/") };
    let path = if slash.is_empty() { String::new() } else { format!("{folder}/") };
    let _ = write!(
        out,
        "## Reading it\n\n\
         ```python\n\
         import pyarrow as pa\n\
         table = pa.ipc.open_file(pa.memory_map({first})).read_all()\n\n\
         from datasets import load_dataset\n\
         rows = load_dataset(\"arrow\", data_files={all}, split=\"train\")\n\
         ```\n\n\
         The Python package `coda_shards` opens the folder {whole} with its order and masks, and \
         `coda-ingest export` writes it for Megatron, nanoGPT, OLMo-core, `datasets` and as Parquet.\n\n",
        first = quoted(&format!("{path}shard-00000.arrow")),
        all = quoted(&format!("{path}shard-*.arrow")),
        whole = format_args!("`{}`", cell(folder)),
    );
}

/// Text that cannot break out of its table cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('`', "'").replace(['\n', '\r'], " ")
}

/// Text that stays one heading.
fn heading(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::{CardOptions, DatasetCard, KNOWN, licenses, size_category};
    use crate::{Index, SourceEntry};

    fn index() -> Index {
        serde_json::from_slice(include_bytes!("../../tests/compat/shards_v1/index.json")).unwrap()
    }

    fn options(folder: &str) -> CardOptions {
        CardOptions {
            title: "Two: \"small\" sources".to_owned(),
            languages: vec!["en".to_owned()],
            folder: folder.to_owned(),
            program: "coda-ingest 0.1.0".to_owned(),
        }
    }

    fn licensed(licenses_of: &[Option<&str>]) -> (Vec<String>, Option<String>) {
        let source = |license: Option<&str>| SourceEntry {
            license: license.map(str::to_owned),
            ..SourceEntry::default()
        };
        licenses(&licenses_of.iter().copied().map(source).collect::<Vec<_>>())
    }

    #[test]
    fn a_set_with_spans_has_their_column() {
        let with = include_bytes!("../../tests/compat/shards_v2/index.json");
        let with: Index = serde_json::from_slice(with).unwrap();
        let card = |index: &Index| DatasetCard::new(index, &options("")).render();
        let line =
            "| `spans` | where the text's lines (0) and brackets (1) lie: start, length, kind |";
        assert!(card(&with).contains(line) && card(&with).contains("coda-shards 2"));
        assert!(!card(&index()).contains("`spans`"));
    }

    #[test]
    fn the_front_matter_stands_between_its_marks() {
        let text = DatasetCard::new(&index(), &options("data/")).render();
        let (front, body) = text.strip_prefix("---\n").unwrap().split_once("---\n\n").unwrap();
        assert_eq!(
            front,
            "pretty_name: \"Two: \\\"small\\\" sources\"\nlicense: \"cc0-1.0\"\nlanguage:\n- \
             \"en\"\ntags:\n- \"masked-diffusion\"\n- \"diffusion-language-model\"\n- \
             \"tokenized\"\n- \"arrow\"\n- \"coda\"\ntask_categories:\n- \"text-generation\"\n\
             size_categories:\n- \"n<1K\"\nconfigs:\n- config_name: default\n  data_files:\n  - \
             split: train\n    path: \"data/shard-*.arrow\"\n"
        );
        let index = index();
        for needed in [
            "# Two: \"small\" sources\n",
            &index.fingerprint,
            &index.manifest_hash,
            index.tokenizer_fingerprint(),
            "| text | CC0-1.0 | 5 |",
            "| chat | `not_utf8` | 1 |",
            "\"data/shard-00000.arrow\"",
            "coda-ingest 0.1.0",
        ] {
            assert!(body.contains(needed), "{needed} is not in\n{body}");
        }
        assert!(!body.contains("Left out by a rule\n\n|"), "nothing was left out");
        assert!(
            DatasetCard::new(&index, &options("")).render().contains("path: \"shard-*.arrow\"")
        );
    }

    #[test]
    fn licences_get_the_names_of_the_hub() {
        assert!(KNOWN.contains(&"apache-2.0"));
        assert_eq!(licensed(&[Some("Apache-2.0")]), (vec!["apache-2.0".to_owned()], None));
        assert_eq!(licensed(&[None]), (vec!["unknown".to_owned()], None));
        assert_eq!(licensed(&[]), (vec!["unknown".to_owned()], None));
        let (named, other) = licensed(&[
            Some("GPL-3.0-or-later"),
            Some("ODC-By-1.0"),
            Some("their own terms"),
            Some("gpl-3.0"),
        ]);
        assert_eq!(named, ["gpl-3.0", "odc-by", "other"]);
        assert_eq!(other.as_deref(), Some("their own terms"));
    }

    #[test]
    fn classes_of_size_end_below_their_bound() {
        for (rows, class) in [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (u64::MAX, "n>1T")] {
            assert_eq!(size_category(rows), class);
        }
    }
}
