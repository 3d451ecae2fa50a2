//! Which row a position of training reads: a pure function, in O(1), without any state.

use coda_random::{Permutation, Purpose};
use std::sync::Arc;

/// Positions per mixing cycle.
const CYCLE: u32 = 1 << 16;
/// Epochs, as far as draws tell them apart (the counter gives them 24 bits).
const EPOCHS: u64 = 1 << 24;

/// The rows of one source, and how often they are wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SourceRange {
    /// Its first row, counted over the whole set.
    pub first_row: u64,
    /// Its number of rows.
    pub rows: u64,
    /// Its share of the positions, in relation to the other weights; `None` for all sources:
    /// proportional to rows.
    pub weight: Option<f64>,
    /// How many rows at its end are never trained on.
    pub held_out_rows: u64,
}

/// What a position of training reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The row, counted over the whole set.
    pub row: u64,
    /// How often this row's source (without weights: the whole set) was gone through before, modulo
    /// 2^24. Part of the key of every draw, so that a row is masked otherwise each time.
    pub epoch: u32,
}

/// Why no order can be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// No row may be trained on.
    #[error("there are no rows to train on: {rows} rows, {held_out} of them held out")]
    NoRows {
        /// All rows.
        rows: u64,
        /// Rows held out.
        held_out: u64,
    },
    /// A source holds out more rows than it has.
    #[error("source {source_index} holds out {held_out} of its {rows} rows")]
    HeldOut {
        /// The source.
        source_index: usize,
        /// Rows it has.
        rows: u64,
        /// Rows to hold out.
        held_out: u64,
    },
    /// Some sources have a weight and others have none.
    #[error("source {source_index} has no weight, but other sources have one")]
    MixedWeights {
        /// The first source without a weight.
        source_index: usize,
    },
    /// A weight is negative or no number, or all are 0.
    #[error("the weight {weight} of source {source_index} cannot be used")]
    BadWeight {
        /// The source.
        source_index: usize,
        /// Its weight.
        weight: f64,
    },
    /// A source is wanted that has no rows to train on.
    #[error("source {source_index} has the weight {weight}, but no rows to train on")]
    NothingToWeigh {
        /// The source.
        source_index: usize,
        /// Its weight.
        weight: f64,
    },
    /// A weight is so small beside the others that its source would never be read.
    #[error("the weight {weight} of source {source_index} is less than 1 of 65536 positions")]
    TooLight {
        /// The source.
        source_index: usize,
        /// Its weight.
        weight: f64,
    },
}

impl OrderError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoRows { .. } | Self::NothingToWeigh { .. } => {
                "ingest more data, shorten data.row_length, or lower data.held_out"
            }
            Self::HeldOut { .. } => "hold out no more rows than there are",
            Self::MixedWeights { .. } => "give every source a weight, or none",
            Self::BadWeight { .. } => "weights are at least 0, and one is above 0",
            Self::TooLight { .. } => "set the weight to 0 or raise it",
        };
        Some(hint.to_owned())
    }
}

/// How many rows of a source are held out: `ceil(fraction · rows)`, the product in f64.
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the product is clamped to 0..=rows"
)]
pub fn held_out_rows(rows: u64, fraction: f64) -> u64 {
    ((fraction.clamp(0.0, 1.0) * rows as f64).ceil() as u64).min(rows)
}

/// The order of training rows over all epochs.
///
/// Position `i` of the run always reads `at(i)`, however the positions are dealt to workers; the
/// state of a stopped run is the next position.
///
/// * Without weights, epoch `i / n` goes through all `n` training rows by a keyed permutation.
/// * With weights, each cycle of 65,536 positions gives every source a fixed number of them
///   (largest remainder), dealt by a keyed permutation, the same for each cycle; each source goes
///   through its own rows, epoch by epoch, by a keyed permutation per epoch of that source.
#[derive(Clone, Debug)]
pub struct Order {
    seed: u64,
    ranges: Vec<SourceRange>,
    /// Before each source, how many units lie: training rows (without weights) or slots of a cycle
    /// (with weights); one more at the end for the sum.
    starts: Vec<u64>,
    deal: Option<Arc<Deal>>,
    train_rows: u64,
}

/// How the positions of a cycle are dealt to the sources.
#[derive(Debug)]
struct Deal {
    /// For each position the slot it holds. The slots of a source lie together, and its positions
    /// hold them in ascending order: the slot's place among them is the rank of the position.
    slots: Vec<u32>,
    /// For each slot its position.
    positions: Vec<u32>,
}

