//! Every operation once, small: the finite differences and the devices go through the same list.

use super::{Case, f32, i32, spread};
use coda_hlo::{Body, Comparison, Direction, DotAxes, ElementType, Graph, Sharding, Tensor, Value};

type Build = fn(&mut Graph, &[Value]) -> Vec<Value>;

/// A name, the inputs, and what is built of them.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    inputs: Vec<Tensor>,
    build: Build,
}

impl Entry {
    pub(crate) fn case(&self) -> Case {
        Case::new(self.inputs.clone(), self.build)
    }
}

fn entry(name: &'static str, inputs: Vec<Tensor>, build: Build) -> Entry {
    Entry { name, inputs, build }
}

/// Every operation that the graph knows.
pub(crate) fn all() -> Vec<Entry> {
    [elementwise(), moving(), indexed(), loops()].into_iter().flatten().collect()
}

fn elementwise() -> Vec<Entry> {
    let one = |low, high| vec![spread(f32(&[2, 3]), 3, low, high)];
    let two =
        |low, high| vec![spread(f32(&[2, 3]), 5, low, high), spread(f32(&[2, 3]), 7, low, high)];
    vec![
        entry("add", two(-2.0, 2.0), |g, v| vec![g.add(v[0], v[1])]),
        entry("sub", two(-2.0, 2.0), |g, v| vec![g.sub(v[0], v[1])]),
        entry("mul", two(-2.0, 2.0), |g, v| vec![g.mul(v[0], v[1])]),
        entry("div", two(0.5, 2.0), |g, v| vec![g.div(v[0], v[1])]),
        entry("maximum", two(-2.0, 2.0), |g, v| vec![g.maximum(v[0], v[1])]),
        entry("minimum", two(-2.0, 2.0), |g, v| vec![g.minimum(v[0], v[1])]),
        entry("pow", two(0.5, 2.0), |g, v| vec![g.pow(v[0], v[1])]),
        entry("neg", one(-2.0, 2.0), |g, v| vec![g.neg(v[0])]),
        entry("exp", one(-2.0, 2.0), |g, v| vec![g.exp(v[0])]),
        entry("log", one(0.5, 2.0), |g, v| vec![g.log(v[0])]),
        entry("sqrt", one(0.5, 2.0), |g, v| vec![g.sqrt(v[0])]),
        entry("rsqrt", one(0.5, 2.0), |g, v| vec![g.rsqrt(v[0])]),
        entry("logistic", one(-3.0, 3.0), |g, v| vec![g.logistic(v[0])]),
        entry("sine", one(-3.0, 3.0), |g, v| vec![g.sine(v[0])]),
        entry("cosine", one(-3.0, 3.0), |g, v| vec![g.cosine(v[0])]),
        entry("abs", one(-3.0, 3.0), |g, v| vec![g.abs(v[0])]),
        entry("floor", one(0.1, 0.9), |g, v| {
            let floor = g.floor(v[0]);
            vec![g.add(floor, v[0])]
        }),
        entry("scale and offset", one(-2.0, 2.0), |g, v| {
            let scaled = g.scale(v[0], 0.3);
            vec![g.offset(scaled, -1.7)]
        }),
        entry("select", two(-2.0, 2.0), |g, v| {
            let condition = g.compare(Comparison::Lt, v[0], v[1]);
            let flipped = g.not(condition);
            let product = g.mul(v[0], v[1]);
            vec![g.select(condition, product, v[1]), g.select(flipped, product, v[0])]
        }),
        entry("select by a scalar", two(-2.0, 2.0), |g, v| {
            let corner = g.slice(v[0], &[0..1, 0..1]);
            let corner = g.reshape(corner, &[]);
            let finite = g.is_finite(corner);
            vec![g.select(finite, v[0], v[1])]
        }),
        entry("comparisons and logic", two(-2.0, 2.0), |g, v| {
            let kinds = [
                Comparison::Eq,
                Comparison::Ne,
                Comparison::Lt,
                Comparison::Le,
                Comparison::Gt,
                Comparison::Ge,
            ];
            let mut results = vec![g.mul(v[0], v[1])];
            for (k, kind) in kinds.into_iter().enumerate() {
                let (a, b) = (g.compare(kind, v[0], v[1]), g.compare(kind, v[0], v[0]));
                let both = if k % 2 == 0 { g.and(a, b) } else { g.or(a, b) };
                results.push(g.convert(both, ElementType::F32));
            }
            results
        }),
        entry("stop_gradient", one(-2.0, 2.0), |g, v| {
            let square = g.mul(v[0], v[0]);
            let still = g.stop_gradient(square);
            // its gradient must be zero: what follows from it cancels out in the differences too
            let zero = g.sub(square, still);
            let zero = g.stop_gradient(zero);
            vec![g.add(zero, v[0])]
        }),
        entry("a value used three times", one(-2.0, 2.0), |g, v| {
            let square = g.mul(v[0], v[0]);
            vec![g.mul(square, v[0])]
        }),
        entry("softmax with its maximum taken off", one(-4.0, 4.0), |g, v| {
            let still = g.stop_gradient(v[0]);
            let largest = g.max_over(still, &[1]);
            let largest = g.broadcast_like(largest, v[0], &[1]);
            let low = g.sub(v[0], largest);
            let powers = g.exp(low);
            let total = g.sum(powers, &[1]);
            let total = g.broadcast_like(total, powers, &[1]);
            vec![g.div(powers, total)]
        }),
    ]
}

