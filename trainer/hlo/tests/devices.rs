//! What the interpreter says against what XLA's CPU plugin computes from the text.

mod common;

use coda_hlo::{
    Argument, Body, Direction, DotAxes, ElementType, Graph, Mesh, Module, Output, Shape, Sharding,
    Tensor, Value, interpret, interpret_rounded,
};
use coda_pjrt::{
    Buffer, Client, ClientOptions, CompileOptions, Device, Plugin, PluginKind, discover,
};
use common::{Case, cases, f32, i32, spread};

/// A client of XLA's CPU plugin with that many devices.
fn client(devices: i64) -> Client {
    let path = discover(None, PluginKind::Cpu)
        .unwrap_or_else(|error| panic!("{error}\nhint: {}", error.hint().unwrap_or_default()));
    let plugin = Plugin::load(path).expect("the plugin loads");
    let options = vec![("cpu_device_count".to_owned(), devices.into())];
    Client::new(&plugin, &ClientOptions { options, store: None }).expect("a client")
}

/// The part of a tensor that lies on a device, when one axis is split in equal parts.
fn part(tensor: &Tensor, axis: Option<usize>, device: usize, devices: usize) -> Tensor {
    let Some(axis) = axis else { return tensor.clone() };
    let mut graph = Graph::default();
    let whole = graph.parameter(tensor.shape.clone());
    let extents = &tensor.shape.dims;
    let width = extents[axis] / devices;
    let ranges: Vec<_> = (0..extents.len())
        .map(|k| if k == axis { device * width..(device + 1) * width } else { 0..extents[k] })
        .collect();
    let slice = graph.slice(whole, &ranges);
    interpret(&graph, std::slice::from_ref(tensor), &[slice]).remove(0)
}

fn upload(client: &Client, device: &Device, tensor: &Tensor) -> Buffer {
    let dims = &tensor.shape.dims;
    #[expect(clippy::cast_possible_truncation, reason = "rounding is what a device does")]
    let buffer = if tensor.shape.element == ElementType::I32 {
        let numbers: Vec<i32> = tensor.values.iter().map(|number| *number as i32).collect();
        client.upload(device, &numbers, dims)
    } else {
        let numbers: Vec<f32> = tensor.values.iter().map(|number| *number as f32).collect();
        client.upload(device, &numbers, dims)
    };
    buffer.expect("uploaded")
}

/// Runs a module; its outputs, all of them f32, as the first device has them.
fn run(module: &Module, inputs: &[Tensor], split: &[Option<usize>]) -> Vec<Vec<f32>> {
    let devices = module.mesh.as_ref().map_or(1, Mesh::devices);
    let client = client(i64::try_from(devices).expect("few"));
    let options = CompileOptions { partitions: devices, ..CompileOptions::default() };
    let text = module.text();
    let program = client.compile(&text, &options).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let buffers: Vec<Vec<Buffer>> = program
        .addressable_devices()
        .iter()
        .enumerate()
        .map(|(place, device)| {
            let inputs = inputs.iter().zip(split);
            let parts = inputs.map(|(tensor, axis)| part(tensor, *axis, place, devices));
            parts.map(|tensor| upload(&client, device, &tensor)).collect()
        })
        .collect();
    let given: Vec<Vec<&Buffer>> = buffers.iter().map(|buffers| buffers.iter().collect()).collect();
    let results = program.execute(&given).expect("it runs");
    results[0].iter().map(|buffer| buffer.download().expect("f32")).collect()
}

/// Holds numbers in f32 against those in f64.
fn close(name: &str, found: &[f32], expected: &Tensor) {
    assert_eq!(found.len(), expected.values.len(), "{name}");
    for (found, expected) in found.iter().zip(&expected.values) {
        let difference = (f64::from(*found) - expected).abs();
        assert!(difference <= 1e-5 * expected.abs().max(1.0), "{name}: {found}, not {expected}");
    }
}

/// All cases as one program: compiling each by itself would take longer than anything else.
#[test]
fn every_operation_and_gradient_on_a_device() {
    let (mut graph, mut inputs) = (Graph::default(), Vec::new());
    let (mut outputs, mut expected) = (Vec::new(), Vec::new());
    for entry in cases::all() {
        let case = entry.case();
        let arguments: Vec<Value> =
            case.inputs.iter().map(|input| graph.parameter(input.shape.clone())).collect();
        let wanted = case.outputs();
        let results = graph.inline(&case.graph, &arguments, &wanted);
        // what the device is given is f32, so the judge gets the same
        let rounded: Vec<Tensor> = case.inputs.iter().map(rounded).collect();
        expected.extend(interpret(&case.graph, &rounded, &wanted));
        outputs.extend(results.into_iter().map(|value| {
            let name = entry.name.to_owned();
            Output { value, name, sharding: None }
        }));
        inputs.extend(rounded);
    }
    let arguments = vec![Argument::default(); inputs.len()];
    let module = Module { name: "all".into(), mesh: None, graph, arguments, outputs };
    let found = run(&module, &inputs, &vec![None; inputs.len()]);
    for ((found, expected), output) in found.iter().zip(&expected).zip(&module.outputs) {
        close(&output.name, found, expected);
    }
}

