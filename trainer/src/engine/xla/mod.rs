//! The XLA engine: the whole training step as one program, compiled and run by a PJRT plugin on
//! one device or a mesh of them.
//!
//! ```text
//! ModelConfig ─model, loss, optimizer─▶ graph ─coda-hlo─▶ text ─coda-pjrt─▶ executable
//! Params ─weights, mesh─▶ buffers ◀─ step ─▶ buffers ─▶ Params
//! ```
//!
//! How a batch, the parameters and the optimizer's state are split over devices is said in the
//! program's text (`mesh.rs`); what is sent between devices is XLA's business. A mesh may span several
//! processes, each of which gives its own rows and holds its own pieces ([`Processes`]).

mod ahead;
mod attention;
mod batch;
mod learner;
mod loss;
mod mesh;
mod model;
mod optimizer;
mod program;
mod rehearsal;
mod session;
mod weights;

pub use ahead::StepProgram;
pub use learner::{XlaLearner, rows_of_a_pass};

use super::{Batch, Engine, EngineError, Ids, LossOutput};
use crate::{
    launch::Group,
    model::{Grads, ModelConfig, Params},
};
use batch::{Pass, rows_of};
use coda_hlo::{ElementType, Module, Sharding};
use coda_manifests::Xla;
use coda_pjrt::{Buffer, PjrtError};
use half::bf16;
use mesh::{batch_parts, batch_sharding};
use program::{Blueprint, Chunks, Geometry, geometry};
use session::{Program, Session, Spread};
use std::{collections::HashMap, ops::Range, path::PathBuf, rc::Rc, sync::Arc};

/// How the engine is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XlaOptions {
    /// The plugin's file.
    pub plugin: PathBuf,
    /// Mesh, type and chunks, as a manifest has them.
    pub xla: Xla,
}

impl XlaOptions {
    /// One device, everything else as a manifest that says nothing has it.
    #[must_use]
    pub fn new(plugin: PathBuf) -> Self {
        Self { plugin, xla: Xla::default() }
    }
}

/// The processes that share a mesh.
#[derive(Clone)]
pub struct Processes {
    /// How they reach each other.
    pub group: Arc<Group>,
    /// Every process opens the whole mesh by itself and computes all of it, but holds its own pieces only:
    /// for trying a run of several processes where no plugin can run one program over them.
    pub rehearse: bool,
}

impl Processes {
    /// One process.
    #[must_use]
    pub fn alone() -> Self {
        Self { group: Arc::new(Group::alone()), rehearse: false }
    }

    fn count(&self) -> usize {
        self.group.launch().count
    }
}

/// Runs the model through XLA.
pub struct XlaEngine {
    blueprint: Blueprint,
    session: Session,
    chunks: Chunks,
    programs: HashMap<Kind, Rc<Program>>,
    /// The parameters of the last call, on the devices: calls in a row have the same.
    placed: Option<(Params, Vec<Spread>)>,
    rotary: HashMap<usize, [Spread; 2]>,
}

/// What distinguishes programs of one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Loss(Geometry),
    Gradients(Geometry),
    Logits(Geometry, usize),
}

impl From<PjrtError> for EngineError {
    fn from(error: PjrtError) -> Self {
        Self::Xla(Box::new(error))
    }
}

impl XlaEngine {
    /// Opens the plugin for models of this shape.
    ///
    /// # Errors
    /// If the plugin cannot be loaded, has too few devices, or the mesh does not fit the model.
    pub fn open(config: &ModelConfig, options: &XlaOptions) -> Result<Self, EngineError> {
        Self::open_among(config, options, Processes::alone())
    }

