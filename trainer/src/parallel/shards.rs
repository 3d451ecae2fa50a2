//! Which rank keeps the optimizer's state of which tensor.
//!
//! Whole tensors, since Adafactor's moments of a matrix belong to its rows and columns, and so that
//! norms and steps are computed as one rank alone computes them.

use super::{ParallelError, lanes};
use crate::optim::{Optimizer, OptimizerSettings, StateError, TensorShape};
use std::collections::HashMap;

/// The owner of every tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shards {
    owners: Vec<usize>,
    ranks: usize,
}

impl Shards {
    /// Gives each tensor, the largest first, to the rank that has the fewest elements (the first of
    /// those that have as few). No rank has more than an equal share and the largest tensor together.
    ///
    /// # Errors
    /// If there are not 1, 2, 4 or 8 ranks.
    pub fn balanced(layout: &[TensorShape], ranks: usize) -> Result<Self, ParallelError> {
        lanes::check(ranks)?;
        let mut by_size: Vec<usize> = (0..layout.len()).collect();
        by_size.sort_by_key(|&tensor| std::cmp::Reverse(layout[tensor].elements()));
        let (mut owners, mut loads) = (vec![0; layout.len()], vec![0; ranks]);
        for tensor in by_size {
            let owner = (0..ranks).min_by_key(|&rank| loads[rank]).unwrap_or(0);
            owners[tensor] = owner;
            loads[owner] += layout[tensor].elements();
        }
        Ok(Self { owners, ranks })
    }

    /// One rank owns everything.
    #[must_use]
    pub fn alone(tensors: usize) -> Self {
        Self { owners: vec![0; tensors], ranks: 1 }
    }

    /// How many ranks there are.
    #[must_use]
    pub const fn ranks(&self) -> usize {
        self.ranks
    }

    /// Number of tensors.
    #[must_use]
    pub fn tensors(&self) -> usize {
        self.owners.len()
    }

    /// The rank that owns tensor `tensor`.
    #[must_use]
    pub fn owner(&self, tensor: usize) -> usize {
        self.owners[tensor]
    }

    /// The tensors of a rank, in order.
    pub fn of_rank(&self, rank: usize) -> impl Iterator<Item = usize> {
        (0..self.owners.len()).filter(move |&tensor| self.owners[tensor] == rank)
    }

    /// Of one thing for every tensor, those of a rank.
    pub(crate) fn select<T>(&self, rank: usize, all: impl IntoIterator<Item = T>) -> Vec<T> {
        let owned = all.into_iter().zip(&self.owners).filter(|&(_, &owner)| owner == rank);
        owned.map(|(thing, _)| thing).collect()
    }

    /// One number for every tensor, from what each rank has of its own.
    pub(crate) fn in_order(&self, of_ranks: &[Vec<f64>]) -> Result<Vec<f64>, ParallelError> {
        let mut left: Vec<_> = of_ranks.iter().map(|numbers| numbers.iter()).collect();
        let next = |&owner: &usize| left.get_mut(owner)?.next().copied();
        let numbers: Option<Vec<f64>> = self.owners.iter().map(next).collect();
        numbers.ok_or_else(|| ParallelError::State("a rank has fewer tensors than it owns".into()))
    }

    /// The part of an optimizer that a rank keeps.
    ///
    /// # Errors
    /// If the optimizer is not one of these settings and tensors.
    pub fn part(
        &self,
        rank: usize,
        whole: &Optimizer,
        settings: &OptimizerSettings,
        layout: &[TensorShape],
    ) -> Result<Optimizer, ParallelError> {
        let state = whole.state();
        let by_name: HashMap<&str, &[f32]> =
            state.iter().map(|tensor| (tensor.name.as_str(), tensor.values)).collect();
        let mut part = Optimizer::new(settings, &self.select(rank, layout.iter().cloned()));
        restore(&mut part, whole.steps(), |name| by_name.get(name).map(|values| values.to_vec()))?;
        Ok(part)
    }
}

/// An optimizer of all tensors, from the parts of all ranks by the names of their tensors.
pub(super) fn whole(
    steps: u64,
    mut parts: HashMap<String, Vec<f32>>,
    settings: &OptimizerSettings,
    layout: &[TensorShape],
) -> Result<Optimizer, ParallelError> {
    let mut whole = Optimizer::new(settings, layout);
    restore(&mut whole, steps, |name| parts.remove(name))?;
    Ok(whole)
}

