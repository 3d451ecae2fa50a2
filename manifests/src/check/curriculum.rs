//! Schedules that could not be drawn from, and sources that do not exist.

use super::{Checked, problem, require, share};
use crate::{
    ConditionedSpan, Hold, Manifest, MaskBlocks, Schedule, SpanKinds, Stage, load::nearest,
};

/// The keys that a source may have for itself.
struct Schedules<'a> {
    strategies: [(&'static str, Option<&'a Schedule<f64>>); 3],
    block_sizes: Option<&'a Schedule<Vec<u32>>>,
    sampling_eps: Option<&'a Schedule<f64>>,
}

pub(super) fn check(manifest: &Manifest) -> Checked {
    let curriculum = &manifest.curriculum;
    let all = Schedules {
        strategies: [
            ("p1", curriculum.p1.as_ref()),
            ("p2", curriculum.p2.as_ref()),
            ("p3", curriculum.p3.as_ref()),
        ],
        block_sizes: curriculum.block_sizes.as_ref(),
        sampling_eps: curriculum.sampling_eps.as_ref(),
    };
    check_schedules("curriculum", &all)?;
    let mut waits = all.wait();
    if let Some(ConditionedSpan::Ratio(ratio)) = curriculum.conditioned_span {
        share("curriculum.conditioned_span.ratio", ratio, false)?;
        require(manifest.stage == Stage::Post, "curriculum.conditioned_span", || {
            "only rows of stage post have prompts".to_owned()
        })?;
    }
    check_blocks("curriculum", curriculum.mask_blocks, manifest.data.spans)?;
    let names: Vec<&str> =
        manifest.data.sources.iter().map(|source| source.name.as_str()).collect();
    for (name, own) in &curriculum.sources {
        let key = format!("curriculum.sources.{name}");
        if !names.contains(&name.as_str()) {
            let hint = match nearest(name, &names) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("the sources are {}", names.join(", ")),
            };
            return Err(problem(key, "data.sources has no source of this name").hint(&hint));
        }
        let own = Schedules {
            strategies: [("p1", own.p1.as_ref()), ("p2", own.p2.as_ref()), ("p3", own.p3.as_ref())],
            block_sizes: own.block_sizes.as_ref(),
            sampling_eps: own.sampling_eps.as_ref(),
        };
        check_schedules(&key, &own)?;
        waits |= own.wait();
    }
    if waits {
        require(manifest.data.held_out > 0.0, "data.held_out", || {
            "0 leaves no rows on which a schedule with a hold could see a loss fall".to_owned()
        })?;
        require(manifest.train.eval.every != Some(0), "train.eval.every", || {
            "0 measures no loss during the run, which a schedule with a hold waits for".to_owned()
        })?;
    }
    for (name, own) in &curriculum.sources {
        let key = format!("curriculum.sources.{name}");
        check_blocks(&key, own.mask_blocks, manifest.data.spans)?;
    }
    Ok(())
}

impl Schedules<'_> {
    /// Whether one of them waits for a loss.
    fn wait(&self) -> bool {
        let holds = |schedule: Option<&Schedule<f64>>| schedule.is_some_and(|s| s.hold().is_some());
        self.strategies.iter().any(|(_, schedule)| holds(*schedule))
            || holds(self.sampling_eps)
            || self.block_sizes.is_some_and(|schedule| schedule.hold().is_some())
    }
}

/// Blocks can follow only what ingest notes.
fn check_blocks(key: &str, blocks: Option<MaskBlocks>, noted: Option<SpanKinds>) -> Checked {
    let wanted = blocks.and_then(MaskBlocks::spans);
    let Some(missing) = wanted.and_then(|wanted| wanted.missing_in(noted)) else { return Ok(()) };
    let name = missing.name();
    let message = format!("blocks are to follow {name}, but data.spans does not have them noted");
    Err(problem(format!("{key}.mask_blocks"), message).hint(&format!(
        "set `data.spans: {name}` and ingest again; a set without spans stays as it is"
    )))
}