impl Order {
    /// The order for these sources under this seed.
    ///
    /// # Errors
    /// If the weights cannot be used or there is nothing to read.
    pub fn new(seed: u64, ranges: &[SourceRange]) -> Result<Self, OrderError> {
        for (source_index, range) in ranges.iter().enumerate() {
            if range.held_out_rows > range.rows {
                let (rows, held_out) = (range.rows, range.held_out_rows);
                return Err(OrderError::HeldOut { source_index, rows, held_out });
            }
        }
        let train_rows = ranges.iter().map(SourceRange::train_rows).sum();
        if train_rows == 0 {
            let rows = ranges.iter().map(|range| range.rows).sum();
            let held_out = ranges.iter().map(|range| range.held_out_rows).sum();
            return Err(OrderError::NoRows { rows, held_out });
        }
        let weighted = ranges.iter().any(|range| range.weight.is_some());
        let units: Vec<u64> = if weighted {
            quotas(ranges)?
        } else {
            ranges.iter().map(SourceRange::train_rows).collect()
        };
        let mut starts = vec![0];
        starts.extend(units.iter().scan(0, |sum, units| {
            *sum += units;
            Some(*sum)
        }));
        let deal = weighted.then(|| Arc::new(Deal::new(seed, &starts)));
        Ok(Self { seed, ranges: ranges.to_vec(), starts, deal, train_rows })
    }

    /// What position `i` reads.
    #[must_use]
    pub fn at(&self, i: u64) -> Position {
        match &self.deal {
            Some(deal) => self.weighted_at(deal, i),
            None => self.plain_at(i),
        }
    }

    /// The first position at or after `from` that reads `row`, with what it reads; nothing when
    /// `row` is held out, unknown, or of a source of weight 0.
    #[must_use]
    pub fn next_visit(&self, row: u64, from: u64) -> Option<(u64, Position)> {
        let (source, range) = self.ranges.iter().enumerate().find(|(_, range)| {
            (range.first_row..range.first_row + range.train_rows()).contains(&row)
        })?;
        let own = row - range.first_row;
        // Rows of an epoch, the domain of its permutation, and the row's number within it.
        let (rows, domain, unit) = match self.deal {
            Some(_) => (range.train_rows(), domain_of(source), own),
            None => (self.train_rows, 0, self.starts[source] + own),
        };
        let position_of = |pick: u64| match &self.deal {
            Some(deal) => {
                let quota = self.quota(source);
                (quota > 0).then(|| deal.position(pick / quota, self.starts[source] + pick % quota))
            }
            None => Some(pick),
        };
        // The epoch under way at `from`, or, within the same cycle, one a little later.
        let first_pick = match &self.deal {
            Some(_) => from / u64::from(CYCLE) * self.quota(source),
            None => from,
        };
        let mut count = first_pick / rows;
        loop {
            let order = self.permutation(Purpose::RowOrder, domain, epoch(count), rows);
            let i = position_of(count * rows + order.inverse(unit))?;
            if i >= from {
                return Some((i, Position { row, epoch: epoch(count) }));
            }
            count += 1;
        }
    }

    /// How many rows may be trained on.
    #[must_use]
    pub const fn train_rows(&self) -> u64 {
        self.train_rows
    }

    /// The rows that are never trained on, ascending.
    pub fn held_out_rows(&self) -> impl Iterator<Item = u64> + '_ {
        self.ranges.iter().flat_map(|range| {
            let end = range.first_row + range.rows;
            end - range.held_out_rows..end
        })
    }

    /// How many of each 65,536 positions every source gets; `None` without weights.
    #[must_use]
    pub fn quotas(&self) -> Option<Vec<u64>> {
        self.deal.as_ref().map(|_| (0..self.ranges.len()).map(|s| self.quota(s)).collect())
    }

    fn plain_at(&self, i: u64) -> Position {
        let epoch = epoch(i / self.train_rows);
        let order = self.permutation(Purpose::RowOrder, 0, epoch, self.train_rows);
        let unit = order.at(i % self.train_rows);
        let source = self.source_of(unit);
        Position { row: self.ranges[source].first_row + (unit - self.starts[source]), epoch }
    }

    fn weighted_at(&self, deal: &Deal, i: u64) -> Position {
        let (cycle, slot) = deal.slot(i);
        let source = self.source_of(slot);
        let pick = cycle * self.quota(source) + (slot - self.starts[source]);
        let range = &self.ranges[source];
        let rows = range.train_rows();
        let epoch = epoch(pick / rows);
        let order = self.permutation(Purpose::RowOrder, domain_of(source), epoch, rows);
        Position { row: range.first_row + order.at(pick % rows), epoch }
    }

    /// Slots of a source in each cycle (with weights).
    fn quota(&self, source: usize) -> u64 {
        self.starts[source + 1] - self.starts[source]
    }

    fn permutation(&self, purpose: Purpose, domain: u32, epoch: u32, n: u64) -> Permutation {
        Permutation::new(self.seed, purpose, domain, epoch, n)
    }

    /// The source whose units hold `unit`.
    fn source_of(&self, unit: u64) -> usize {
        self.starts.partition_point(|&start| start <= unit) - 1
    }
}

