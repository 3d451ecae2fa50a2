//! The learner whose parameters and optimizer state stay on the devices from step to step.

use super::{
    Sharding, Spread, XlaEngine, arguments,
    batch::Pass,
    mesh::{self, batch_parts, batch_sharding},
    optimizer::{StateTensorKind, scalars, state_of},
    place_passes,
    program::{Geometry, StepSettings},
    session::{Program, Session},
    weights::{self, Stacked},
};
use crate::{
    engine::{Batch, EngineError, Learner, LearnerSettings, LossOutput, StepInput, StepOutput},
    fit::micro_batch,
    model::Params,
    optim::{Optimizer, OptimizerSettings, StateError, clip_scale, round_to_bf16},
};
use coda_pjrt::{Buffer, ElementType};
use coda_stages::Recipe;
use half::bf16;
use std::{
    collections::HashMap,
    ops::Range,
    time::{Duration, Instant},
};

/// Trains a model with one program per step.
pub struct XlaLearner {
    engine: XlaEngine,
    settings: StepSettings,
    rows_at_once: usize,
    /// Whether there are other processes, and every pass has all its rows.
    several: bool,
    kinds: Vec<StateTensorKind>,
    /// Weights, then state, in the order of the step's arguments; donated to every step.
    held: Vec<Spread>,
    /// Steps made.
    steps: u64,
    program: Option<(Geometry, usize, Program)>,
    /// Time that compiling the step took.
    compiled_in: Duration,
    /// The state in this process's memory, as it was at `steps`; with others only in process 0.
    host: Host,
    /// What the state is fetched into.
    empty: Optimizer,
}

impl XlaLearner {
    /// A learner that begins with these parameters and this optimizer. `rows_at_once` is how many
    /// rows of a batch go through one forward and backward pass.
    ///
    /// # Errors
    /// If `rows_at_once` cannot be shared out over the mesh, or the devices have no room.
    pub fn new(
        mut engine: XlaEngine,
        mut params: Params,
        optimizer: Optimizer,
        optimizer_settings: &OptimizerSettings,
        settings: LearnerSettings,
        rows_at_once: usize,
    ) -> Result<Self, EngineError> {
        let parts = engine.batch_parts();
        if !rows_at_once.is_multiple_of(parts) {
            return Err(EngineError::Mesh(format!(
                "{rows_at_once} rows cannot be shared out over the {parts} parts of data and fsdp"
            )));
        }
        let session_mesh = engine.session.mesh();
        let several = engine.session.processes().count() > 1;
        if settings.bf16_weights {
            round_to_bf16(&mut params.slices_mut());
            engine.blueprint.store_bf16();
        }
        let kinds = state_of(optimizer_settings, &engine.blueprint.weights, session_mesh);
        let mut held = engine.place_weights(|index| params.get(index))?;
        held.extend(place_state(&engine, &kinds, &optimizer, &params)?);
        Ok(Self {
            settings: StepSettings { optimizer: optimizer_settings.clone(), learner: settings },
            several,
            engine,
            rows_at_once,
            kinds,
            held,
            steps: optimizer.steps(),
            program: None,
            compiled_in: Duration::ZERO,
            empty: optimizer.clone(),
            host: Host::Here(Box::new((params, optimizer))),
        })
    }

    /// The engine.
    #[must_use]
    pub const fn engine(&self) -> &XlaEngine {
        &self.engine
    }

    /// How long the step's program took to compile.
    #[must_use]
    pub const fn compiled_in(&self) -> Duration {
        self.compiled_in
    }

    /// Fetches weights and state from the devices of all processes to process 0.
    fn fetch(&self) -> Result<Host, EngineError> {
        let config = &self.engine.blueprint.config;
        let session = &self.engine.session;
        let list = crate::model::layout(config);
        let mut values: Vec<Vec<f32>> = list.iter().map(|t| vec![0.0; t.elements()]).collect();
        let stacked = &self.engine.blueprint.weights;
        let (weights, state) = self.held.split_at(stacked.len());
        for (stacked, spread) in stacked.iter().zip(weights) {
            fetch_members(session, stacked, spread, |index, at, own| {
                values[index][at..at + own.len()].copy_from_slice(own);
            })?;
        }
        let mut parts: HashMap<String, Vec<f32>> = HashMap::new();
        for (kind, spread) in self.kinds.iter().zip(state) {
            let size = kind.tensor.member_elements();
            let mut members: HashMap<usize, Vec<f32>> = HashMap::new();
            fetch_members(session, &kind.tensor, spread, |index, at, own| {
                let member = members.entry(index).or_insert_with(|| vec![0.0; size]);
                member[at..at + own.len()].copy_from_slice(own);
            })?;
            // Only of the first process.
            let named = |(index, values): (usize, _)| {
                (format!("{}.{}", list[index].name, kind.part), values)
            };
            parts.extend(members.into_iter().map(named));
        }
        if !session.processes().group.is_first() {
            return Ok(Host::Elsewhere);
        }
        let params = Params::from_values(config, values);
        let mut optimizer = self.empty.clone();
        let restored = optimizer.restore(self.steps, |name, _| {
            parts.remove(name).ok_or_else(|| StateError {
                name: name.to_owned(),
                problem: "it is not on the devices".to_owned(),
            })
        });
        restored.map_err(|error| EngineError::Mesh(error.to_string()))?;
        Ok(Host::Here(Box::new((params, optimizer))))
    }

