//! Benchmark files in their published formats.

use crate::evaluate::EvaluateError;
use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader, Read},
    mem::discriminant,
    path::Path,
};

/// What a file of problems is, told by the keys of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Benchmark {
    /// `prompt`, `test`, `entry_point`: `HumanEval.jsonl.gz`.
    #[serde(rename = "humaneval")]
    HumanEval,
    /// `base_input`, `plus_input`: `HumanEvalPlus.jsonl.gz`; or as HumanEval, with EvalPlus's `test`.
    #[serde(rename = "humaneval+")]
    HumanEvalPlus,
    /// `test_list`: `mbpp.jsonl` and `sanitized-mbpp.json`.
    #[serde(rename = "mbpp")]
    Mbpp,
    /// As HumanEval+, of tasks named `Mbpp/…`: `MbppPlus.jsonl.gz`; or as MBPP, with EvalPlus's `test`.
    #[serde(rename = "mbpp+")]
    MbppPlus,
    /// As HumanEval with a `suffix`: the files of HumanEval-Infilling.
    #[serde(rename = "humaneval-infilling")]
    Infilling,
}

impl Benchmark {
    /// Its name in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HumanEval => "humaneval",
            Self::HumanEvalPlus => "humaneval+",
            Self::Mbpp => "mbpp",
            Self::MbppPlus => "mbpp+",
            Self::Infilling => "humaneval-infilling",
        }
    }
}

/// What a solution is held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checks {
    /// Statements behind it, in which nothing is raised.
    Program(String),
    /// The inputs of the record, for which it returns what the canonical solution returns: EvalPlus's files.
    Inputs,
    /// Such inputs and what is to be returned, written out as statements: EvalPlus on the hub.
    Written {
        /// The tests of MBPP. HumanEval+ has its base inputs among the others.
        base: Option<String>,
        /// All inputs.
        all: String,
    },
}

impl Checks {
    /// Whether base and plus inputs have verdicts of their own.
    #[must_use]
    pub const fn have_plus(&self) -> bool {
        matches!(self, Self::Inputs | Self::Written { base: Some(_), .. })
    }
}

/// One problem.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Its name: `HumanEval/0`, `Mbpp/2`, or a number as the file has it.
    pub task_id: String,
    /// The function that is called; none for MBPP, whose tests name it.
    pub entry_point: Option<String>,
    /// What the solution begins with; a description of the task for MBPP.
    pub prompt: String,
    /// What follows the hole, for infilling.
    pub suffix: Option<String>,
    /// The solution that the file has: what belongs after the prompt, or the whole of it for MBPP.
    pub canonical: String,
    /// What its solutions are held against.
    pub checks: Checks,
    /// The tests that a prompt may show.
    pub shown: Vec<String>,
    /// The record as it stands in the file. Inputs are read by Python only: JSON of Python knows numbers
    /// that others do not.
    pub record: String,
}

impl Problem {
    /// The program of a completion: what stands around the hole is put around it.
    #[must_use]
    pub fn complete(&self, benchmark: Benchmark, completion: &str) -> String {
        match (benchmark, &self.suffix) {
            (Benchmark::Mbpp | Benchmark::MbppPlus, _) if self.entry_point.is_none() => {
                completion.to_owned()
            }
            (_, Some(suffix)) => format!("{}{completion}{suffix}", self.prompt),
            (_, None) => format!("{}{completion}", self.prompt),
        }
    }
}

/// A file of problems.
#[derive(Clone, Debug)]
pub struct Suite {
    /// What it is.
    pub benchmark: Benchmark,
    /// Its problems, in the order of the file.
    pub problems: Vec<Problem>,
    /// BLAKE3 of the unpacked text, in hex.
    pub hash: String,
}

impl Suite {
    /// Reads `.jsonl` or `.json`, plain or `.gz`.
    ///
    /// # Errors
    /// If the file cannot be read or is of no known format.
    pub fn read(path: &Path) -> Result<Self, EvaluateError> {
        let text = read_text(path)?;
        let bad = |line, problem: String| EvaluateError::Format {
            path: path.display().to_string(),
            line,
            problem,
        };
        let mut kind = None;
        let mut seen = HashSet::new();
        let mut problems = Vec::new();
        for (line, record) in records(&text).map_err(|problem| bad(1, problem))? {
            let keys: Record = serde_json::from_str(&without_odd_numbers(&record))
                .map_err(|error| bad(line, error.to_string()))?;
            let benchmark = keys.benchmark().map_err(|problem| bad(line, problem))?;
            if *kind.get_or_insert(benchmark) != benchmark {
                return Err(bad(line, "the records are of different benchmarks".to_owned()));
            }
            let problem = keys.problem(benchmark, record).map_err(|problem| bad(line, problem))?;
            let first: Option<&Problem> = problems.first();
            let alike =
                |first: &Problem| discriminant(&first.checks) == discriminant(&problem.checks);
            if !first.is_none_or(alike) {
                return Err(bad(line, "the records are of different forms".to_owned()));
            }
            if !seen.insert(problem.task_id.clone()) {
                return Err(bad(line, format!("{} is there twice", problem.task_id)));
            }
            problems.push(problem);
        }
        let Some(benchmark) = kind else { return Err(bad(1, "it has no problems".to_owned())) };
        let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
        Ok(Self { benchmark, problems, hash })
    }

