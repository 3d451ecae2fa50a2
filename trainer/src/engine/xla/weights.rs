//! Parameters as arguments of a program: one tensor for each kind of weight, the layers stacked.

use super::mesh::{piece, runs, weight_sharding};
use crate::{
    model::{ModelConfig, layout},
    optim::TensorShape,
};
use coda_hlo::Sharding;
use coda_manifests::MeshShape;
use std::ops::Range;

/// Where the weights of a layer stand in the list of [`stack`], after the embedding.
pub(super) const LAYER_PARTS: usize = 11;

/// A weight of every layer in one tensor `[layers, …]`, or a weight that no layer has.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stacked {
    /// The Hugging Face name, `*` for the layer.
    pub name: String,
    /// Places in [`layout`], in the order of the layers.
    pub members: Members,
    /// Whether there is a leading axis of layers.
    pub layers: bool,
    /// Dimensions, the leading axis included.
    pub dims: Vec<usize>,
    /// How it lies on the mesh.
    pub sharding: Sharding,
}

/// Places `first, first + step, …`, `count` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Members {
    pub first: usize,
    pub step: usize,
    pub count: usize,
}

impl Members {
    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        (0..self.count).map(move |i| self.first + i * self.step)
    }
}

impl Stacked {
    /// Elements of one layer's weight.
    pub(super) fn member_elements(&self) -> usize {
        self.dims[usize::from(self.layers)..].iter().product()
    }

    /// Dimensions of one layer's weight.
    pub(super) fn member_dims(&self) -> &[usize] {
        &self.dims[usize::from(self.layers)..]
    }
}

/// The weights of a model in the order of a program's arguments: embedding, the eleven weights of a
/// layer, final norm, and the head unless it is tied.
#[must_use]
pub(super) fn stack(config: &ModelConfig, mesh: MeshShape) -> Vec<Stacked> {
    let list = layout(config);
    let layers = config.num_hidden_layers;
    let single = |index: usize| Stacked {
        name: list[index].name.clone(),
        members: Members { first: index, step: 1, count: 1 },
        layers: false,
        dims: list[index].shape.clone(),
        sharding: sharding(&list[index], &list[index].shape, mesh),
    };
    let of_layer = |part: usize| {
        let tensor = &list[1 + part];
        let dims: Vec<usize> = [layers].into_iter().chain(tensor.shape.iter().copied()).collect();
        Stacked {
            name: tensor.name.replacen(".0.", ".*.", 1),
            members: Members { first: 1 + part, step: LAYER_PARTS, count: layers },
            layers: true,
            sharding: sharding(tensor, &dims, mesh),
            dims,
        }
    };
    let rest = 1 + LAYER_PARTS * layers..list.len();
    [single(0)].into_iter().chain((0..LAYER_PARTS).map(of_layer)).chain(rest.map(single)).collect()
}

/// Matrices are split along `fsdp` on their side of the residual stream and along `tensor` on the
/// other (heads, inner width, vocabulary); vectors are repeated.
fn sharding(tensor: &TensorShape, dims: &[usize], mesh: MeshShape) -> Sharding {
    let from_stream = !["o_proj", "down_proj"].iter().any(|part| tensor.name.contains(part));
    let matrix = if from_stream { ["tensor", "fsdp"] } else { ["fsdp", "tensor"] };
    let mut axes = vec![None; dims.len()];
    if tensor.shape.len() == 2 {
        let first = dims.len() - 2;
        axes[first] = Some(matrix[0]);
        axes[first + 1] = Some(matrix[1]);
    }
    weight_sharding(mesh, dims, &axes)
}

/// What `device` holds of a stacked tensor whose members are `member(index)`.
#[must_use]
pub(super) fn cut<'a>(
    stacked: &Stacked,
    mesh: MeshShape,
    device: usize,
    member: impl Fn(usize) -> &'a [f32],
) -> (Vec<usize>, Vec<f32>) {
    let ranges = piece(mesh, device, &stacked.dims, &stacked.sharding);
    let dims: Vec<usize> = ranges.iter().map(ExactSizeIterator::len).collect();
    let mut values = Vec::with_capacity(dims.iter().product());
    let own = &ranges[usize::from(stacked.layers)..];
    for index in chosen(stacked, &ranges) {
        let whole = member(index);
        runs(stacked.member_dims(), own, |from, _, n| {
            values.extend_from_slice(&whole[from..from + n]);
        });
    }
    (dims, values)
}

/// Puts what `device` holds back into the members.
pub(super) fn paste(
    stacked: &Stacked,
    mesh: MeshShape,
    device: usize,
    values: &[f32],
    mut member: impl FnMut(usize, usize, &[f32]),
) {
    let ranges = piece(mesh, device, &stacked.dims, &stacked.sharding);
    let own = &ranges[usize::from(stacked.layers)..];
    let size: usize = own.iter().map(ExactSizeIterator::len).product();
    for (index, values) in chosen(stacked, &ranges).zip(values.chunks_exact(size.max(1))) {
        runs(stacked.member_dims(), own, |to, from, n| member(index, to, &values[from..from + n]));
    }
}

/// The members that a piece has.
fn chosen(stacked: &Stacked, ranges: &[Range<usize>]) -> impl Iterator<Item = usize> + use<> {
    let range = if stacked.layers { ranges[0].clone() } else { 0..1 };
    let members = stacked.members;
    members.iter().skip(range.start).take(range.len())
}

#[cfg(test)]
mod tests {
    use super::{cut, paste, stack};
    use crate::model::{Params, config::tiny, layout};
    use coda_manifests::MeshShape;

    #[test]
    fn every_parameter_has_one_place() {
        for tied in [true, false] {
            let config = crate::model::ModelConfig { tie_word_embeddings: tied, ..tiny() };
            let mut places: Vec<usize> = stack(&config, MeshShape::default())
                .iter()
                .flat_map(|stacked| stacked.members.iter().collect::<Vec<_>>())
                .collect();
            places.sort_unstable();
            assert_eq!(places, (0..layout(&config).len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn cutting_and_pasting_gives_the_parameters_back() {
        let config = tiny();
        let params = Params::init(&config, 3);
        let mesh = MeshShape { data: 1, fsdp: 2, tensor: 2 };
        for stacked in stack(&config, mesh) {
            assert!(stacked.dims.len() < 3 || stacked.sharding.dims.concat().len() == 2);
            let mut back: Vec<Vec<f32>> =
                layout(&config).iter().map(|t| vec![f32::NAN; t.elements()]).collect();
            for device in 0..4 {
                let (dims, values) = cut(&stacked, mesh, device, |index| params.get(index));
                assert_eq!(dims.iter().product::<usize>(), values.len());
                paste(&stacked, mesh, device, &values, |index, at, values| {
                    back[index][at..at + values.len()].copy_from_slice(values);
                });
            }
            for index in stacked.members.iter() {
                assert_eq!(back[index], params.get(index), "{}", stacked.name);
            }
        }
    }
}