fn moving() -> Vec<Entry> {
    let x = || spread(f32(&[2, 3, 4]), 11, -2.0, 2.0);
    vec![
        entry("dot", vec![x(), spread(f32(&[4, 5]), 13, -1.0, 1.0)], |g, v| {
            vec![g.dot(v[0], v[1], &DotAxes::contract(2, 0), ElementType::F32)]
        }),
        entry("dot with batches", vec![x(), spread(f32(&[5, 4, 2]), 13, -1.0, 1.0)], |g, v| {
            let axes =
                DotAxes { lhs_batch: vec![0], rhs_batch: vec![2], ..DotAxes::contract(2, 1) };
            vec![g.dot(v[0], v[1], &axes, ElementType::F32)]
        }),
        entry("dot over two axes", vec![x(), spread(f32(&[4, 5, 2]), 13, -1.0, 1.0)], |g, v| {
            let axes = DotAxes {
                lhs_contract: vec![0, 2],
                rhs_contract: vec![2, 0],
                ..DotAxes::default()
            };
            vec![g.dot(v[0], v[1], &axes, ElementType::F32)]
        }),
        entry("sum", vec![x()], |g, v| vec![g.sum(v[0], &[0, 2]), g.sum(v[0], &[1])]),
        entry("broadcast", vec![spread(f32(&[3]), 17, -1.0, 1.0)], |g, v| {
            let column = g.reshape(v[0], &[3, 1]);
            vec![g.broadcast(v[0], &[1], &[2, 3, 2]), g.broadcast(column, &[0, 1], &[3, 2])]
        }),
        entry("broadcast_like", vec![spread(f32(&[3]), 17, -1.0, 1.0), x()], |g, v| {
            let wide = g.broadcast_like(v[0], v[1], &[0, 2]);
            vec![g.mul(wide, v[1])]
        }),
        entry("reshape and transpose", vec![x()], |g, v| {
            let turned = g.transpose(v[0], &[2, 0, 1]);
            vec![g.reshape(turned, &[6, 4])]
        }),
        entry("slice", vec![x()], |g, v| vec![g.slice(v[0], &[1..2, 0..3, 1..3])]),
        entry("pad", vec![x()], |g, v| vec![g.pad(v[0], &[(1, 0), (0, 2), (1, 1)])]),
        entry("concat", vec![x(), spread(f32(&[2, 2, 4]), 19, -1.0, 1.0)], |g, v| {
            vec![g.concat(v[0], v[1], 1)]
        }),
        entry("constrain", vec![x()], |g, v| {
            let square = g.mul(v[0], v[0]);
            vec![g.constrain(square, &Sharding::replicated(3))]
        }),
        entry("iota", vec![x()], |g, v| {
            let places = g.iota(1, f32(&[2, 3, 4]));
            vec![g.mul(places, v[0])]
        }),
        entry("converted to integers and back", vec![x()], |g, v| {
            let whole = g.convert(v[0], ElementType::I32);
            let whole = g.convert(whole, ElementType::F32);
            vec![whole, g.scale(v[0], 2.0)]
        }),
    ]
}

fn indexed() -> Vec<Entry> {
    let table = || spread(f32(&[5, 3]), 23, -1.0, 1.0);
    let groups = || spread(f32(&[2, 4, 3]), 29, -1.0, 1.0);
    let scalar = |at: f64| Tensor::new(i32(&[]), vec![at]);
    let ids = || Tensor::new(i32(&[2, 3]), vec![0.0, 4.0, 4.0, 2.0, 4.0, 0.0]);
    vec![
        entry("take", vec![table(), ids()], |g, v| vec![g.take(v[0], v[1])]),
        entry(
            "take_along",
            vec![groups(), Tensor::new(i32(&[2, 3]), vec![3.0, 1.0, 3.0, 0.0, 0.0, 2.0])],
            |g, v| vec![g.take_along(v[0], v[1])],
        ),
        entry("dynamic_slice", vec![table(), scalar(2.0), scalar(7.0)], |g, v| {
            // the second start is too large and is moved back
            vec![g.dynamic_slice(v[0], &[v[1], v[2]], &[2, 2])]
        }),
        entry(
            "dynamic_update_slice",
            vec![table(), spread(f32(&[2, 2]), 31, -1.0, 1.0), scalar(2.0), scalar(1.0)],
            |g, v| vec![g.dynamic_update_slice(v[0], v[1], &[v[2], v[3]])],
        ),
    ]
}

