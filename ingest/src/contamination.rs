//! Benchmarks that must not be in the training data: n-grams of their words, looked for in every
//! document.

use crate::{
    decode::{Batch, BatchSink, Body, DecodeError, DecodeOptions, RawRecord, decode},
    record::{Column, FieldPath, Layout, Role},
    source::{Container, InputFile},
    words::{Words, ngrams},
};
use coda_manifests::Decontaminate;
use serde_json::Value;
use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
};

/// Words hashed at a time: their hashes stay in the cache.
const CHUNK: usize = 1 << 15;
/// Bits of the first filter for each n-gram, within these bounds.
const FILTER_BITS: usize = 64;
const FILTER_LEAST: usize = 1 << 12;
const FILTER_MOST: usize = 1 << 22;

/// Why a benchmark cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BenchmarkError {
    /// The system could not read it.
    #[error(transparent)]
    Read(DecodeError),
    /// A record is not what was expected. A benchmark that is read in part protects in part.
    #[error("{}, record {number}: {message}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Line or row.
        number: u64,
        /// What is wrong.
        message: String,
    },
    /// Nothing in it can be looked for.
    #[error("{} has no task with at least {min_words} words in {}", path.display(), fields.join(" or "))]
    Nothing {
        /// The file.
        path: PathBuf,
        /// The fields that were looked at.
        fields: Vec<String>,
        /// How many words a field must have.
        min_words: u32,
    },
}

/// Text of a benchmark in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit<'a> {
    /// The task: file and name, line or row.
    pub task: &'a str,
    /// The bytes of the document with the words that are the task's.
    pub bytes: std::ops::Range<usize>,
}

/// The n-grams of all tasks.
#[derive(Debug)]
pub struct Benchmarks {
    tasks: Vec<String>,
    /// For every length of n-grams, the task of each.
    grams: Vec<(usize, HashMap<u64, u32, foldhash::fast::FixedState>)>,
    /// A bit for the leading bits of every n-gram: most words of most documents end here.
    filter: Vec<u64>,
    shift: u32,
}

/// A task's name and its texts.
type Task = (String, Vec<String>);

impl Benchmarks {
    /// Reads the tasks of `files`.
    ///
    /// # Errors
    /// If a file cannot be read, a record is damaged, or a file has nothing to look for.
    pub fn load(
        files: &[InputFile],
        keys: &Decontaminate,
        options: &DecodeOptions,
    ) -> Result<Self, BenchmarkError> {
        let mut tasks = Vec::new();
        let mut grams: HashMap<usize, HashMap<u64, u32, _>> = HashMap::new();
        let (least, ngram) = (keys.min_words() as usize, keys.ngram as usize);
        for file in files {
            let before = tasks.len();
            for (name, texts) in read(file, keys, options)? {
                let number = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
                let mut used = false;
                for text in texts {
                    let mut words = Words::default();
                    words.read(&text, usize::MAX);
                    let n = words.hashes().len().min(ngram);
                    if n < least {
                        continue;
                    }
                    used = true;
                    let of_length = grams.entry(n).or_default();
                    for gram in ngrams(words.hashes(), n) {
                        // The first task that has it is named.
                        if let Entry::Vacant(free) = of_length.entry(gram) {
                            free.insert(number);
                        }
                    }
                }
                if used {
                    tasks.push(name);
                }
            }
            if tasks.len() == before {
                return Err(BenchmarkError::Nothing {
                    path: file.path.clone(),
                    fields: keys.fields.clone(),
                    min_words: keys.min_words(),
                });
            }
        }
        Ok(Self::with(tasks, grams.into_iter().collect()))
    }

    fn with(
        tasks: Vec<String>,
        mut grams: Vec<(usize, HashMap<u64, u32, foldhash::fast::FixedState>)>,
    ) -> Self {
        grams.sort_unstable_by_key(|(n, _)| *n);
        let count: usize = grams.iter().map(|(_, map)| map.len()).sum();
        let bits = (count * FILTER_BITS).next_power_of_two().clamp(FILTER_LEAST, FILTER_MOST);
        let shift = 64 - bits.ilog2();
        let mut filter = vec![0_u64; bits / 64];
        for gram in grams.iter().flat_map(|(_, map)| map.keys()) {
            let bit = gram >> shift;
            filter[index(bit / 64)] |= 1 << (bit % 64);
        }
        Self { tasks, grams, filter, shift }
    }

