//! Results in the order of the records: packed, counted, written.

use super::{
    Commit, CommitError, Line, PipelineError, SourcePlan, SourceReport,
    work::{Done, Outcome},
};
use crate::{
    decode::Location,
    pack::{PackedRow, Packer, chat_row},
    reject::Reject,
};
use std::sync::{
    atomic::{AtomicBool, Ordering},
    mpsc::Receiver,
};

pub(super) struct Committer<'a> {
    plan: &'a SourcePlan,
    line: &'a Line<'a>,
    commit: &'a mut dyn Commit,
    packer: Packer,
    report: SourceReport,
}

impl<'a> Committer<'a> {
    pub(super) fn new(
        plan: &'a SourcePlan,
        line: &'a Line<'a>,
        commit: &'a mut dyn Commit,
    ) -> Self {
        let packer = Packer::new(line.row_length, line.specials.pad);
        Self { plan, line, commit, packer, report: SourceReport::default() }
    }

    pub(super) fn run(
        mut self,
        done: Receiver<Done>,
        full: &AtomicBool,
    ) -> Result<SourceReport, PipelineError> {
        'source: for done in done {
            self.report.skipped_files += done.skipped;
            for (location, outcome) in done.records {
                self.record(location, outcome).map_err(PipelineError::Commit)?;
                if self.plan.budget.is_some_and(|budget| self.report.tokens >= budget) {
                    self.report.budget_reached = true;
                    full.store(true, Ordering::Relaxed);
                    break 'source;
                }
            }
        }
        let packer = std::mem::replace(&mut self.packer, Packer::new(1, 0));
        if let Some(row) = packer.finish() {
            write_row(self.commit, &mut self.report, row).map_err(PipelineError::Commit)?;
        }
        Ok(self.report)
    }

    fn record(&mut self, location: Location, outcome: Outcome) -> Result<(), CommitError> {
        let Self { plan, line, commit, packer, report } = self;
        match outcome {
            Outcome::Text { ids, bytes } => {
                report.documents += 1;
                report.text_bytes += bytes;
                report.tokens += ids.len() as u64;
                packer.push(&ids, |row| write_row(&mut **commit, report, row))?;
            }
            Outcome::Chat { row, bytes } => {
                let is_long = row.ids.len() > line.row_length as usize;
                match chat_row(row, line.row_length, line.specials.pad, line.overlong) {
                    Some(row) => {
                        report.documents += 1;
                        report.text_bytes += bytes;
                        report.tokens += u64::from(row.valid_len);
                        report.overlong_truncated += u64::from(is_long);
                        write_row(&mut **commit, report, row)?;
                    }
                    None => report.overlong_dropped += 1,
                }
            }
            Outcome::Dropped { reason } => {
                report.dropped += 1;
                *report.drops.entry(reason).or_default() += 1;
            }
            Outcome::Rejected { fault, head } => {
                report.rejected += 1;
                *report.reasons.entry(fault.reason).or_default() += 1;
                let file = &plan.files[location.file as usize];
                commit.reject(Reject::new(&plan.name, file, location, fault, &head))?;
            }
        }
        Ok(())
    }
}

fn write_row(
    commit: &mut dyn Commit,
    report: &mut SourceReport,
    row: PackedRow,
) -> Result<(), CommitError> {
    report.rows += 1;
    report.padding_tokens += row.tokens.len() as u64 - u64::from(row.valid_len);
    commit.row(row)
}
