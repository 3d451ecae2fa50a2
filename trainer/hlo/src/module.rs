//! A graph as a program: named arguments and outputs, how they lie on the devices, and which
//! argument's memory an output may take.

use crate::graph::{Graph, Value};
use crate::sharding::{Mesh, Sharding};
use crate::text;

/// How one parameter of the graph is handed over.
#[derive(Clone, Debug, Default)]
pub struct Argument {
    /// A name for readers of the text.
    pub name: String,
    /// How it lies on the mesh; without one the partitioner decides.
    pub sharding: Option<Sharding>,
    /// The output that takes this argument's memory.
    pub donated_to: Option<usize>,
}

/// One result of the program.
#[derive(Clone, Debug)]
pub struct Output {
    /// The value that is returned.
    pub value: Value,
    /// A name for readers of the text.
    pub name: String,
    /// How it lies on the mesh; without one the partitioner decides.
    pub sharding: Option<Sharding>,
}

/// A whole program.
#[derive(Clone, Debug)]
pub struct Module {
    /// The module's name, letters and digits.
    pub name: String,
    /// The devices; without them the program is for one, and every sharding is left out.
    pub mesh: Option<Mesh>,
    /// What is computed.
    pub graph: Graph,
    /// One per parameter of the graph, in their order.
    pub arguments: Vec<Argument>,
    /// What is returned.
    pub outputs: Vec<Output>,
}

impl Module {
    /// The program as textual `StableHLO`: the same text for the same module, always. Nodes that no
    /// output needs are left out; every parameter stays, so that arguments keep their places.
    ///
    /// # Panics
    /// If arguments and parameters differ in number, a sharding does not fit its value or the mesh,
    /// or a donated argument differs in shape from its output.
    #[must_use]
    pub fn text(&self) -> String {
        self.check();
        text::module(self)
    }

    fn check(&self) {
        let parameters = self.graph.parameters();
        assert_eq!(self.arguments.len(), parameters.len(), "{}: arguments", self.name);
        for (argument, parameter) in self.arguments.iter().zip(parameters) {
            let shape = self.graph.shape(*parameter);
            self.check_sharding(&argument.name, shape.rank(), argument.sharding.as_ref());
            if let Some(output) = argument.donated_to {
                let taken = self.graph.shape(self.outputs[output].value);
                assert_eq!(shape, taken, "{}: {shape} donated to {taken}", argument.name);
            }
        }
        for output in &self.outputs {
            let rank = self.graph.shape(output.value).rank();
            self.check_sharding(&output.name, rank, output.sharding.as_ref());
        }
    }

    fn check_sharding(&self, name: &str, rank: usize, sharding: Option<&Sharding>) {
        let (Some(mesh), Some(sharding)) = (&self.mesh, sharding) else { return };
        assert_eq!(sharding.dims.len(), rank, "{name}: the sharding's rank");
        if let Some(fault) = mesh.fault(sharding) {
            panic!("{name}: {fault}");
        }
    }
}
