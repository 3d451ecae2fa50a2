//! Ranks that train together: 1, 2, 4 and 8 of them give the same bits.

#[path = "common/batches.rs"]
mod batches;
mod common;
#[path = "common/learners.rs"]
mod learners;

use batches::made_up;
use coda_trainer::{
    engine::{
        Batch, CpuEngine, Engine, EngineError, HostLearner, Ids, Learner, LearnerSettings,
        LossOutput, StepInput, StepOutput,
    },
    model::{Grads, ModelConfig, Params, RecomputePolicy},
    optim::{AdafactorSettings, AdamWSettings, Optimizer, OptimizerSettings},
    parallel::{Collective as _, ParallelError, ParallelLearner, RankLearner, RankPart, RankStart},
};
use common::{World, read_json};
use learners::{bits, held};

/// The mask's id, behind 42 others.
const MASK: u32 = 42;

fn config() -> ModelConfig {
    ModelConfig {
        hidden_size: 16,
        num_hidden_layers: 2,
        intermediate_size: 24,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 8,
        vocab_size: 44,
        rope_theta: 1e4,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: true,
        mask_token_id: Some(MASK),
    }
}

fn batch(rows: usize, seed: usize) -> Batch {
    made_up(rows, 12, false, seed, MASK)
}

/// Eleven pieces of two rows and a smaller one, for a step.
fn pieces(step: usize) -> Vec<Batch> {
    (0..11).map(|piece| batch(if piece == 10 { 1 } else { 2 }, step * 16 + piece)).collect()
}

fn input(batches: &[Batch]) -> StepInput<'_> {
    StepInput { batches, mask_id: MASK, denominator: 21.0 * 12.0, lr: 0.02 }
}

fn settings(kind: &str) -> OptimizerSettings {
    match kind {
        "adamw" => OptimizerSettings::AdamW(AdamWSettings {
            weight_decay: 0.1,
            ..AdamWSettings::default()
        }),
        _ => OptimizerSettings::Adafactor(AdafactorSettings::default()),
    }
}

fn learner_settings(grad_clip: Option<f64>, bf16_weights: bool) -> LearnerSettings {
    LearnerSettings { grad_clip, bf16_weights }
}

/// A learner in `ranks` ranks that goes on from parameters and optimizer.
fn parallel(
    ranks: usize,
    (params, optimizer): (Params, Optimizer),
    of_optimizer: &OptimizerSettings,
    settings: LearnerSettings,
) -> ParallelLearner {
    let engine = CpuEngine::new(config(), RecomputePolicy::None);
    let open = move |start: RankStart| {
        let RankStart { params, part, shards, channels } = start;
        let learner = HostLearner::among(engine, params, part, settings, 2, shards, channels);
        Ok(Box::new(learner) as Box<dyn RankLearner>)
    };
    ParallelLearner::start(ranks, params, optimizer, of_optimizer, 2, open).expect("started")
}

#[test]
fn the_number_of_ranks_changes_no_bit() {
    // The gradient of the first steps is longer than 0.5.
    for (kind, clip, bf16) in
        [("adamw", Some(0.5), false), ("adafactor", None, false), ("adafactor", Some(0.5), true)]
    {
        let (of_optimizer, settings) = (settings(kind), learner_settings(clip, bf16));
        let params = Params::init(&config(), 3);
        let fresh = (params.clone(), Optimizer::new(&of_optimizer, params.layout()));
        let engine = CpuEngine::new(config(), RecomputePolicy::None);
        let (params, optimizer) = fresh.clone();
        let mut alone = HostLearner::new(engine, params, optimizer, settings, 2);
        let expected: Vec<StepOutput> =
            (0..4).map(|step| alone.step(&input(&pieces(step))).expect("a step")).collect();
        assert!(expected.iter().all(|output| output.applied));
        assert_eq!(expected[0].clipped.is_some(), clip.is_some(), "{expected:?}");
        let loss = alone.loss(&batch(2, 5), MASK, 24.0).expect("a loss");
        let expected_bits = bits(&mut alone);
        for ranks in [1, 2, 4, 8] {
            let mut ours = parallel(ranks, fresh.clone(), &of_optimizer, settings);
            for (step, expected) in expected.iter().enumerate() {
                let output = ours.step(&input(&pieces(step))).expect("a step");
                assert_eq!(output, *expected, "{kind}, {ranks} ranks, step {step}");
            }
            assert_eq!(ours.loss(&batch(2, 5), MASK, 24.0).expect("a loss"), loss);
            assert!(bits(&mut ours) == expected_bits, "{kind}, {ranks} ranks");
        }
        // From 2 ranks to 4 to 1, the state brought together between them.
        let (mut state, mut step) = (fresh, 0);
        for (ranks, steps) in [(2, 1), (4, 2), (1, 1)] {
            let mut ours = parallel(ranks, state, &of_optimizer, settings);
            for _ in 0..steps {
                ours.step(&input(&pieces(step))).expect("a step");
                step += 1;
            }
            state = held(&mut ours);
        }
        let mut last = parallel(8, state, &of_optimizer, settings);
        assert!(bits(&mut last) == expected_bits, "{kind}, handed on");
    }
}

