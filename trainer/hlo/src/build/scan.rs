//! Loops.

use crate::graph::{Graph, Value};
use crate::op::{Direction, Op, ScanOp};
use crate::shape::{ElementType, Shape};

/// What a loop does in one step: a graph whose parameters are, in this order, the carries, one slice
/// of each of the `xs` (without their leading axis), and the constants.
#[derive(Clone, Debug)]
pub struct Body {
    /// The step.
    pub graph: Graph,
    /// The next carries, then what is stacked.
    pub outputs: Vec<Value>,
}

impl Graph {
    /// Runs `body` once for every slice along the leading axis of `xs`, and returns the last carries
    /// and then, stacked on a new leading axis, what each step gave besides.
    ///
    /// `trips`, an i32 scalar, ends the loop early: with n trips only the first n slices are visited
    /// (in reverse: from slice n - 1 back to 0), and the rest of what is stacked is zero. More
    /// trips than slices are as many as slices.
    ///
    /// # Panics
    /// If there are no `xs` (see [`Graph::repeat`]) or the shapes do not fit the body.
    pub fn scan(
        &mut self,
        init: &[Value],
        xs: &[Value],
        consts: &[Value],
        body: Body,
        direction: Direction,
        trips: Option<Value>,
    ) -> Vec<Value> {
        let first = xs.first().expect("scan: no slices to run over; `repeat` takes a length");
        let length = *self.dims(*first).first().expect("scan: a scalar has no slices");
        self.push_scan(length, [init, xs, consts], body, direction, trips)
    }

    /// Runs `body` `length` times, as [`Graph::scan`] does, without slices.
    ///
    /// # Panics
    /// If the shapes do not fit the body.
    pub fn repeat(
        &mut self,
        length: usize,
        init: &[Value],
        consts: &[Value],
        body: Body,
        direction: Direction,
        trips: Option<Value>,
    ) -> Vec<Value> {
        self.push_scan(length, [init, &[], consts], body, direction, trips)
    }

    pub(crate) fn push_scan(
        &mut self,
        length: usize,
        [init, xs, consts]: [&[Value]; 3],
        body: Body,
        direction: Direction,
        trips: Option<Value>,
    ) -> Vec<Value> {
        let Body { graph: body, outputs } = body;
        let mut expected: Vec<Shape> = init.iter().map(|v| self.shape(*v).clone()).collect();
        for value in xs {
            let shape = self.shape(*value);
            assert_eq!(shape.dims.first(), Some(&length), "scan: {shape} has no {length} slices");
            expected.push(shape.without(&[0]));
        }
        expected.extend(consts.iter().map(|value| self.shape(*value).clone()));
        let parameters: Vec<&Shape> = body.parameters().iter().map(|v| body.shape(*v)).collect();
        assert!(
            parameters.iter().copied().eq(expected.iter()),
            "scan: the body takes {}, but is given {}",
            list(parameters),
            list(&expected)
        );
        let carries: Vec<&Shape> =
            outputs.iter().take(init.len()).map(|value| body.shape(*value)).collect();
        assert!(
            carries.iter().copied().eq(&expected[..init.len()]),
            "scan: the carries are {}, but the body gives {}",
            list(&expected[..init.len()]),
            list(carries)
        );
        if let Some(trips) = trips {
            let shape = self.shape(trips);
            assert_eq!(*shape, Shape::scalar(ElementType::I32), "scan: trips are {shape}");
        }
        let mut shapes = expected[..init.len()].to_vec();
        let stacked = outputs[init.len()..].iter();
        shapes.extend(stacked.map(|value| body.shape(*value).stacked(length)));
        let mut inputs = [init, xs, consts].concat();
        inputs.extend(trips);
        let scan = ScanOp {
            body,
            outputs,
            carries: init.len(),
            xs: xs.len(),
            length,
            direction,
            has_trips: trips.is_some(),
        };
        self.push_many(Op::Scan(Box::new(scan)), &inputs, shapes)
    }
}

fn list<'a>(shapes: impl IntoIterator<Item = &'a Shape>) -> String {
    let names: Vec<String> = shapes.into_iter().map(Shape::to_string).collect();
    format!("({})", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Body {
        let mut graph = Graph::default();
        let carry = graph.parameter(Shape::scalar(ElementType::F32));
        let x = graph.parameter(Shape::scalar(ElementType::F32));
        let next = graph.add(carry, x);
        Body { graph, outputs: vec![next, carry] }
    }

    #[test]
    fn what_is_stacked_gets_a_leading_axis() {
        let mut graph = Graph::default();
        let init = graph.parameter(Shape::scalar(ElementType::F32));
        let xs = graph.parameter(Shape::new(ElementType::F32, &[5]));
        let out = graph.scan(&[init], &[xs], &[], body(), Direction::Forward, None);
        assert_eq!(graph.dims(out[0]), [0usize; 0]);
        assert_eq!(graph.dims(out[1]), [5]);
    }

    #[test]
    #[should_panic(expected = "the body takes (tensor<f32>, tensor<f32>), but is given \
                               (tensor<2xf32>, tensor<f32>)")]
    fn a_body_must_fit_what_it_is_given() {
        let mut graph = Graph::default();
        let init = graph.parameter(Shape::new(ElementType::F32, &[2]));
        let xs = graph.parameter(Shape::new(ElementType::F32, &[5]));
        graph.scan(&[init], &[xs], &[], body(), Direction::Forward, None);
    }
}
