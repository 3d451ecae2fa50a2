//! Ranks of the CUDA engine: their number, and the way in which they reach each other, change no bit.
//!
//! On the emulator every rank has a card of its own, and NCCL's stand-in lies between them. With
//! `CODA_TEST_CARD` set they run on the machine's cards: through NCCL as many as there are cards, through
//! this process's memory all of them, on the first.

#[path = "common/batches.rs"]
mod batches;
#[path = "common/learners.rs"]
mod learners;
#[path = "common/on_cards.rs"]
mod on_cards;

use batches::made_up;
use coda_cuda::{CommunicatorId, device_count};
use coda_trainer::{
    engine::{
        Batch, EngineError, Learner, LearnerSettings, StepInput, StepOutput,
        cuda::{CudaEngine, CudaLearner, Link},
    },
    model::{Params, RecomputePolicy},
    optim::{AdafactorSettings, AdamWSettings, Optimizer, OptimizerSettings},
    parallel::{ParallelLearner, RankLearner, RankStart},
};
use learners::{bits, held};
use on_cards::{MASK, config};

fn on_card() -> bool {
    std::env::var_os("CODA_TEST_CARD").is_some()
}

/// How many cards there are; of the emulator's, eight.
fn cards() -> usize {
    if !on_card() {
        coda_cuda::look_in(coda_cuda_emulator::folder());
        coda_cuda_emulator::set_cards(8);
    }
    usize::try_from(device_count().expect("a driver")).expect("a number")
}

fn batch(rows: usize, seed: usize) -> Batch {
    made_up(rows, 6, false, seed, MASK)
}

/// Nine pieces for a step, the last smaller.
fn pieces(step: usize) -> Vec<Batch> {
    (0..9).map(|piece| batch(if piece == 8 { 1 } else { 2 }, step * 16 + piece)).collect()
}

fn input(batches: &[Batch]) -> StepInput<'_> {
    StepInput { batches, mask_id: MASK, denominator: 17.0 * 6.0, lr: 0.02 }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Nccl,
    Host,
}

/// A learner in ranks that goes on from parameters and optimizer.
fn start(
    ranks: usize,
    way: Way,
    (params, optimizer): (Params, Optimizer),
    of_optimizer: &OptimizerSettings,
    settings: LearnerSettings,
) -> ParallelLearner {
    cards();
    let link = match way {
        Way::Nccl => Link::Nccl(CommunicatorId::new().expect("NCCL")),
        Way::Host => Link::Host,
    };
    let own = of_optimizer.clone();
    let open = move |start: RankStart| {
        let ordinal = if way == Way::Nccl { i32::try_from(start.rank()).expect("few") } else { 0 };
        let engine = CudaEngine::open_card(ordinal, &config(), RecomputePolicy::None, None)?;
        let learner = CudaLearner::among(engine, start, link, &own, settings, 2)?;
        Ok(Box::new(learner) as Box<dyn RankLearner>)
    };
    ParallelLearner::start(ranks, params, optimizer, of_optimizer, 2, open).expect("started")
}

fn fresh(of_optimizer: &OptimizerSettings) -> (Params, Optimizer) {
    let params = Params::init(&config(), 3);
    let optimizer = Optimizer::new(of_optimizer, params.layout());
    (params, optimizer)
}

/// Numbers of ranks through NCCL that this machine has cards for, and through this process's memory.
fn ways(all: &[(usize, Way)]) -> Vec<(usize, Way)> {
    let cards = cards();
    all.iter().copied().filter(|&(ranks, way)| way == Way::Host || ranks <= cards).collect()
}

