//! Derivatives of what treats every element by itself.

use crate::graph::{Graph, Node, Value};
use crate::op::{Binary, Comparison, Unary};

impl Graph {
    pub(super) fn unary_share(
        &mut self,
        op: Unary,
        node: &Node,
        arrived: Value,
    ) -> Vec<Option<Value>> {
        let (x, y) = (node.inputs[0], node.outputs[0]);
        let share = match op {
            Unary::Neg => self.neg(arrived),
            Unary::Exp => self.mul(arrived, y),
            Unary::Log => self.div(arrived, x),
            Unary::Sqrt => {
                let half = self.scale(arrived, 0.5);
                self.div(half, y)
            }
            Unary::Rsqrt => {
                let square = self.mul(y, y);
                let cube = self.mul(square, y);
                let slope = self.scale(cube, -0.5);
                self.mul(arrived, slope)
            }
            Unary::Logistic => {
                let one = self.constant_like(1.0, y);
                let rest = self.sub(one, y);
                let slope = self.mul(y, rest);
                self.mul(arrived, slope)
            }
            Unary::Sine => {
                let slope = self.cosine(x);
                self.mul(arrived, slope)
            }
            Unary::Cosine => {
                let slope = self.sine(x);
                let product = self.mul(arrived, slope);
                self.neg(product)
            }
            Unary::Abs => {
                let zero = self.constant_like(0.0, x);
                let above = self.compare(Comparison::Gt, x, zero);
                let below = self.compare(Comparison::Lt, x, zero);
                let opposite = self.neg(arrived);
                let falling = self.select(below, opposite, zero);
                self.select(above, arrived, falling)
            }
            Unary::Floor | Unary::IsFinite | Unary::Not => {
                unreachable!("{op:?} hands nothing on")
            }
        };
        vec![Some(share)]
    }

    pub(super) fn binary_shares(
        &mut self,
        op: Binary,
        node: &Node,
        arrived: Value,
    ) -> Vec<Option<Value>> {
        let (a, b, y) = (node.inputs[0], node.inputs[1], node.outputs[0]);
        let (first, second) = match op {
            Binary::Add => (arrived, arrived),
            Binary::Sub => (arrived, self.neg(arrived)),
            Binary::Mul => (self.mul(arrived, b), self.mul(arrived, a)),
            Binary::Div => {
                let quotient = self.div(arrived, b);
                let product = self.mul(quotient, y);
                (quotient, self.neg(product))
            }
            Binary::Maximum => self.one_of(Comparison::Ge, a, b, arrived),
            Binary::Minimum => self.one_of(Comparison::Le, a, b, arrived),
            Binary::Pow => self.pow_shares(a, b, y, arrived),
            Binary::And | Binary::Or => unreachable!("{op:?} hands nothing on"),
        };
        vec![Some(first), Some(second)]
    }

    pub(super) fn select_shares(&mut self, node: &Node, arrived: Value) -> Vec<Option<Value>> {
        let zero = self.constant_like(0.0, arrived);
        let on_true = self.select(node.inputs[0], arrived, zero);
        let on_false = self.select(node.inputs[0], zero, arrived);
        vec![None, Some(on_true), Some(on_false)]
    }

    /// All to `a` where the comparison holds, else all to `b`.
    fn one_of(
        &mut self,
        comparison: Comparison,
        a: Value,
        b: Value,
        arrived: Value,
    ) -> (Value, Value) {
        let first = self.compare(comparison, a, b);
        let zero = self.constant_like(0.0, arrived);
        (self.select(first, arrived, zero), self.select(first, zero, arrived))
    }

    /// `b a^(b-1)` and `a^b ln a`. Where these are 0 · ∞ the limit is meant: a constant power has no
    /// slope in `a`, and zero to any power none in `b`.
    fn pow_shares(&mut self, a: Value, b: Value, y: Value, arrived: Value) -> (Value, Value) {
        let zero = self.constant_like(0.0, b);
        let one = self.constant_like(1.0, b);
        let constant = self.compare(Comparison::Eq, b, zero);
        let lower = self.sub(b, one);
        let lower = self.select(constant, one, lower);
        let power = self.pow(a, lower);
        let slope = self.mul(b, power);
        let first = self.mul(arrived, slope);
        let at_zero = self.compare(Comparison::Eq, a, zero);
        let safe = self.select(at_zero, one, a);
        let logarithm = self.log(safe);
        let slope = self.mul(y, logarithm);
        let second = self.mul(arrived, slope);
        (first, second)
    }
}
