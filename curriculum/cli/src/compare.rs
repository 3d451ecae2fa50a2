//! Two runs beside each other, by the share of the run.

use crate::{
    clocks::Waits,
    run::Resolved,
    show::Course,
    table::{number, percent},
    timeline::{Run, Sampler, Values, line_starts},
};
use coda_manifests::Stage;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The largest differences are looked for at so many points, besides the edges of the lines.
const SAMPLES: u64 = 200;

/// All that is different. The names are those of the JSON output.
#[derive(Debug, Serialize)]
pub(crate) struct Diff {
    pub(crate) a: String,
    pub(crate) b: String,
    pub(crate) same: bool,
    /// How long the schedules with a hold wait in A and B.
    #[serde(skip_serializing_if = "no_waits")]
    pub(crate) waits: [Option<Waits>; 2],
    pub(crate) keys: Vec<Changed>,
    pub(crate) blocks: Vec<Block>,
}

fn no_waits(waits: &[Option<Waits>; 2]) -> bool {
    waits.iter().all(Option::is_none)
}

/// A key that decides what the model sees and has another value.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Changed {
    pub(crate) key: String,
    pub(crate) a: Option<Value>,
    pub(crate) b: Option<Value>,
}

/// The rows of sources without schedules of their own (`source` is absent), or of one that has some.
#[derive(Debug, Serialize)]
pub(crate) struct Block {
    pub(crate) source: Option<String>,
    /// The points at which a line begins in either run and the values are not the same.
    pub(crate) lines: Vec<Pair>,
    /// Where the two are farthest apart, by what is compared.
    pub(crate) largest: Vec<Apart>,
    /// Points of the whole run, for pictures.
    #[serde(skip)]
    pub(crate) points: Vec<Pair>,
}

/// Both runs at one share of the run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pair {
    /// From 0 to 1.
    pub(crate) at: f64,
    pub(crate) a: Moment,
    pub(crate) b: Moment,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Moment {
    pub(crate) step: u64,
    #[serde(flatten)]
    pub(crate) values: Values,
}

#[derive(Debug, Serialize)]
pub(crate) struct Apart {
    pub(crate) what: &'static str,
    pub(crate) at: f64,
    pub(crate) a: f64,
    pub(crate) b: f64,
}