/// `c <- c * x + k * k`, which also stacks `c * x` and counts in integers.
fn step() -> Body {
    let mut g = Graph::default();
    let (carry, count) = (g.parameter(f32(&[3])), g.parameter(i32(&[])));
    let (unused, x) = (g.parameter(f32(&[])), g.parameter(f32(&[3])));
    let constant = g.parameter(f32(&[3]));
    let product = g.mul(carry, x);
    let square = g.mul(constant, constant);
    let next = g.add(product, square);
    let one = g.constant_like(1.0, count);
    let count = g.add(count, one);
    let weight = g.convert(count, ElementType::F32);
    let weight = g.broadcast(weight, &[], &[3]);
    let stacked = g.mul(product, weight);
    Body { graph: g, outputs: vec![next, count, unused, stacked] }
}

fn run(g: &mut Graph, v: &[Value], direction: Direction, trips: Option<Value>) -> Vec<Value> {
    let zero = g.constant(0.0, i32(&[]));
    let unused = g.constant(2.0, f32(&[]));
    let out = g.scan(&[v[0], zero, unused], &[v[1]], &[v[2]], step(), direction, trips);
    vec![out[0], out[3]]
}

fn loops() -> Vec<Entry> {
    let inputs = || {
        vec![
            spread(f32(&[3]), 37, -1.0, 1.0),
            spread(f32(&[4, 3]), 41, -1.5, 1.5),
            spread(f32(&[3]), 43, -1.0, 1.0),
        ]
    };
    let with_trips = |trips: f64| {
        let mut inputs = inputs();
        inputs.push(Tensor::new(i32(&[]), vec![trips]));
        inputs
    };
    vec![
        entry("scan", inputs(), |g, v| run(g, v, Direction::Forward, None)),
        entry("scan in reverse", inputs(), |g, v| run(g, v, Direction::Reverse, None)),
        entry("scan with trips", with_trips(2.0), |g, v| run(g, v, Direction::Forward, Some(v[3]))),
        entry("scan in reverse with trips", with_trips(3.0), |g, v| {
            run(g, v, Direction::Reverse, Some(v[3]))
        }),
        entry("scan with no trips", with_trips(0.0), |g, v| {
            run(g, v, Direction::Forward, Some(v[3]))
        }),
        entry("scan with more trips than slices", with_trips(9.0), |g, v| {
            run(g, v, Direction::Reverse, Some(v[3]))
        }),
        entry("repeat", inputs(), |g, v| {
            let mut body = Graph::default();
            let (carry, constant) = (body.parameter(f32(&[3])), body.parameter(f32(&[3])));
            let wave = body.sine(carry);
            let next = body.mul(wave, constant);
            let body = Body { graph: body, outputs: vec![next] };
            g.repeat(3, &[v[0]], &[v[2]], body, Direction::Forward, None)
        }),
        entry("scan of nothing but slices", inputs(), |g, v| {
            let mut body = Graph::default();
            let x = body.parameter(f32(&[3]));
            let square = body.mul(x, x);
            let body = Body { graph: body, outputs: vec![square] };
            g.scan(&[], &[v[1]], &[], body, Direction::Forward, None)
        }),
        entry("nested scans, the constant used on both floors", inputs(), |g, v| {
            let mut body = Graph::default();
            let (carry, x) = (body.parameter(f32(&[3])), body.parameter(f32(&[3])));
            let (all, constant) = (body.parameter(f32(&[4, 3])), body.parameter(f32(&[3])));
            let start = body.mul(carry, x);
            let inner = run(&mut body, &[start, all, constant], Direction::Reverse, None);
            let next = body.sine(inner[0]);
            let next = body.mul(next, constant);
            let total = body.sum(inner[1], &[0]);
            let body = Body { graph: body, outputs: vec![next, total] };
            g.scan(&[v[0]], &[v[1]], &[v[1], v[2]], body, Direction::Forward, None)
        }),
        entry("a carry that becomes dependent only through another", inputs(), |g, v| {
            let mut body = Graph::default();
            body.parameter(f32(&[3]));
            let b = body.parameter(f32(&[3]));
            let x = body.parameter(f32(&[3]));
            let next_a = body.mul(b, b);
            let next_b = body.add(b, x);
            let body = Body { graph: body, outputs: vec![next_a, next_b] };
            let zeros = g.constant(0.0, f32(&[3]));
            let out = g.scan(&[zeros, zeros], &[v[1]], &[], body, Direction::Forward, None);
            vec![out[0]]
        }),
    ]
}
