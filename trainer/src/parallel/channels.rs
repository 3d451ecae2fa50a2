//! Ranks that are threads of one process.
//!
//! Every pair of ranks has a channel each way, and what is sent is a copy, as between machines. A rank
//! that ends, or could not finish an exchange, takes its channels with it, so that nobody waits for it.

use super::{Collective, ParallelError, Shards, lanes};
use rayon::prelude::*;
use std::sync::{
    Arc, OnceLock,
    mpsc::{Receiver, Sender, channel},
};

/// Elements that are added at once.
const CHUNK: usize = 1 << 14;

/// What one rank sends to another.
enum Message {
    Tensors(Vec<Vec<f32>>),
    Numbers(Vec<f64>),
}

impl Message {
    fn words(&self) -> String {
        match self {
            Self::Tensors(tensors) => {
                let elements: usize = tensors.iter().map(Vec::len).sum();
                format!("{} tensors of {elements} elements", tensors.len())
            }
            Self::Numbers(numbers) => format!("{} numbers", numbers.len()),
        }
    }
}

/// One rank's ends of the channels.
pub struct Channels {
    rank: usize,
    ranks: usize,
    /// To every rank; the own one is not used. Empty once this rank has left.
    to: Vec<Sender<Message>>,
    from: Vec<Receiver<Message>>,
    /// The first rank that has left.
    first_gone: Arc<OnceLock<usize>>,
}

/// The ends of `ranks` ranks.
///
/// # Errors
/// If there are not 1, 2, 4 or 8.
pub fn channels(ranks: usize) -> Result<Vec<Channels>, ParallelError> {
    lanes::check(ranks)?;
    let first_gone = Arc::new(OnceLock::new());
    let empty = |rank| {
        let first_gone = Arc::clone(&first_gone);
        Channels { rank, ranks, to: Vec::new(), from: Vec::new(), first_gone }
    };
    let mut ends: Vec<Channels> = (0..ranks).map(empty).collect();
    for sending in 0..ranks {
        for receiving in 0..ranks {
            let (to, from) = channel();
            ends[sending].to.push(to);
            ends[receiving].from.push(from);
        }
    }
    Ok(ends)
}

impl Channels {
    /// Takes no part any more: whoever waits for this rank, or will, learns that it is gone.
    pub fn leave(&mut self) {
        // Only the first one is of interest.
        let _ = self.first_gone.set(self.rank);
        self.to.clear();
        self.from.clear();
    }

    /// Another rank that has left, or ended, before this one did.
    #[must_use]
    pub fn gone(&self) -> Option<usize> {
        self.first_gone.get().copied().filter(|&rank| rank != self.rank)
    }

    /// Whether a rank other than `rank` has left before it did, to be asked as often as one likes.
    pub fn watch(&self) -> impl Fn() -> bool + use<> {
        let (first_gone, own) = (Arc::clone(&self.first_gone), self.rank);
        move || first_gone.get().is_some_and(|&rank| rank != own)
    }

    fn send(&self, rank: usize, message: Message) -> Result<(), ParallelError> {
        let to = self.to.get(rank).ok_or(ParallelError::Gone(self.rank))?;
        to.send(message).map_err(|_| ParallelError::Gone(rank))
    }

    fn receive(&self, rank: usize) -> Result<Message, ParallelError> {
        let from = self.from.get(rank).ok_or(ParallelError::Gone(self.rank))?;
        from.recv().map_err(|_| ParallelError::Gone(rank))
    }

    /// An exchange of which one cannot know how far the others came when it fails: there is no way on
    /// from there.
    fn whole<T>(
        &mut self,
        exchange: impl FnOnce(&Self) -> Result<T, ParallelError>,
    ) -> Result<T, ParallelError> {
        let done = exchange(self);
        if done.is_err() {
            self.leave();
        }
        done
    }

    /// The tensors that a rank has sent, if they have these sizes.
    fn tensors(&self, rank: usize, sizes: &[usize]) -> Result<Vec<Vec<f32>>, ParallelError> {
        match self.receive(rank)? {
            Message::Tensors(tensors) if tensors.iter().map(Vec::len).eq(sizes.iter().copied()) => {
                Ok(tensors)
            }
            other => {
                let wanted = format!("{} tensors of {} elements", sizes.len(), sum(sizes));
                Err(ParallelError::Apart { rank, found: other.words(), wanted })
            }
        }
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let own = self.rank;
        (0..self.ranks).filter(move |&rank| rank != own)
    }
}

fn sum(sizes: &[usize]) -> usize {
    sizes.iter().sum()
}

/// Copies of the tensors that `rank` owns.
fn copies(tensors: &[&mut [f32]], shards: &Shards, rank: usize) -> Vec<Vec<f32>> {
    shards.of_rank(rank).map(|tensor| tensors[tensor].to_vec()).collect()
}