impl Deal {
    fn new(seed: u64, starts: &[u64]) -> Self {
        let shuffled = Permutation::new(seed, Purpose::Mixing, 0, 0, u64::from(CYCLE));
        let mut next = starts.to_vec();
        let mut slots = Vec::with_capacity(CYCLE as usize);
        let mut positions = vec![0; CYCLE as usize];
        for position in 0..CYCLE {
            let drawn = shuffled.at(u64::from(position));
            let source = starts.partition_point(|&start| start <= drawn) - 1;
            let slot = u32::try_from(next[source]).expect("a slot is below 65536");
            next[source] += 1;
            slots.push(slot);
            positions[slot as usize] = position;
        }
        Self { slots, positions }
    }

    /// The cycle and the slot of position `i`.
    #[allow(clippy::cast_possible_truncation, reason = "the remainder is below 65536")]
    fn slot(&self, i: u64) -> (u64, u64) {
        let at = (i % u64::from(CYCLE)) as usize;
        (i / u64::from(CYCLE), u64::from(self.slots[at]))
    }

    /// The position of a slot in a cycle.
    #[allow(clippy::cast_possible_truncation, reason = "a slot is below 65536")]
    fn position(&self, cycle: u64, slot: u64) -> u64 {
        cycle * u64::from(CYCLE) + u64::from(self.positions[slot as usize])
    }
}

/// The domain of a source's own permutations; 0 belongs to the set as a whole.
fn domain_of(source: usize) -> u32 {
    u32::try_from(source + 1).expect("a set has at most 65536 sources")
}

impl SourceRange {
    /// Rows that may be trained on; they come first.
    const fn train_rows(&self) -> u64 {
        self.rows - self.held_out_rows
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the remainder is below 2^24")]
const fn epoch(count: u64) -> u32 {
    (count % EPOCHS) as u32
}

/// Deals the positions of a cycle to the sources by their weights: the whole part of each share,
/// then one more to the largest remainders (ties: the earlier source) until the cycle is full.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share lies in 0..=65536"
)]
fn quotas(ranges: &[SourceRange]) -> Result<Vec<u64>, OrderError> {
    let mut weights = Vec::with_capacity(ranges.len());
    for (source_index, range) in ranges.iter().enumerate() {
        let weight = range.weight.ok_or(OrderError::MixedWeights { source_index })?;
        if !weight.is_finite() || weight < 0.0 {
            return Err(OrderError::BadWeight { source_index, weight });
        }
        if weight > 0.0 && range.train_rows() == 0 {
            return Err(OrderError::NothingToWeigh { source_index, weight });
        }
        weights.push(weight);
    }
    let sum: f64 = weights.iter().sum();
    if sum <= 0.0 || !sum.is_finite() {
        return Err(OrderError::BadWeight { source_index: 0, weight: weights[0] });
    }
    let shares: Vec<f64> = weights.iter().map(|weight| weight / sum * f64::from(CYCLE)).collect();
    let mut quotas: Vec<u64> = shares.iter().map(|share| share.floor() as u64).collect();
    let mut by_remainder: Vec<usize> = (0..shares.len()).filter(|&i| weights[i] > 0.0).collect();
    let remainder = |i: usize| shares[i] - shares[i].floor();
    by_remainder.sort_by(|&a, &b| remainder(b).total_cmp(&remainder(a)).then(a.cmp(&b)));
    let missing = u64::from(CYCLE) - quotas.iter().sum::<u64>();
    for &i in by_remainder.iter().take(missing as usize) {
        quotas[i] += 1;
    }
    for (source_index, (&weight, &quota)) in weights.iter().zip(&quotas).enumerate() {
        if weight > 0.0 && quota == 0 {
            return Err(OrderError::TooLight { source_index, weight });
        }
    }
    Ok(quotas)
}