fn rounded(tensor: &Tensor) -> Tensor {
    let mut graph = Graph::default();
    let value = graph.parameter(tensor.shape.clone());
    let same = graph.stop_gradient(value);
    interpret_rounded(&graph, std::slice::from_ref(tensor), &[same]).remove(0)
}

/// Numbers that no short decimal is: they must come back from the device to the bit.
#[test]
fn constants_reach_the_device_to_the_bit() {
    let numbers = [
        0.1,
        -1.0 / 3.0,
        1e-45,
        f64::from(f32::MAX),
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        16_777_215.0,
        f64::from(f32::MIN_POSITIVE),
        std::f64::consts::PI,
    ];
    let mut graph = Graph::default();
    let mut outputs = Vec::new();
    for element in [ElementType::F32, ElementType::Bf16] {
        for number in numbers {
            let value = graph.constant(number, Shape::scalar(element));
            let value = graph.convert(value, ElementType::F32);
            outputs.push(Output { value, name: format!("{number:e}"), sharding: None });
        }
    }
    let values: Vec<Value> = outputs.iter().map(|output| output.value).collect();
    let module = Module { name: "constants".into(), mesh: None, graph, arguments: vec![], outputs };
    let expected = interpret_rounded(&module.graph, &[], &values);
    for ((found, expected), output) in
        run(&module, &[], &[]).iter().zip(&expected).zip(&module.outputs)
    {
        let found = f64::from(found[0]);
        assert_eq!(found.to_bits(), expected.values[0].to_bits(), "{}", output.name);
    }
}

/// `x [8, 4]`, `w [4, 8]`, a table `[16, 4]` with ids `[8]`, groups `[4, 8, 4]` with ids `[4, 3]`.
fn sharded_case() -> Case {
    let ids = Tensor::new(i32(&[8]), vec![0.0, 15.0, 3.0, 3.0, 8.0, 12.0, 3.0, 7.0]);
    let picks = vec![7.0, 0.0, 7.0, 1.0, 2.0, 3.0, 4.0, 4.0, 4.0, 6.0, 0.0, 5.0];
    let inputs = [
        spread(f32(&[8, 4]), 3, -1.0, 1.0),
        spread(f32(&[3, 4, 4]), 5, -1.0, 1.0),
        spread(f32(&[16, 4]), 7, -1.0, 1.0),
        ids,
        spread(f32(&[4, 8, 4]), 11, -1.0, 1.0),
        Tensor::new(i32(&[4, 3]), picks),
    ]
    .iter()
    .map(rounded)
    .collect();
    Case::new(inputs, |g, v| {
        let mut body = Graph::default();
        let (carry, weight) = (body.parameter(f32(&[8, 4])), body.parameter(f32(&[4, 4])));
        let product = body.dot(carry, weight, &DotAxes::contract(1, 0), ElementType::F32);
        let next = body.sine(product);
        let rows = Sharding { dims: vec![vec!["fsdp".into()], vec![]] };
        let next = body.constrain(next, &rows);
        let body = Body { graph: body, outputs: vec![next] };
        let rows = g.take(v[2], v[3]);
        let start = g.add(v[0], rows);
        let layers = g.scan(&[start], &[v[1]], &[], body, Direction::Forward, None);
        let picked = g.take_along(v[4], v[5]);
        vec![layers[0], picked]
    })
}

#[test]
fn four_devices_compute_what_one_does() {
    let case = sharded_case();
    // the rows of x, the weights' inner axis, the table's rows, the ids, and the groups
    let split = [Some(0), Some(1), Some(0), Some(0), Some(0), Some(0)];
    let on = |axis: Option<usize>, shape: &Shape| {
        let mut sharding = Sharding::replicated(shape.rank());
        if let Some(axis) = axis {
            sharding.dims[axis].push("fsdp".into());
        }
        sharding
    };
    let mut module = case.module();
    module.mesh = Some(Mesh { axes: vec![("fsdp".into(), 4)] });
    for ((argument, axis), input) in module.arguments.iter_mut().zip(split).zip(&case.inputs) {
        argument.sharding = Some(on(axis, &input.shape));
    }
    for output in &mut module.outputs {
        output.sharding = Some(on(None, case.graph.shape(output.value)));
    }
    let expected = interpret(&case.graph, &case.inputs, &case.outputs());
    for (k, (found, expected)) in
        run(&module, &case.inputs, &split).iter().zip(&expected).enumerate()
    {
        close(&format!("output {k}"), found, expected);
    }
}
