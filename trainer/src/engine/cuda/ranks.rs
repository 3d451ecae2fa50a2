//! What ranks with a card each tell each other.
//!
//! Gradients go to the owners of their tensors by recursive halving, new weights to everybody by
//! recursive doubling: in each of log2(ranks) rounds a rank exchanges with one other. What arrives is
//! added by a kernel of ours, neighbours first, then pairs of neighbours: the order of
//! [`crate::parallel::Channels`], which does not depend on the number of ranks or on NCCL.
//!
//! A rank that fails in the middle of it leaves ([`CardRanks::leave`]). Nobody waits for a card in a call
//! that does not come back: every wait looks whether a rank has left, and then gives its communicator up,
//! which ends what its card still waits for.

use super::tape::Run;
use crate::{
    engine::EngineError,
    parallel::{Channels, Collective, ParallelError, Shards},
};
use coda_cuda::{Card, Communicator, CommunicatorId, CudaError, Element, Span};
use half::bf16;
use std::{ops::Range, rc::Rc};

/// Values that are received at a time before they are added: 128 MiB of f32.
const AT_ONCE: usize = 32 << 20;

/// How the values of one card come to another.
#[derive(Clone, Copy, Debug)]
pub enum Link {
    /// Through NCCL; each rank has a card of its own.
    Nccl(CommunicatorId),
    /// Through this process's memory: slow, and ranks may share a card. It is for rehearsals.
    Host,
}

/// A rank's way to the others.
pub(super) struct CardRanks {
    run: Rc<Run>,
    channels: Channels,
    nccl: Option<Communicator>,
    at_once: usize,
}

impl CardRanks {
    /// Joins the other ranks; returns when all have joined, or one of them never will.
    pub(super) fn join(run: &Rc<Run>, link: Link, channels: Channels) -> Result<Self, EngineError> {
        let mut joined = Self { run: Rc::clone(run), channels, nccl: None, at_once: AT_ONCE };
        if let Link::Nccl(id) = link {
            joined.nccl = Some(joined.whole(|own| {
                let (rank, ranks, gone) = (own.rank(), own.ranks(), own.channels.watch());
                Ok(Communicator::join(&own.run.card, id, rank, ranks, gone)?)
            })?);
        }
        Ok(joined)
    }

    /// Takes no part any more: the others see it, and end too.
    pub(super) fn leave(&mut self) {
        // First the word, so that what the others see of the second is not taken for a failure of theirs.
        self.channels.leave();
        if let Some(nccl) = &self.nccl {
            nccl.abort();
        }
    }

