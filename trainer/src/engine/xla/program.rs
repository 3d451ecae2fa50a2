//! Whole programs: a training step, a loss, gradients, logits.

use super::{
    loss::{Scored, scored_losses},
    mesh::{batch_parts, batch_sharding, devices, graph_mesh},
    model::{ModelInputs, hidden},
    optimizer::{self, StateTensorKind},
    weights::{Stacked, stack},
};
use crate::{engine::LearnerSettings, model::ModelConfig, optim::OptimizerSettings};
use coda_hlo::{
    Argument, Body, Direction, DotAxes, ElementType, Graph, Module, Output, Shape, Sharding, Value,
};
use coda_manifests::{Compute, MeshShape, Xla};

/// The fixed sizes of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Geometry {
    /// Rows of one forward and backward pass, a multiple of `parts`.
    pub rows: usize,
    /// Tokens per row.
    pub len: usize,
    /// Groups of devices that share no rows.
    pub parts: usize,
    /// Type of activations and products.
    pub compute: ElementType,
    /// Queries whose scores exist at a time.
    pub query_chunk: usize,
    /// Scored outputs, in every part, whose logits exist at a time.
    pub loss_chunk: usize,
    /// Whether tokens see only their own document.
    pub segments: bool,
}

impl Geometry {
    /// Outputs of the rows of one part.
    pub(super) const fn outputs_of_a_part(&self) -> usize {
        self.rows / self.parts * self.len
    }

    /// Length of the list of scored outputs of a part: whole chunks.
    pub(super) const fn capacity(&self) -> usize {
        self.outputs_of_a_part().next_multiple_of(self.loss_chunk)
    }
}

/// A model on a mesh: what all its programs share.
#[derive(Clone, Debug)]
pub(super) struct Blueprint {
    pub config: ModelConfig,
    pub mesh: MeshShape,
    /// The weights, in the order of the arguments.
    pub weights: Vec<Stacked>,
    /// The type in which programs are given weights, and a step gives them back: f32, or bf16 where the
    /// weights that are trained are.
    pub stored: ElementType,
}

/// A graph in the making, with its arguments.
struct Draft {
    graph: Graph,
    arguments: Vec<Argument>,
}

impl Draft {
    fn argument(&mut self, name: &str, shape: Shape, sharding: Sharding) -> Value {
        self.arguments.push(Argument {
            name: name.to_owned(),
            sharding: Some(sharding),
            donated_to: None,
        });
        self.graph.parameter(shape)
    }

    fn repeated(&mut self, name: &str, element: ElementType, dims: &[usize]) -> Value {
        self.argument(name, Shape::new(element, dims), Sharding::replicated(dims.len()))
    }

    /// A tensor whose dimension `dim` is that of rows or of parts.
    fn split(&mut self, name: &str, element: ElementType, dims: &[usize], dim: usize) -> Value {
        self.argument(name, Shape::new(element, dims), batch_sharding(dims.len(), dim))
    }

    fn weights(&mut self, weights: &[Stacked], element: ElementType) -> Vec<Value> {
        weights
            .iter()
            .map(|weight| {
                let shape = Shape::new(element, &weight.dims);
                self.argument(&weight.name, shape, weight.sharding.clone())
            })
            .collect()
    }
}

/// What a pass reads, in its order among a program's arguments.
#[derive(Clone, Debug)]
struct Reading {
    weights: Vec<Value>,
    batch: BatchValues,
    /// The rotary tables.
    rotary: [Value; 2],
}

/// Rows and lists of scored outputs; with a leading axis of passes in a training step.
#[derive(Clone, Debug)]
struct BatchValues {
    ids: Value,
    segments: Option<Value>,
    places: Value,
    targets: Value,
    weights: Value,
    trips: Value,
}

impl BatchValues {
    fn list(&self) -> Vec<Value> {
        let Self { ids, segments, places, targets, weights, trips } = self;
        [*ids].into_iter().chain(*segments).chain([*places, *targets, *weights, *trips]).collect()
    }
}

