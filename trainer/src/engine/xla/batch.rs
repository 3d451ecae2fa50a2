//! Batches as arguments of a program.

use super::program::Geometry;
use crate::engine::{Batch, EngineError, Ids};
use std::ops::Range;

/// The rows of one pass, padded to the geometry's number of rows, and the lists of what is scored.
///
/// A part's list holds its scored outputs in order; the rest of the list has weight 0. Where several
/// processes share a pass, each has its own rows in their places and nothing in the others'.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pass {
    /// What the model sees `[rows, len]`.
    pub ids: Vec<i32>,
    /// The document of every token `[rows, len]`; empty without documents.
    pub segments: Vec<i32>,
    /// Places among the outputs of a part `[parts, capacity]`.
    pub places: Vec<i32>,
    /// What each should predict.
    pub targets: Vec<i32>,
    /// `1 / sigma` of its row.
    pub weights: Vec<f32>,
    /// Chunks of its list that each part needs `[parts]`.
    pub trips: Vec<i32>,
    /// Scored tokens.
    pub scored: u64,
    /// Which rows of the pass the batch has.
    pub rows: Range<usize>,
}

impl Pass {
    /// The arguments of a batch whose first row is row `first` of the pass.
    ///
    /// # Errors
    /// If the batch is malformed.
    ///
    /// # Panics
    /// If its rows go beyond the geometry's or have another length.
    #[allow(clippy::cast_possible_truncation, reason = "weights are f32")]
    pub(super) fn new(
        batch: &Batch,
        first: usize,
        mask_id: u32,
        vocabulary: usize,
        geometry: &Geometry,
    ) -> Result<Self, EngineError> {
        batch.check()?;
        let (ids, segments) = rows_of(&batch.noised(), first, vocabulary, geometry)?;
        let parts = geometry.parts;
        let (outputs, capacity) = (geometry.outputs_of_a_part(), geometry.capacity());
        let size = parts * capacity;
        let mut pass = Self {
            ids,
            segments,
            places: vec![0; size],
            targets: vec![0; size],
            weights: vec![0.0; size],
            trips: Vec::with_capacity(parts),
            rows: first..first + batch.rows,
            ..Self::default()
        };
        let rows_of_a_part = geometry.rows / parts;
        for part in 0..parts {
            let mut at = part * capacity;
            let of_part = part * rows_of_a_part..(part + 1) * rows_of_a_part;
            for row in of_part.filter(|row| pass.rows.contains(row)).map(|row| row - first) {
                let weight = (1.0 / batch.sigma[row]) as f32;
                for token in batch.scored_tokens(row, mask_id) {
                    let target = batch.target(token, vocabulary)?;
                    // The output before a token predicts it.
                    pass.places[at] = index(token - 1 + first * batch.len - part * outputs);
                    pass.targets[at] = index(target as usize);
                    pass.weights[at] = weight;
                    at += 1;
                    pass.scored += 1;
                }
            }
            pass.trips.push(index((at - part * capacity).div_ceil(geometry.loss_chunk)));
        }
        Ok(pass)
    }

    /// The sum of the losses of every row of the batch, from the losses of the lists
    /// `[parts, capacity]`, in the order of the tokens.
    pub(super) fn row_sums(&self, geometry: &Geometry, losses: &[f32]) -> Vec<f64> {
        let capacity = geometry.capacity();
        let rows_of_a_part = geometry.rows / geometry.parts;
        let mut sums = vec![0.0; self.rows.len()];
        for (slot, (&loss, &weight)) in losses.iter().zip(&self.weights).enumerate() {
            // Padding has weight 0; every scored token more.
            if weight > 0.0 {
                let place = usize::try_from(self.places[slot]).expect("a place");
                let row = slot / capacity * rows_of_a_part + place / geometry.len;
                sums[row - self.rows.start] += f64::from(loss);
            }
        }
        sums
    }
}

/// Ids and documents of rows from row `first` on, padded to the geometry's number of rows.
pub(super) fn rows_of(
    ids: &Ids<'_>,
    first: usize,
    vocabulary: usize,
    geometry: &Geometry,
) -> Result<(Vec<i32>, Vec<i32>), EngineError> {
    // Of several processes one may have no row of a pass that is not full.
    if ids.rows > 0 {
        ids.check(vocabulary)?;
    }
    assert!(first + ids.rows <= geometry.rows && ids.len == geometry.len, "rows fit the program");
    assert_eq!(ids.segment_ids.is_some(), geometry.segments, "documents");
    let padded = |values: &[u32]| -> Vec<i32> {
        let mut padded = vec![0; geometry.rows * geometry.len];
        for (place, &value) in padded[first * geometry.len..].iter_mut().zip(values) {
            *place = index(value as usize);
        }
        padded
    };
    Ok((padded(ids.ids), ids.segment_ids.map(padded).unwrap_or_default()))
}

