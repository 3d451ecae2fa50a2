//! Places that are values. Those out of range are treated as `StableHLO` does: a gather takes the
//! nearest, a scatter leaves them out.

use super::tensor::{Tensor, places};
use crate::shape::Shape;

/// A number as a place below `extent`, if it is one.
fn within(number: f64, extent: usize) -> Option<usize> {
    (0..extent).find(|at| (*at as f64 - number).abs() < 0.5)
}

/// The nearest place below `extent`.
fn nearest(number: f64, extent: usize) -> usize {
    let last = extent.saturating_sub(1);
    within(number, extent).unwrap_or(if number < 0.0 { 0 } else { last })
}

pub(super) fn take(table: &Tensor, ids: &Tensor, shape: &Shape) -> Tensor {
    let (rows, rank) = (table.shape.dims[0], ids.shape.rank());
    Tensor::from_places(shape, |place| {
        let row = nearest(ids.at(&place[..rank]), rows);
        table.at(&[row, place[rank]])
    })
}

pub(super) fn take_along(values: &Tensor, ids: &Tensor, shape: &Shape) -> Tensor {
    let rows = values.shape.dims[1];
    Tensor::from_places(shape, |place| {
        let row = nearest(ids.at(&place[..2]), rows);
        values.at(&[place[0], row, place[2]])
    })
}

pub(super) fn scatter_add(base: &Tensor, ids: &Tensor, updates: &Tensor) -> Tensor {
    let (mut result, rank) = (base.clone(), ids.shape.rank());
    for place in places(&updates.shape.dims) {
        if let Some(row) = within(ids.at(&place[..rank]), base.shape.dims[0]) {
            let offset = result.offset(&[row, place[rank]]);
            result.values[offset] += updates.at(&place);
        }
    }
    result
}

pub(super) fn scatter_add_along(base: &Tensor, ids: &Tensor, updates: &Tensor) -> Tensor {
    let mut result = base.clone();
    for place in places(&updates.shape.dims) {
        if let Some(row) = within(ids.at(&place[..2]), base.shape.dims[1]) {
            let offset = result.offset(&[place[0], row, place[2]]);
            result.values[offset] += updates.at(&place);
        }
    }
    result
}

pub(super) fn dynamic_slice(given: &Tensor, starts: &[&Tensor], shape: &Shape) -> Tensor {
    let starts = fitting(starts, &given.shape.dims, &shape.dims);
    Tensor::from_places(shape, |place| {
        let from: Vec<usize> = place.iter().zip(&starts).map(|(at, start)| at + start).collect();
        given.at(&from)
    })
}

pub(super) fn dynamic_update_slice(base: &Tensor, update: &Tensor, starts: &[&Tensor]) -> Tensor {
    let mut result = base.clone();
    let starts = fitting(starts, &base.shape.dims, &update.shape.dims);
    for place in places(&update.shape.dims) {
        let to: Vec<usize> = place.iter().zip(&starts).map(|(at, start)| at + start).collect();
        let offset = result.offset(&to);
        result.values[offset] = update.at(&place);
    }
    result
}

/// Starts moved until a part of these sizes fits.
fn fitting(starts: &[&Tensor], extents: &[usize], sizes: &[usize]) -> Vec<usize> {
    let room = extents.iter().zip(sizes).map(|(extent, size)| extent - size + 1);
    starts.iter().zip(room).map(|(start, room)| nearest(start.values[0], room)).collect()
}
