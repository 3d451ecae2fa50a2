//! The row order: every row once per epoch, quotas kept, nothing to remember.

use coda_shards::{Order, OrderError, Position, SourceRange, held_out_rows};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn ranges(rows: &[u64], weights: Option<&[f64]>, held_out: f64) -> Vec<SourceRange> {
    let mut first_row = 0;
    let range = |(i, &rows): (usize, &u64)| {
        let weight = weights.map(|weights| weights[i]);
        let held_out_rows = held_out_rows(rows, held_out);
        let range = SourceRange { first_row, rows, weight, held_out_rows };
        first_row += rows;
        range
    };
    rows.iter().enumerate().map(range).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn each_row_once_per_epoch(
        seed: u64,
        rows in prop::collection::vec(1u64..60, 1..5),
        held_out in 0.0f64..0.5,
        epoch in 0u64..4,
        start in 0u64..200,
        world in 1u64..9,
    ) {
        let order = Order::new(seed, &ranges(&rows, None, held_out));
        let Ok(order) = order else {
            prop_assert!(rows.iter().all(|&rows| held_out_rows(rows, held_out) == rows));
            return Ok(());
        };
        let held: BTreeSet<u64> = order.held_out_rows().collect();
        let n = order.train_rows();
        prop_assert_eq!(n + held.len() as u64, rows.iter().sum::<u64>());
        let epoch_rows = |of: u64| (of * n..(of + 1) * n).map(|i| order.at(i));
        prop_assert!(epoch_rows(epoch).all(|position| u64::from(position.epoch) == epoch));
        let seen: BTreeSet<u64> = epoch_rows(epoch).map(|position| position.row).collect();
        let train = (0..rows.iter().sum()).filter(|row| !held.contains(row));
        prop_assert!(seen.into_iter().eq(train), "every training row once, no row held out");
        // Any number of workers, dealt in turn, from any point: together they read the same.
        let straight: Vec<Position> = (start..start + 24).map(|i| order.at(i)).collect();
        let mut dealt = vec![None; 24];
        for worker in 0..world {
            for i in (worker..24).step_by(usize::try_from(world).unwrap()) {
                dealt[usize::try_from(i).unwrap()] = Some(order.clone().at(start + i));
            }
        }
        prop_assert!(dealt.into_iter().flatten().eq(straight));
    }

    #[test]
    fn held_out_is_the_ceiling(rows in 0u64..1 << 40, fraction in 0.0f64..=1.0) {
        let held = held_out_rows(rows, fraction);
        prop_assert!(held <= rows);
        prop_assert!(held as f64 >= fraction * rows as f64);
        prop_assert!(held == 0 || ((held - 1) as f64) < fraction * rows as f64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn weights_are_quotas(
        seed: u64,
        rows in prop::collection::vec(1u64..3000, 1..5),
        weights in prop::collection::vec(0.001f64..10.0, 5),
        cycle in 0u64..3,
    ) {
        let ranges = ranges(&rows, Some(&weights[..rows.len()]), 0.0);
        let order = Order::new(seed, &ranges).unwrap();
        let quotas = order.quotas().unwrap();
        prop_assert_eq!(quotas.iter().sum::<u64>(), 65_536);
        let sum: f64 = weights[..rows.len()].iter().sum();
        for (quota, weight) in quotas.iter().zip(&weights) {
            prop_assert!((*quota as f64 - weight / sum * 65_536.0).abs() < 1.0);
        }
        // The epochs of a source follow each other.
        let mut last = vec![0; rows.len()];
        for i in cycle * 65_536..cycle * 65_536 + 5000 {
            let position = order.at(i);
            let source = ranges.iter().rposition(|range| range.first_row <= position.row).unwrap();
            prop_assert!(position.epoch >= last[source]);
            last[source] = position.epoch;
        }
        // Of every source, each epoch reads each row at most once; a whole one exactly once.
        let mut counts: BTreeMap<(usize, u32), BTreeMap<u64, u32>> = BTreeMap::new();
        let mut per_source = vec![0; rows.len()];
        for i in cycle * 65_536..(cycle + 1) * 65_536 {
            let position = order.at(i);
            let source = ranges
                .iter()
                .position(|range| (range.first_row..range.first_row + range.rows).contains(&position.row))
                .unwrap();
            per_source[source] += 1;
            *counts.entry((source, position.epoch)).or_default().entry(position.row).or_default() += 1;
        }
        prop_assert_eq!(&per_source, &quotas);
        for ((source, epoch), reads) in counts {
            prop_assert!(reads.values().all(|&count| count == 1));
            let (epoch, rows, quota) = (u64::from(epoch), rows[source], quotas[source]);
            let inside = cycle * quota <= epoch * rows && (epoch + 1) * rows <= (cycle + 1) * quota;
            prop_assert!(!inside || reads.len() as u64 == rows, "a whole epoch reads all rows");
        }
    }
}

proptest! {
    #[test]
    fn the_next_visit_is_the_first(
        seed: u64,
        rows in prop::collection::vec(1u64..40, 1..4),
        weights in prop::option::of(prop::collection::vec(0.1f64..10.0, 4)),
        from in 0u64..300_000,
        pick: u64,
    ) {
        let weights = weights.as_ref().map(|weights| &weights[..rows.len()]);
        let order = Order::new(seed, &ranges(&rows, weights, 0.0)).unwrap();
        let row = pick % rows.iter().sum::<u64>();
        let first = (from..from + 100_000_000).find(|&i| order.at(i).row == row).unwrap();
        prop_assert_eq!(order.next_visit(row, from), Some((first, order.at(first))));
    }
}

#[test]
fn what_is_never_read_has_no_next_visit() {
    let order = Order::new(3, &ranges(&[50, 50], Some(&[0.0, 2.0]), 0.1)).unwrap();
    assert_eq!(order.next_visit(10, 0), None, "weight 0");
    assert_eq!(order.next_visit(97, 0), None, "held out");
    assert_eq!(order.next_visit(1000, 0), None, "unknown");
    assert!(order.next_visit(60, 0).is_some());
}

/// Frozen: positions of training runs that may be resumed, and of readers in other languages.
#[test]
fn the_order_never_changes() {
    let rows = [100, 40, 7];
    let list = |weights: Option<&[f64]>| {
        let order = Order::new(17, &ranges(&rows, weights, 0.05)).unwrap();
        let at = |i| {
            let position = order.at(i);
            (position.row, position.epoch)
        };
        [0, 1, 2, 138, 139, 1_000_000, 1 << 41].map(at)
    };
    // Computed by a separate program in Python.
    let plain = [(105, 0), (37, 0), (21, 0), (121, 0), (75, 1), (68, 7194), (81, 16_173_719)];
    assert_eq!(list(None), plain);
    let weighted = [(35, 0), (101, 0), (108, 0), (131, 2), (113, 2), (62, 3007), (51, 3_532_045)];
    assert_eq!(list(Some(&[1.0, 2.0, 0.5])), weighted);
}

#[test]
fn sources_of_weight_zero_are_never_read() {
    let order = Order::new(3, &ranges(&[50, 50, 0], Some(&[0.0, 2.0, 0.0]), 0.1)).unwrap();
    assert!((0..10_000).all(|i| (50..95).contains(&order.at(i).row)));
    assert_eq!(order.held_out_rows().collect::<Vec<_>>(), [45, 46, 47, 48, 49, 95, 96, 97, 98, 99]);
}

#[test]
fn what_cannot_be_ordered_is_said() {
    let new =
        |rows: &[u64], weights: &[f64], held| Order::new(1, &ranges(rows, Some(weights), held));
    assert!(matches!(Order::new(1, &[]), Err(OrderError::NoRows { rows: 0, held_out: 0 })));
    assert!(matches!(new(&[1], &[1.0], 0.5), Err(OrderError::NoRows { rows: 1, held_out: 1 })));
    assert!(matches!(new(&[9, 1], &[1.0, 1.0], 0.1), Err(OrderError::NothingToWeigh { .. })));
    assert!(matches!(new(&[9], &[-1.0], 0.1), Err(OrderError::BadWeight { .. })));
    assert!(matches!(new(&[9], &[f64::NAN], 0.1), Err(OrderError::BadWeight { .. })));
    assert!(matches!(new(&[9], &[0.0], 0.1), Err(OrderError::BadWeight { .. })));
    assert!(matches!(
        new(&[9, 9], &[1.0, 1e-6], 0.1),
        Err(OrderError::TooLight { source_index: 1, .. })
    ));
    let mut mixed = ranges(&[9, 9], Some(&[1.0, 1.0]), 0.1);
    mixed[1].weight = None;
    let error = Order::new(1, &mixed).unwrap_err();
    assert_eq!(error, OrderError::MixedWeights { source_index: 1 });
    assert!(error.hint().is_some());
}
