//! What is printed, as people and XLA read it.

mod common;

use coda_hlo::{
    Argument, Body, Comparison, Direction, DotAxes, ElementType, Graph, Mesh, Module, Output,
    Shape, Sharding,
};
use common::{cases, f32, i32};

fn argument(name: &str) -> Argument {
    Argument { name: name.into(), ..Argument::default() }
}

fn split(names: &[&str]) -> Sharding {
    let dims = names
        .iter()
        .map(|name| if name.is_empty() { Vec::new() } else { vec![(*name).to_owned()] });
    Sharding { dims: dims.collect() }
}

/// One step of gradient descent on `mean((x w)²)`, on four devices.
fn descent() -> Module {
    let mut graph = Graph::default();
    let w = graph.parameter(f32(&[8, 4]));
    let x = graph.parameter(f32(&[16, 8]));
    let rows = split(&["fsdp", ""]);
    let y = graph.dot(x, w, &DotAxes::contract(1, 0), ElementType::F32);
    let y = graph.constrain(y, &rows);
    let square = graph.mul(y, y);
    let total = graph.sum(square, &[0, 1]);
    let loss = graph.scale(total, 1.0 / 64.0);
    let one = graph.constant_like(1.0, loss);
    let gradient = graph.gradients(&[(loss, one)], &[w])[0];
    let change = graph.scale(gradient, 0.1);
    let next = graph.sub(w, change);
    let output = |value, name: &str, sharding| Output { value, name: name.into(), sharding };
    Module {
        name: "descent".into(),
        mesh: Some(Mesh { axes: vec![("fsdp".into(), 4)] }),
        graph,
        arguments: vec![
            Argument { donated_to: Some(0), sharding: Some(split(&["fsdp", ""])), ..argument("w") },
            Argument { sharding: Some(split(&["fsdp", ""])), ..argument("x") },
        ],
        outputs: vec![
            output(next, "w", Some(split(&["fsdp", ""]))),
            output(loss, "loss", Some(Sharding::replicated(0))),
        ],
    }
}

/// A loop that may end early, of which one stacked output and one carry are not wanted.
fn early() -> Module {
    let mut body = Graph::default();
    let (carry, spare) = (body.parameter(f32(&[2])), body.parameter(f32(&[])));
    let (x, constant) = (body.parameter(f32(&[2])), body.parameter(f32(&[2])));
    let next = body.add(carry, x);
    let wanted = body.mul(next, constant);
    let body = Body { graph: body, outputs: vec![next, spare, wanted, x] };
    let mut graph = Graph::default();
    let xs = graph.parameter(f32(&[5, 2]));
    let constant = graph.parameter(f32(&[2]));
    let trips = graph.parameter(i32(&[]));
    let (zeros, spare) = (graph.constant(0.0, f32(&[2])), graph.constant(7.0, f32(&[])));
    let direction = Direction::Reverse;
    let out = graph.scan(&[zeros, spare], &[xs], &[constant], body, direction, Some(trips));
    Module {
        name: "early".into(),
        mesh: None,
        graph,
        arguments: vec![argument("xs"), argument("constant"), argument("trips")],
        outputs: vec![Output { value: out[2], name: "stacked".into(), sharding: None }],
    }
}

/// What is left out, what is said once, and what is a name only.
fn thrift() -> Module {
    let mut graph = Graph::default();
    let x = graph.parameter(Shape::new(ElementType::Bf16, &[3]));
    graph.parameter(f32(&[1]));
    let tenth = graph.scale(x, 0.1);
    let again = graph.scale(tenth, 0.1);
    let still = graph.stop_gradient(again);
    let still = graph.constrain(still, &Sharding::replicated(1));
    graph.exp(still);
    let least = graph.constant_like(f64::NEG_INFINITY, x);
    let finite = graph.compare(Comparison::Gt, still, least);
    Module {
        name: "thrift".into(),
        mesh: None,
        graph,
        arguments: vec![argument("x"), argument("unused")],
        outputs: vec![Output { value: finite, name: "finite".into(), sharding: None }],
    }
}

#[test]
fn a_sharded_step_with_its_gradient() {
    insta::assert_snapshot!(descent().text());
}

#[test]
fn a_loop_without_its_unwanted_parts() {
    insta::assert_snapshot!(early().text());
}

#[test]
fn only_what_is_needed_and_once() {
    insta::assert_snapshot!(thrift().text());
}

#[test]
fn the_same_module_has_the_same_text() {
    for entry in cases::all() {
        let text = || entry.case().module().text();
        assert_eq!(text(), text(), "{}", entry.name);
    }
    assert_eq!(descent().text(), descent().text());
}

#[test]
#[should_panic(expected = "x: the mesh has no axis `tensor`")]
fn a_sharding_names_axes_of_the_mesh() {
    let mut module = descent();
    module.arguments[1].sharding = Some(split(&["tensor", ""]));
    let _ = module.text();
}

#[test]
#[should_panic(expected = "w: tensor<8x4xf32> donated to tensor<f32>")]
fn memory_is_donated_to_an_output_of_its_shape() {
    let mut module = descent();
    module.arguments[0].donated_to = Some(1);
    let _ = module.text();
}