    /// Whether base and plus inputs have verdicts of their own.
    #[must_use]
    pub fn has_plus(&self) -> bool {
        self.problems.iter().any(|problem| problem.checks.have_plus())
    }

    /// Whether the checks import numpy.
    #[must_use]
    pub fn needs_numpy(&self) -> bool {
        let written = |problem: &Problem| matches!(problem.checks, Checks::Written { .. });
        self.problems.iter().any(written)
    }

    /// Keeps the problems with numbers from `from` to `to`, both included.
    ///
    /// # Errors
    /// If none is left.
    pub fn keep(&mut self, from: u64, to: u64) -> Result<(), EvaluateError> {
        self.problems
            .retain(|problem| number(&problem.task_id).is_some_and(|n| (from..=to).contains(&n)));
        if self.problems.is_empty() {
            return Err(EvaluateError::Misfit(format!("no task has a number from {from} to {to}")));
        }
        Ok(())
    }
}

/// The number in a name: of `HumanEval/7`, `Mbpp/7`, `7`, and of a hole in it,
/// `RandomSpanInfilling/HumanEval/7/1`.
fn number(task: &str) -> Option<u64> {
    let hole = task.split_once("/HumanEval/").and_then(|(_, of)| of.split('/').next());
    hole.or_else(|| task.rsplit('/').next())?.parse().ok()
}

