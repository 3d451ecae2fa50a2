//! The sampler against the frozen cases of `tests/judges/sampling.py`, an independent numpy
//! implementation of method §6: every step at temperature 0, distributions above it.

use coda_trainer::sample::{Algorithm, Sampler, Step, denoise};
use serde_json::Value;
use std::{collections::BTreeMap, convert::Infallible, fs, path::Path};

const DRAWS: u64 = 20_000;

fn cases() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/frozen/sampling/cases.json");
    serde_json::from_slice(&fs::read(path).expect("the frozen cases")).expect("JSON")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

#[allow(clippy::cast_possible_truncation, reason = "fixtures fit")]
fn integer(value: &Value) -> u32 {
    value.as_u64().expect("a count") as u32
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("a list").iter().map(integer).collect()
}

#[allow(clippy::cast_possible_truncation, reason = "logits are f32")]
fn rows(value: &Value) -> Vec<Vec<f32>> {
    let row = |row: &Value| numbers(row).into_iter().map(|v| v as f32).collect();
    value.as_array().expect("rows").iter().map(row).collect()
}

fn sampler(value: &Value) -> Sampler {
    Sampler {
        steps: integer(&value["steps"]),
        eps: value["eps"].as_f64().expect("eps"),
        algorithm: value["algorithm"].as_str().expect("a name").parse().expect("an algorithm"),
        alg_temp: value["alg_temp"].as_f64().expect("alg_temp"),
        temperature: value["temperature"].as_f64().expect("temperature"),
        top_p: value["top_p"].as_f64(),
        top_k: value["top_k"].as_u64().map(|k| usize::try_from(k).expect("it fits")),
        seed: 17,
    }
}

fn run(
    ids: &[u32],
    mask: u32,
    sampler: &Sampler,
    sample: u64,
    outputs: impl Fn(&[u32]) -> Vec<Vec<f32>>,
) -> Vec<Step> {
    let (mut ids, mut steps) = (ids.to_vec(), Vec::new());
    let model = |ids: &[u32], positions: &[usize]| -> Result<Vec<f32>, Infallible> {
        let rows = outputs(ids);
        Ok(positions.iter().flat_map(|&position| rows[position].clone()).collect())
    };
    let Ok(()) = denoise(&mut ids, mask, sampler, sample, model, |step| steps.push(step.clone()));
    steps
}

#[test]
fn every_step_at_temperature_0_is_the_judges() {
    let cases = cases();
    let mask = integer(&cases["mask"]);
    let tables: Vec<Vec<Vec<Vec<f32>>>> = cases["tables"]
        .as_array()
        .expect("tables")
        .iter()
        .map(|set| set.as_array().expect("a set").iter().map(rows).collect())
        .collect();
    let greedy = cases["greedy"].as_array().expect("cases");
    assert_eq!(greedy.len(), 72);
    for case in greedy {
        let set = &tables[integer(&case["tables"]) as usize];
        let outputs = |ids: &[u32]| {
            let left = ids.iter().filter(|&&id| id == mask).count();
            set[left % set.len()].clone()
        };
        let steps = run(&ids(&case["ids"]), mask, &sampler(&case["settings"]), 0, outputs);
        let trace = case["trace"].as_array().expect("a trace");
        assert_eq!(steps.len(), trace.len());
        for (step, wanted) in steps.iter().zip(trace) {
            let found: Vec<[u32; 2]> = step
                .revealed
                .iter()
                .map(|&p| [u32::try_from(p).expect("it fits"), step.tokens[p]])
                .collect();
            let wanted: Vec<[u32; 2]> = wanted
                .as_array()
                .expect("a step")
                .iter()
                .map(|pair| [integer(&pair[0]), integer(&pair[1])])
                .collect();
            assert_eq!(found, wanted, "{}, {}, step {}", case["name"], case["settings"], step.step);
        }
    }
}

