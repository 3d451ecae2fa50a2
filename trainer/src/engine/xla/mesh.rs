//! The device mesh, and how every tensor is laid over it.
//!
//! Three axes, as in the recipes of the method: `data` (rows of the batch; parameters repeated),
//! `fsdp` (rows of the batch; parameters and optimizer state split), `tensor` (heads, inner width
//! and vocabulary split). The number of devices is the product.

use coda_hlo::{Mesh, Sharding};
use coda_manifests::MeshShape;
use std::ops::Range;

/// The axes over which the rows of a batch are split, outermost first.
const BATCH_AXES: [&str; 2] = ["data", "fsdp"];

/// The mesh as the graph names it: always all three axes, in this order.
#[must_use]
pub(super) fn graph_mesh(shape: MeshShape) -> Mesh {
    Mesh { axes: sizes(shape).map(|(name, size)| (name.to_owned(), size)).to_vec() }
}

fn sizes(shape: MeshShape) -> [(&'static str, usize); 3] {
    [
        ("data", shape.data as usize),
        ("fsdp", shape.fsdp as usize),
        ("tensor", shape.tensor as usize),
    ]
}

/// Devices of the mesh.
#[must_use]
pub(super) fn devices(shape: MeshShape) -> usize {
    sizes(shape).iter().map(|(_, size)| size).product()
}

/// Parts into which the rows of a batch fall.
#[must_use]
pub(super) fn batch_parts(shape: MeshShape) -> usize {
    shape.data as usize * shape.fsdp as usize
}

/// A tensor whose dimension `dim` of `rank` is the batch's.
#[must_use]
pub(super) fn batch_sharding(rank: usize, dim: usize) -> Sharding {
    let mut dims = vec![Vec::new(); rank];
    dims[dim] = BATCH_AXES.map(str::to_owned).to_vec();
    Sharding { dims }
}

/// A tensor with at most one axis for each dimension; an axis whose size does not divide the
/// dimension is left out, so that the tensor is repeated along it.
#[must_use]
pub(super) fn weight_sharding(shape: MeshShape, dims: &[usize], axes: &[Option<&str>]) -> Sharding {
    let size = |axis: &str| {
        sizes(shape).iter().find(|(name, _)| *name == axis).map_or(1, |&(_, size)| size)
    };
    let of_dim = |(&dim, &axis): (&usize, _)| match axis {
        Some(axis) if dim.is_multiple_of(size(axis)) => vec![str::to_owned(axis)],
        _ => Vec::new(),
    };
    Sharding { dims: dims.iter().zip(axes).map(of_dim).collect() }
}

/// What one device holds of a tensor: a range of every dimension.
///
/// Devices are numbered along the mesh, the last axis fastest.
///
/// # Panics
/// If the tensor cannot be split evenly, which [`weight_sharding`] and the check of the batch rule
/// out.
#[must_use]
pub(super) fn piece(
    shape: MeshShape,
    device: usize,
    dims: &[usize],
    sharding: &Sharding,
) -> Vec<Range<usize>> {
    let [(_, _), (_, fsdp), (_, tensor)] = sizes(shape);
    let place = |axis: &str| match axis {
        "data" => (device / (fsdp * tensor), shape.data as usize),
        "fsdp" => (device / tensor % fsdp, fsdp),
        _ => (device % tensor, tensor),
    };
    dims.iter()
        .zip(&sharding.dims)
        .map(|(&dim, axes)| {
            let (mut index, mut parts) = (0, 1);
            for axis in axes {
                let (at, size) = place(axis);
                index = index * size + at;
                parts *= size;
            }
            assert!(dim.is_multiple_of(parts), "{dim} elements in {parts} parts");
            let width = dim / parts;
            index * width..(index + 1) * width
        })
        .collect()
}

/// Whether no device before this one holds the same piece: of every tensor that is repeated along an
/// axis only the first copy is fetched.
#[must_use]
pub(super) fn is_first_holder(shape: MeshShape, device: usize, sharding: &Sharding) -> bool {
    let [_, (_, fsdp), (_, tensor)] = sizes(shape);
    let at = [device / (fsdp * tensor), device / tensor % fsdp, device % tensor];
    let used = |axis: &str| sharding.dims.iter().flatten().any(|name| name == axis);
    sizes(shape).iter().zip(at).all(|((axis, _), at)| at == 0 || used(axis))
}

/// Copies a block between a whole tensor and a piece of it. `visit` gets, for every contiguous run,
/// where it begins in the whole, where in the piece, and how long it is.
pub(super) fn runs(
    dims: &[usize],
    ranges: &[Range<usize>],
    mut visit: impl FnMut(usize, usize, usize),
) {
    // Trailing dimensions that are whole belong to the run.
    let whole = |i: usize| ranges[i] == (0..dims[i]);
    let mut split = dims.len();
    while split > 0 && whole(split - 1) {
        split -= 1;
    }
    let inner: usize = dims[split..].iter().product();
    let (outer, run) = match split {
        0 => return visit(0, 0, inner),
        _ => (split - 1, ranges[split - 1].len() * inner),
    };
    let mut at: Vec<usize> = ranges[..outer].iter().map(|range| range.start).collect();
    let mut local = 0;
    if ranges.iter().any(Range::is_empty) {
        return;
    }
    loop {
        let mut global = 0;
        for (i, &index) in at.iter().enumerate() {
            global = global * dims[i] + index;
        }
        global = (global * dims[outer] + ranges[outer].start) * inner;
        visit(global, local, run);
        local += run;
        // The next index, the last dimension fastest.
        let mut i = outer;
        loop {
            if i == 0 {
                return;
            }
            i -= 1;
            at[i] += 1;
            if at[i] < ranges[i].end {
                break;
            }
            at[i] = ranges[i].start;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{batch_sharding, devices, piece, runs, weight_sharding};
    use coda_manifests::MeshShape;
    use proptest::prelude::*;

    const MESH: MeshShape = MeshShape { data: 2, fsdp: 3, tensor: 2 };

    #[test]
    fn rows_of_a_batch_fall_to_devices_in_order_and_repeat_along_tensor() {
        let sharding = batch_sharding(2, 1);
        let rows: Vec<_> = (0..devices(MESH))
            .map(|device| piece(MESH, device, &[5, 12], &sharding)[1].clone())
            .collect();
        let expected =
            [0..2, 0..2, 2..4, 2..4, 4..6, 4..6, 6..8, 6..8, 8..10, 8..10, 10..12, 10..12];
        assert_eq!(rows, expected);
    }

    #[test]
    fn an_axis_that_does_not_divide_is_left_out() {
        let sharding = weight_sharding(MESH, &[7, 9], &[Some("tensor"), Some("fsdp")]);
        assert_eq!(sharding.dims, [vec![], vec!["fsdp".to_owned()]]);
    }

    proptest! {
        #[test]
        fn the_pieces_of_all_devices_are_the_tensor(
            leading in 1usize..4,
            rows in 1usize..4,
            columns in 1usize..4,
            axes in proptest::sample::select(vec![
                [None, Some("tensor"), Some("fsdp")],
                [None, Some("fsdp"), None],
                [None, None, Some("data")],
                [None, None, None],
            ]),
        ) {
            let dims = [leading, rows * 6, columns * 6];
            let whole: Vec<usize> = (0..dims.iter().product()).collect();
            let sharding = weight_sharding(MESH, &dims, &axes);
            let mut back = vec![usize::MAX; whole.len()];
            for device in 0..devices(MESH) {
                let ranges = piece(MESH, device, &dims, &sharding);
                let mut part = vec![0; ranges.iter().map(ExactSizeIterator::len).product()];
                let mut seen = 0;
                runs(&dims, &ranges, |global, local, n| {
                    assert_eq!(local, seen);
                    seen += n;
                    part[local..local + n].copy_from_slice(&whole[global..global + n]);
                });
                prop_assert_eq!(seen, part.len());
                // Element by element, by the definition of a slice.
                for (i, &value) in part.iter().enumerate() {
                    let (c, rest) = (i % ranges[2].len(), i / ranges[2].len());
                    let (r, l) = (rest % ranges[1].len(), rest / ranges[1].len());
                    let at = [l + ranges[0].start, r + ranges[1].start, c + ranges[2].start];
                    prop_assert_eq!(value, (at[0] * dims[1] + at[1]) * dims[2] + at[2]);
                    back[value] = value;
                }
            }
            prop_assert_eq!(back, whole);
        }
    }
}