/// The sizes of the tensors that `rank` owns.
fn sizes(tensors: &[&mut [f32]], shards: &Shards, rank: usize) -> Vec<usize> {
    shards.of_rank(rank).map(|tensor| tensors[tensor].len()).collect()
}

impl Collective for Channels {
    type Tensor<'a> = &'a mut [f32];
    type Error = ParallelError;

    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.ranks
    }

    fn reduce_to_owners(
        &mut self,
        tensors: &mut [&mut [f32]],
        shards: &Shards,
    ) -> Result<(), ParallelError> {
        let mut received = self.whole(|ends| {
            for owner in ends.others() {
                ends.send(owner, Message::Tensors(copies(tensors, shards, owner)))?;
            }
            let sizes = sizes(tensors, shards, ends.rank);
            let of_rank = |rank| {
                let own = rank == ends.rank;
                let of_rank = if own { Vec::new() } else { ends.tensors(rank, &sizes)? };
                Ok(of_rank.into_iter())
            };
            (0..ends.ranks).map(of_rank).collect::<Result<Vec<_>, _>>()
        })?;
        for tensor in shards.of_rank(self.rank) {
            let own: &mut [f32] = tensors[tensor];
            let mut parts: Vec<Vec<f32>> =
                received.iter_mut().map(|of_rank| of_rank.next().unwrap_or_default()).collect();
            let mut parts: Vec<&mut [f32]> = parts.iter_mut().map(Vec::as_mut_slice).collect();
            parts[self.rank] = &mut *own;
            add_pairs(&mut parts);
            if self.rank > 0 {
                let (first, rest) = parts.split_at_mut(self.rank);
                rest[0].copy_from_slice(first[0]);
            }
        }
        Ok(())
    }

    fn gather_from_owners(
        &mut self,
        tensors: &mut [&mut [f32]],
        shards: &Shards,
    ) -> Result<(), ParallelError> {
        self.whole(|ends| {
            for rank in ends.others() {
                ends.send(rank, Message::Tensors(copies(tensors, shards, ends.rank)))?;
            }
            for owner in ends.others() {
                let values = ends.tensors(owner, &sizes(tensors, shards, owner))?;
                for (tensor, values) in shards.of_rank(owner).zip(values) {
                    tensors[tensor].copy_from_slice(&values);
                }
            }
            Ok(())
        })
    }

    fn numbers(&mut self, own: &[f64]) -> Result<Vec<Vec<f64>>, ParallelError> {
        self.whole(|ends| {
            for rank in ends.others() {
                ends.send(rank, Message::Numbers(own.to_vec()))?;
            }
            let of_rank = |rank| {
                if rank == ends.rank {
                    return Ok(own.to_vec());
                }
                match ends.receive(rank)? {
                    Message::Numbers(numbers) => Ok(numbers),
                    other @ Message::Tensors(_) => Err(ParallelError::Apart {
                        rank,
                        found: other.words(),
                        wanted: "numbers".to_owned(),
                    }),
                }
            };
            (0..ends.ranks).map(of_rank).collect()
        })
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Adds neighbours, then neighbours that are two apart, and so on: the first has the sum then.
fn add_pairs(parts: &mut [&mut [f32]]) {
    let mut apart = 1;
    while apart < parts.len() {
        for pair in parts.chunks_mut(2 * apart) {
            let (first, second) = pair.split_at_mut(apart);
            let second = second[0].par_chunks(CHUNK);
            first[0].par_chunks_mut(CHUNK).zip(second).for_each(|(first, second)| {
                for (first, second) in first.iter_mut().zip(second) {
                    *first += *second;
                }
            });
        }
        apart *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::{Channels, channels};
    use crate::{
        optim::TensorShape,
        parallel::{Collective, ParallelError, Shards},
    };
    use std::{sync::Barrier, thread};

    fn layout() -> Vec<TensorShape> {
        let shape = |(i, shape): (usize, &[usize])| TensorShape {
            name: format!("t{i}"),
            shape: shape.to_vec(),
        };
        let shapes: [&[usize]; 6] = [&[40, 3], &[7], &[5, 5], &[1], &[33], &[2, 9]];
        shapes.into_iter().enumerate().map(shape).collect()
    }

    /// What a rank has of a tensor: sums of these depend on their order.
    fn value(rank: usize, tensor: usize, i: usize) -> f32 {
        let wave = ((rank * 31 + tensor * 17 + i * 7) as f32).sin();
        wave * [1.0, 1e4, 1e-4, 3.0, 1e7, 0.1, 1e-6, 2.0][(rank + i) % 8]
    }

    /// Runs every rank in a thread.
    fn run<T: Send>(ranks: usize, work: impl Fn(Channels) -> T + Sync) -> Vec<T> {
        let ends = channels(ranks).unwrap();
        thread::scope(|scope| {
            let threads: Vec<_> = ends.into_iter().map(|ends| scope.spawn(|| work(ends))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn owners_get_sums_by_pairs_and_everybody_gets_what_owners_have() {
        let layout = layout();
        for ranks in [1, 2, 4, 8] {
            let shards = Shards::balanced(&layout, ranks).unwrap();
            let results = run(ranks, |mut ends| {
                let rank = ends.rank();
                let mut values: Vec<Vec<f32>> = layout
                    .iter()
                    .enumerate()
                    .map(|(t, tensor)| (0..tensor.elements()).map(|i| value(rank, t, i)).collect())
                    .collect();
                let mut tensors: Vec<&mut [f32]> =
                    values.iter_mut().map(Vec::as_mut_slice).collect();
                // Twice: nothing may be left over in the channels.
                for _ in 0..2 {
                    ends.reduce_to_owners(&mut tensors, &shards).unwrap();
                    ends.gather_from_owners(&mut tensors, &shards).unwrap();
                    for (t, tensor) in tensors.iter_mut().enumerate() {
                        for (i, element) in tensor.iter_mut().enumerate() {
                            let sum = sum_by_pairs(ranks, t, i);
                            assert_eq!(element.to_bits(), sum.to_bits(), "rank {rank}, {t}, {i}");
                            *element = value(rank, t, i);
                        }
                    }
                }
                ends.numbers(&[rank as f64, 0.5]).unwrap()
            });
            let expected: Vec<Vec<f64>> = (0..ranks).map(|rank| vec![rank as f64, 0.5]).collect();
            assert!(results.iter().all(|numbers| *numbers == expected));
        }
    }

    /// `((0 + 1) + (2 + 3)) + …`, one element.
    fn sum_by_pairs(ranks: usize, tensor: usize, i: usize) -> f32 {
        let mut sums: Vec<f32> = (0..ranks).map(|rank| value(rank, tensor, i)).collect();
        while sums.len() > 1 {
            sums = sums.chunks(2).map(|pair| pair[0] + pair[1]).collect();
        }
        sums[0]
    }

    #[test]
    fn nobody_waits_for_a_rank_that_has_ended() {
        let layout = layout();
        let shards = Shards::balanced(&layout, 4).unwrap();
        let results = run(4, |mut ends| {
            if ends.rank() == 2 {
                return Ok(());
            }
            let mut values: Vec<Vec<f32>> =
                layout.iter().map(|tensor| vec![0.0; tensor.elements()]).collect();
            let mut tensors: Vec<&mut [f32]> = values.iter_mut().map(Vec::as_mut_slice).collect();
            ends.reduce_to_owners(&mut tensors, &shards)
        });
        // Rank 2 is missed, or a rank that has ended because of it.
        assert_eq!(results[2], Ok(()));
        for rank in [0, 1, 3] {
            assert!(matches!(results[rank], Err(ParallelError::Gone(_))), "{results:?}");
        }
    }

    #[test]
    fn nobody_waits_for_a_rank_that_has_left_though_it_lives() {
        let all_have_seen_it = Barrier::new(4);
        let results = run(4, |mut ends| {
            ends.numbers(&[0.0]).unwrap();
            if ends.rank() == 2 {
                ends.leave();
            }
            let seen = ends.numbers(&[1.0]);
            let (gone, watched) = (ends.gone(), ends.watch()());
            // Nobody ends before, for that would be seen too.
            all_have_seen_it.wait();
            (seen, gone, watched)
        });
        for (rank, (seen, gone, watched)) in results.into_iter().enumerate() {
            assert!(matches!(seen, Err(ParallelError::Gone(_))), "{rank}: {seen:?}");
            assert_eq!((gone, watched), ((rank != 2).then_some(2), rank != 2), "{rank}");
        }
    }

    #[test]
    fn ranks_that_do_not_do_the_same_are_told_apart() {
        let layout = layout();
        let shards = Shards::balanced(&layout, 2).unwrap();
        let results = run(2, |mut ends| {
            if ends.rank() == 1 {
                return ends.numbers(&[1.0]).map(|_| ());
            }
            let mut values: Vec<Vec<f32>> =
                layout.iter().map(|tensor| vec![0.0; tensor.elements()]).collect();
            let mut tensors: Vec<&mut [f32]> = values.iter_mut().map(Vec::as_mut_slice).collect();
            ends.reduce_to_owners(&mut tensors, &shards)
        });
        let words = results[0].as_ref().unwrap_err().to_string();
        assert!(words.contains("rank 1 sent 1 numbers where"), "{words}");
        assert!(results[1].as_ref().unwrap_err().to_string().contains("rank 0 sent"));
    }
}
