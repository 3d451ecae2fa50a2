//! Rows that need no shard set.

use coda_trainer::engine::Batch;

/// Made-up rows of the ids below the mask's, of which somewhat less than half is masked, each row with a noise
/// level of its own; with `documents`, seven tokens to a document.
pub(crate) fn made_up(rows: usize, len: usize, documents: bool, seed: usize, mask: u32) -> Batch {
    let index = |value: usize| u32::try_from(value).expect("a small number");
    let clean: Vec<u32> =
        (0..rows * len).map(|i| index((i * 37 + seed * 11) % mask as usize)).collect();
    let masked = |i: usize| (i * 2_654_435_761 + seed * 97) % 100 < 45;
    let noised = clean.iter().enumerate().map(|(i, &id)| if masked(i) { mask } else { id });
    Batch {
        rows,
        len,
        noised_ids: noised.collect(),
        sigma: (0..rows).map(|row| 0.3 + 0.1 * ((row + seed) % 8) as f64).collect(),
        segment_ids: documents.then(|| (0..rows * len).map(|i| index((i % len) / 7)).collect()),
        input_ids: clean,
    }
}
