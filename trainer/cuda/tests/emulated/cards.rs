//! Cards that send each other values.

use crate::{all, card, on_card};
use coda_cuda::{Card, Communicator, CommunicatorId, CudaError, Element, Span, device_count};
use std::thread;

/// How many cards there are; of the emulator's, four.
fn cards() -> usize {
    if !on_card() {
        coda_cuda::look_in(coda_cuda_emulator::folder());
        coda_cuda_emulator::set_cards(4);
    }
    usize::try_from(device_count().unwrap()).unwrap()
}

#[test]
fn a_rank_alone_sends_to_itself() {
    let card = card();
    let own = Communicator::join(&card, CommunicatorId::new().unwrap(), 0, 1).unwrap();
    let from = card.upload(&[1.0_f32, 2.0, 3.0, 4.0]).unwrap();
    let to = card.upload(&[0.0_f32; 4]).unwrap();
    let part = |block, range| Span::of(block, Element::F32, 0, 4).unwrap().part(range).unwrap();
    let sent = [(part(&from, 1..4), 0), (part(&from, 0..1), 0)];
    own.exchange(&sent, &[(part(&to, 0..3), 0), (part(&to, 3..4), 0)]).unwrap();
    assert_eq!(card.read::<f32>(all::<f32>(&to)).unwrap(), [2.0, 3.0, 4.0, 1.0]);
}

/// Every rank sends the one after it as many values as that has a number, and adds up what comes.
#[test]
fn ranks_exchange_in_a_circle() {
    let ranks = cards().min(4);
    let id = CommunicatorId::new().unwrap();
    let work = |rank: usize| {
        let card = Card::open_with_cache(i32::try_from(rank).unwrap(), None)?;
        let own = Communicator::join(&card, id, rank, ranks)?;
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
    let join = |rank| Communicator::join(&card(), id, rank, 2).map(|_| ());
    let joined = thread::scope(|scope| {
        let threads = [0, 1].map(|rank| scope.spawn(move || join(rank)));
        threads.map(|thread| thread.join().unwrap())
    });
    let refused = joined.into_iter().find_map(Result::err).expect("refused").to_string();
    assert!(refused.starts_with("ncclCommInitRank failed: "), "{refused}");
}