/// The lines of a file, or the elements of a JSON array, with their numbers.
fn records(text: &str) -> Result<Vec<(usize, String)>, String> {
    if text.trim_start().starts_with('[') {
        // Only MBPP is published so, and its records have no numbers beyond JSON's.
        let values: Vec<Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        return Ok(values.iter().map(Value::to_string).enumerate().collect());
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    Ok(lines.map(|(index, line)| (index + 1, line.to_owned())).collect())
}

/// The text of a file, unpacked where its name ends in `.gz`.
pub(super) fn read_text(path: &Path) -> Result<String, EvaluateError> {
    let name = path.display().to_string();
    let columns = path.extension().is_some_and(|end| end == "parquet" || end == "arrow");
    if name.contains("://") || columns {
        return Err(EvaluateError::NotLines(name));
    }
    let failed = |error| EvaluateError::Read { path: name.clone(), error };
    let file = BufReader::new(File::open(path).map_err(failed)?);
    let mut reader: Box<dyn BufRead> = if path.extension().is_some_and(|end| end == "gz") {
        Box::new(BufReader::new(MultiGzDecoder::new(file)))
    } else {
        Box::new(file)
    };
    let mut text = String::new();
    reader.read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// The keys of all formats.
#[derive(Deserialize)]
struct Record {
    task_id: Value,
    entry_point: Option<String>,
    #[serde(default)]
    prompt: Option<String>,
    /// MBPP's description, where it is not sanitized.
    text: Option<String>,
    suffix: Option<String>,
    canonical_solution: Option<String>,
    code: Option<String>,
    test: Option<String>,
    test_list: Option<Vec<String>>,
    test_setup_code: Option<String>,
    test_imports: Option<Vec<String>>,
    assertion: Option<String>,
    base_input: Option<serde::de::IgnoredAny>,
    plus_input: Option<serde::de::IgnoredAny>,
    atol: Option<f64>,
}

impl Record {
    fn name(&self) -> String {
        self.task_id.as_str().map_or_else(|| self.task_id.to_string(), str::to_owned)
    }

    fn benchmark(&self) -> Result<Benchmark, String> {
        if self.base_input.is_some() {
            let mbpp = self.name().to_lowercase().starts_with("mbpp");
            return Ok(if mbpp { Benchmark::MbppPlus } else { Benchmark::HumanEvalPlus });
        }
        match (&self.test, &self.suffix, &self.test_list) {
            (Some(_), Some(_), _) => Ok(Benchmark::Infilling),
            (Some(_), None, Some(_)) => Ok(Benchmark::MbppPlus),
            (Some(test), None, None) if is_of_evalplus(test) => Ok(Benchmark::HumanEvalPlus),
            (Some(_), None, None) => Ok(Benchmark::HumanEval),
            (None, _, Some(_)) => Ok(Benchmark::Mbpp),
            _ => Err("it has none of `test`, `test_list` and `base_input`".to_owned()),
        }
    }

    fn problem(self, benchmark: Benchmark, record: String) -> Result<Problem, String> {
        let task_id = self.name();
        let needed = |value: Option<String>, key: &str| {
            value.ok_or_else(|| format!("{task_id} has no `{key}`"))
        };
        if let Some(shown) = self.test_list {
            let before = self.test_setup_code.iter().chain(self.test_imports.iter().flatten());
            let before = before.map(String::as_str).collect::<Vec<_>>().join("\n");
            let base = format!("{before}\n{}", shown.join("\n"));
            return Ok(Problem {
                prompt: needed(self.text.or(self.prompt), "text")?,
                suffix: None,
                canonical: needed(self.code, "code")?,
                checks: match self.test {
                    None => Checks::Program(base),
                    Some(test) => {
                        Checks::Written { base: Some(base), all: format!("{before}\n{test}") }
                    }
                },
                shown,
                entry_point: None,
                record,
                task_id: task_id.clone(),
            });
        }
        let entry_point = needed(self.entry_point, "entry_point")?;
        let checks = if self.base_input.is_some() {
            if self.plus_input.is_none() || self.atol.is_none() {
                return Err(format!("{task_id} has no `plus_input` or no `atol`"));
            }
            Checks::Inputs
        } else {
            let test = format!("{}\ncheck({entry_point})", self.test.unwrap_or_default());
            match benchmark {
                Benchmark::HumanEvalPlus => Checks::Written { base: None, all: test },
                _ => Checks::Program(test),
            }
        };
        let assertion = self.assertion.iter().flat_map(|text| text.lines());
        let shown = assertion.filter(|line| line.starts_with("assert")).map(str::to_owned);
        Ok(Problem {
            prompt: needed(self.prompt, "prompt")?,
            suffix: self.suffix,
            canonical: needed(self.canonical_solution, "canonical_solution")?,
            checks,
            shown: shown.collect(),
            entry_point: Some(entry_point),
            record,
            task_id: task_id.clone(),
        })
    }
}

/// Whether a program of tests is one that EvalPlus wrote: it goes through a list of inputs.
fn is_of_evalplus(test: &str) -> bool {
    test.lines().any(|line| line.trim_start().starts_with("inputs = ["))
}

/// `NaN` and `Infinity`, which Python writes and JSON does not have, as `null`: for our reading of a
/// record, which does not look at inputs.
fn without_odd_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut quoted) = (text, false);
    while let Some(at) = rest.find(['"', '\\', 'N', 'I', '-']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let odd = ["NaN", "Infinity", "-Infinity"].into_iter().find(|odd| rest.starts_with(odd));
        if let Some(odd) = odd.filter(|_| !quoted) {
            out.push_str("null");
            rest = &rest[odd.len()..];
            continue;
        }
        let mut characters = rest.chars();
        let first = characters.next();
        quoted ^= first == Some('"');
        // What is escaped closes no string.
        let taken = if first == Some('\\') { characters.next() } else { None };
        out.extend(first.into_iter().chain(taken));
        rest = characters.as_str();
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::{number, without_odd_numbers};

    #[test]
    fn a_hole_has_the_number_of_its_function() {
        for (task, expected) in [
            ("HumanEval/7", Some(7)),
            ("Mbpp/11", Some(11)),
            ("510", Some(510)),
            ("SingleLineInfilling/HumanEval/7/L0", Some(7)),
            ("RandomSpanInfilling/HumanEval/7/1", Some(7)),
            ("HumanEval/x", None),
        ] {
            assert_eq!(number(task), expected, "{task}");
        }
    }

    #[test]
    fn numbers_of_python_are_left_out_and_text_is_not() {
        for (text, expected) in [
            ("[NaN, -Infinity, Infinity, -1]", "[null, null, null, -1]"),
            (r#"{"NaN": "Infinity \" NaN", "x": NaN}"#, r#"{"NaN": "Infinity \" NaN", "x": null}"#),
            (r#"["\\", NaN, "ä", 1e5]"#, r#"["\\", null, "ä", 1e5]"#),
        ] {
            assert_eq!(without_odd_numbers(text), expected);
        }
    }
}