    /// Rows of a program's pass, for batches of at most `rows` rows.
    fn rows_of_a_program(&self, rows: usize) -> usize {
        // Processes have to compile the same program whatever each of them is given.
        if self.several { self.rows_at_once } else { rows }
    }

    fn passes(&self, input: &StepInput<'_>) -> Result<(Geometry, Vec<Pass>), EngineError> {
        let Some(first) = input.batches.first() else {
            return Err(EngineError::Batch("a step of no rows".to_owned()));
        };
        let most = input.batches.iter().map(|batch| batch.rows).max().unwrap_or(0);
        let rows = self.rows_of_a_program(most);
        let geometry = self.engine.geometry(rows, first.len, first.segment_ids.is_some());
        let pass = |batch: &Batch| {
            if batch.len != first.len || batch.segment_ids.is_some() != geometry.segments {
                return Err(EngineError::Batch("the batches of a step differ in shape".to_owned()));
            }
            Ok(self.engine.pass(batch, input.mask_id, rows)?.1)
        };
        Ok((geometry, input.batches.iter().map(pass).collect::<Result<_, _>>()?))
    }

    /// The step's program for this geometry, compiled when it is first needed.
    fn compile(&mut self, geometry: Geometry, passes: usize) -> Result<(), EngineError> {
        let there = matches!(&self.program, Some((g, p, _)) if *g == geometry && *p == passes);
        if !there {
            let started = Instant::now();
            let module = self.engine.blueprint.step(&geometry, passes, &self.settings);
            let program = self.engine.session.compile(&module)?;
            self.compiled_in = started.elapsed();
            self.program = Some((geometry, passes, program));
        }
        Ok(())
    }
}

impl Learner for XlaLearner {
    fn rows_at_once(&self) -> usize {
        self.rows_at_once
    }

    fn own_rows(&self, rows: usize) -> Range<usize> {
        let own = self.engine.own_rows(self.rows_of_a_program(rows));
        own.start.min(rows)..own.end.min(rows)
    }

    fn step(&mut self, input: &StepInput<'_>) -> Result<StepOutput, EngineError> {
        let (geometry, passes) = self.passes(input)?;
        self.compile(geometry, passes.len())?;
        self.engine.place_rotary(geometry.len)?;
        let session = &self.engine.session;
        let own = place_passes(session, &geometry, &passes, true)?;
        let numbers =
            scalars(&self.settings.optimizer, self.steps + 1, input.lr, input.denominator);
        let numbers = [session.place(&numbers, &[numbers.len()], &Sharding::replicated(1))?];
        let rotary = &self.engine.rotary[&geometry.len];
        let (_, _, program) = self.program.as_ref().expect("compiled above");
        self.host = Host::Stale;
        let arguments = arguments(&[&self.held, &own, rotary, &numbers]);
        let mut results = program.run(session, &arguments)?;
        let rest = results.split_off(self.held.len());
        self.held = results;
        let [losses, norm, applied] = &rest[..] else {
            unreachable!("losses, norm and whether anything changed")
        };
        let norm = f64::from(norm[0].download::<f32>()?[0]);
        let applied = applied[0].download::<i32>()?[0] != 0;
        let dims = [passes.len(), geometry.parts, geometry.capacity()];
        let losses: Vec<f32> = session.fetch(losses, &dims, &batch_sharding(3, 1))?;
        let row_sums: Vec<f64> = passes
            .iter()
            .zip(losses.chunks_exact(geometry.parts * geometry.capacity()))
            .flat_map(|(pass, losses)| pass.row_sums(&geometry, losses))
            .collect();
        let loss = row_sums.iter().sum::<f64>() / input.denominator;
        if applied {
            self.steps += 1;
        }
        let clipped = self.settings.learner.grad_clip.and_then(|limit| clip_scale(norm, limit));
        Ok(StepOutput { row_sums, loss, norm, clipped, applied })
    }

    fn loss(
        &mut self,
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
    ) -> Result<LossOutput, EngineError> {
        let count = self.engine.blueprint.weights.len();
        let rows = self.rows_of_a_program(batch.rows);
        self.engine.loss_of(&self.held[..count], batch, mask_id, denominator, rows)
    }