#[test]
fn the_number_of_ranks_and_their_way_change_no_bit() {
    use Way::{Host, Nccl};
    let adamw =
        OptimizerSettings::AdamW(AdamWSettings { weight_decay: 0.1, ..AdamWSettings::default() });
    let adafactor = OptimizerSettings::Adafactor(AdafactorSettings::default());
    for (of_optimizer, grad_clip, bf16_weights, all) in [
        (adamw, Some(0.5), false, &[(1, Nccl), (2, Nccl), (4, Nccl), (8, Nccl), (2, Host)][..]),
        (adafactor, None, true, &[(4, Nccl), (4, Host)]),
    ] {
        let settings = LearnerSettings { grad_clip, bf16_weights };
        let mut alone = start(1, Host, fresh(&of_optimizer), &of_optimizer, settings);
        let expected: Vec<StepOutput> =
            (0..2).map(|step| alone.step(&input(&pieces(step))).expect("a step")).collect();
        assert!(expected.iter().all(|output| output.applied));
        assert_eq!(expected[0].clipped.is_some(), grad_clip.is_some(), "{expected:?}");
        let loss = alone.loss(&batch(2, 5), MASK, 24.0).expect("a loss");
        let expected_bits = bits(&mut alone);
        for (ranks, way) in ways(all) {
            let mut ours = start(ranks, way, fresh(&of_optimizer), &of_optimizer, settings);
            for (step, expected) in expected.iter().enumerate() {
                let output = ours.step(&input(&pieces(step))).expect("a step");
                assert_eq!(output, *expected, "{ranks} ranks, {way:?}, step {step}");
            }
            assert_eq!(ours.loss(&batch(2, 5), MASK, 24.0).expect("a loss"), loss);
            assert!(bits(&mut ours) == expected_bits, "{ranks} ranks, {way:?}");
        }
        // The state of two ranks, handed on to one.
        let mut two = start(2, Host, fresh(&of_optimizer), &of_optimizer, settings);
        two.step(&input(&pieces(0))).expect("a step");
        let mut one = start(1, Host, held(&mut two), &of_optimizer, settings);
        one.step(&input(&pieces(1))).expect("a step");
        assert!(bits(&mut one) == expected_bits, "handed on");
    }
}

#[test]
fn a_learner_without_ranks_differs_by_the_order_of_its_sums_alone() {
    let of_optimizer = OptimizerSettings::AdamW(AdamWSettings::default());
    let settings = LearnerSettings { grad_clip: None, bf16_weights: false };
    let mut ranks = start(2, Way::Host, fresh(&of_optimizer), &of_optimizer, settings);
    let engine = CudaEngine::open(&config(), RecomputePolicy::None).expect("a card");
    let (params, optimizer) = fresh(&of_optimizer);
    let mut plain =
        CudaLearner::new(engine, params, optimizer, &of_optimizer, settings, 2).expect("a learner");
    let (ours, right) = (
        ranks.step(&input(&pieces(0))).expect("a step"),
        plain.step(&input(&pieces(0))).expect("a step"),
    );
    // Losses come from the same weights.
    assert_eq!(ours.row_sums, right.row_sums);
    assert!((ours.norm / right.norm - 1.0).abs() < 1e-5, "{} {}", ours.norm, right.norm);
}

#[test]
fn a_rank_that_fails_changes_nothing_and_the_others_do_not_wait() {
    let of_optimizer = OptimizerSettings::AdamW(AdamWSettings::default());
    let settings = LearnerSettings { grad_clip: None, bf16_weights: false };
    let (ranks, way) = *ways(&[(4, Way::Nccl), (4, Way::Host)]).first().expect("a way");
    let mut ours = start(ranks, way, fresh(&of_optimizer), &of_optimizer, settings);
    let before = bits(&mut ours);
    // A target that is no token, in the last rank's rows.
    let mut bad = pieces(0);
    bad[8].input_ids = vec![99; 6];
    let error = ours.step(&input(&bad)).expect_err("no target");
    assert!(matches!(error.cause(), EngineError::Batch(_)), "{error}");
    assert!(error.to_string().starts_with("rank 3: "), "{error}");
    assert!(bits(&mut ours) == before);
    // They are in step all the same.
    assert!(ours.step(&input(&pieces(0))).expect("a step").applied);
    assert!(bits(&mut ours) != before);
}
