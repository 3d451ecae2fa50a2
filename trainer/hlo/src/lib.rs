//! Here is a computation; what is its derivative, and how is it told to XLA?
//!
//! A [`Graph`] is built operation by operation, [`Graph::gradients`] appends its derivative, and a
//! [`Module`] prints both as textual `StableHLO` with Shardy annotations. Nothing here knows models
//! or devices. [`interpret()`] is the judge of all of it: plain loops in f64.
//!
//! Loops are [`Graph::scan`]. The derivative of a scan is a scan in the other direction that runs
//! the body anew: only what each step got as its carries is kept. A model whose layers are a scan
//! is recomputed in its backward pass by construction, and its text has one layer, however many
//! there are.
//!
//! ```
//! use coda_hlo::{ElementType, Graph, Shape, Tensor, interpret};
//!
//! let mut graph = Graph::default();
//! let x = graph.parameter(Shape::new(ElementType::F32, &[2]));
//! let square = graph.mul(x, x);
//! let loss = graph.sum(square, &[0]);
//! let one = graph.constant_like(1.0, loss);
//! let gradient = graph.gradients(&[(loss, one)], &[x])[0];
//!
//! let input = Tensor::new(Shape::new(ElementType::F32, &[2]), vec![3.0, -1.0]);
//! assert_eq!(interpret(&graph, &[input], &[gradient])[0].values, [6.0, -2.0]);
//! ```
//!
//! Shapes that do not fit are a fault of the program that builds the graph, not of its input: every
//! builder panics on them and names the shapes.

mod build;
mod flops;
mod gradient;
mod graph;
mod interpret;
mod liveness;
mod module;
mod number;
mod op;
mod shape;
mod sharding;
mod text;

pub use build::scan::Body;
pub use flops::flops;
pub use graph::{Graph, Value};
pub use interpret::{Tensor, interpret, interpret_rounded};
pub use module::{Argument, Module, Output};
pub use op::{Comparison, Direction, DotAxes};
pub use shape::{ElementType, Shape};
pub use sharding::{Mesh, Sharding};