    /// As [`XlaEngine::open`], with a mesh over the devices of several processes, all of which have to
    /// call this. Such an engine is for an [`XlaLearner`]; it gives no gradients and logits of its own.
    ///
    /// # Errors
    /// As [`XlaEngine::open`], and if the plugin does not show every process's devices.
    pub fn open_among(
        config: &ModelConfig,
        options: &XlaOptions,
        processes: Processes,
    ) -> Result<Self, EngineError> {
        let mesh = options.xla.mesh;
        let kv_heads = config.num_key_value_heads;
        if !kv_heads.is_multiple_of(mesh.tensor as usize) {
            return Err(EngineError::Mesh(format!(
                "tensor={} does not divide the {kv_heads} key and value heads",
                mesh.tensor
            )));
        }
        let session = Session::open(&options.plugin, mesh, processes)?;
        let is_cpu = session.platform().0.eq_ignore_ascii_case("cpu");
        let auto = if is_cpu { ElementType::F32 } else { ElementType::Bf16 };
        Ok(Self {
            blueprint: Blueprint::new(config, mesh),
            session,
            chunks: Chunks::of(options.xla, auto),
            programs: HashMap::new(),
            placed: None,
            rotary: HashMap::new(),
        })
    }

    /// The platform behind the plugin, with its version.
    #[must_use]
    pub fn platform(&self) -> (&str, &str) {
        self.session.platform()
    }

    /// Groups of devices that share no rows of a batch.
    #[must_use]
    pub fn batch_parts(&self) -> usize {
        batch_parts(self.session.mesh())
    }

    /// Which rows of a pass of `rows` rows this process gives.
    fn own_rows(&self, rows: usize) -> Range<usize> {
        let (places, mesh) = (self.session.own_places(), self.session.mesh());
        let of_a_part = rows.div_ceil(batch_parts(mesh));
        // A process has whole parts: the session has checked it.
        let rows_before = |place: usize| (place / mesh.tensor as usize * of_a_part).min(rows);
        rows_before(places.start)..rows_before(places.end)
    }

    /// This process's rows of a pass of `rows` rows, as a program takes them.
    fn pass(
        &self,
        batch: &Batch,
        mask_id: u32,
        rows: usize,
    ) -> Result<(Geometry, Pass), EngineError> {
        let geometry = self.geometry(rows, batch.len, batch.segment_ids.is_some());
        let vocabulary = self.blueprint.config.vocab_size;
        let first = self.own_rows(geometry.rows).start;
        Ok((geometry, Pass::new(batch, first, mask_id, vocabulary, &geometry)?))
    }

    fn geometry(&self, rows: usize, len: usize, segments: bool) -> Geometry {
        geometry(self.session.mesh(), rows, len, self.chunks, segments)
    }

    fn program(
        &mut self,
        kind: Kind,
        module: impl FnOnce(&Blueprint) -> Module,
    ) -> Result<Rc<Program>, EngineError> {
        if let Some(program) = self.programs.get(&kind) {
            return Ok(Rc::clone(program));
        }
        let program = Rc::new(self.session.compile(&module(&self.blueprint))?);
        self.programs.insert(kind, Rc::clone(&program));
        Ok(program)
    }

    /// Lays the parameters over the devices, unless those of the last call are the same.
    fn place_params(&mut self, params: &Params) -> Result<(), EngineError> {
        let same = |placed: &Params| {
            placed.len() == params.len()
                && (0..params.len()).all(|i| Arc::ptr_eq(&placed.shared(i), &params.shared(i)))
        };
        if self.placed.as_ref().is_some_and(|(placed, _)| same(placed)) {
            return Ok(());
        }
        self.placed = None;
        let spreads = self.place_weights(|index| params.get(index))?;
        self.placed = Some((params.clone(), spreads));
        Ok(())
    }