    fn state(&mut self) -> Result<Option<(&Params, &Optimizer)>, EngineError> {
        if matches!(self.host, Host::Stale) {
            self.host = self.fetch()?;
        }
        Ok(match &self.host {
            Host::Here(state) => Some((&state.0, &state.1)),
            Host::Elsewhere | Host::Stale => None,
        })
    }
}

/// What this process's memory has of weights and optimizer.
enum Host {
    /// All of it, as it is on the devices.
    Here(Box<(Params, Optimizer)>),
    /// Process 0 has it.
    Elsewhere,
    /// Nothing, or what it was before the last step.
    Stale,
}

/// Lays an optimizer's state over the devices.
fn place_state(
    engine: &XlaEngine,
    kinds: &[StateTensorKind],
    optimizer: &Optimizer,
    params: &Params,
) -> Result<Vec<Spread>, EngineError> {
    let state = optimizer.state();
    let by_name: HashMap<&str, &[f32]> =
        state.iter().map(|tensor| (tensor.name.as_str(), tensor.values)).collect();
    let mesh = engine.session.mesh();
    let place = |kind: &StateTensorKind| {
        let member = |index: usize| {
            let name = format!("{}.{}", params.layout()[index].name, kind.part);
            by_name[name.as_str()]
        };
        let piece = |device| weights::cut(&kind.tensor, mesh, device, member);
        Ok(engine.session.place_pieces(piece)?)
    };
    kinds.iter().map(place).collect()
}

/// What a buffer of f32 or bf16 holds.
fn widened(buffer: &Buffer) -> Result<Vec<f32>, EngineError> {
    Ok(match buffer.element() {
        ElementType::Bf16 => buffer.download::<bf16>()?.into_iter().map(f32::from).collect(),
        _ => buffer.download()?,
    })
}

/// Downloads every piece of a stacked tensor once. With several processes each sends its own to process
/// 0, tensor by tensor, so that no more than one is under way.
fn fetch_members(
    session: &Session,
    stacked: &Stacked,
    spread: &Spread,
    mut member: impl FnMut(usize, usize, &[f32]),
) -> Result<(), EngineError> {
    let mesh = session.mesh();
    let is_first = |place: usize| mesh::is_first_holder(mesh, place, &stacked.sharding);
    let own = session.placed(spread).filter(|(place, _)| is_first(*place));
    if session.processes().count() == 1 {
        for (place, buffer) in own {
            let values = widened(buffer)?;
            weights::paste(stacked, mesh, place, &values, &mut member);
        }
        return Ok(());
    }
    let mut bytes = Vec::new();
    for (_, buffer) in own {
        let values = widened(buffer)?;
        bytes.extend(values.into_iter().flat_map(f32::to_le_bytes));
    }
    let group = &session.processes().group;
    let Some(parts) = group.gather(&stacked.name, &bytes)? else { return Ok(()) };
    for (process, part) in parts.iter().enumerate() {
        let (values, _) = part.as_chunks();
        let values: Vec<f32> = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let mut rest = values.as_slice();
        for place in session.places_of(process).filter(|place| is_first(*place)) {
            let ranges = mesh::piece(mesh, place, &stacked.dims, &stacked.sharding);
            let size = ranges.iter().map(ExactSizeIterator::len).product();
            let Some((own, others)) = rest.split_at_checked(size) else {
                let name = &stacked.name;
                let problem = format!("process {process} gave too little of {name}");
                return Err(EngineError::Processes(problem));
            };
            weights::paste(stacked, mesh, place, own, &mut member);
            rest = others;
        }
    }
    Ok(())
}

/// Rows of one forward and backward pass on a mesh: what a recipe asks for, or what one device takes
/// ([`micro_batch`]) for every part of the batch; the largest number up to that which divides the global
/// batch and can be shared out.
///
/// # Errors
/// If the global batch cannot be shared out over the mesh.
pub fn rows_of_a_pass(recipe: &Recipe) -> Result<usize, EngineError> {
    let mesh = recipe.xla.mesh;
    let parts = batch_parts(mesh);
    let shared_out = |key: &str, rows: u32| match rows as usize {
        rows if rows.is_multiple_of(parts) => Ok(rows),
        _ => Err(EngineError::Mesh(format!(
            "{key} is {rows}, which data={} fsdp={} do not divide",
            mesh.data, mesh.fsdp
        ))),
    };
    let global_batch = shared_out("train.global_batch", recipe.global_batch)?;
    if let Some(asked) = recipe.micro_batch {
        return shared_out("train.micro_batch", asked);
    }
    let per_part = global_batch / parts;
    let on_a_device = (micro_batch(recipe) as usize).clamp(1, per_part);
    let fits = (1..=on_a_device).rev().find(|&n| per_part.is_multiple_of(n));
    Ok(fits.unwrap_or(1) * parts)
}
