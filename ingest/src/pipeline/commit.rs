//! Results in the order of the records: packed, counted, written.

use super::{
    Commit, CommitError, PipelineError, Place, SourceProgress, SourceReport, work::Outcome,
    workers::Step,
};
use crate::{
    decode::Location,
    pack::{Overlong, PackedRow, Packer, chat_row},
    reject::Reject,
    source::InputFile,
};
use coda_manifests::Packing;
use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

/// The code of conversations longer than a row, where the manifest drops them.
const OVERLONG: &str = "overlong";

/// What decides the rows of a source once its records have become ids.
pub(crate) struct RowPlan<'a> {
    pub(crate) name: &'a str,
    pub(crate) files: &'a [InputFile],
    pub(crate) budget: Option<u64>,
    pub(crate) row_length: u32,
    pub(crate) pad: u32,
    pub(crate) overlong: Overlong,
    pub(crate) packing: Packing,
}

/// Packs, counts and writes what comes out of a source, from its start or from where it stood.
pub(crate) fn commit_steps(
    plan: &RowPlan<'_>,
    commit: &mut dyn Commit,
    from: Option<SourceProgress>,
    steps: impl IntoIterator<Item = Step>,
    full: &AtomicBool,
) -> Result<SourceReport, PipelineError> {
    Committer::new(plan, commit, from).run(steps, full)
}

struct Committer<'a> {
    plan: &'a RowPlan<'a>,
    commit: &'a mut dyn Commit,
    packer: Packer,
    report: SourceReport,
    place: Place,
    /// How many ids of the first record are in rows already, after going on in the middle of one.
    begun: Option<u64>,
}

impl<'a> Committer<'a> {
    fn new(
        plan: &'a RowPlan<'a>,
        commit: &'a mut dyn Commit,
        from: Option<SourceProgress>,
    ) -> Self {
        let packer = Packer::new(plan.packing, plan.row_length, plan.pad);
        let Some(SourceProgress { place, open_rows, report }) = from else {
            let (report, place) = (SourceReport::default(), Place::default());
            return Self { plan, commit, packer, report, place, begun: None };
        };
        let packer = packer.with_open_rows(open_rows);
        let begun = (place.file != Place::END).then_some(place.ids);
        Self { plan, commit, packer, report, place, begun }
    }

    fn run(
        mut self,
        steps: impl IntoIterator<Item = Step>,
        full: &AtomicBool,
    ) -> Result<SourceReport, PipelineError> {
        let mut ended = self.place.file == Place::END;
        'source: for step in steps {
            let Step::Records(done) = step else {
                ended = true;
                break;
            };
            self.report.skipped_files += done.skipped;
            for (index, (location, outcome)) in done.records.into_iter().enumerate() {
                self.report.decided = done.decided.get(index).copied().unwrap_or_default();
                self.record(location, outcome)?;
                if self.plan.budget.is_some_and(|budget| self.report.tokens >= budget) {
                    self.report.budget_reached = true;
                    full.store(true, Ordering::Relaxed);
                    ended = true;
                    break 'source;
                }
            }
        }
        if !ended {
            // Whoever cut the input off knows why, and says so instead.
            return Err(PipelineError::Stopped);
        }
        if self.begun.is_some() {
            return Err(self.changed(self.place.file));
        }
        self.place = Place { file: Place::END, records: 0, ids: 0 };
        while let Some(row) = self.packer.end() {
            self.row(row).map_err(PipelineError::Commit)?;
        }
        Ok(self.report)
    }

    fn record(&mut self, location: Location, outcome: Outcome) -> Result<(), PipelineError> {
        if location.file != self.place.file {
            if self.begun.is_some() {
                return Err(self.changed(self.place.file));
            }
            self.place = Place { file: location.file, records: 0, ids: 0 };
        }
        let begun = self.begun.take();
        self.take(location, outcome, begun).map_err(PipelineError::Commit)?;
        self.place.records += 1;
        self.place.ids = 0;
        Ok(())
    }

    /// One record. `begun`: it was counted before, and so many of its ids are in rows already.
    fn take(
        &mut self,
        location: Location,
        outcome: Outcome,
        begun: Option<u64>,
    ) -> Result<(), CommitError> {
        let report = &mut self.report;
        match outcome {
            Outcome::Text { ids, bytes } => {
                if begun.is_none() {
                    report.documents += 1;
                    report.text_bytes += bytes;
                    report.tokens += ids.len() as u64;
                }
                let begun = usize::try_from(begun.unwrap_or(0)).unwrap_or(usize::MAX);
                let mut rest = ids.get(begun..).unwrap_or_default();
                while !rest.is_empty() {
                    let row = self.packer.add(&mut rest);
                    self.place.ids = (ids.len() - rest.len()) as u64;
                    if let Some(row) = row {
                        self.row(row)?;
                    }
                }
            }
            // Its one row is there already.
            Outcome::Chat { .. } if begun.is_some() => {}
            Outcome::Chat { row, bytes } => {
                let RowPlan { row_length, pad, overlong, .. } = *self.plan;
                let is_long = row.ids.len() > row_length as usize;
                let Some(row) = chat_row(row, row_length, pad, overlong) else {
                    report.dropped += 1;
                    *report.drops.entry(OVERLONG).or_default() += 1;
                    return Ok(());
                };
                report.documents += 1;
                report.text_bytes += bytes;
                report.tokens += u64::from(row.valid_len);
                report.overlong_truncated += u64::from(is_long);
                self.row(row)?;
            }
            Outcome::Dropped { reason } => {
                report.dropped += 1;
                *report.drops.entry(reason).or_default() += 1;
            }
            Outcome::Rejected { fault, head } => {
                report.rejected += 1;
                *report.reasons.entry(fault.reason).or_default() += 1;
                let file = &self.plan.files[location.file as usize];
                self.commit.reject(Reject::new(self.plan.name, file, location, fault, &head))?;
            }
            Outcome::Recorded(reject) => {
                report.rejected += 1;
                *report.reasons.entry(reject.reason).or_default() += 1;
                self.commit.reject(*reject)?;
            }
        }
        Ok(())
    }

    fn row(&mut self, row: PackedRow) -> Result<(), CommitError> {
        self.report.rows += 1;
        self.report.padding_tokens += row.tokens.len() as u64 - u64::from(row.valid_len);
        if self.commit.row(row)? {
            let open_rows = self.packer.open_rows().to_vec();
            let report = self.report.clone();
            self.commit.note(SourceProgress { place: self.place, open_rows, report })?;
        }
        Ok(())
    }

    fn changed(&self, file: u32) -> PipelineError {
        let path = self.plan.files.get(file as usize);
        let path = path.map_or_else(|| PathBuf::from(self.plan.name), |file| file.path.clone());
        PipelineError::Changed { path }
    }
}