    fn place_weights<'a>(
        &self,
        member: impl Fn(usize) -> &'a [f32],
    ) -> Result<Vec<Spread>, EngineError> {
        let mesh = self.session.mesh();
        let place = |stacked| {
            let piece = |device| weights::cut(stacked, mesh, device, &member);
            Ok(match self.blueprint.stored {
                ElementType::Bf16 => self.session.place_pieces(|device| {
                    let (dims, values) = piece(device);
                    (dims, values.into_iter().map(bf16::from_f32).collect())
                })?,
                _ => self.session.place_pieces(piece)?,
            })
        };
        self.blueprint.weights.iter().map(place).collect()
    }

    fn place_rotary(&mut self, len: usize) -> Result<(), EngineError> {
        if self.rotary.contains_key(&len) {
            return Ok(());
        }
        let config = &self.blueprint.config;
        let tables = crate::ops::Rotary::new(len, config.head_dim, config.rope_theta);
        let dims = [len, config.head_dim / 2];
        let place = |table: &[f32]| self.session.place(table, &dims, &Sharding::replicated(2));
        let [cos, sin] = tables.tables();
        let placed = [place(cos)?, place(sin)?];
        self.rotary.insert(len, placed);
        Ok(())
    }

    /// The buffers of a pass, in the order of a program's arguments.
    fn place_pass(&self, geometry: &Geometry, pass: &Pass) -> Result<Vec<Spread>, EngineError> {
        place_passes(&self.session, geometry, std::slice::from_ref(pass), false)
    }
}

/// The buffers of passes: with a leading axis of passes when `stacked`, otherwise of the only one.
fn place_passes(
    session: &Session,
    geometry: &Geometry,
    passes: &[Pass],
    stacked: bool,
) -> Result<Vec<Spread>, EngineError> {
    let lead = usize::from(stacked);
    let with = |dims: &[usize]| -> Vec<usize> {
        stacked.then_some(passes.len()).into_iter().chain(dims.iter().copied()).collect()
    };
    let rows = with(&[geometry.rows, geometry.len]);
    let lists = with(&[geometry.parts, geometry.capacity()]);
    let split = batch_sharding(rows.len(), lead);
    let ints =
        |part: fn(&Pass) -> &[i32]| passes.iter().flat_map(part).copied().collect::<Vec<_>>();
    let mut placed = vec![session.place(&ints(|pass| &pass.ids), &rows, &split)?];
    if geometry.segments {
        placed.push(session.place(&ints(|pass| &pass.segments), &rows, &split)?);
    }
    placed.push(session.place(&ints(|pass| &pass.places), &lists, &split)?);
    placed.push(session.place(&ints(|pass| &pass.targets), &lists, &split)?);
    let weights: Vec<f32> = passes.iter().flat_map(|pass| &pass.weights).copied().collect();
    placed.push(session.place(&weights, &lists, &split)?);
    let trips = passes.iter().flat_map(|pass| pass.trips.iter().copied()).collect::<Vec<_>>();
    let counts = with(&[geometry.parts]);
    placed.push(session.place(&trips, &counts, &batch_sharding(counts.len(), lead))?);
    Ok(placed)
}

/// References to all buffers of several lists.
fn arguments<'a>(lists: &[&'a [Spread]]) -> Vec<&'a [Buffer]> {
    lists.iter().flat_map(|list| list.iter().map(Vec::as_slice)).collect()
}

impl Engine for XlaEngine {
    fn loss_and_grads(
        &mut self,
        params: &Params,
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
        grads: &mut Grads,
    ) -> Result<LossOutput, EngineError> {
        let (geometry, pass) = self.pass(batch, mask_id, batch.rows)?;
        self.place_params(params)?;
        self.place_rotary(batch.len)?;
        let program = self.program(Kind::Gradients(geometry), |b| b.gradients(&geometry))?;
        let own = self.place_pass(&geometry, &pass)?;
        #[allow(clippy::cast_possible_truncation, reason = "programs compute in f32")]
        let seed = [(1.0 / denominator) as f32];
        let seed = [self.session.place(&seed, &[], &Sharding::replicated(0))?];
        let (_, weights) = self.placed.as_ref().expect("placed above");
        let rotary = &self.rotary[&batch.len];
        let mut results =
            program.run(&self.session, &arguments(&[weights, &own, rotary, &seed]))?;
        let gradients = results.split_off(1);
        let mesh = self.session.mesh();
        for (stacked, spread) in self.blueprint.weights.iter().zip(gradients) {
            for (device, buffer) in self.session.placed(&spread) {
                if !mesh::is_first_holder(mesh, device, &stacked.sharding) {
                    continue;
                }
                let values: Vec<f32> = buffer.download()?;
                weights::paste(stacked, mesh, device, &values, |index, at, values| {
                    let own = &mut grads.values[index][at..at + values.len()];
                    own.iter_mut().zip(values).for_each(|(sum, new)| *sum += new);
                });
            }
        }
        self.output(&geometry, &pass, &results[0], denominator)
    }

