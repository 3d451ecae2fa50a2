//! Operations that treat every element by itself.

use crate::graph::{Graph, Value};
use crate::op::{Binary, Comparison, Op, Unary};
use crate::shape::ElementType;

/// Builders of one name, one operation and one line of documentation each.
macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident => $op:ident;)*) => {
        $($(#[$doc])*
        pub fn $name(&mut self, value: Value) -> Value {
            self.unary(Unary::$op, value)
        })*
    };
}

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident => $op:ident;)*) => {
        $($(#[$doc])*
        ///
        /// # Panics
        /// If the shapes differ.
        pub fn $name(&mut self, a: Value, b: Value) -> Value {
            self.binary(Binary::$op, a, b)
        })*
    };
}

impl Graph {
    binary! {
        /// `a + b`.
        add => Add;
        /// `a - b`.
        sub => Sub;
        /// `a * b`.
        mul => Mul;
        /// `a / b`; integers are rounded towards zero.
        div => Div;
        /// The larger one. At a tie the gradient goes to `a`.
        maximum => Maximum;
        /// The smaller one. At a tie the gradient goes to `a`.
        minimum => Minimum;
        /// `a` to the power `b`.
        pow => Pow;
        /// Both.
        and => And;
        /// One of them, or both.
        or => Or;
    }

    unary! {
        /// `-x`.
        neg => Neg;
        /// `e^x`.
        exp => Exp;
        /// The natural logarithm.
        log => Log;
        /// The square root.
        sqrt => Sqrt;
        /// `1 / √x`.
        rsqrt => Rsqrt;
        /// `1 / (1 + e^-x)`.
        logistic => Logistic;
        /// The sine.
        sine => Sine;
        /// The cosine.
        cosine => Cosine;
        /// The absolute value. Its gradient at zero is zero.
        abs => Abs;
        /// The largest integer that is not above `x`. No gradient flows through it.
        floor => Floor;
        /// Whether `x` is neither infinite nor a NaN.
        is_finite => IsFinite;
        /// True where `x` is false.
        not => Not;
    }

    /// `number * x`.
    pub fn scale(&mut self, value: Value, number: f64) -> Value {
        let factor = self.constant_like(number, value);
        self.mul(value, factor)
    }

    /// `x + number`.
    pub fn offset(&mut self, value: Value, number: f64) -> Value {
        let summand = self.constant_like(number, value);
        self.add(value, summand)
    }

    /// Compares element by element.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn compare(&mut self, comparison: Comparison, a: Value, b: Value) -> Value {
        self.equal_shapes(&format!("compare {comparison:?}"), a, b);
        let shape = self.shape(a).with_element(ElementType::Bool);
        self.push(Op::Compare(comparison), &[a, b], shape)
    }

    /// `on_true` where the condition holds, else `on_false`. The condition has their extents or none.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn select(&mut self, condition: Value, on_true: Value, on_false: Value) -> Value {
        self.equal_shapes("select", on_true, on_false);
        let (given, shape) = (self.shape(condition), self.shape(on_true));
        let fits = given.dims.is_empty() || given.dims == shape.dims;
        assert!(
            given.element == ElementType::Bool && fits,
            "select: {given} decides between values of {shape}"
        );
        let shape = shape.clone();
        self.push(Op::Select, &[condition, on_true, on_false], shape)
    }

    /// The same numbers in another element type; nothing at all if it is the same. From float to
    /// integer the fraction is cut off; to Bool everything but zero is true.
    pub fn convert(&mut self, value: Value, element: ElementType) -> Value {
        if self.shape(value).element == element {
            return value;
        }
        let shape = self.shape(value).with_element(element);
        self.push(Op::Convert, &[value], shape)
    }

    pub(crate) fn unary(&mut self, op: Unary, value: Value) -> Value {
        let shape = self.shape(value);
        let (wanted, result) = match op {
            Unary::Not => (shape.element == ElementType::Bool, shape.clone()),
            Unary::IsFinite => (shape.element.is_float(), shape.with_element(ElementType::Bool)),
            Unary::Neg | Unary::Abs => (shape.element != ElementType::Bool, shape.clone()),
            _ => (shape.element.is_float(), shape.clone()),
        };
        assert!(wanted, "{op:?} of {shape}");
        self.push(Op::Unary(op), &[value], result)
    }

    pub(crate) fn binary(&mut self, op: Binary, a: Value, b: Value) -> Value {
        self.equal_shapes(&format!("{op:?}"), a, b);
        let shape = self.shape(a).clone();
        let logical = matches!(op, Binary::And | Binary::Or);
        assert_eq!(logical, shape.element == ElementType::Bool, "{op:?} of {shape}");
        self.push(Op::Binary(op), &[a, b], shape)
    }

    fn equal_shapes(&self, what: &str, a: Value, b: Value) {
        let (a, b) = (self.shape(a), self.shape(b));
        assert!(a == b, "{what}: {a} and {b} differ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shape;

    #[test]
    #[should_panic(expected = "Add: tensor<2xf32> and tensor<3xf32> differ")]
    fn shapes_that_differ_are_named() {
        let mut graph = Graph::default();
        let a = graph.parameter(Shape::new(ElementType::F32, &[2]));
        let b = graph.parameter(Shape::new(ElementType::F32, &[3]));
        graph.add(a, b);
    }

    #[test]
    #[should_panic(expected = "Exp of tensor<i32>")]
    fn an_operation_refuses_elements_that_it_does_not_know() {
        let mut graph = Graph::default();
        let a = graph.parameter(Shape::scalar(ElementType::I32));
        graph.exp(a);
    }

    #[test]
    fn converting_to_the_same_type_is_nothing() {
        let mut graph = Graph::default();
        let a = graph.parameter(Shape::scalar(ElementType::F32));
        assert_eq!(graph.convert(a, ElementType::F32), a);
        let b = graph.convert(a, ElementType::Bf16);
        assert_eq!(graph.shape(b).element, ElementType::Bf16);
    }
}
