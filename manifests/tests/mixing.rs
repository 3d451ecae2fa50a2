//! How often the rows of a source are read, by weights and by epochs.

use coda_manifests::{Data, Manifest, Packing};
use std::path::Path;

/// Two sources with these further keys.
fn data(first: &str, second: &str) -> Data {
    let yaml = format!(
        "{{version: 1, name: x, stage: pre, tokenizer: {{path: x}}, data: {{out: x, row_length: 8, \
         sources: [{{name: a, paths: [x]{first}}}, {{name: b, paths: [x]{second}}}]}}}}"
    );
    let none: &[&str] = &[];
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("x.yaml");
    Manifest::from_yaml(&yaml, &here, none, &[]).expect("a manifest").data
}

fn rows(name: &str) -> u64 {
    if name == "a" { 100 } else { 50 }
}

#[test]
fn without_keys_every_row_is_read_once() {
    let data = data("", "");
    assert_eq!(data.packing, Packing::Concat);
    assert_eq!(data.weight_of(&data.sources[0], 100), None);
    assert_eq!(data.pass_rows(rows), 150);
    assert_eq!(data.shares(&[100, 50]), [100.0 / 150.0, 50.0 / 150.0]);
    assert_eq!(data.shares(&[0, 0]), [0.0, 0.0], "no rows, no shares, no NaN");
}

#[test]
fn epochs_are_weights_in_units_of_rows() {
    let data = data("", ", epochs: 2");
    assert_eq!(data.weight_of(&data.sources[0], 100), Some(100.0));
    assert_eq!(data.weight_of(&data.sources[1], 50), Some(100.0));
    assert_eq!(data.pass_rows(rows), 200, "100 rows once and 50 rows twice");
    assert_eq!(data.shares(&[100, 50]), [0.5, 0.5]);
}

#[test]
fn weights_are_shares_whatever_the_rows() {
    let data = data(", weight: 1", ", weight: 3");
    assert_eq!(data.weight_of(&data.sources[1], 50), Some(3.0));
    assert_eq!(data.pass_rows(rows), 150, "a pass is as long as without them");
    assert_eq!(data.shares(&[100, 50]), [0.25, 0.75]);
}