#[test]
fn a_rank_that_fails_changes_nothing_and_the_others_do_not_wait() {
    let of_optimizer = settings("adamw");
    let params = Params::init(&config(), 3);
    let fresh = (params.clone(), Optimizer::new(&of_optimizer, params.layout()));
    let mut ours = parallel(4, fresh, &of_optimizer, learner_settings(None, false));
    let before = bits(&mut ours);
    // A target that is no token, in the last rank's rows.
    let mut bad = pieces(0);
    bad[10].input_ids = vec![99; 12];
    let error = ours.step(&input(&bad)).expect_err("no target");
    assert!(matches!(error.cause(), EngineError::Batch(_)), "{error}");
    assert!(error.to_string().starts_with("rank 3: "), "{error}");
    assert!(bits(&mut ours) == before);
    let few = ours.step(&input(&pieces(0)[..3])).expect_err("too few");
    let expected = ParallelError::Pieces { pieces: 3, ranks: 4 };
    assert!(matches!(&few, EngineError::Parallel(error) if *error == expected), "{few}");
    assert!(few.hint().is_some_and(|hint| hint.contains("train.micro_batch")));
    // They are in step all the same.
    assert!(ours.step(&input(&pieces(0))).expect("a step").applied);
    assert!(bits(&mut ours) != before);
}

/// An engine whose gradients are no numbers once, or that panics.
struct Broken {
    engine: CpuEngine,
    panics: bool,
}

impl Engine for Broken {
    fn loss_and_grads(
        &mut self,
        params: &Params,
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
        grads: &mut Grads,
    ) -> Result<LossOutput, EngineError> {
        assert!(!self.panics, "this engine panics");
        let output = self.engine.loss_and_grads(params, batch, mask_id, denominator, grads);
        grads.slices_mut()[0][0] = f32::NAN;
        output
    }

    fn loss(
        &mut self,
        params: &Params,
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
    ) -> Result<LossOutput, EngineError> {
        self.engine.loss(params, batch, mask_id, denominator)
    }

    fn logits(
        &mut self,
        params: &Params,
        ids: &Ids<'_>,
        positions: Option<&[usize]>,
    ) -> Result<Vec<f32>, EngineError> {
        self.engine.logits(params, ids, positions)
    }
}

#[test]
fn gradients_that_are_no_numbers_and_panics_of_one_rank() {
    let of_optimizer = settings("adafactor");
    let params = Params::init(&config(), 3);
    let optimizer = Optimizer::new(&of_optimizer, params.layout());
    let start = |panics: bool| {
        let engine = CpuEngine::new(config(), RecomputePolicy::None);
        let settings = learner_settings(Some(1.0), false);
        let open = move |start: RankStart| {
            let RankStart { params, part, shards, channels } = start;
            if channels.rank() == 1 {
                let engine = Broken { engine, panics };
                let broken =
                    HostLearner::among(engine, params, part, settings, 2, shards, channels);
                return Ok(Box::new(broken) as Box<dyn RankLearner>);
            }
            let whole = HostLearner::among(engine, params, part, settings, 2, shards, channels);
            Ok(Box::new(whole) as Box<dyn RankLearner>)
        };
        let (params, optimizer) = (params.clone(), optimizer.clone());
        ParallelLearner::start(2, params, optimizer, &of_optimizer, 2, open).expect("started")
    };
    let mut ours = start(false);
    let before = bits(&mut ours);
    let output = ours.step(&input(&pieces(0))).expect("told, not failed");
    assert!(output.loss.is_finite() && output.norm.is_nan() && !output.applied, "{output:?}");
    assert!(bits(&mut ours) == before);
    let mut ours = start(true);
    let error = ours.step(&input(&pieces(0))).expect_err("a rank is gone");
    assert!(matches!(error, EngineError::Parallel(ParallelError::Gone(_))), "{error}");
    assert!(ours.state().is_err(), "its part of the state is lost");
}