/// What is compared: its name, how it is shown, and its value.
pub(crate) type Compared = (&'static str, fn(f64) -> String, fn(&Values) -> f64);

pub(crate) const COMPARED: [Compared; 8] = [
    ("masked fraction", percent, |v| v.expected_masked_fraction),
    ("scored tokens per row", whole, |v| v.expected_scored_tokens),
    ("loss weight", number, |v| v.expected_loss_weight),
    ("share of S1", percent, |v| v.s1_share),
    ("share of S2", percent, |v| v.s2_share),
    ("share of S3", percent, |v| v.s3_share),
    ("lowest noise level", number, |v| v.sampling_eps),
    ("share of a prompt protected", percent, |v| v.conditioned_span_ratio),
];

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

pub(crate) fn runs(a: (String, &Resolved), b: (String, &Resolved)) -> Diff {
    let keys = keys(&decisive(a.1), &decisive(b.1));
    let curricula = [&a.1.recipe.curriculum, &b.1.recipe.curriculum];
    let own: BTreeSet<&String> = curricula.iter().flat_map(|c| c.sources.keys()).collect();
    let mut blocks = vec![block(a.1, b.1, None)];
    blocks.extend(own.into_iter().map(|name| block(a.1, b.1, Some(name))));
    // With clocks that runs have recorded, the same keys may come to different schedules.
    let same = keys.is_empty() && blocks.iter().all(|block| block.largest.is_empty());
    let waits = [a.1, b.1].map(|side| (!side.ways.is_empty()).then_some(side.ways.waits));
    Diff { a: a.0, b: b.0, same, waits, keys, blocks }
}

/// The keys that decide what the model sees, with what stage and profile fill in.
fn decisive(resolved: &Resolved) -> BTreeMap<String, Value> {
    let (manifest, recipe) = (&resolved.manifest, &resolved.recipe);
    let mut keys = BTreeMap::new();
    let mut put = |key: &str, value: Value| {
        flatten(key, value, &mut keys);
    };
    let curriculum = json!(recipe.curriculum);
    let schedules = ["p1", "p2", "p3", "block_sizes", "mask_blocks", "sampling_eps"];
    for key in schedules.into_iter().chain(["conditioned_span"]) {
        put(&format!("curriculum.{key}"), json!({ "": curriculum[key] }));
    }
    for (name, own) in &recipe.curriculum.sources {
        for (key, schedule) in json!(own).as_object().into_iter().flatten() {
            put(&format!("curriculum.sources.{name}.{key}"), json!({ "": schedule }));
        }
    }
    put("stage", json!(recipe.stage));
    put("profile", json!(recipe.profile));
    put("seed", json!(recipe.seed));
    put("train.steps", json!(recipe.total_steps));
    put("train.epochs", json!({ "": recipe.epochs }));
    put("train.global_batch", json!(recipe.global_batch));
    put("train.document_attention", json!(recipe.document_attention));
    put("train.score_pads", json!(recipe.score_pads));
    put("data.row_length", json!(recipe.row_length));
    if recipe.stage == Stage::Post {
        put("data.overlong", json!(recipe.overlong));
    }
    put("data.spans", json!({ "": manifest.data.spans }));
    put("data.packing", json!(manifest.data.packing));
    put("data.held_out", json!(manifest.data.held_out));
    for source in &manifest.data.sources {
        let key = format!("data.sources.{}", source.name);
        put(&format!("{key}.paths"), json!({ "": source.paths }));
        put(&format!("{key}.weight"), json!(source.weight));
        put(&format!("{key}.epochs"), json!(source.epochs));
        put(&format!("{key}.tokens"), json!(source.tokens));
    }
    keys
}

/// `{"": value}` stands for a value that stays whole; what is null is not there.
fn flatten(key: &str, value: Value, keys: &mut BTreeMap<String, Value>) {
    let whole = match value {
        Value::Object(mut map) if map.len() == 1 && map.contains_key("") => {
            map.remove("").unwrap_or_default()
        }
        value => value,
    };
    if !whole.is_null() {
        keys.insert(key.to_owned(), whole);
    }
}

fn keys(a: &BTreeMap<String, Value>, b: &BTreeMap<String, Value>) -> Vec<Changed> {
    let all: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let pair =
        |key: &String| Changed { key: key.clone(), a: a.get(key).cloned(), b: b.get(key).cloned() };
    all.into_iter().map(pair).filter(|key| key.a != key.b).collect()
}

fn block(a: &Resolved, b: &Resolved, source: Option<&String>) -> Block {
    let course = |resolved| Course::new(resolved, &resolved.ways, source.map(String::as_str));
    let (left, right): (Course<'_>, Course<'_>) = (course(a), course(b));
    left.look(|a| right.look(|b| beside(a, b, source)))
}

fn beside(a: &Run<'_>, b: &Run<'_>, source: Option<&String>) -> Block {
    let (mut left, mut right) = (Sampler::new(a), Sampler::new(b));
    let mut pair = |(step_a, step_b): (u64, u64)| Pair {
        at: share(step_a, a.total_steps).max(share(step_b, b.total_steps)),
        a: Moment { step: step_a, values: left.at(step_a) },
        b: Moment { step: step_b, values: right.at(step_b) },
    };
    let edges = edges(a, b);
    let mut lines: Vec<Pair> = edges.iter().copied().map(&mut pair).collect();
    // A line at which nothing changes in either run says nothing new.
    lines.dedup_by(|next, pair| {
        alike(&next.a.values, &pair.a.values) && alike(&next.b.values, &pair.b.values)
    });
    lines.retain(|pair| !alike(&pair.a.values, &pair.b.values));
    // The step before an edge too, so that a jump is drawn as one.
    let before = |(a, b): (u64, u64)| (a.saturating_sub(1), b.saturating_sub(1));
    let mut steps: Vec<(u64, u64)> = (0..SAMPLES)
        .map(|i| (i * a.total_steps / SAMPLES, i * b.total_steps / SAMPLES))
        .chain(edges.iter().copied().flat_map(|edge| [before(edge), edge]))
        .chain([before((a.total_steps, b.total_steps))])
        .collect();
    steps.sort_unstable();
    steps.dedup();
    let points: Vec<Pair> = steps.into_iter().map(pair).collect();
    let largest = COMPARED.iter().filter_map(|&(what, _, value)| {
        let apart = |pair: &Pair| (value(&pair.a.values) - value(&pair.b.values)).abs();
        let most = points.iter().rev().max_by(|a, b| apart(a).total_cmp(&apart(b)))?;
        (apart(most) > 0.0).then(|| Apart {
            what,
            at: most.at,
            a: value(&most.a.values),
            b: value(&most.b.values),
        })
    });
    let largest = largest.collect();
    Block { source: source.cloned(), lines, largest, points }
}

/// The learning rate is no part of what the model sees.
fn alike(a: &Values, b: &Values) -> bool {
    (&a.block_sizes, a.mask_blocks) == (&b.block_sizes, b.mask_blocks)
        && [(a.p1, b.p1), (a.p2, b.p2), (a.p3, b.p3)].into_iter().all(close)
        && COMPARED.iter().all(|(_, _, value)| close((value(a), value(b))))
}

fn close((a, b): (f64, f64)) -> bool {
    (a - b).abs() < 1e-12
}

/// The steps of both runs at which a line begins in either.
fn edges(a: &Run<'_>, b: &Run<'_>) -> Vec<(u64, u64)> {
    let other = |step: u64, of: u64, total: u64| {
        let step = u128::from(step) * u128::from(total) / u128::from(of.max(1));
        u64::try_from(step).unwrap_or(u64::MAX).min(total.saturating_sub(1))
    };
    let left = line_starts(a);
    let left = left.iter().map(|&step| (step, other(step, a.total_steps, b.total_steps)));
    let right = line_starts(b);
    let right = right.iter().map(|&step| (other(step, b.total_steps, a.total_steps), step));
    let mut edges: Vec<(u64, u64)> = left.chain(right).collect();
    edges.sort_unstable();
    edges.dedup();
    edges
}

fn share(step: u64, total: u64) -> f64 {
    step as f64 / total.max(1) as f64
}
