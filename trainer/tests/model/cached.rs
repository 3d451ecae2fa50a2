//! Forwards of parts of rows over kept keys and values, against the f64 reference, whose memory is as
//! old as the definition says.

use super::{
    MASK, batch, config, params,
    reference::{Memory, Reference},
};
use coda_trainer::{
    engine::{CpuDecoder, CpuEngine, Decoder, Engine, EngineError, Ids, Span},
    model::{ModelConfig, RecomputePolicy},
};
use std::ops::Range;

fn wide() -> ModelConfig {
    ModelConfig { hidden_size: 48, intermediate_size: 96, head_dim: 16, ..config(false, 2) }
}

fn row(len: usize, number: usize) -> Vec<u32> {
    batch(number + 1, len, false).noised_ids[number * len..].to_vec()
}

fn logits(decoder: &mut dyn Decoder, slot: usize, row: &[u32], window: Range<usize>) -> Vec<f32> {
    let outputs: Vec<usize> = window.clone().collect();
    decoder.decode(&[Span { slot, row, window, outputs: &outputs }]).expect("runs")
}

fn close(what: &str, got: &[f32], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*got) - want).abs() < 2e-4, "{what}, {at}: {got}, reference {want}");
    }
}

#[test]
fn windows_read_what_earlier_forwards_left() {
    for (tied, kv_heads) in [(true, 1), (false, 2), (false, 4)] {
        let config = config(tied, kv_heads);
        let params = params(&config);
        let reference = Reference::new(&config, &params);
        let (mut decoder, mut memory) = (CpuDecoder::new(&config, &params), Memory::new());
        let mut ids = row(23, 0);
        // A fill, two forwards of a block, one of what follows, one of a single token; ids change
        // between them, inside and outside of what is computed next.
        for (step, window) in [0..23, 7..15, 7..15, 12..23, 4..5, 0..23].into_iter().enumerate() {
            let got = logits(&mut decoder, 3, &ids, window.clone());
            close(&format!("{window:?}"), &got, &reference.window(&ids, window, &mut memory));
            for at in [2, 8, 13, 20] {
                ids[at] = (ids[at] + step as u32 + 1) % MASK;
            }
        }
    }
}

#[test]
fn a_window_over_the_whole_row_is_the_plain_forward_bit_for_bit() {
    for config in [config(true, 2), wide()] {
        let params = params(&config);
        let mut engine = CpuEngine::new(config, RecomputePolicy::None);
        let mut decoder = engine.decoder(&params).expect("memory").expect("the CPU has one");
        // A row of two or three tokens is padded, so that it goes through the kernels of longer ones.
        for len in [31, 300] {
            let row = row(len, 0);
            let input = Ids { rows: 1, len, ids: &row, segment_ids: None };
            let plain = engine.logits(&params, &input, None).expect("runs");
            // The second time the slot is full already; a slot may also be filled by another length.
            for _ in 0..2 {
                assert_eq!(logits(decoder.as_mut(), 0, &row, 0..len), plain, "{len} tokens");
            }
        }
    }
}

#[test]
fn company_changes_no_bit() {
    for config in [config(true, 2), wide()] {
        let params = params(&config);
        let lengths = [5, 40, 17, 290];
        let rows: Vec<Vec<u32>> =
            lengths.iter().enumerate().map(|(number, &len)| row(len, number)).collect();
        let windows: [Range<usize>; 4] = [3..4, 8..40, 0..17, 250..290];
        let outputs: Vec<Vec<usize>> =
            windows.iter().map(|window| window.clone().step_by(3).collect()).collect();
        let whole = |index: usize| Span {
            slot: index,
            row: &rows[index],
            window: 0..lengths[index],
            outputs: &[],
        };
        let part = |index: usize| Span {
            window: windows[index].clone(),
            outputs: &outputs[index],
            ..whole(index)
        };
        let mut together = CpuDecoder::new(&config, &params);
        together.decode(&[whole(0), whole(1), whole(3)]).expect("runs");
        let got = together.decode(&[part(3), part(0), part(2), part(1)]).expect("runs");
        let alone: Vec<f32> = [3, 0, 2, 1]
            .into_iter()
            .flat_map(|index| {
                let mut decoder = CpuDecoder::new(&config, &params);
                decoder.decode(&[whole(index)]).expect("runs");
                decoder.decode(&[part(index)]).expect("runs")
            })
            .collect();
        assert_eq!(got, alone);
    }
}

#[test]
fn spans_that_do_not_fit_are_refused_by_name() {
    let config = config(true, 2);
    let params = params(&config);
    let mut decoder = CpuDecoder::new(&config, &params);
    let (long, short) = (row(9, 0), row(6, 0));
    logits(&mut decoder, 1, &long, 0..9);
    let span = Span { slot: 1, row: &long, window: 2..5, outputs: &[3] };
    let bad = [37];
    let cases = [
        (vec![Span { window: 4..4, ..span.clone() }], "window 4..4"),
        (vec![Span { window: 4..10, ..span.clone() }], "not in a row of 9"),
        (vec![Span { outputs: &[3, 5], ..span.clone() }], "output 5"),
        (vec![Span { slot: 2, ..span.clone() }], "slot 2: a part of a row"),
        (vec![Span { row: &short, ..span.clone() }], "slot 1: a part of a row"),
        (vec![span.clone(), span.clone()], "twice"),
        (vec![Span { slot: 4, row: &bad, window: 0..1, outputs: &[] }], "id 37"),
    ];
    for (spans, word) in cases {
        let error = decoder.decode(&spans).expect_err("refused");
        assert!(matches!(error, EngineError::Batch(_)));
        assert!(error.to_string().contains(word), "{error}");
    }
    decoder.decode(std::slice::from_ref(&span)).expect("a refusal leaves the slots alone");
    decoder.forget(1);
    decoder.decode(&[span]).expect_err("nothing is kept any more");
}
