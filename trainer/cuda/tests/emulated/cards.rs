//! Cards that send each other values.

use crate::{all, card, on_card};
use coda_cuda::{Card, Communicator, CommunicatorId, CudaError, Element, Span, device_count};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// How many cards there are; of the emulator's, four.
fn cards() -> usize {
    if !on_card() {
        coda_cuda::look_in(coda_cuda_emulator::folder());
        coda_cuda_emulator::set_cards(4);
    }
    usize::try_from(device_count().unwrap()).unwrap()
}

/// That no rank has left.
fn all_there() -> bool {
    false
}

#[test]
fn a_rank_alone_sends_to_itself() {
    let card = card();
    let own = Communicator::join(&card, CommunicatorId::new().unwrap(), 0, 1, all_there).unwrap();
    let from = card.upload(&[1.0_f32, 2.0, 3.0, 4.0]).unwrap();
    let to = card.upload(&[0.0_f32; 4]).unwrap();
    let part = |block, range| Span::of(block, Element::F32, 0, 4).unwrap().part(range).unwrap();
    let sent = [(part(&from, 1..4), 0), (part(&from, 0..1), 0)];
    own.exchange(&sent, &[(part(&to, 0..3), 0), (part(&to, 3..4), 0)]).unwrap();
    own.wait().unwrap();
    assert_eq!(card.read::<f32>(all::<f32>(&to)).unwrap(), [2.0, 3.0, 4.0, 1.0]);
}

/// Every rank sends the one after it as many values as that has a number, and adds up what comes.
#[test]
fn ranks_exchange_in_a_circle() {
    let ranks = cards().min(4);
    let id = CommunicatorId::new().unwrap();
    let work = |rank: usize| {
        let card = Card::open_with_cache(i32::try_from(rank).unwrap(), None)?;
        let own = Communicator::join(&card, id, rank, ranks, all_there)?;
        let (next, before) = ((rank + 1) % ranks, (rank + ranks - 1) % ranks);
        let values: Vec<f32> = (0..=next).map(|i| (10 * rank + i) as f32).collect();
        let sum = card.upload(&vec![0.5_f32; rank + 1])?;
        // What is queued before the exchange is done before it.
        for _ in 0..3 {
            let from = card.upload(&values)?;
            let to = card.room(Element::F32, rank + 1)?;
            own.exchange(&[(all::<f32>(&from), next)], &[(all::<f32>(&to), before)])?;
            card.add_floats(all::<f32>(&sum), all::<f32>(&to))?;
        }
        own.wait()?;
        let expected: Vec<f32> = (0..=rank).map(|i| 0.5 + 3.0 * (10 * before + i) as f32).collect();
        assert_eq!(card.read::<f32>(all::<f32>(&sum))?, expected);
        Ok::<_, CudaError>(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..ranks).map(|rank| scope.spawn(move || work(rank))).collect();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    });
}

#[test]
fn two_ranks_cannot_have_one_card() {
    let id = CommunicatorId::new().unwrap();
    let join = |rank| Communicator::join(&card(), id, rank, 2, all_there).map(|_| ());
    let joined = thread::scope(|scope| {
        let threads = [0, 1].map(|rank| scope.spawn(move || join(rank)));
        threads.map(|thread| thread.join().unwrap())
    });
    let refused = joined.into_iter().find_map(Result::err).expect("refused").to_string();
    assert!(refused.starts_with("ncclCommInitRankConfig failed: "), "{refused}");
}

/// A rank that leaves before the others have joined, before they have met it in a group, or later: they
/// do not wait for it, and neither do their cards.
#[test]
fn nobody_waits_for_a_rank_that_has_left() {
    // With one card alone nobody can be left; that of a machine is then not asked.
    for meetings in [None, Some(0), Some(2)].into_iter().filter(|_| cards() > 1) {
        let (id, left) = (CommunicatorId::new().unwrap(), AtomicBool::new(false).into());
        let waiting = |card: &Card, left: &Arc<AtomicBool>| {
            let left = Arc::clone(left);
            let own = Communicator::join(card, id, 0, 2, move || left.load(Ordering::Acquire))?;
            loop {
                exchange(card, &own, 1)?;
            }
        };
        let leaving = |card: &Card, meetings: usize| {
            let own = Communicator::join(card, id, 1, 2, all_there)?;
            (0..meetings).try_for_each(|_| exchange(card, &own, 0))
        };
        thread::scope(|scope| {
            let first = scope.spawn(|| {
                let card = Card::open_with_cache(0, None)?;
                let ended: Result<(), CudaError> = waiting(&card, &left);
                card.synchronize()?;
                ended
            });
            let second = scope.spawn(|| {
                let card = Card::open_with_cache(1, None)?;
                let done = meetings.map_or(Ok(()), |meetings| leaving(&card, meetings));
                left.store(true, Ordering::Release);
                done
            });
            second.join().unwrap().unwrap();
            let ended = first.join().unwrap();
            assert!(matches!(ended, Err(CudaError::Left)), "{meetings:?}: {ended:?}");
        });
    }
}

/// Sends a few values to a rank and takes as many from it.
fn exchange(card: &Card, own: &Communicator, partner: usize) -> Result<(), CudaError> {
    let (from, to) = (card.upload(&[1.0_f32; 9])?, card.room(Element::F32, 9)?);
    own.exchange(&[(all::<f32>(&from), partner)], &[(all::<f32>(&to), partner)])?;
    own.wait()
}