impl Blueprint {
    pub(super) fn new(config: &ModelConfig, mesh: MeshShape) -> Self {
        Self {
            config: config.clone(),
            mesh,
            weights: stack(config, mesh),
            stored: ElementType::F32,
        }
    }

    /// From now on programs are given weights in bf16.
    pub(super) const fn store_bf16(&mut self) {
        self.stored = ElementType::Bf16;
    }

    /// The weights as a program is given them.
    fn stored_weights(&self, draft: &mut Draft) -> Vec<Value> {
        draft.weights(&self.weights, self.stored)
    }

    /// The same as what is differentiated and computed with, in f32.
    fn widened(graph: &mut Graph, stored: &[Value]) -> Vec<Value> {
        stored.iter().map(|&weight| graph.convert(weight, ElementType::F32)).collect()
    }

    fn draft() -> Draft {
        Draft { graph: Graph::default(), arguments: Vec::new() }
    }

    /// The arguments of a batch. `passes`: the length of the leading axis.
    fn batch(draft: &mut Draft, geometry: &Geometry, passes: Option<usize>) -> BatchValues {
        let lead = usize::from(passes.is_some());
        let with = |dims: &[usize]| -> Vec<usize> {
            passes.into_iter().chain(dims.iter().copied()).collect()
        };
        let Geometry { rows, len, parts, .. } = *geometry;
        let (rows, lists) = (with(&[rows, len]), with(&[parts, geometry.capacity()]));
        BatchValues {
            ids: draft.split("ids", ElementType::I32, &rows, lead),
            segments: geometry
                .segments
                .then(|| draft.split("segments", ElementType::I32, &rows, lead)),
            places: draft.split("places", ElementType::I32, &lists, lead),
            targets: draft.split("targets", ElementType::I32, &lists, lead),
            weights: draft.split("weights", ElementType::F32, &lists, lead),
            trips: draft.split("trips", ElementType::I32, &with(&[parts]), lead),
        }
    }

    fn rotary(&self, draft: &mut Draft, len: usize) -> [Value; 2] {
        let dims = [len, self.config.head_dim / 2];
        ["rotary_cos", "rotary_sin"].map(|name| draft.repeated(name, ElementType::F32, &dims))
    }

    /// The arguments of a program that makes one pass.
    fn reading(&self, draft: &mut Draft, geometry: &Geometry) -> Reading {
        let stored = self.stored_weights(draft);
        Reading {
            weights: Self::widened(&mut draft.graph, &stored),
            batch: Self::batch(draft, geometry, None),
            rotary: self.rotary(draft, geometry.len),
        }
    }

    fn hidden(
        &self,
        graph: &mut Graph,
        geometry: &Geometry,
        weights: &[Value],
        inputs: &ModelInputs,
    ) -> Value {
        hidden(graph, &self.config, geometry, &self.weights, weights, inputs)
    }

    /// The losses of the listed outputs, and their sum.
    fn losses(&self, graph: &mut Graph, geometry: &Geometry, read: &Reading) -> (Value, Value) {
        let Reading { weights, batch, rotary } = read;
        let inputs = ModelInputs { ids: batch.ids, segments: batch.segments, rotary: *rotary };
        let hidden = self.hidden(graph, geometry, weights, &inputs);
        let scored = Scored {
            places: batch.places,
            targets: batch.targets,
            weights: batch.weights,
            // Every device goes as far as any part needs.
            trips: graph.max_over(batch.trips, &[0]),
        };
        scored_losses(graph, geometry, hidden, self.head(weights), &scored)
    }

    /// The head; the embedding when it is tied.
    fn head(&self, weights: &[Value]) -> Value {
        if self.config.tie_word_embeddings { weights[0] } else { weights[weights.len() - 1] }
    }

    /// Losses, their sum, and the gradients of `seed` times the sum, which lie as their weights do.
    fn pass(
        &self,
        graph: &mut Graph,
        geometry: &Geometry,
        read: &Reading,
        seed: Value,
    ) -> (Value, Value, Vec<Value>) {
        let (losses, sum) = self.losses(graph, geometry, read);
        let gradients = graph.gradients(&[(sum, seed)], &read.weights);
        let laid = gradients
            .iter()
            .zip(&self.weights)
            .map(|(&gradient, weight)| graph.constrain(gradient, &weight.sharding))
            .collect();
        (losses, sum, laid)
    }

