//! Cards that fail while ranks work together: the run ends with what the failing rank says, at once.
//!
//! On the emulator, whose cards can be told to fail; all of these tests are in a process of their own,
//! and each of them has its turn alone.

#[path = "common/batches.rs"]
mod batches;
#[path = "common/on_cards.rs"]
mod on_cards;

use batches::made_up;
use coda_cuda::{CommunicatorId, CudaError};
use coda_cuda_emulator::{Deed, done, fail};
use coda_trainer::{
    engine::{
        EngineError, Learner as _, LearnerSettings, StepInput,
        cuda::{CudaEngine, CudaLearner, Link},
    },
    model::{Params, RecomputePolicy},
    optim::{AdamWSettings, Optimizer, OptimizerSettings},
    parallel::{ParallelError, ParallelLearner, RankLearner, RankStart},
};
use on_cards::{MASK, config};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

const RANKS: usize = 4;

/// The rank whose card fails.
const BAD: u8 = 2;

/// Less than `ParallelLearner` waits for ranks that do not end by themselves.
const AT_ONCE: Duration = Duration::from_secs(8);

/// Four cards, for one test at a time.
fn cards() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    coda_cuda::look_in(coda_cuda_emulator::folder());
    coda_cuda_emulator::set_cards(u8::try_from(RANKS).expect("few"));
    for deed in [Deed::Task, Deed::Allocation, Deed::Group] {
        fail(BAD, deed, 0);
    }
    turn
}

fn of_optimizer() -> OptimizerSettings {
    OptimizerSettings::AdamW(AdamWSettings::default())
}

/// Ranks with a card each, which `open` may spoil.
fn start<F>(link: Link, open: F) -> Result<ParallelLearner, EngineError>
where
    F: FnOnce(usize) -> Result<i32, EngineError> + Clone + Send + 'static,
{
    let settings = LearnerSettings { grad_clip: Some(0.5), bf16_weights: false };
    let open = move |start: RankStart| {
        let card = open(start.rank())?;
        let engine = CudaEngine::open_card(card, &config(), RecomputePolicy::None, None)?;
        let learner = CudaLearner::among(engine, start, link, &of_optimizer(), settings, 2)?;
        Ok(Box::new(learner) as Box<dyn RankLearner>)
    };
    let params = Params::init(&config(), 3);
    let optimizer = Optimizer::new(&of_optimizer(), params.layout());
    ParallelLearner::start(RANKS, params, optimizer, &of_optimizer(), 2, open)
}

fn nccl() -> Link {
    Link::Nccl(CommunicatorId::new().expect("NCCL"))
}

fn healthy(link: Link) -> ParallelLearner {
    start(link, |rank| Ok(i32::try_from(rank).expect("few"))).expect("started")
}

fn step(learner: &mut ParallelLearner) -> Result<bool, EngineError> {
    let batches: Vec<_> = (0..RANKS).map(|piece| made_up(2, 6, false, piece, MASK)).collect();
    let input = StepInput { batches: &batches, mask_id: MASK, denominator: 48.0, lr: 0.02 };
    learner.step(&input).map(|output| output.applied)
}

/// What it takes, and how long.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    (work(), began.elapsed())
}

#[test]
fn whatever_fails_in_a_step_ends_it_with_the_rank_s_own_error() {
    let _turn = cards();
    for (way, link, deeds) in [
        ("NCCL", nccl as fn() -> Link, &[Deed::Task, Deed::Allocation, Deed::Group][..]),
        ("host", || Link::Host, &[Deed::Task, Deed::Allocation]),
    ] {
        for &deed in deeds {
            let mut whole = healthy(link());
            // The first step takes room, the later ones have it.
            fail(BAD, deed, 0);
            assert!(step(&mut whole).expect("a step"));
            let count = done(BAD, deed);
            assert!(count > 0, "{deed:?}");
            drop(whole);
            // Ten of them from the first to the last, more of them late, where values are exchanged.
            let nth = (1..=10).map(|i| (count * i * i).div_ceil(100).max(1));
            let mut nth: Vec<u32> = nth.chain([count - count / 50]).collect();
            nth.sort_unstable();
            nth.dedup();
            for nth in nth {
                let mut ours = healthy(link());
                fail(BAD, deed, nth);
                let (ended, took) = timed(|| {
                    let ended = step(&mut ours);
                    drop(ours);
                    ended
                });
                fail(BAD, deed, 0);
                let of = format!("{way}, {deed:?} {nth} of {count}: {ended:?}, {took:?}");
                let error = ended.expect_err(&of);
                assert!(error.to_string().starts_with("rank 2: "), "{of}");
                let EngineError::Cuda(told) = error.cause() else { panic!("{of}") };
                assert!(
                    match deed {
                        Deed::Task =>
                            matches!(**told, CudaError::Driver { .. } | CudaError::Library { .. }),
                        Deed::Allocation => matches!(**told, CudaError::OutOfMemory { .. }),
                        Deed::Group =>
                            matches!(**told, CudaError::Library { call: "ncclGroupEnd", .. }),
                    },
                    "{of}"
                );
                assert!(took < AT_ONCE, "{of}");
            }
        }
    }
    // Cards that nobody holds any more are as new.
    assert!(step(&mut healthy(nccl())).expect("a step"));
}

#[test]
fn a_rank_that_cannot_begin_or_panics_does_not_keep_the_others_from_ending() {
    let _turn = cards();
    let bad = usize::from(BAD);
    let (ended, took) = timed(|| {
        start(nccl(), move |rank| {
            Ok(if rank == bad { 7 } else { i32::try_from(rank).expect("few") })
        })
    });
    let error = ended.map(drop).expect_err("card 7 of 4");
    let EngineError::Cuda(told) = error.cause() else { panic!("{error}") };
    assert!(matches!(**told, CudaError::NoDevice), "{error}");
    assert!(took < AT_ONCE, "{took:?}");
    let (ended, took) = timed(|| {
        start(nccl(), move |rank| {
            assert!(rank != bad, "this rank panics");
            Ok(i32::try_from(rank).expect("few"))
        })
    });
    let Err(EngineError::Parallel(error)) = ended.map(drop) else { panic!("a panic") };
    assert_eq!(error, ParallelError::Gone(bad));
    assert!(took < AT_ONCE, "{took:?}");
}
