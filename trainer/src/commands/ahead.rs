//! `coda-trainer plan --aot`: the step compiled for TPUs or GPUs that are not here.

use super::engines::{mesh_overrides, parse_mesh, plugin_failure};
use crate::{
    ahead::{AheadError, Compiled, Job, Target, compile, node},
    engine::xla::StepProgram,
    model::ModelConfig,
};
use clap::Args;
use coda_cli::{Exit, Failure, human};
use coda_manifests::MeshShape;
use coda_pjrt::{PluginKind, discover};
use coda_stages::Recipe;
use serde::Serialize;
use std::{path::PathBuf, time::Duration};

/// Options of compiling ahead of time.
#[derive(Args, Clone, Debug)]
pub(super) struct AheadArgs {
    /// Compile the XLA engine's step for this slice of TPUs without having it: v4:2x2x1, v5e:4x4, v5p:2x2x1,
    /// v6e:4x4. Needs libtpu, Google's compiler for TPUs, which nothing here brings along. Or for a node of
    /// GPUs: a100:8, h100:8, h200:8, b200:8. Needs XLA's plugin for them and ptxas (`pip install --no-deps
    /// jax-cuda13-pjrt nvidia-cuda-nvcc nvidia-nvvm`).
    #[arg(long, value_name = "SLICE", value_parser = slice)]
    aot: Option<String>,
    /// The XLA engine's devices by axis: fsdp=4, or data=2,fsdp=4,tensor=2 (train.xla.mesh).
    #[arg(long, value_name = "AXES", value_parser = parse_mesh, requires = "aot")]
    mesh: Option<MeshShape>,
    /// The file libtpu.so. Without it: the one that `$TPU_LIBRARY_PATH` names, then that of an
    /// installed Python package.
    #[arg(long, value_name = "FILE", requires = "aot")]
    plugin: Option<PathBuf>,
}

/// What compiling told.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Ahead {
    slice: String,
    mesh: MeshShape,
    rows_of_a_pass: usize,
    passes: usize,
    /// Of the whole step on all devices, what is computed again included.
    program_flops: u64,
    #[serde(flatten)]
    compiled: Compiled,
}

impl AheadArgs {
    /// Overrides of manifest keys that these options stand for.
    pub(super) fn overrides(&self) -> Vec<String> {
        self.mesh.map(mesh_overrides).into_iter().flatten().collect()
    }

    /// Compiles, if that is asked for.
    pub(super) fn run(
        &self,
        config: &ModelConfig,
        recipe: &Recipe,
    ) -> Result<Option<Ahead>, Failure> {
        let Some(slice) = &self.aot else { return Ok(None) };
        let target = node(slice).unwrap_or(Target::Tpu);
        let kind = if target == Target::Tpu { PluginKind::Tpu } else { PluginKind::Gpu };
        let plugin =
            discover(self.plugin.as_deref(), kind).map_err(|error| plugin_failure(&error))?;
        let step = StepProgram::new(config, recipe)
            .map_err(|error| Failure::from_error(Exit::Usage, &error).maybe_hint(error.hint()))?;
        let job = Job {
            plugin,
            topology: slice.clone(),
            target,
            devices: step.devices,
            program: step.module.text(),
        };
        let compiled = compile(&job).map_err(|error| ahead_failure(&error))?;
        Ok(Some(Ahead {
            slice: slice.clone(),
            mesh: recipe.xla.mesh,
            rows_of_a_pass: step.rows_of_a_pass,
            passes: step.passes,
            program_flops: step.flops(),
            compiled,
        }))
    }
}

/// That a step does not fit is the answer to the question; the rest are mishaps.
fn ahead_failure(error: &AheadError) -> Failure {
    let exit = match error {
        AheadError::OutOfMemory { .. } | AheadError::TooLarge { .. } => Exit::CheckFailed,
        AheadError::Start { .. } => Exit::Io,
        AheadError::Unable { .. } => Exit::Usage,
        _ => Exit::Incompatible,
    };
    Failure::from_error(exit, error).maybe_hint(error.hint())
}

impl Ahead {
    pub(super) fn text(&self) -> String {
        let Compiled { limit, peak, arguments, outputs, aliased, temporaries, .. } = self.compiled;
        let MeshShape { data, fsdp, tensor } = self.mesh;
        let of_limit = limit.map_or_else(String::new, |limit| {
            let percent = 100.0 * peak as f64 / limit as f64;
            format!(" of {} ({percent:.1} %)", human::bytes(limit))
        });
        format!(
            "compiled for   {} ({}, {} devices), mesh data={data} fsdp={fsdp} tensor={tensor}, {} \
             passes of {} rows\n\
             device memory  {}{of_limit} = arguments {}, results {} ({} in the place of \
             arguments), within the step {}\n\
             program        {} in device memory, {} as a file, {:.3e} floating-point operations in \
             products, compiled in {}\n\
             nothing was run: speed and numbers on that device are not known from this\n",
            self.slice,
            self.compiled.device_kind,
            self.compiled.slice_devices,
            self.passes,
            self.rows_of_a_pass,
            human::bytes(peak),
            human::bytes(arguments),
            human::bytes(outputs),
            human::bytes(aliased),
            human::bytes(temporaries),
            human::bytes(self.compiled.code),
            human::bytes(self.compiled.serialized),
            self.program_flops as f64,
            human::duration(Duration::from_secs_f64(self.compiled.seconds)),
        )
    }
}

/// `v5p:2x2x1`: a generation and the chips along each axis.
fn slice(text: &str) -> Result<String, String> {
    let (generation, chips) = text.split_once(':').ok_or("it has no `:`, as in v5p:2x2x1")?;
    let count = |axis: &str| axis.parse::<u32>().is_ok_and(|count| count > 0);
    if generation.is_empty() || !generation.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(format!("`{generation}` is not a generation: v4, v5e, v5p, v6e"));
    }
    if !chips.split('x').all(count) {
        return Err(format!("`{chips}` is not a number of chips along each axis, as in 2x2x1"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::slice;

    #[test]
    fn a_slice_is_a_generation_and_chips() {
        for text in ["v5p:2x2x1", "v5e:2x2", "v6e:16x16", "v4:4x4x16"] {
            assert_eq!(slice(text).as_deref(), Ok(text));
        }
        for (text, word) in
            [("v4-1024", "no `:`"), (":2x2", "generation"), ("v5e:2x0", "chips"), ("v5e:", "chips")]
        {
            assert!(slice(text).unwrap_err().contains(word), "{text}");
        }
    }
}