    fn module(&self, name: &str, draft: Draft, outputs: Vec<Output>) -> Module {
        Module {
            name: name.to_owned(),
            mesh: (devices(self.mesh) > 1).then(|| graph_mesh(self.mesh)),
            graph: draft.graph,
            arguments: draft.arguments,
            outputs,
        }
    }

    /// Weights and a batch to the losses of the listed outputs `[parts, capacity]`.
    pub(super) fn loss(&self, geometry: &Geometry) -> Module {
        let mut draft = Self::draft();
        let read = self.reading(&mut draft, geometry);
        let (losses, _) = self.losses(&mut draft.graph, geometry, &read);
        let outputs = vec![split_output("losses", losses, 2, 0)];
        self.module("loss", draft, outputs)
    }

    /// As [`Blueprint::loss`], with a last argument, what the sum of the losses is multiplied by
    /// before it is differentiated, and the gradient of every weight after the losses.
    pub(super) fn gradients(&self, geometry: &Geometry) -> Module {
        let mut draft = Self::draft();
        let read = self.reading(&mut draft, geometry);
        let seed = draft.repeated("seed", ElementType::F32, &[]);
        let (losses, _, gradients) = self.pass(&mut draft.graph, geometry, &read, seed);
        let mut outputs = vec![split_output("losses", losses, 2, 0)];
        outputs.extend(gradients.into_iter().zip(&self.weights).map(|(value, weight)| Output {
            value,
            name: weight.name.clone(),
            sharding: Some(weight.sharding.clone()),
        }));
        self.module("gradients", draft, outputs)
    }

    /// Weights, ids, segments and `count` places among all outputs to their logits `[count, V]`.
    pub(super) fn logits(&self, geometry: &Geometry, count: usize) -> Module {
        let mut draft = Self::draft();
        let stored = self.stored_weights(&mut draft);
        let weights = Self::widened(&mut draft.graph, &stored);
        let dims = [geometry.rows, geometry.len];
        let ids = draft.split("ids", ElementType::I32, &dims, 0);
        let segments =
            geometry.segments.then(|| draft.split("segments", ElementType::I32, &dims, 0));
        let places = draft.repeated("places", ElementType::I32, &[1, count]);
        let rotary = self.rotary(&mut draft, geometry.len);
        let graph = &mut draft.graph;
        let inputs = ModelInputs { ids, segments, rotary };
        let hidden = self.hidden(graph, geometry, &weights, &inputs);
        let width = self.config.hidden_size;
        let flat = graph.reshape(hidden, &[1, geometry.rows * geometry.len, width]);
        let chosen = graph.take_along(flat, places);
        let chosen = graph.reshape(chosen, &[count, width]);
        let head = graph.convert(self.head(&weights), geometry.compute);
        let logits = graph.dot(chosen, head, &DotAxes::contract(1, 1), ElementType::F32);
        let outputs = vec![Output {
            value: logits,
            name: "logits".to_owned(),
            sharding: Some(Sharding::replicated(2)),
        }];
        self.module("logits", draft, outputs)
    }