/// Counts that follow the expected shares: chi-square within five deviations of its mean, and
/// nothing where nothing may be.
fn follows(what: &str, counts: &BTreeMap<String, u64>, expected: &BTreeMap<String, f64>) {
    for key in counts.keys() {
        let p = expected.get(key).copied().unwrap_or(0.0);
        assert!(p > 0.0, "{what}: {key} was drawn, which cannot be");
    }
    let (mut square, mut cells) = (0.0, 0.0_f64);
    for (key, p) in expected.iter().filter(|(_, p)| **p * DRAWS as f64 >= 5.0) {
        let wanted = p * DRAWS as f64;
        let found = counts.get(key).copied().unwrap_or(0) as f64;
        square += (found - wanted).powi(2) / wanted;
        cells += 1.0;
    }
    let freedom = (cells - 1.0).max(1.0);
    let limit = freedom + 5.0 * (2.0 * freedom).sqrt();
    assert!(square < limit, "{what}: chi-square {square} over {cells} cells; {counts:?}");
}

#[test]
fn tokens_are_drawn_as_often_as_the_judge_says() {
    let cases = cases();
    let mask = integer(&cases["mask"]);
    for case in cases["tokens"].as_array().expect("cases") {
        let logits = &rows(&serde_json::json!([case["logits"]]))[0];
        let mut counts = BTreeMap::new();
        for sample in 0..DRAWS {
            let outputs = |_: &[u32]| vec![logits.clone(); 2];
            let steps = run(&[mask, 0], mask, &sampler(&case["settings"]), sample, outputs);
            *counts.entry(steps[0].tokens[0].to_string()).or_default() += 1;
        }
        let expected = numbers(&case["expected"]);
        let expected = expected.iter().enumerate().map(|(id, &p)| (id.to_string(), p)).collect();
        follows(&case["settings"].to_string(), &counts, &expected);
    }
}

#[test]
fn positions_are_drawn_as_often_as_the_judge_says() {
    let cases = cases();
    let mask = integer(&cases["mask"]);
    for case in cases["orders"].as_array().expect("cases") {
        let logits = rows(&case["logits"]);
        let mut counts = BTreeMap::new();
        for sample in 0..DRAWS {
            let outputs = |_: &[u32]| logits.clone();
            let start = ids(&case["ids"]);
            let steps = run(&start, mask, &sampler(&case["settings"]), sample, outputs);
            let names: Vec<String> = steps[0].revealed.iter().map(ToString::to_string).collect();
            *counts.entry(names.join(",")).or_default() += 1;
        }
        let expected = case["expected"].as_object().expect("sets");
        let expected =
            expected.iter().map(|(set, p)| (set.clone(), p.as_f64().expect("a share"))).collect();
        follows(&case["settings"].to_string(), &counts, &expected);
    }
}

#[test]
fn origin_reveals_at_the_judges_rates() {
    let cases = cases();
    let mask = integer(&cases["mask"]);
    let sampler = sampler(&cases["origin"]["settings"]);
    assert_eq!(sampler.algorithm, Algorithm::Origin);
    let rates = numbers(&cases["origin"]["rates"]);
    let start = vec![mask; 50];
    let (mut revealed, mut before) = (vec![0_u64; rates.len()], vec![0_u64; rates.len()]);
    for sample in 0..400 {
        let mut left = start.len() as u64;
        for (index, step) in
            run(&start, mask, &sampler, sample, |ids| vec![vec![0.0; 11]; ids.len()])
                .iter()
                .enumerate()
        {
            before[index] += left;
            revealed[index] += step.revealed.len() as u64;
            left -= step.revealed.len() as u64;
        }
        assert_eq!(left, 0, "everything is revealed at the end");
    }
    for ((&found, &of), &p) in revealed.iter().zip(&before).zip(&rates) {
        let error = (p * (1.0 - p) / of as f64).sqrt();
        let share = found as f64 / of as f64;
        assert!((share - p).abs() <= 5.0 * error + 1e-9, "{share} of {of}, not {p}");
    }
}
