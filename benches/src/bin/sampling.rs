//! Ways of sampling on the same held-out rows of a post-training set, in turns.
//!
//!     sampling CHECKPOINT SHARD_SET HELD_OUT ROWS [ROWS_WRITTEN ["WAY;WAY…"]]
//!
//! `HELD_OUT` is the manifest's `data.held_out`. Two tasks a row: write the answer (masks from the end of
//! the prompt to the end of the row), and fill holes of several lengths, one after the other, in the middle
//! of the known answer. Rows of holes end with the answer, or have its padding too. The base is the plain sampler: a whole forward a
//! step, as many steps as masks, `entropy`, temperature 0. Writing takes long: with `ROWS_WRITTEN` only so
//! many rows are written.
//!
//! Prints a JSON line for each way; `fill` has the holes by length. `nll` is how well the model likes what was written, in nats a token:
//! every fourth token of the answer is masked, four times, and the probability of what stood there is
//! taken. `answer_tokens` is how long the answers are, `same_tokens` the share of the base's tokens.

use coda_shards::{Order, ShardSet};
use coda_trainer::{
    engine::{CpuDecoder, CpuEngine, Engine, Ids},
    model::RecomputePolicy,
    sample::{
        Accept, Cache, Decoding, Denoiser, Sampler, SamplingModel, Tally, denoise, denoise_rows,
    },
    threads::share_this_thread,
};
use serde_json::{Value, json};
use std::{error::Error, path::Path, time::Instant};

const USAGE: &str =
    "usage: sampling CHECKPOINT SHARD_SET HELD_OUT ROWS [ROWS_WRITTEN [\"WAY;WAY…\"]]";

/// Tokens in a hole, and whether the row keeps its padding.
const HOLES: [(usize, bool); 6] =
    [(3, false), (8, false), (16, false), (32, false), (8, true), (32, true)];

/// A way of sampling; without settings the plain sampler.
struct Way {
    name: &'static str,
    decoding: Option<Decoding>,
    write: Sums,
    fill: [Sums; HOLES.len()],
}

#[derive(Default)]
struct Sums {
    seconds: f64,
    cpu: f64,
    forwards: u64,
    computed: u64,
    /// Mean negative log likelihood of each output.
    nll: Vec<f64>,
    tokens: usize,
    same: usize,
    exact: usize,
    rows: usize,
}

/// What is filled, and what stood there.
struct Task {
    ids: Vec<u32>,
    wanted: Vec<u32>,
    open: bool,
}