    fn loss(
        &mut self,
        params: &Params,
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
    ) -> Result<LossOutput, EngineError> {
        self.place_params(params)?;
        let (params, weights) = self.placed.take().expect("placed above");
        let output = self.loss_of(&weights, batch, mask_id, denominator, batch.rows);
        self.placed = Some((params, weights));
        output
    }

    fn logits(
        &mut self,
        params: &Params,
        ids: &Ids<'_>,
        positions: Option<&[usize]>,
    ) -> Result<Vec<f32>, EngineError> {
        ids.check_positions(positions.unwrap_or_default())?;
        let tokens = ids.rows * ids.len;
        let geometry = self.geometry(ids.rows, ids.len, ids.segment_ids.is_some());
        let (ids, segments) = rows_of(ids, 0, self.blueprint.config.vocab_size, &geometry)?;
        let mut places: Vec<i32> = match positions {
            Some(positions) => positions.iter().map(|&place| batch::index(place)).collect(),
            None => (0..tokens).map(batch::index).collect(),
        };
        let wanted = places.len();
        // Sampling asks for fewer and fewer: powers of two keep the number of programs small.
        places.resize(wanted.next_power_of_two().min(wanted.max(tokens)), 0);
        self.place_params(params)?;
        self.place_rotary(geometry.len)?;
        let kind = Kind::Logits(geometry, places.len());
        let program = self.program(kind, |b| b.logits(&geometry, places.len()))?;
        let dims = [geometry.rows, geometry.len];
        let split = batch_sharding(2, 0);
        let mut own = vec![self.session.place(&ids, &dims, &split)?];
        if geometry.segments {
            own.push(self.session.place(&segments, &dims, &split)?);
        }
        own.push(self.session.place(&places, &[1, places.len()], &Sharding::replicated(2))?);
        let (_, weights) = self.placed.as_ref().expect("placed above");
        let arguments = arguments(&[weights, &own, &self.rotary[&geometry.len]]);
        let results = program.run(&self.session, &arguments)?;
        let mut logits: Vec<f32> = results[0][0].download()?;
        logits.truncate(wanted * self.blueprint.config.vocab_size);
        Ok(logits)
    }
}

impl XlaEngine {
    /// The loss of a batch, this process's rows of `rows`, with weights that lie on the devices.
    fn loss_of(
        &mut self,
        weights: &[Spread],
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
        rows: usize,
    ) -> Result<LossOutput, EngineError> {
        let (geometry, pass) = self.pass(batch, mask_id, rows)?;
        self.place_rotary(batch.len)?;
        let program = self.program(Kind::Loss(geometry), |b| b.loss(&geometry))?;
        let own = self.place_pass(&geometry, &pass)?;
        let arguments = arguments(&[weights, &own, &self.rotary[&batch.len]]);
        let results = program.run(&self.session, &arguments)?;
        self.output(&geometry, &pass, &results[0], denominator)
    }

    fn output(
        &self,
        geometry: &Geometry,
        pass: &Pass,
        losses: &[Buffer],
        denominator: f64,
    ) -> Result<LossOutput, EngineError> {
        let dims = [geometry.parts, geometry.capacity()];
        let losses: Vec<f32> = self.session.fetch(losses, &dims, &batch_sharding(2, 0))?;
        let row_sums = pass.row_sums(geometry, &losses);
        let loss = row_sums.iter().sum::<f64>() / denominator;
        Ok(LossOutput { row_sums, scored: pass.scored, loss })
    }
}