    /// Tasks that are looked for.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Text of a task in `text`. `words` may have read the start of the text, and afterwards may have
    /// read more of it from its start.
    #[must_use]
    pub fn find(&self, text: &str, words: &mut Words) -> Option<Hit<'_>> {
        let longest = self.grams.last().map_or(1, |(n, _)| *n);
        let mut whole = true;
        loop {
            words.read(text, CHUNK);
            if let Some((first, n, task)) = self.look(words.hashes()) {
                let (start, _) = words.spans()[first];
                let (last, length) = words.spans()[first + n - 1];
                let bytes = start as usize..(last + length) as usize;
                return Some(Hit { task: &self.tasks[task as usize], bytes });
            }
            if words.is_at_end(text) {
                break;
            }
            whole = false;
            words.keep_last(longest - 1);
        }
        if !whole {
            words.clear();
        }
        None
    }

    /// First word, number of words and task of an n-gram.
    fn look(&self, words: &[u64]) -> Option<(usize, usize, u32)> {
        self.grams.iter().find_map(|(n, map)| {
            ngrams(words, *n).enumerate().find_map(|(first, gram)| {
                let bit = gram >> self.shift;
                let is_set = self.filter[index(bit / 64)] >> (bit % 64) & 1 == 1;
                let task = if is_set { map.get(&gram) } else { None };
                task.map(|&task| (first, *n, task))
            })
        })
    }
}

/// Indices of the filter fit every machine.
#[allow(clippy::cast_possible_truncation, reason = "at most 2^16")]
const fn index(word: u64) -> usize {
    word as usize
}

fn read(
    file: &InputFile,
    keys: &Decontaminate,
    options: &DecodeOptions,
) -> Result<Vec<Task>, BenchmarkError> {
    match file.container {
        Container::Parquet | Container::Arrow => columns(file, keys, options),
        _ => lines(file, keys, options),
    }
}

/// Tasks as JSON lines, or a whole text file as one.
fn lines(
    file: &InputFile,
    keys: &Decontaminate,
    options: &DecodeOptions,
) -> Result<Vec<Task>, BenchmarkError> {
    let mut tasks = Vec::new();
    each(file, options, &[], &mut |bytes, record| {
        let number = record.location.number;
        let range = match &record.body {
            Body::Json(range) | Body::Text(range) => range.clone(),
            _ => 0..0,
        };
        let text = std::str::from_utf8(&bytes[range]).map_err(|e| e.to_string())?;
        if matches!(record.body, Body::Text(_)) {
            tasks.push((file.name.clone(), vec![text.to_owned()]));
            return Ok(());
        }
        let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let id = keys.id_field.as_ref().and_then(|field| value.get(field));
        let id = id.map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
        let mut texts = Vec::new();
        for field in &keys.fields {
            value.get(field).into_iter().for_each(|value| strings(value, &mut texts));
        }
        tasks.push((name(file, id, "line", number), texts));
        Ok(())
    })?;
    Ok(tasks)
}

/// Tasks as rows. A column that a file does not have is passed over: benchmarks differ.
fn columns(
    file: &InputFile,
    keys: &Decontaminate,
    options: &DecodeOptions,
) -> Result<Vec<Task>, BenchmarkError> {
    let mut tasks: Vec<Task> = Vec::new();
    let mut ids: Vec<String> = Vec::new();
    let fields = keys.fields.iter().map(|field| (field, false));
    for (field, is_id) in keys.id_field.iter().map(|field| (field, true)).chain(fields) {
        let mut row = 0;
        let read = each(file, options, std::slice::from_ref(field), &mut |bytes, record| {
            let Body::Columns(ranges) = &record.body else { return Ok(()) };
            let range = ranges.first().cloned().flatten().unwrap_or(0..0);
            let text = std::str::from_utf8(&bytes[range]).map_err(|e| e.to_string())?.to_owned();
            if is_id {
                ids.push(text);
                return Ok(());
            }
            if tasks.len() == row {
                let id = ids.get(row).cloned();
                tasks.push((name(file, id, "row", record.location.number), Vec::new()));
            }
            tasks[row].1.push(text);
            row += 1;
            Ok(())
        });
        match read {
            // About the file as a whole: it has no such column, or one of numbers.
            Err(BenchmarkError::Record { number: 0, .. }) => {}
            read => read?,
        }
    }
    Ok(tasks)
}

fn name(file: &InputFile, id: Option<String>, what: &str, number: u64) -> String {
    id.map_or_else(
        || format!("{} {what} {number}", file.name),
        |id| format!("{id} ({})", file.name),
    )
}

/// All strings in a value: some fields are lists.
fn strings(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| strings(value, texts)),
        Value::Object(map) => map.values().for_each(|value| strings(value, texts)),
        _ => {}
    }
}

/// Takes a record and the bytes it points into; says what is wrong with it.
type Take<'a> = dyn FnMut(&[u8], &RawRecord) -> Result<(), String> + 'a;