/// A rank that fails without the others, or that never answers.
struct Stuck {
    fails: bool,
}

impl Learner for Stuck {
    fn rows_at_once(&self) -> usize {
        2
    }

    fn step(&mut self, _: &StepInput<'_>) -> Result<StepOutput, EngineError> {
        if self.fails {
            return Err(EngineError::Batch("this rank fails".to_owned()));
        }
        loop {
            std::thread::park();
        }
    }

    fn loss(&mut self, _: &Batch, _: u32, _: f64) -> Result<LossOutput, EngineError> {
        Err(EngineError::Batch("nothing is measured here".to_owned()))
    }

    fn state(&mut self) -> Result<Option<(&Params, &Optimizer)>, EngineError> {
        Ok(None)
    }
}

impl RankLearner for Stuck {
    fn part(&mut self) -> Result<RankPart, EngineError> {
        Ok(RankPart { tensors: Vec::new(), optimizer: Optimizer::new(&settings("adamw"), &[]) })
    }
}

#[test]
fn a_rank_that_never_answers_does_not_keep_another_s_failure() {
    let params = Params::init(&config(), 3);
    let optimizer = Optimizer::new(&settings("adamw"), params.layout());
    let open =
        |start: RankStart| Ok(Box::new(Stuck { fails: start.rank() == 1 }) as Box<dyn RankLearner>);
    let mut ours =
        ParallelLearner::start(2, params, optimizer, &settings("adamw"), 2, open).expect("started");
    let error = ours.step(&input(&pieces(0))).expect_err("rank 1 fails");
    assert!(error.to_string().contains("this rank fails"), "{error}");
    // Nobody waits for it afterwards either.
    let gone = ours.step(&input(&pieces(0))).expect_err("rank 1 fails, and rank 0 is lost");
    assert!(gone.to_string().contains("this rank fails"), "{gone}");
    drop(ours);
}

#[test]
fn runs_in_ranks_give_the_same_files() {
    let world = World::new();
    let split = ["train.micro_batch=1", "train.optimizer.kind=adamw"];
    world.train("alone", &split);
    world.train("four", &[&split[..], &["--ranks", "4"]].concat());
    assert_eq!(world.metrics("four"), world.metrics("alone"));
    assert!(world.state("four", 12) == world.state("alone", 12));
    assert_eq!(read_json(&world.path("four/run.json"))["ranks"], 4);
    for (ranks, stop) in [("2", "3"), ("4", "7"), ("1", "12")] {
        let more = ["--ranks", ranks, "--stop-after", stop];
        world.train("changing", &[&split[..], &more].concat());
    }
    assert_eq!(world.metrics("changing"), world.metrics("alone"));
    assert!(world.state("changing", 12) == world.state("alone", 12));
}

#[test]
fn ranks_that_cannot_be_are_refused_before_the_folder_is_touched() {
    let world = World::new();
    let run = ["--stage", "pre", "--manifest", "tiny.yaml", "--quiet", "--out", "run"];
    for (more, part) in [
        (&["--ranks", "3"][..], "3 ranks cannot share a step"),
        (&["--ranks", "2"], "the batch has only 1 pieces for 2 ranks"),
        (&["--ranks", "2", "--engine", "xla"], "--ranks is an option of the CPU and CUDA engines"),
    ] {
        let error = world.fails(&[&run[..], more].concat(), 2);
        assert!(error.contains(part) && error.contains("hint: "), "{error}");
        assert!(!world.path("run").exists());
    }
}