    /// The whole training step over `passes` passes.
    ///
    /// Arguments: weights, optimizer state (both donated), the batch with a leading axis of passes,
    /// the rotary tables, and the scalars of [`optimizer::scalars`]. Results: weights and state in
    /// the same order, losses `[passes, parts, capacity]`, the norm of the gradient, and whether
    /// anything changed (i32).
    pub(super) fn step(
        &self,
        geometry: &Geometry,
        passes: usize,
        settings: &StepSettings,
    ) -> Module {
        let mut draft = Self::draft();
        let weights = self.stored_weights(&mut draft);
        let kinds = optimizer::state_of(&settings.optimizer, &self.weights, self.mesh);
        let state: Vec<Value> = kinds.iter().map(|kind| kind.argument(&mut draft)).collect();
        for (index, argument) in draft.arguments.iter_mut().enumerate() {
            argument.donated_to = Some(index);
        }
        let batch = Self::batch(&mut draft, geometry, Some(passes));
        let rotary = self.rotary(&mut draft, geometry.len);
        let count = optimizer::SCALARS;
        let scalars = draft.repeated("scalars", ElementType::F32, &[count]);
        let graph = &mut draft.graph;
        let scalars: Vec<Value> = (0..count)
            .map(|i| {
                let one = graph.slice(scalars, std::slice::from_ref(&(i..i + 1)));
                graph.reshape(one, &[])
            })
            .collect();

        let read = Reading { weights, batch, rotary };
        let (losses, sum, gradients) = self.all_passes(graph, geometry, &read, scalars[0]);
        let weights = read.weights;
        let norm = optimizer::global_norm(graph, &gradients);
        let gradients = match settings.learner.grad_clip {
            Some(limit) => optimizer::clip(graph, &gradients, norm, limit),
            None => gradients,
        };
        let (finite_norm, finite_sum) = (graph.is_finite(norm), graph.is_finite(sum));
        let applied = graph.and(finite_norm, finite_sum);
        let wide = Self::widened(graph, &weights);
        let (new_weights, new_state) = optimizer::update(
            graph,
            settings,
            &self.weights,
            (&wide, &gradients, &state),
            &scalars,
        );
        let new_weights: Vec<Value> =
            new_weights.into_iter().map(|new| graph.convert(new, self.stored)).collect();
        let mut keep_or_take = |old: &[Value], new: &[Value]| -> Vec<Value> {
            let pairs = old.iter().zip(new);
            pairs.map(|(&old, &new)| graph.select(applied, new, old)).collect()
        };
        let new_weights = keep_or_take(&weights, &new_weights);
        let new_state = keep_or_take(&state, &new_state);
        let applied = graph.convert(applied, ElementType::I32);

        let own = |(value, weight): (Value, &Stacked)| Output {
            value,
            name: weight.name.clone(),
            sharding: Some(weight.sharding.clone()),
        };
        let mut outputs: Vec<Output> =
            new_weights.into_iter().zip(&self.weights).map(own).collect();
        let state_tensors = kinds.iter().map(|kind| &kind.tensor);
        outputs.extend(new_state.into_iter().zip(state_tensors).map(own));
        outputs.push(split_output("losses", losses, 3, 1));
        for (name, value) in [("norm", norm), ("applied", applied)] {
            let sharding = Some(Sharding::replicated(0));
            outputs.push(Output { value, name: name.to_owned(), sharding });
        }
        self.module("step", draft, outputs)
    }

    /// Losses of all passes, their sum, and the sum of the gradients. The batch of `read` has a leading
    /// axis of passes; its weights are as they are stored, and widened where a pass begins.
    fn all_passes(
        &self,
        graph: &mut Graph,
        geometry: &Geometry,
        read: &Reading,
        seed: Value,
    ) -> (Value, Value, Vec<Value>) {
        let mut inner = Self::draft();
        let sum = inner.repeated("sum", ElementType::F32, &[]);
        let sums = inner.weights(&self.weights, ElementType::F32);
        let batch = Self::batch(&mut inner, geometry, None);
        let stored = self.stored_weights(&mut inner);
        let weights = Self::widened(&mut inner.graph, &stored);
        let rotary = self.rotary(&mut inner, geometry.len);
        let own_seed = inner.repeated("seed", ElementType::F32, &[]);
        let own = Reading { weights, batch, rotary };
        let body = &mut inner.graph;
        let (losses, added, gradients) = self.pass(body, geometry, &own, own_seed);
        let mut outputs = vec![body.add(sum, added)];
        outputs.extend(sums.iter().zip(&gradients).map(|(&sum, &new)| body.add(sum, new)));
        outputs.push(losses);

        let mut init = vec![graph.constant(0.0, Shape::scalar(ElementType::F32))];
        for stacked in &self.weights {
            let zero = graph.constant(0.0, Shape::new(ElementType::F32, &stacked.dims));
            init.push(graph.constrain(zero, &stacked.sharding));
        }
        let weights = read.weights.iter().copied();
        let consts: Vec<Value> = weights.chain(read.rotary).chain([seed]).collect();
        let body = Body { graph: inner.graph, outputs };
        let xs = read.batch.list();
        let mut results = graph.scan(&init, &xs, &consts, body, Direction::Forward, None);
        let losses = results.pop().expect("the losses come last");
        let gradients = results.split_off(1);
        (losses, results[0], gradients)
    }
}

