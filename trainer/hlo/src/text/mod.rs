//! Textual `StableHLO`.

mod operation;
mod scan;

use crate::graph::{Graph, Value};
use crate::liveness::Live;
use crate::module::Module;
use crate::number::literal;
use crate::op::Op;
use crate::shape::Shape;
use crate::sharding::Sharding;
use std::collections::HashMap;
use std::fmt::Write;

/// The text of a module.
pub(crate) fn module(module: &Module) -> String {
    let mut printer = Printer { sharded: module.mesh.is_some(), ..Printer::default() };
    let sharding = |of: Option<&Sharding>| {
        of.filter(|_| module.mesh.is_some())
            .map(|sharding| format!("sdy.sharding = #sdy.sharding{}", sharding.text()))
    };
    let devices = module.mesh.as_ref().map_or(1, crate::Mesh::devices);
    let mesh = module.mesh.as_ref().map(|mesh| format!("  {}\n", mesh.text())).unwrap_or_default();

    let mut names = HashMap::new();
    let mut arguments = Vec::new();
    for (argument, parameter) in module.arguments.iter().zip(module.graph.parameters()) {
        let name = printer.name();
        let mut attributes: Vec<String> =
            sharding(argument.sharding.as_ref()).into_iter().collect();
        let output = argument.donated_to;
        attributes.extend(output.map(|output| format!("tf.aliasing_output = {output} : i32")));
        let shape = module.graph.shape(*parameter);
        let comment = comment(&argument.name);
        arguments.push(format!("{name}: {shape}{}{comment}", braces(&attributes)));
        names.insert(*parameter, name);
    }
    let outputs: Vec<Value> = module.outputs.iter().map(|output| output.value).collect();
    printer.graph(&module.graph, &outputs, &mut names);
    let results: Vec<String> = module
        .outputs
        .iter()
        .map(|output| {
            let attributes: Vec<String> = sharding(output.sharding.as_ref()).into_iter().collect();
            format!("{}{}", module.graph.shape(output.value), braces(&attributes))
        })
        .collect();
    let returned: Vec<&str> = outputs.iter().map(|value| names[value].as_str()).collect();
    let shapes: Vec<String> = outputs.iter().map(|v| module.graph.shape(*v).to_string()).collect();
    printer.line(&format!("return {} : {}", returned.join(", "), shapes.join(", ")));
    format!(
        "module @{} attributes {{mhlo.num_partitions = {devices} : i32, mhlo.num_replicas = 1 : i32}} {{\n\
         {mesh}  func.func public @main(\n{}\n  ) -> (\n    {}\n  ) {{\n{}  }}\n}}\n",
        module.name,
        listed(&arguments),
        results.join(",\n    "),
        printer.text,
    )
}

/// Arguments one a line, with their names as comments: the comma must stand before the comment.
fn listed(arguments: &[String]) -> String {
    let last = arguments.len().saturating_sub(1);
    let lines = arguments.iter().enumerate().map(|(k, argument)| {
        let comma = if k == last { "" } else { "," };
        match argument.split_once(COMMENT) {
            Some((text, name)) => format!("    {text}{comma}{COMMENT}{name}"),
            None => format!("    {argument}{comma}"),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

const COMMENT: &str = "  // ";

fn comment(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("{COMMENT}{}", name.replace('\n', " ")) }
}

fn braces(attributes: &[String]) -> String {
    if attributes.is_empty() { String::new() } else { format!(" {{{}}}", attributes.join(", ")) }
}

/// Writes lines and gives out names.
#[derive(Default)]
struct Printer {
    text: String,
    names: usize,
    /// Regions within the function, for indentation.
    depth: usize,
    /// Whether there is a mesh, so that constraints mean something.
    sharded: bool,
    /// Names of the constants of the region that is being written, by literal and shape.
    constants: HashMap<(String, Shape), String>,
}

impl Printer {
    /// A name that nothing has yet.
    fn name(&mut self) -> String {
        self.names += 1;
        format!("%v{}", self.names)
    }

    /// One line as it is.
    fn line(&mut self, line: &str) {
        let indent = "  ".repeat(self.depth + 2);
        let _ = writeln!(self.text, "{indent}{line}");
    }

    /// An operation with one result, whose name is returned.
    fn assign(&mut self, operation: &str) -> String {
        let name = self.name();
        self.line(&format!("{name} = {operation}"));
        name
    }

    /// A number everywhere; the same number in the same region is written once.
    fn constant(&mut self, number: f64, shape: &Shape) -> String {
        self.literal(literal(number, shape.element), shape)
    }

    fn literal(&mut self, literal: String, shape: &Shape) -> String {
        let key = (literal, shape.clone());
        if let Some(name) = self.constants.get(&key) {
            return name.clone();
        }
        let name = self.assign(&format!("stablehlo.constant dense<{}> : {shape}", key.0));
        self.constants.insert(key, name.clone());
        name
    }

    /// Writes the lines of a region: constants outside it are not seen within, nor the reverse.
    fn region(&mut self, write: impl FnOnce(&mut Self)) {
        let outside = std::mem::take(&mut self.constants);
        self.depth += 1;
        write(self);
        self.depth -= 1;
        self.constants = outside;
    }

    /// The nodes of a graph that its outputs need, in order. `names` knows the parameters and comes
    /// to know the rest.
    fn graph(&mut self, graph: &Graph, outputs: &[Value], names: &mut HashMap<Value, String>) {
        let live = Live::of(graph, outputs);
        for node in graph.nodes.iter().filter(|node| live.has(node)) {
            match &node.op {
                Op::Parameter => {}
                Op::Scan(scan) => self.scan(graph, scan, node, &live, names),
                _ => {
                    let name = self.operation(graph, node, names);
                    names.insert(node.outputs[0], name);
                }
            }
        }
    }
}
