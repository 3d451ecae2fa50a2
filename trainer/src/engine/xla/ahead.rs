//! The training step's program without a device: for compiling ahead of time, and for counting.

use super::{
    EngineError,
    learner::rows_of_a_pass,
    mesh::devices,
    program::{Blueprint, Chunks, StepSettings, geometry},
};
use crate::{engine::LearnerSettings, fit::optimizer_settings, model::ModelConfig};
use coda_hlo::{ElementType, Module, flops};
use coda_stages::Recipe;

/// The program of one training step.
#[derive(Clone, Debug)]
pub struct StepProgram {
    /// The program.
    pub module: Module,
    /// Devices that it is for.
    pub devices: usize,
    /// Rows of one forward and backward pass over the whole mesh.
    pub rows_of_a_pass: usize,
    /// Passes of a step.
    pub passes: usize,
}

impl StepProgram {
    /// The program as a recipe asks for it, in bf16 unless it asks for f32.
    ///
    /// # Errors
    /// If the global batch cannot be shared out over the mesh.
    pub fn new(config: &ModelConfig, recipe: &Recipe) -> Result<Self, EngineError> {
        let xla = recipe.xla;
        let rows = rows_of_a_pass(recipe)?;
        let chunks = Chunks::of(xla, ElementType::Bf16);
        let len = recipe.row_length as usize;
        let geometry = geometry(xla.mesh, rows, len, chunks, recipe.document_attention);
        let passes = (recipe.global_batch as usize).div_ceil(rows);
        let settings = StepSettings {
            optimizer: optimizer_settings(&recipe.optimizer),
            learner: LearnerSettings::of(recipe),
        };
        let mut blueprint = Blueprint::new(config, xla.mesh);
        if settings.learner.bf16_weights {
            blueprint.store_bf16();
        }
        let module = blueprint.step(&geometry, passes, &settings);
        Ok(Self { module, devices: devices(xla.mesh), rows_of_a_pass: rows, passes })
    }

    /// Floating-point operations of the matrix products of a step on all devices together, each loop
    /// counted as often as it runs, every output as scored: recomputation included.
    #[must_use]
    pub fn flops(&self) -> u64 {
        let outputs: Vec<_> = self.module.outputs.iter().map(|output| output.value).collect();
        flops(&self.module.graph, &outputs)
    }
}