fn ways() -> Vec<Way> {
    let of = |block_length, cache, accept| {
        Some(Decoding { sampler: Sampler::default(), accept, block_length, cache })
    };
    let (some, schedule, sure) = (Some(32), Accept::Schedule, Accept::Threshold(0.9));
    [
        ("plain", None),
        ("plain, our decoder", of(None, Cache::None, schedule)),
        ("threshold 0.9", of(None, Cache::None, sure)),
        ("blocks of 32", of(some, Cache::None, schedule)),
        ("blocks of 32, prefix", of(some, Cache::Prefix, schedule)),
        ("blocks of 32, dual", of(some, Cache::Dual, schedule)),
        ("blocks of 32, dual, threshold 0.9", of(some, Cache::Dual, sure)),
        ("blocks of 32, dual, factor 0.5", of(some, Cache::Dual, Accept::Factor(0.5))),
        ("blocks of 128, dual, threshold 0.9", of(Some(128), Cache::Dual, sure)),
        ("fitted, prefix, threshold 0.9", of(None, Cache::Prefix, sure)),
        ("fitted, dual", of(None, Cache::Dual, schedule)),
        ("fitted, dual, threshold 0.9", of(None, Cache::Dual, sure)),
        ("fitted, dual, threshold 0.7", of(None, Cache::Dual, Accept::Threshold(0.7))),
        ("fitted, dual, threshold 0.5", of(None, Cache::Dual, Accept::Threshold(0.5))),
        ("fitted, dual, factor 1", of(None, Cache::Dual, Accept::Factor(1.0))),
    ]
    .map(|(name, decoding)| Way {
        name,
        decoding,
        write: Sums::default(),
        fill: Default::default(),
    })
    .into()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    share_this_thread();
    let (checkpoint, shards, held_out, rows, more) = match &arguments[..] {
        [checkpoint, shards, held_out, rows, more @ ..] if more.len() <= 2 => {
            (checkpoint, shards, held_out, rows, more)
        }
        _ => return Err(USAGE.into()),
    };
    let written = more.first().unwrap_or(rows);
    let written: usize = written.parse()?;
    let model = SamplingModel::open(Path::new(checkpoint)).map_err(|error| error.render())?;
    let set = ShardSet::open(shards)?;
    let order = Order::new(17, &set.source_ranges(held_out.parse()?))?;
    let mut ways = ways();
    if let Some(wanted) = more.get(1) {
        ways.retain(|way| way.decoding.is_none() || wanted.split(';').any(|name| name == way.name));
    }
    for (turn, row) in order.held_out_rows().take(rows.parse()?).enumerate() {
        let row = set.row(row)?;
        let (prefix, valid) = (row.prefix_len as usize, row.valid_len as usize);
        let mask = model.controls.mask;
        let mut write = row.tokens.to_vec();
        write[prefix..].fill(mask);
        let write = Task { ids: write, wanted: Vec::new(), open: true };
        let fill = HOLES.map(|(hole, padded)| {
            (valid >= prefix + 2 * hole).then(|| {
                let at = (prefix + valid - hole) / 2;
                let len = if padded { row.tokens.len() } else { valid };
                let mut ids = row.tokens[..len].to_vec();
                ids[at..at + hole].fill(mask);
                Task { ids, wanted: row.tokens[at..at + hole].to_vec(), open: false }
            })
        });
        // The plain way comes first, since the others are compared with what it wrote; they take turns.
        let mut base = Vec::new();
        let others = ways.len() - 1;
        for at in std::iter::once(0).chain((0..others).map(|i| 1 + (turn + i) % others)) {
            let Way { decoding, write: sums, fill: filled, .. } = &mut ways[at];
            if turn < written {
                let ids = measure(&model, &write, *decoding, &base, sums)?;
                if at == 0 {
                    base = ids;
                }
            }
            for (task, sums) in fill.iter().zip(filled) {
                if let Some(task) = task {
                    measure(&model, task, *decoding, &[], sums)?;
                }
            }
        }
    }
    for Way { name, decoding, write, fill } in &ways {
        let fill: serde_json::Map<String, Value> =
            HOLES.iter().zip(fill).map(|(hole, sums)| (format!("{hole:?}"), sums.json())).collect();
        let line = json!({"way": name, "settings": decoding, "write": write.json(), "fill": fill});
        println!("{line}");
    }
    Ok(())
}

/// Samples one task in one way and adds what it took; the ids.
fn measure(
    model: &SamplingModel,
    task: &Task,
    decoding: Option<Decoding>,
    base: &[u32],
    sums: &mut Sums,
) -> Result<Vec<u32>, Box<dyn Error>> {
    let (clock, cpu) = (Instant::now(), cpu_seconds());
    let (ids, tally) = run(model, task, decoding)?;
    sums.seconds += clock.elapsed().as_secs_f64();
    sums.cpu += cpu_seconds() - cpu;
    sums.forwards += tally.forwards;
    sums.computed += tally.computed;
    sums.rows += 1;
    let mask = model.controls.mask;
    let first = task.ids.iter().position(|&id| id == mask).ok_or("nothing is masked")?;
    let end = if task.open {
        let end = ids[first..].iter().position(|id| model.controls.ends.contains(id));
        end.map_or(ids.len(), |end| first + end + 1)
    } else {
        first + task.wanted.len()
    };
    sums.tokens += end - first;
    sums.exact += usize::from(!task.wanted.is_empty() && ids[first..end] == task.wanted);
    let pairs = ids[first..end].iter().zip(base.get(first..).unwrap_or_default());
    sums.same += pairs.filter(|(a, b)| a == b).count();
    sums.nll.push(dislike(model, &ids[..end], first)?);
    Ok(ids)
}

