//! Where a source stands, so that a stopped build can go on in the middle of it.

use super::SourceReport;
use crate::pack::PackedRow;
use serde::{Deserialize, Serialize};

/// A place in the input of a source: in the middle of a record, or behind the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Index into the source's files; [`Place::END`] behind the last one.
    pub file: u32,
    /// Records of that file before the one at hand; every decoder finds the same ones again.
    pub records: u64,
    /// Ids of the record at hand that are in rows already.
    pub ids: u64,
}

impl Place {
    /// The file number behind all files: only rows that are not full are left.
    pub const END: u32 = u32::MAX;
}

/// The state of a source right after one of its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceProgress {
    /// The record that the row ends in. It is in the counts of `report` as a whole.
    pub place: Place,
    /// The packer's rows that are not full.
    pub open_rows: Vec<PackedRow>,
    /// The counts up to here.
    pub report: SourceReport,
}

impl SourceProgress {
    /// How many documents deduplication had decided before the record at hand, which it will see
    /// again.
    #[must_use]
    pub const fn decided_before(&self) -> u64 {
        // Only decided documents make rows.
        let again = self.place.file != Place::END;
        self.report.decided.saturating_sub(again as u64)
    }
}