fn check_schedules(key: &str, schedules: &Schedules<'_>) -> Checked {
    for (name, schedule) in schedules.strategies {
        let key = format!("{key}.{name}");
        check_schedule(&key, schedule, "a probability from 0 to 1", |p| (0.0..=1.0).contains(p))?;
        check_hold(&key, schedule, true)?;
    }
    let eps = format!("{key}.sampling_eps");
    check_schedule(&eps, schedules.sampling_eps, "above 0 and at most 1", |eps| {
        *eps > 0.0 && *eps <= 1.0
    })?;
    check_hold(&eps, schedules.sampling_eps, true)?;
    let key = format!("{key}.block_sizes");
    let sizes = schedules.block_sizes;
    check_schedule(&key, sizes, "a list of sizes of 1 or more", |sizes| {
        !sizes.is_empty() && sizes.iter().all(|&size| size > 0)
    })?;
    if sizes.is_some_and(Schedule::is_ramp) {
        return Err(problem(key, "a list of sizes cannot ramp").hint(
            "use `phases: [[2, 4], [8, 16]]`, `piecewise: [[0, [4]], [500, [8]]]` or \
             `epochs: [[4], [8]]`",
        ));
    }
    check_hold(&key, sizes, false)
}

/// A hold needs a place at which to wait. `has_middle`: whether there are values between two points.
fn check_hold<T>(key: &str, schedule: Option<&Schedule<T>>, has_middle: bool) -> Checked {
    let Some((schedule, &hold)) = schedule.and_then(|s| Some((s, s.hold()?))) else {
        return Ok(());
    };
    let key = format!("{key}.hold");
    let waits = match schedule.unheld() {
        Schedule::Constant(_) | Schedule::Held { .. } => false,
        Schedule::Linear { .. } | Schedule::Cosine { .. } => {
            return Err(problem(key, "a ramp has no point at which it could wait").hint(
                "write it with points, as in `piecewise: [[0, 0.1], [500, 0.3], [1000, 0.5]]`: it \
                 waits at 500",
            ));
        }
        Schedule::Piecewise(points) if has_middle => {
            points.split_last().is_some_and(|(_, before)| before.iter().any(|(step, _)| *step > 0))
        }
        Schedule::Piecewise(points) => points.len() > 1,
        Schedule::Epochs(values) | Schedule::EpochCycle(values) | Schedule::Phases(values) => {
            values.len() > 1
        }
    };
    if !waits {
        return Err(problem(key, "the schedule has no point at which it could wait").hint(
            "phases, epochs and lists at points wait before each value but the first, numbers at each \
             point but the last and one at step 0",
        ));
    }
    let Hold { patience, min_delta, max_hold, .. } = hold;
    require(patience > 0, &format!("{key}.patience"), || "0 is not above 0".to_owned())?;
    require(max_hold > 0, &format!("{key}.max_hold"), || "0 is not above 0".to_owned())?;
    require(min_delta >= 0.0 && min_delta.is_finite(), &format!("{key}.min_delta"), || {
        format!("{min_delta} is not 0 or more")
    })
}

fn check_schedule<T: std::fmt::Debug>(
    key: &str,
    schedule: Option<&Schedule<T>>,
    expected: &str,
    holds: impl Fn(&T) -> bool,
) -> Checked {
    let Some(schedule) = schedule else { return Ok(()) };
    let values = schedule.values();
    require(!values.is_empty(), key, || "the list has no values".to_owned())?;
    if let Some(step) = schedule.step_out_of_order() {
        return Err(problem(key, format!("step {step} does not come after the one before it"))
            .hint("the steps of a piecewise schedule ascend"));
    }
    match values.into_iter().find(|value| !holds(value)) {
        Some(value) => Err(problem(key, format!("{value:?} is not {expected}"))),
        None => Ok(()),
    }
}