fn restore(
    optimizer: &mut Optimizer,
    steps: u64,
    mut values: impl FnMut(&str) -> Option<Vec<f32>>,
) -> Result<(), ParallelError> {
    let tensor = |name: &str, shape: &[usize]| {
        let elements: usize = shape.iter().product();
        let fits = values(name).filter(|values: &Vec<f32>| values.len() == elements);
        let problem = || format!("no rank has its {elements} values");
        fits.ok_or_else(|| StateError { name: name.to_owned(), problem: problem() })
    };
    optimizer.restore(steps, tensor).map_err(|error| ParallelError::State(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::{Shards, whole};
    use crate::{
        model::{ModelConfig, layout},
        optim::{AdafactorSettings, AdamWSettings, Optimizer, OptimizerSettings, TensorShape},
    };
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn shapes(sizes: &[usize]) -> Vec<TensorShape> {
        let named = |(i, &size)| TensorShape { name: format!("t{i}"), shape: vec![size] };
        sizes.iter().enumerate().map(named).collect()
    }

    proptest! {
        #[test]
        fn every_tensor_has_one_owner_and_the_loads_are_balanced(
            sizes in proptest::collection::vec(1_usize..1000, 1..60),
        ) {
            let layout = shapes(&sizes);
            for ranks in [1, 2, 4, 8] {
                let shards = Shards::balanced(&layout, ranks).unwrap();
                let loads: Vec<usize> = (0..ranks)
                    .map(|rank| shards.of_rank(rank).map(|tensor| sizes[tensor]).sum())
                    .collect();
                let total: usize = sizes.iter().sum();
                prop_assert_eq!(loads.iter().sum::<usize>(), total);
                let largest = sizes.iter().max().unwrap();
                prop_assert!(loads.iter().max().unwrap() <= &(total / ranks + largest));
            }
        }
    }

    #[test]
    fn the_released_model_on_the_cards_of_a_node() {
        let released = ModelConfig {
            hidden_size: 2048,
            num_hidden_layers: 28,
            intermediate_size: 6144,
            num_attention_heads: 16,
            num_key_value_heads: 8,
            head_dim: 128,
            vocab_size: 151_936,
            tie_word_embeddings: false,
            ..crate::model::config::tiny()
        };
        let layout = layout(&released);
        let total: usize = layout.iter().map(TensorShape::elements).sum();
        for (ranks, worst) in [(2, 1.001), (4, 1.001), (8, 1.23)] {
            let shards = Shards::balanced(&layout, ranks).unwrap();
            let load = |rank| -> usize { shards.of_rank(rank).map(|t| layout[t].elements()).sum() };
            let most = (0..ranks).map(load).max().unwrap();
            let over = most as f64 * ranks as f64 / total as f64;
            assert!(over < worst, "{ranks} ranks: {over} of an equal share");
        }
    }

    #[test]
    fn the_parts_of_an_optimizer_make_it_whole() {
        let layout = [
            TensorShape { name: "a".into(), shape: vec![3, 5] },
            TensorShape { name: "b".into(), shape: vec![7] },
            TensorShape { name: "c".into(), shape: vec![4, 2] },
        ];
        for settings in [
            OptimizerSettings::AdamW(AdamWSettings::default()),
            OptimizerSettings::Adafactor(AdafactorSettings::default()),
        ] {
            let mut optimizer = Optimizer::new(&settings, &layout);
            let mut values: Vec<Vec<f32>> =
                layout.iter().map(|tensor| vec![0.5; tensor.elements()]).collect();
            let gradients = values.clone();
            let gradients: Vec<&[f32]> = gradients.iter().map(Vec::as_slice).collect();
            let mut params: Vec<&mut [f32]> = values.iter_mut().map(Vec::as_mut_slice).collect();
            optimizer.step(0.1, &mut params, &gradients);
            let shards = Shards::balanced(&layout, 2).unwrap();
            let mut parts = HashMap::new();
            for rank in 0..2 {
                let part = shards.part(rank, &optimizer, &settings, &layout).unwrap();
                assert_eq!(part.steps(), 1);
                assert!(!part.state().is_empty());
                for tensor in part.state() {
                    let twice = parts.insert(tensor.name, tensor.values.to_vec());
                    assert!(twice.is_none(), "a tensor of two ranks");
                }
            }
            let again = whole(1, parts.clone(), &settings, &layout).unwrap();
            let flat = |optimizer: &Optimizer| -> Vec<(String, Vec<f32>)> {
                optimizer.state().into_iter().map(|t| (t.name, t.values.to_vec())).collect()
            };
            assert_eq!(flat(&again), flat(&optimizer));
            let name = parts.keys().next().unwrap().clone();
            parts.remove(&name);
            let error = whole(1, parts, &settings, &layout).unwrap_err().to_string();
            assert!(error.contains(&name), "{error}");
        }
    }
}