/// An index as programs have it.
pub(super) fn index(value: usize) -> i32 {
    i32::try_from(value).expect("an index below 2^31")
}

#[cfg(test)]
mod tests {
    use super::Pass;
    use crate::engine::{
        Batch,
        xla::program::{Chunks, geometry},
    };
    use coda_hlo::ElementType;
    use coda_manifests::MeshShape;
    use proptest::prelude::*;

    const MASK: u32 = 9;
    const CHUNKS: Chunks = Chunks { compute: ElementType::F32, query_chunk: 4, loss_chunk: 3 };

    proptest! {
        #[test]
        fn every_scored_token_is_listed_once_and_comes_back_to_its_row(
            rows in 1usize..6,
            len in 1usize..7,
            fsdp in 1u32..4,
            bits in proptest::collection::vec(any::<bool>(), 42),
        ) {
            let clean: Vec<u32> = (0..9).cycle().take(rows * len).collect();
            let noised: Vec<u32> =
                clean.iter().zip(&bits).map(|(&id, &bit)| if bit { MASK } else { id }).collect();
            let sigma: Vec<f64> = (0..rows).map(|row| 0.5 / (row + 1) as f64).collect();
            let batch = Batch {
                rows, len, input_ids: clean, noised_ids: noised.clone(), sigma: sigma.clone(),
                segment_ids: None,
            };
            let mesh = MeshShape { fsdp, ..MeshShape::default() };
            let geometry = geometry(mesh, rows, len, CHUNKS, false);
            let pass = Pass::new(&batch, 0, MASK, 10, &geometry).unwrap();
            let scored: Vec<usize> =
                (0..rows * len).filter(|&i| i % len > 0 && noised[i] == MASK).collect();
            prop_assert_eq!(pass.scored, scored.len() as u64);
            prop_assert_eq!(pass.weights.iter().filter(|&&w| w > 0.0).count(), scored.len());
            prop_assert_eq!(pass.ids.len(), geometry.rows * len);
            // A loss that names its slot's target and weight, summed by hand over the tokens.
            let losses: Vec<f32> =
                pass.targets.iter().zip(&pass.weights).map(|(&t, w)| w * (t + 1) as f32).collect();
            let mut expected = vec![0.0; rows];
            for token in scored {
                let loss = (1.0 / sigma[token / len]) * f64::from(batch.input_ids[token] + 1);
                expected[token / len] += loss;
            }
            for (ours, right) in pass.row_sums(&geometry, &losses).iter().zip(&expected) {
                prop_assert!((ours - right).abs() <= 1e-6 * right, "{} {}", ours, right);
            }
            for (list, trips) in pass.weights.chunks(geometry.capacity()).zip(&pass.trips) {
                let needed = usize::try_from(*trips).unwrap() * geometry.loss_chunk;
                prop_assert!(list[needed.min(list.len())..].iter().all(|&w| w <= 0.0));
            }
            // Two processes, each with the rows of its parts: together they have all of it.
            let cut = geometry.rows / geometry.parts * (geometry.parts / 2);
            let cut = cut.min(rows);
            let of = |from: usize, to: usize| Batch {
                rows: to - from,
                len,
                input_ids: batch.input_ids[from * len..to * len].to_vec(),
                noised_ids: noised[from * len..to * len].to_vec(),
                sigma: sigma[from..to].to_vec(),
                segment_ids: None,
            };
            let low = Pass::new(&of(0, cut), 0, MASK, 10, &geometry).unwrap();
            let high = Pass::new(&of(cut, rows), cut, MASK, 10, &geometry).unwrap();
            let both = |a: &[i32], b: &[i32]| -> Vec<i32> {
                a.iter().zip(b).map(|(a, b)| a + b).collect()
            };
            prop_assert_eq!(both(&low.ids, &high.ids), pass.ids.clone());
            prop_assert_eq!(both(&low.places, &high.places), pass.places.clone());
            prop_assert_eq!(both(&low.targets, &high.targets), pass.targets.clone());
            prop_assert_eq!(both(&low.trips, &high.trips), pass.trips.clone());
            let sums = [low.row_sums(&geometry, &losses), high.row_sums(&geometry, &losses)];
            prop_assert_eq!(sums.concat(), pass.row_sums(&geometry, &losses));
        }
    }

    #[test]
    fn a_target_beyond_the_vocabulary_is_refused() {
        let batch = Batch {
            rows: 1,
            len: 2,
            input_ids: vec![1, 12],
            noised_ids: vec![1, MASK],
            sigma: vec![0.5],
            segment_ids: None,
        };
        let geometry = geometry(MeshShape::default(), 1, 2, CHUNKS, false);
        let error = Pass::new(&batch, 0, MASK, 10, &geometry).unwrap_err();
        assert!(error.to_string().contains("target 12"), "{error}");
    }
}
