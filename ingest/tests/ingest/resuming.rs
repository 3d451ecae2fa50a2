//! A source goes on from any of its rows, whatever came before, to the same rows, rejects and counts.

use super::common;
use coda_cli::{Progress, ProgressArgs, ProgressMode, signals::Stop};
use coda_ingest::{
    clean::Cleaner,
    decode::{DecodeOptions, Members},
    pack::{Overlong, PackedRow},
    pipeline::{
        Commit, CommitError, Line, PipelineError, SourcePlan, SourceProgress, SourceReport,
        run_source,
    },
    record::{Extractor, RecordShape},
    reject::Reject,
    source::Container,
    tokenize::{Encode, EncodeError, Specials},
};
use coda_manifests::Packing;
use proptest::prelude::*;
use std::{fmt::Write as _, path::Path};

/// One id for each byte.
struct Bytes;

impl Encode for Bytes {
    fn encode_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), EncodeError> {
        ids.extend(text.bytes().map(u32::from));
        Ok(())
    }
}

/// Everything that came, and the progress after each row: with how many rejects before it.
#[derive(Default)]
struct Kept {
    rows: Vec<PackedRow>,
    rejects: Vec<Reject>,
    notes: Vec<(String, usize)>,
}

impl Commit for Kept {
    fn row(&mut self, row: PackedRow) -> Result<bool, CommitError> {
        self.rows.push(row);
        Ok(true)
    }

    fn note(&mut self, progress: SourceProgress) -> Result<(), CommitError> {
        self.notes.push((serde_json::to_string(&progress)?, self.rejects.len()));
        Ok(())
    }

    fn reject(&mut self, reject: Reject) -> Result<(), CommitError> {
        self.rejects.push(reject);
        Ok(())
    }
}

struct Case {
    row_length: u32,
    budget: Option<u64>,
    jobs: usize,
    packing: Packing,
}

impl Case {
    fn run(
        &self,
        folder: &Path,
        files: usize,
        from: Option<SourceProgress>,
    ) -> Result<(Kept, SourceReport), PipelineError> {
        let file = |i| common::input(&folder.join(format!("{i}.jsonl")), Container::Jsonl);
        let plan = SourcePlan {
            name: "source".to_owned(),
            number: 0,
            files: (0..files).map(file).collect(),
            extractor: Extractor::new(RecordShape::Text { field: "text".to_owned() }),
            cleaner: Cleaner::default(),
            chat: None,
            blobs: None,
            origins: Vec::new(),
            unlisted: Vec::new(),
            members: Members::default(),
            drop_generated: false,
            budget: self.budget,
        };
        let workers =
            rayon::ThreadPoolBuilder::new().num_threads(self.jobs).build().expect("threads");
        let quiet = ProgressArgs { progress: ProgressMode::None, quiet: true };
        let line = Line {
            fetch: None,
            encoder: &Bytes,
            specials: Specials { eos: 256, pad: 257, mask: 258 },
            row_length: self.row_length,
            overlong: Overlong::Truncate,
            packing: self.packing,
            decode: DecodeOptions { max_document_bytes: 60, ..DecodeOptions::default() },
            benchmarks: None,
            marker: None,
            dedup: None,
            workers: &workers,
            progress: &Progress::start(quiet, "test", "bytes", None),
            stop: &Stop::never(),
        };
        let mut kept = Kept::default();
        let report = run_source(&plan, &line, &mut kept, from)?;
        Ok((kept, report))
    }
}

/// Files of lines; a number is a document of that length, and now and then a line is no document.
fn write(folder: &Path, files: &[Vec<usize>]) {
    for (number, lengths) in files.iter().enumerate() {
        let mut text = String::new();
        for &length in lengths {
            let _ = match length {
                0 => writeln!(text, "{{\"no\": 1}}"),
                1 => writeln!(text, "{{broken"),
                2 => writeln!(text),
                _ => writeln!(
                    text,
                    "{}",
                    serde_json::json!({ "text": "abcdefg".repeat(length / 7 + 1)[..length] })
                ),
            };
        }
        std::fs::write(folder.join(format!("{number}.jsonl")), text).expect("written");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn from_every_row_the_rest_is_the_same(
        files in prop::collection::vec(prop::collection::vec(0_usize..70, 0..8), 0..5),
        row_length in 1_u32..40,
        budget in prop::option::of(1_u64..400),
        jobs in 1_usize..4,
        packing in prop::sample::select(vec![Packing::Concat, Packing::BestFit]),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), &files);
        let case = Case { row_length, budget, jobs, packing };
        let (whole, report) = case.run(folder.path(), files.len(), None).expect("it runs");
        for (rows, (note, rejects)) in (1..).zip(&whole.notes) {
            let from = serde_json::from_str(note).expect("a note reads back");
            let jobs = jobs % 3 + 1;
            let again = Case { jobs, ..case };
            let (rest, whole_report) =
                again.run(folder.path(), files.len(), Some(from)).expect("it goes on");
            prop_assert_eq!(&rest.rows, &whole.rows[rows..]);
            prop_assert_eq!(&rest.rejects, &whole.rejects[*rejects..]);
            prop_assert_eq!(&whole_report, &report);
        }
    }
}

#[test]
fn a_file_with_other_records_than_before_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let case = Case { row_length: 8, budget: None, jobs: 2, packing: Packing::Concat };
    write(folder.path(), &[vec![10; 6], vec![10; 6]]);
    let (whole, _) = case.run(folder.path(), 2, None).expect("it runs");
    let from: SourceProgress = serde_json::from_str(&whole.notes[4].0).expect("a note");
    assert_eq!((from.place.file, from.place.records), (0, 3), "row 4 ends in the fourth document");
    for files in [[vec![10; 3], vec![10; 6]], [vec![10; 2], vec![]]] {
        write(folder.path(), &files);
        let error = case.run(folder.path(), 2, Some(from.clone())).err().expect("noticed");
        assert!(matches!(error, PipelineError::Changed { .. }), "{error}");
        assert!(error.to_string().contains("0.jsonl has changed"), "{error}");
    }
}