/// What is compiled into a training step.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StepSettings {
    pub optimizer: OptimizerSettings,
    pub learner: LearnerSettings,
}

impl StateTensorKind {
    fn argument(&self, draft: &mut Draft) -> Value {
        let shape = Shape::new(ElementType::F32, &self.tensor.dims);
        draft.argument(&self.tensor.name, shape, self.tensor.sharding.clone())
    }
}

fn split_output(name: &str, value: Value, rank: usize, dim: usize) -> Output {
    Output { value, name: name.to_owned(), sharding: Some(batch_sharding(rank, dim)) }
}

/// The geometry of a pass of `rows` rows at least, on a mesh.
#[must_use]
pub(super) fn geometry(
    mesh: MeshShape,
    rows: usize,
    len: usize,
    chunks: Chunks,
    segments: bool,
) -> Geometry {
    let parts = batch_parts(mesh);
    let rows = rows.max(1).next_multiple_of(parts);
    let outputs = rows / parts * len;
    Geometry {
        rows,
        len,
        parts,
        compute: chunks.compute,
        query_chunk: chunks.query_chunk.min(len),
        loss_chunk: chunks.loss_chunk.min(outputs),
        segments,
    }
}

/// Queries whose scores, and scored tokens whose logits, exist at a time where the manifest says
/// nothing.
const CHUNK: usize = 512;

/// In which pieces, and in which type, a program computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    pub compute: ElementType,
    pub query_chunk: usize,
    pub loss_chunk: usize,
}

impl Chunks {
    /// Those of a manifest; `auto` is the type where it leaves that open.
    pub(super) fn of(xla: Xla, auto: ElementType) -> Self {
        let chunk = |given: Option<u32>| given.map_or(CHUNK, |chunk| chunk as usize);
        Self {
            compute: match xla.compute {
                Compute::Auto => auto,
                Compute::F32 => ElementType::F32,
                Compute::Bf16 => ElementType::Bf16,
            },
            query_chunk: chunk(xla.query_chunk),
            loss_chunk: chunk(xla.loss_chunk),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Blueprint, Chunks, StepSettings, geometry};
    use crate::{
        engine::LearnerSettings,
        model::config::tiny,
        optim::{AdafactorSettings, OptimizerSettings},
    };
    use coda_hlo::ElementType;
    use coda_manifests::{MeshShape, Xla};

    #[test]
    fn weights_enter_and_leave_a_step_as_they_are_stored() {
        let mesh = MeshShape::default();
        let mut blueprint = Blueprint::new(&tiny(), mesh);
        let settings = |bf16_weights| StepSettings {
            optimizer: OptimizerSettings::Adafactor(AdafactorSettings::default()),
            learner: LearnerSettings { grad_clip: Some(1.0), bf16_weights },
        };
        let chunks = Chunks::of(Xla::default(), ElementType::F32);
        let geometry = geometry(mesh, 2, 8, chunks, false);
        let count = blueprint.weights.len();
        for stored in [ElementType::F32, ElementType::Bf16] {
            if stored == ElementType::Bf16 {
                blueprint.store_bf16();
            }
            let module = blueprint.step(&geometry, 2, &settings(stored == ElementType::Bf16));
            let parameters = module.graph.parameters();
            let of = |index: usize| {
                let out = module.outputs[index].value;
                [parameters[index], out].map(|value| module.graph.shape(value).element)
            };
            assert!((0..count).all(|weight| of(weight) == [stored; 2]));
            // The optimizer's state, which follows, is f32 whatever the weights are.
            assert_eq!(of(count), [ElementType::F32; 2]);
        }
    }
}
