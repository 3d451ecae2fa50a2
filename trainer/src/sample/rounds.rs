//! Many rows through one decoder.

use super::{Denoiser, Step};
use crate::engine::{Decoder, EngineError};

/// One forward for all rows that are not done, and what it reveals. Rows carry the number of their
/// slot; they may join and leave between rounds. Whether any row took part: `false` means that all are
/// done. `seen` is told of every step with its row's slot.
///
/// # Errors
/// What the decoder fails with.
pub fn round(
    decoder: &mut dyn Decoder,
    rows: &mut [(usize, &mut Denoiser)],
    mut seen: impl FnMut(usize, &Step),
) -> Result<bool, EngineError> {
    let mut active: Vec<&mut (usize, &mut Denoiser)> = Vec::with_capacity(rows.len());
    for row in rows {
        let slot = row.0;
        if row.1.ask(|step| seen(slot, step)) {
            active.push(row);
        }
    }
    if active.is_empty() {
        return Ok(false);
    }
    let spans: Vec<_> = active.iter().map(|row| row.1.span(row.0)).collect();
    let outputs: Vec<usize> = spans.iter().map(|span| span.outputs.len()).collect();
    let mut logits = decoder.decode(&spans)?;
    drop(spans);
    let vocabulary = logits.len() / outputs.iter().sum::<usize>();
    let mut rest = logits.as_mut_slice();
    for (row, outputs) in active.into_iter().zip(outputs) {
        let (own, others) = rest.split_at_mut(outputs * vocabulary);
        let slot = row.0;
        row.1.take(own, |step| seen(slot, step));
        rest = others;
    }
    Ok(true)
}

/// Takes rows through a decoder until all are done; `seen` is told of every step with its row's index.
///
/// # Errors
/// What the decoder fails with.
pub fn denoise_rows(
    decoder: &mut dyn Decoder,
    rows: &mut [Denoiser],
    mut seen: impl FnMut(usize, &Step),
) -> Result<(), EngineError> {
    let mut numbered: Vec<(usize, &mut Denoiser)> = rows.iter_mut().enumerate().collect();
    while round(decoder, &mut numbered, &mut seen)? {}
    for slot in 0..numbered.len() {
        decoder.forget(slot);
    }
    Ok(())
}
