//! Elements that move.

use super::tensor::Tensor;
use crate::shape::Shape;
use std::ops::Range;

pub(super) fn broadcast(given: &Tensor, axes: &[usize], shape: &Shape) -> Tensor {
    Tensor::from_places(shape, |place| {
        let extents = axes.iter().zip(&given.shape.dims);
        let from: Vec<usize> =
            extents.map(|(axis, extent)| if *extent == 1 { 0 } else { place[*axis] }).collect();
        given.at(&from)
    })
}

pub(super) fn transpose(given: &Tensor, order: &[usize], shape: &Shape) -> Tensor {
    Tensor::from_places(shape, |place| {
        let mut from = vec![0; order.len()];
        for (at, axis) in place.iter().zip(order) {
            from[*axis] = *at;
        }
        given.at(&from)
    })
}

pub(super) fn slice(given: &Tensor, ranges: &[Range<usize>], shape: &Shape) -> Tensor {
    Tensor::from_places(shape, |place| {
        let from: Vec<usize> = place.iter().zip(ranges).map(|(at, r)| at + r.start).collect();
        given.at(&from)
    })
}

pub(super) fn pad(given: &Tensor, margins: &[(usize, usize)], shape: &Shape) -> Tensor {
    Tensor::from_places(shape, |place| {
        let from: Option<Vec<usize>> = place
            .iter()
            .zip(margins)
            .zip(&given.shape.dims)
            .map(|((at, (low, _)), extent)| at.checked_sub(*low).filter(|at| at < extent))
            .collect();
        from.map_or(0.0, |from| given.at(&from))
    })
}

pub(super) fn concat(first: &Tensor, second: &Tensor, axis: usize, shape: &Shape) -> Tensor {
    let seam = first.shape.dims[axis];
    Tensor::from_places(shape, |place| {
        if place[axis] < seam {
            return first.at(place);
        }
        let mut from = place.to_vec();
        from[axis] -= seam;
        second.at(&from)
    })
}