/// Hands every record of a file to `take`; the first that is not usable ends it.
fn each(
    file: &InputFile,
    options: &DecodeOptions,
    columns: &[String],
    take: &mut Take<'_>,
) -> Result<(), BenchmarkError> {
    let column = |name: &String| Column { path: FieldPath::new(name), role: Role::Text };
    let layout = Layout { columns: columns.iter().map(column).collect(), ..Layout::default() };
    let options = DecodeOptions { layout, ..options.clone() };
    let mut failed = None;
    let mut send = |batch: Batch| {
        let wrong = batch.records.iter().find_map(|record| {
            let taken = match &record.body {
                Body::Rejected { fault, .. } => Err(fault.message.clone()),
                _ => take(&batch.bytes, record),
            };
            Some((record.location.number, taken.err()?))
        });
        let goes_on = wrong.is_none();
        failed = failed.take().or(wrong);
        goes_on
    };
    let mut sink = BatchSink::new(&mut send);
    let decoded = decode(file, 0, &options, &mut sink).and_then(|()| sink.flush());
    match (failed, decoded) {
        (Some((number, message)), _) => {
            Err(BenchmarkError::Record { path: file.path.clone(), number, message })
        }
        (None, decoded) => decoded.map_err(BenchmarkError::Read),
    }
}

/// The tasks' fields of different benchmarks, for hints.
#[must_use]
pub fn hint(error: &BenchmarkError) -> Option<String> {
    match error {
        BenchmarkError::Read(_) => None,
        BenchmarkError::Record { .. } => {
            Some("benchmarks are JSON lines, Parquet, Arrow or text, one task a record".to_owned())
        }
        BenchmarkError::Nothing { .. } => Some(
            "data.decontaminate.fields names the tasks' keys, such as `prompt` (HumanEval) and \
             `text` (MBPP); collect the names found in any of the files"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{BenchmarkError, Benchmarks, CHUNK};
    use crate::{
        decode::DecodeOptions,
        source::{Filters, list_files},
        words::Words,
    };
    use coda_manifests::Decontaminate;
    use proptest::prelude::*;

    fn load(content: &str, ngram: u32, min_words: u32) -> Result<Benchmarks, BenchmarkError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tasks.jsonl");
        std::fs::write(&path, content).expect("written");
        let files = list_files("benchmarks", &[path], &Filters::default()).expect("one");
        let keys = Decontaminate {
            files: Vec::new(),
            fields: vec!["prompt".to_owned(), "tests".to_owned()],
            id_field: Some("task_id".to_owned()),
            ngram,
            min_words: Some(min_words),
        };
        let options = DecodeOptions { max_document_bytes: 1 << 20, ..DecodeOptions::default() };
        Benchmarks::load(&files, &keys, &options)
    }

    const TASKS: &str = "\
        {\"task_id\":\"HumanEval/0\",\"prompt\":\"def f(a, b):\\n  return the sum of a and b\"}\n\
        {\"task_id\":7,\"other\":1,\"tests\":[\"assert g(1) == 2\",\"x\"]}\n";

    #[test]
    fn a_document_with_text_of_a_task_is_found_and_the_task_is_named() {
        let benchmarks = load(TASKS, 5, 4).expect("usable");
        assert_eq!(benchmarks.tasks(), 2);
        let find = |text: &str| {
            let mut words = Words::default();
            benchmarks.find(text, &mut words).map(|hit| {
                (
                    hit.task.split(' ').next().unwrap_or_default().to_owned(),
                    text[hit.bytes].to_owned(),
                )
            })
        };
        let text = "# It will: return THE sum of, a.";
        let expected = ("HumanEval/0".to_owned(), "return THE sum of, a".to_owned());
        assert_eq!(find(text), Some(expected.clone()));
        assert_eq!(find("return the sum of b and a"), None);
        // Fewer words than an n-gram: the whole field is looked for.
        let test = "  assert g(1)==2  # as it should";
        assert_eq!(find(test), Some(("7".to_owned(), "assert g(1)==2".to_owned())));
        assert_eq!(find("x"), None, "too short to mean anything");
        // At the seam of two chunks, in a document that is read on from its middle.
        for shift in CHUNK - 6..CHUNK + 2 {
            let long = "y ".repeat(shift) + text;
            assert_eq!(find(&long), Some(expected.clone()));
        }
    }

    #[test]
    fn a_benchmark_that_protects_nothing_is_an_error() {
        for (content, part) in [
            ("{\"question\":\"a b c d e f g\"}\n", "prompt or tests"),
            ("{\"prompt\":\"a b\"}\n", "at least 4 words"),
            ("{\"prompt\":\"a b c d e\"}\n{broken\n", "record 2"),
        ] {
            let error = load(content, 5, 4).expect_err("not usable");
            assert!(error.to_string().contains(part), "{error}");
            assert!(super::hint(&error).is_some());
        }
    }

    proptest! {
        #[test]
        fn hits_are_those_of_the_naive_search(
            task in prop::collection::vec("[ab]", 1..12),
            document in prop::collection::vec("[ab]", 0..30),
            ngram in 2_u32..6,
        ) {
            let json = serde_json::json!({ "prompt": task.join(" ") });
            let n = task.len().min(ngram as usize);
            let hit = document.windows(n).any(|w| task.windows(n).any(|t| t == w));
            let Ok(benchmarks) = load(&format!("{json}\n"), ngram, 1) else {
                return Err(TestCaseError::fail("usable"));
            };
            let text = document.join("-");
            prop_assert_eq!(benchmarks.find(&text, &mut Words::default()).is_some(), hit);
        }
    }
}