fn run(
    model: &SamplingModel,
    task: &Task,
    decoding: Option<Decoding>,
) -> Result<(Vec<u32>, Tally), Box<dyn Error>> {
    let mask = model.controls.mask;
    let masks = task.ids.iter().filter(|&&id| id == mask).count();
    let steps = u32::try_from(masks)?;
    if let Some(mut decoding) = decoding {
        decoding.sampler.steps = steps;
        let mut decoder = CpuDecoder::new(&model.config, &model.params);
        let row = Denoiser::new(task.ids.clone(), mask, decoding, 0, &model.controls.ends);
        let mut rows = [row];
        denoise_rows(&mut decoder, &mut rows, |_, _| {})?;
        return Ok((rows[0].ids().to_vec(), rows[0].tally()));
    }
    let mut engine = CpuEngine::new(model.config.clone(), RecomputePolicy::None);
    let (mut ids, mut tally) = (task.ids.clone(), Tally::default());
    let sampler = Sampler { steps, ..Sampler::default() };
    denoise(
        &mut ids,
        mask,
        &sampler,
        0,
        |ids, positions| {
            tally.forwards += 1;
            tally.computed += ids.len() as u64;
            let input = Ids { rows: 1, len: ids.len(), ids, segment_ids: None };
            engine.logits(&model.params, &input, Some(positions))
        },
        |_| {},
    )?;
    Ok((ids, tally))
}

/// The mean negative log likelihood of the tokens from `first` on, each with a quarter of them masked.
fn dislike(model: &SamplingModel, ids: &[u32], first: usize) -> Result<f64, Box<dyn Error>> {
    let mut engine = CpuEngine::new(model.config.clone(), RecomputePolicy::None);
    let mut sum = 0.0;
    for phase in 0..4 {
        let places: Vec<usize> = (first + phase..ids.len()).step_by(4).collect();
        if places.is_empty() {
            continue;
        }
        let mut masked = ids.to_vec();
        for &at in &places {
            masked[at] = model.controls.mask;
        }
        let input = Ids { rows: 1, len: ids.len(), ids: &masked, segment_ids: None };
        let sources: Vec<usize> = places.iter().map(|at| at - 1).collect();
        let logits = engine.logits(&model.params, &input, Some(&sources))?;
        for (row, &at) in logits.chunks_exact(model.config.vocab_size).zip(&places) {
            let total: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
            sum += total.ln() - f64::from(row[ids[at] as usize]);
        }
    }
    Ok(sum / (ids.len() - first) as f64)
}

impl Sums {
    fn json(&self) -> serde_json::Value {
        let n = self.nll.len() as f64;
        let mean = self.nll.iter().sum::<f64>() / n;
        let variance = self.nll.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        json!({"rows": self.rows, "seconds": self.seconds, "cpu_seconds": self.cpu,
               "forwards": self.forwards, "computed": self.computed, "nll": mean,
               "nll_error": (variance / n).sqrt(), "answer_tokens": self.tokens,
               "same_tokens": self.same as f64 / self.tokens as f64, "exact": self.exact})
    }
}

/// CPU seconds of this process so far, user and system, on all threads.
fn cpu_seconds() -> f64 {
    // Fields 14 and 15, counted after the name, which may hold spaces; in hundredths of a second.
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("a state").split(' ').collect();
    let hundredths = |at: usize| fields[at].parse::<f64>().expect("a number");
    (hundredths(11) + hundredths(12)) / 100.0
}