    /// Work in common, which a rank leaves when it fails: that another has left before it is the reason
    /// then, whatever it looked like here.
    fn whole<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let done = work(self);
        if done.is_ok() {
            return done;
        }
        let gone = self.channels.gone();
        self.leave();
        gone.map_or(done, |rank| Err(ParallelError::Gone(rank).into()))
    }

    /// Sums to the owners, by halving.
    fn halve(
        &self,
        nccl: &Communicator,
        tensors: &[Span<'_>],
        shards: &Shards,
    ) -> Result<(), CudaError> {
        let (rank, card) = (self.rank(), &self.run.card);
        let sizes: Vec<usize> = tensors.iter().map(|tensor| tensor.len()).collect();
        for apart in rounds(self.ranks()) {
            let partner = rank ^ apart;
            let outgoing = parts(&sizes, shards, partner, apart, self.at_once);
            let incoming = parts(&sizes, shards, rank, apart, self.at_once);
            let most = incoming.iter().map(|part| len(part)).max().unwrap_or(0);
            let room = card.room(Element::F32, most)?;
            for at in 0..outgoing.len().max(incoming.len()) {
                let none = Vec::new();
                let (to_send, to_add) =
                    (outgoing.get(at).unwrap_or(&none), incoming.get(at).unwrap_or(&none));
                let piece = |(tensor, range): &Piece| tensors[*tensor].part(range.clone());
                let sent = to_send.iter().map(|of| Ok((piece(of)?, partner)));
                let sent = sent.collect::<Result<Vec<_>, CudaError>>()?;
                let mut from = 0;
                let places = to_add.iter().map(|(_, range)| {
                    from += range.len();
                    Span::of(&room, Element::F32, from - range.len(), range.len())
                });
                let places = places.collect::<Result<Vec<_>, CudaError>>()?;
                let received: Vec<_> = places.iter().map(|place| (*place, partner)).collect();
                nccl.exchange(&sent, &received)?;
                for (of, place) in to_add.iter().zip(places) {
                    card.add_floats(piece(of)?, place)?;
                }
            }
        }
        nccl.wait()
    }

    /// Values of the owners to everybody, by doubling.
    fn double(
        &self,
        nccl: &Communicator,
        tensors: &[Span<'_>],
        shards: &Shards,
    ) -> Result<(), CudaError> {
        let rank = self.rank();
        for apart in rounds(self.ranks()).into_iter().rev() {
            let partner = rank ^ apart;
            let of = |rank: usize| {
                let agrees = move |&tensor: &usize| agree(shards.owner(tensor), rank, apart);
                (0..tensors.len()).filter(agrees).map(|tensor| (tensors[tensor], partner))
            };
            let (outgoing, incoming): (Vec<_>, Vec<_>) =
                (of(rank).collect(), of(partner).collect());
            nccl.exchange(&outgoing, &incoming)?;
        }
        nccl.wait()
    }

    /// Brings values to this process's memory, lets `exchange` change them, and takes back those of some
    /// tensors.
    fn through_host(
        &mut self,
        tensors: &[Span<'_>],
        exchange: impl FnOnce(&mut Channels, &mut [&mut [f32]]) -> Result<(), ParallelError>,
        back: impl Fn(usize) -> bool,
    ) -> Result<(), EngineError> {
        let card = &self.run.card;
        let mut values: Vec<Vec<f32>> =
            tensors.iter().map(|tensor| read(card, *tensor)).collect::<Result<_, _>>()?;
        let mut slices: Vec<&mut [f32]> = values.iter_mut().map(Vec::as_mut_slice).collect();
        exchange(&mut self.channels, &mut slices)?;
        for (index, (tensor, values)) in tensors.iter().zip(&values).enumerate() {
            if back(index) {
                write(card, *tensor, values)?;
            }
        }
        Ok(())
    }
}

/// Values as f32, which bf16 are exactly.
fn read(card: &Card, from: Span<'_>) -> Result<Vec<f32>, CudaError> {
    if from.element() == Element::F32 {
        return card.read(from);
    }
    Ok(card.read::<bf16>(from)?.into_iter().map(f32::from).collect())
}

fn write(card: &Card, to: Span<'_>, values: &[f32]) -> Result<(), CudaError> {
    if to.element() == Element::F32 {
        return card.write(to, values);
    }
    card.write(to, &values.iter().map(|&value| bf16::from_f32(value)).collect::<Vec<_>>())
}

impl Collective for CardRanks {
    type Tensor<'a> = Span<'a>;
    type Error = EngineError;

    fn rank(&self) -> usize {
        self.channels.rank()
    }

    fn ranks(&self) -> usize {
        self.channels.ranks()
    }

    fn reduce_to_owners(
        &mut self,
        tensors: &mut [Span<'_>],
        shards: &Shards,
    ) -> Result<(), EngineError> {
        self.whole(|ranks| {
            if let Some(nccl) = &ranks.nccl {
                return Ok(ranks.halve(nccl, tensors, shards)?);
            }
            let rank = ranks.rank();
            let exchange = |channels: &mut Channels, values: &mut [&mut [f32]]| {
                channels.reduce_to_owners(values, shards)
            };
            ranks.through_host(tensors, exchange, |tensor| shards.owner(tensor) == rank)
        })
    }

    fn gather_from_owners(
        &mut self,
        tensors: &mut [Span<'_>],
        shards: &Shards,
    ) -> Result<(), EngineError> {
        self.whole(|ranks| {
            if let Some(nccl) = &ranks.nccl {
                return Ok(ranks.double(nccl, tensors, shards)?);
            }
            let rank = ranks.rank();
            let exchange = |channels: &mut Channels, values: &mut [&mut [f32]]| {
                channels.gather_from_owners(values, shards)
            };
            ranks.through_host(tensors, exchange, |tensor| shards.owner(tensor) != rank)
        })
    }

    fn numbers(&mut self, own: &[f64]) -> Result<Vec<Vec<f64>>, EngineError> {
        self.whole(|ranks| Ok(ranks.channels.numbers(own)?))
    }
}

impl Drop for CardRanks {
    fn drop(&mut self) {
        self.leave();
    }
}

/// How far apart those are that exchange, round by round.
fn rounds(ranks: usize) -> Vec<usize> {
    std::iter::successors(Some(1), |apart| Some(apart * 2))
        .take_while(|&apart| apart < ranks)
        .collect()
}

/// Whether two ranks have the same place among those that are `apart` or less from each other.
const fn agree(one: usize, other: usize, apart: usize) -> bool {
    (one ^ other).is_multiple_of(2 * apart)
}

/// Values of a tensor.
type Piece = (usize, Range<usize>);

fn len(part: &[Piece]) -> usize {
    part.iter().map(|(_, range)| range.len()).sum()
}

/// What `receiver` receives in a round: the tensors whose owner agrees with it, `at_once` values at a
/// time.
fn parts(
    sizes: &[usize],
    shards: &Shards,
    receiver: usize,
    apart: usize,
    at_once: usize,
) -> Vec<Vec<Piece>> {
    let mut parts: Vec<Vec<Piece>> = Vec::new();
    let mut room = 0;
    for (tensor, &size) in sizes.iter().enumerate() {
        let mut from = 0;
        while from < size && agree(shards.owner(tensor), receiver, apart) {
            if room == 0 {
                parts.push(Vec::new());
                room = at_once;
            }
            let to = size.min(from + room);
            room -= to - from;
            parts.last_mut().expect("pushed above").push((tensor, from..to));
            from = to;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::{Piece, agree, len, parts, rounds};
    use crate::{optim::TensorShape, parallel::Shards};
    use proptest::prelude::*;

    /// Runs the rounds on lists of the ranks whose values a sum has, written out.
    fn halved(sizes: &[usize], ranks: usize, at_once: usize) -> (Vec<Vec<Vec<String>>>, Shards) {
        let shape =
            |(i, &size): (usize, &usize)| TensorShape { name: i.to_string(), shape: vec![size] };
        let layout: Vec<TensorShape> = sizes.iter().enumerate().map(shape).collect();
        let shards = Shards::balanced(&layout, ranks).unwrap();
        let mut sums: Vec<Vec<Vec<String>>> = (0..ranks)
            .map(|rank| sizes.iter().map(|&size| vec![rank.to_string(); size]).collect())
            .collect();
        for apart in rounds(ranks) {
            let before = sums.clone();
            for (rank, sums) in sums.iter_mut().enumerate() {
                for (tensor, range) in parts(sizes, &shards, rank, apart, at_once).concat() {
                    for i in range {
                        let (own, other) =
                            (&before[rank][tensor][i], &before[rank ^ apart][tensor][i]);
                        let (first, second) =
                            if rank & apart == 0 { (own, other) } else { (other, own) };
                        sums[tensor][i] = format!("({first} + {second})");
                    }
                }
            }
        }
        (sums, shards)
    }

    proptest! {
        #[test]
        fn owners_get_every_rank_once_in_the_order_of_the_tree(
            sizes in proptest::collection::vec(1_usize..40, 1..20),
            at_once in 1_usize..100,
        ) {
            for (ranks, tree) in [
                (1, "0"),
                (2, "(0 + 1)"),
                (4, "((0 + 1) + (2 + 3))"),
                (8, "(((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)))"),
            ] {
                let (sums, shards) = halved(&sizes, ranks, at_once);
                for tensor in 0..sizes.len() {
                    let owned = &sums[shards.owner(tensor)][tensor];
                    prop_assert!(owned.iter().all(|sum| sum == tree), "{owned:?}");
                }
            }
        }

        #[test]
        fn parts_keep_to_their_room_and_pairs_cut_them_alike(
            sizes in proptest::collection::vec(0_usize..40, 1..20),
            at_once in 1_usize..100,
        ) {
            let (_, shards) = halved(&sizes, 4, at_once);
            for (rank, apart) in [(0, 1), (3, 1), (2, 2)] {
                let parts: Vec<Vec<Piece>> = parts(&sizes, &shards, rank, apart, at_once);
                for (at, part) in parts.iter().enumerate() {
                    let full = at + 1 < parts.len();
                    prop_assert!(len(part) <= at_once && (!full || len(part) == at_once));
                }
                let owned = |&t: &usize| agree(shards.owner(t), rank, apart);
                let total: usize = (0..sizes.len()).filter(owned).map(|t| sizes[t]).sum();
                prop_assert_eq!(parts.iter().map(|part| len(part)).sum::<usize>(), total);
            }
        }
    }
}
