//! Engines on the command line.

use super::cards;
use crate::{
    engine::{
        CpuEngine, Engine, EngineError, HostLearner, Learner, LearnerSettings, cuda,
        xla::{Processes, XlaEngine, XlaLearner, XlaOptions, rows_of_a_pass},
    },
    fit::{engine_failure, micro_batch, optimizer_settings},
    model::{ModelConfig, Params, RecomputePolicy},
    optim::Optimizer,
    parallel::{ParallelLearner, RankLearner, RankStart, lanes},
};
use clap::{Args, ValueEnum};
use coda_cli::{Exit, Failure};
use coda_manifests::{CudaAttention, Engine as EngineKey, MeshShape, Recompute, Xla};
use coda_pjrt::{PjrtError, PluginKind, discover};
use coda_stages::Recipe;
use std::{path::PathBuf, sync::OnceLock};

/// What runs the model.
#[derive(Args, Clone, Debug)]
pub(super) struct EngineArgs {
    /// What runs the model.
    #[arg(long, value_enum, value_name = "ENGINE")]
    engine: Option<EngineArg>,
    /// The PJRT plugin of the XLA engine. Without it: the one that `$PJRT_PLUGIN_LIBRARY_PATH` or
    /// `$TPU_LIBRARY_PATH` names, then those of installed Python packages.
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// The XLA engine's devices by axis: fsdp=4, or data=2,fsdp=4,tensor=2 (train.xla.mesh).
    #[arg(long, value_name = "AXES", value_parser = parse_mesh)]
    mesh: Option<MeshShape>,
    /// Whose kernels compute attention on a card (train.cuda.attention).
    #[arg(long, value_enum, value_name = "KERNELS")]
    attention: Option<AttentionArg>,
}

/// An engine on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum EngineArg {
    /// A CUDA card if there is one that can be used, with kernels for the model, else the CPU.
    #[default]
    Auto,
    /// The CPU, f32, all cores.
    Cpu,
    /// The first NVIDIA card (compute capability 8.0 or later), bf16 with sums in f32.
    Cuda,
    /// Whole programs compiled by XLA, on the devices of a PJRT plugin: TPUs, GPUs, the CPU.
    Xla,
}

impl EngineArg {
    const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Xla => "xla",
        }
    }
}

/// Whose kernels compute attention on a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum AttentionArg {
    /// For training cuDNN's where it is installed, else ours.
    Auto,
    /// Ours.
    Own,
    /// cuDNN's, with sums in a fixed order.
    Cudnn,
    /// cuDNN's, faster; gradients change in their last bits from run to run.
    CudnnUnordered,
}

impl AttentionArg {
    const fn key(self) -> CudaAttention {
        match self {
            Self::Auto => CudaAttention::Auto,
            Self::Own => CudaAttention::Own,
            Self::Cudnn => CudaAttention::Cudnn,
            Self::CudnnUnordered => CudaAttention::CudnnUnordered,
        }
    }
}

impl EngineArgs {
    /// The engine's name for records. `config` is the model's, as far as it is known.
    pub(super) fn name(
        &self,
        of_manifest: EngineKey,
        config: Option<&ModelConfig>,
    ) -> &'static str {
        self.resolved(of_manifest, config).name()
    }

    /// Overrides of manifest keys that these options stand for.
    pub(super) fn overrides(&self) -> Vec<String> {
        self.mesh.map(mesh_overrides).into_iter().flatten().collect()
    }

    /// Refuses engines that are not there, and options of another engine.
    pub(super) fn check(&self, of_manifest: EngineKey) -> Result<(), Failure> {
        match self.kind(of_manifest) {
            EngineArg::Auto | EngineArg::Cpu if self.plugin.is_some() || self.mesh.is_some() => {
                Err(Failure::usage("--plugin and --mesh are options of the XLA engine")
                    .hint("add --engine xla, or leave them out"))
            }
            EngineArg::Cuda if self.plugin.is_some() || self.mesh.is_some() => {
                Err(Failure::usage("--plugin and --mesh are options of the XLA engine")
                    .hint("leave them out, or use --engine xla"))
            }
            EngineArg::Cuda => {
                cuda::probe().map(|_| ()).map_err(|error| cards::failure(&error.into()))
            }
            EngineArg::Xla | EngineArg::Auto | EngineArg::Cpu => Ok(()),
        }
    }

    /// The engine for models of this shape.
    pub(super) fn open(
        &self,
        config: &ModelConfig,
        recompute: Recompute,
    ) -> Result<Box<dyn Engine>, Failure> {
        self.check(EngineKey::Auto)?;
        if self.kind(EngineKey::Auto) == EngineArg::Auto && cuda::fits(config).is_err() {
            say_what_auto_is(config);
        }
        Ok(match self.resolved(EngineKey::Auto, Some(config)) {
            EngineArg::Xla => {
                let xla = Xla { mesh: self.mesh.unwrap_or_default(), ..Xla::default() };
                Box::new(self.open_xla(config, xla, Processes::alone())?)
            }
            EngineArg::Cuda => Box::new(cards::open(0, config, recompute, self.kernels())?),
            EngineArg::Auto | EngineArg::Cpu => Box::new(cpu(config, recompute)),
        })
    }

    /// Whether it is XLA that runs the model.
    pub(super) fn is_xla(&self, of_manifest: EngineKey) -> bool {
        self.kind(of_manifest) == EngineArg::Xla
    }

    /// Refuses ranks of an engine that has none, and numbers of them that do not fit batch or machine.
    pub(super) fn check_ranks(
        &self,
        recipe: &Recipe,
        config: Option<&ModelConfig>,
        ranks: Option<usize>,
    ) -> Result<(), Failure> {
        let Some(ranks) = ranks else { return Ok(()) };
        let kind = self.resolved(recipe.engine, config);
        if kind == EngineArg::Xla {
            return Err(Failure::usage("--ranks is an option of the CPU and CUDA engines")
                .hint("use --mesh data=N or fsdp=N with the XLA engine"));
        }
        let pieces = recipe.global_batch.div_ceil(micro_batch(recipe)) as usize;
        let parts = lanes::pieces_of_ranks(pieces, ranks);
        parts.map_err(|error| Failure::from_error(Exit::Usage, &error).maybe_hint(error.hint()))?;
        if kind == EngineArg::Cuda { cards::check(ranks) } else { Ok(()) }
    }

    /// What trains a model by a recipe, in so many ranks.
    pub(super) fn learner(
        &self,
        recipe: &Recipe,
        config: &ModelConfig,
        params: Params,
        optimizer: Optimizer,
        processes: &Processes,
        ranks: Option<usize>,
    ) -> Result<Box<dyn Learner>, Failure> {
        let settings = LearnerSettings::of(recipe);
        if self.kind(recipe.engine) == EngineArg::Auto {
            say_what_auto_is(config);
        }
        let rows = micro_batch(recipe) as usize;
        match self.resolved(recipe.engine, Some(config)) {
            EngineArg::Cuda => {
                let wanted = self.attention.map_or(recipe.cuda.attention, AttentionArg::key);
                let start = cards::Start { recipe, config, settings, rows };
                return start.learner(wanted, params, optimizer, ranks);
            }
            EngineArg::Cpu | EngineArg::Auto => {
                let engine = cpu(config, recipe.recompute);
                let Some(ranks) = ranks.filter(|&ranks| ranks > 1) else {
                    let learner = HostLearner::new(engine, params, optimizer, settings, rows);
                    return Ok(Box::new(learner));
                };
                let open = move |start: RankStart| {
                    let RankStart { params, part, shards, channels } = start;
                    let learner =
                        HostLearner::among(engine, params, part, settings, rows, shards, channels);
                    Ok(Box::new(learner) as Box<dyn RankLearner>)
                };
                let of_optimizer = optimizer_settings(&recipe.optimizer);
                return ParallelLearner::start(ranks, params, optimizer, &of_optimizer, rows, open)
                    .map(|learner| Box::new(learner) as Box<dyn Learner>)
                    .map_err(|error| engine_failure(&error));
            }
            EngineArg::Xla => {}
        }
        let failed = |error: EngineError| engine_failure(&error);
        let rows = rows_of_a_pass(recipe).map_err(failed)?;
        let launch = processes.group.launch();
        let engine = self.open_xla(config, recipe.xla, processes.clone())?;
        if launch.process == 0 {
            let (platform, version) = engine.platform();
            let MeshShape { data, fsdp, tensor } = recipe.xla.mesh;
            let together = match (launch.count, processes.rehearse) {
                (1, _) => String::new(),
                (count, false) => format!(" over {count} processes"),
                (count, true) => format!(", rehearsed by {count} processes"),
            };
            eprintln!(
                "xla on {platform} ({version}), mesh data={data} fsdp={fsdp} tensor={tensor}{together}, \
                 {rows} rows a pass"
            );
        }
        let of_optimizer = optimizer_settings(&recipe.optimizer);
        let learner = XlaLearner::new(engine, params, optimizer, &of_optimizer, settings, rows);
        Ok(Box::new(learner.map_err(failed)?))
    }

    /// Whose attention runs what is not training, where sizes change from call to call.
    fn kernels(&self) -> CudaAttention {
        self.attention.map_or(CudaAttention::Own, AttentionArg::key)
    }

    fn open_xla(
        &self,
        config: &ModelConfig,
        xla: Xla,
        processes: Processes,
    ) -> Result<XlaEngine, Failure> {
        let plugin = discover(self.plugin.as_deref(), PluginKind::Any)
            .map_err(|error| plugin_failure(&error))?;
        let options = XlaOptions { plugin, xla };
        XlaEngine::open_among(config, &options, processes).map_err(|error| match &error {
            EngineError::Xla(error) => plugin_failure(error),
            error => Failure::from_error(Exit::Usage, error).maybe_hint(error.hint()),
        })
    }

    /// As [`EngineArgs::kind`], with what `auto` stands for.
    fn resolved(&self, of_manifest: EngineKey, config: Option<&ModelConfig>) -> EngineArg {
        match self.kind(of_manifest) {
            EngineArg::Auto => auto(config).0,
            named => named,
        }
    }

    fn kind(&self, of_manifest: EngineKey) -> EngineArg {
        self.engine.unwrap_or(match of_manifest {
            EngineKey::Auto => EngineArg::Auto,
            EngineKey::Cpu => EngineArg::Cpu,
            EngineKey::Cuda => EngineArg::Cuda,
            EngineKey::Xla => EngineArg::Xla,
        })
    }
}

fn cpu(config: &ModelConfig, recompute: Recompute) -> CpuEngine {
    CpuEngine::new(config.clone(), policy(recompute))
}

pub(super) fn policy(recompute: Recompute) -> RecomputePolicy {
    match recompute {
        Recompute::None => RecomputePolicy::None,
        Recompute::Pointwise => RecomputePolicy::Pointwise,
        Recompute::Layer => RecomputePolicy::Layer,
    }
}

/// What `auto` stands for with a model of this shape, and why. The card is looked for once.
fn auto(config: Option<&ModelConfig>) -> (EngineArg, String) {
    static CARD: OnceLock<Result<String, String>> = OnceLock::new();
    let card =
        CARD.get_or_init(|| cuda::probe().map(|card| card.name).map_err(|error| error.to_string()));
    match (card, config.map(cuda::fits)) {
        (Err(why), _) => (EngineArg::Cpu, why.clone()),
        (Ok(_), Some(Err(error))) => (EngineArg::Cpu, error.to_string()),
        (Ok(name), _) => (EngineArg::Cuda, name.clone()),
    }
}

/// One line about what `auto` has taken, and why.
fn say_what_auto_is(config: &ModelConfig) {
    let (chosen, why) = auto(Some(config));
    eprintln!("engine: {} ({why})", chosen.name());
}

/// A plugin that is missing is a matter of usage; one that fails does not fit the machine.
pub(super) fn plugin_failure(error: &PjrtError) -> Failure {
    let exit = match error {
        PjrtError::NotFound { .. } => Exit::Usage,
        _ => Exit::Incompatible,
    };
    Failure::from_error(exit, error).maybe_hint(error.hint())
}

/// The manifest keys of a mesh.
pub(super) fn mesh_overrides(mesh: MeshShape) -> [String; 3] {
    [("data", mesh.data), ("fsdp", mesh.fsdp), ("tensor", mesh.tensor)]
        .map(|(axis, size)| format!("train.xla.mesh.{axis}={size}"))
}

/// `fsdp=4`, `data=2,tensor=2`: axes that are not named have one device.
pub(super) fn parse_mesh(text: &str) -> Result<MeshShape, String> {
    let mut mesh = MeshShape::default();
    for part in text.split(',') {
        let (axis, size) = part.split_once('=').ok_or_else(|| format!("`{part}` has no `=`"))?;
        let size: u32 = match size.trim().parse() {
            Ok(size) if size > 0 => size,
            _ => return Err(format!("`{size}` is not a number of devices")),
        };
        match axis.trim() {
            "data" => mesh.data = size,
            "fsdp" => mesh.fsdp = size,
            "tensor" => mesh.tensor = size,
            other => return Err(format!("`{other}` is not an axis: data, fsdp, tensor")),
        }
    }
    Ok(mesh)
}

#[cfg(test)]
mod tests {
    use super::parse_mesh;
    use coda_manifests::MeshShape;

    #[test]
    fn a_mesh_is_read_axis_by_axis() {
        assert_eq!(parse_mesh("fsdp=4"), Ok(MeshShape { fsdp: 4, ..MeshShape::default() }));
        let all = MeshShape { data: 2, fsdp: 3, tensor: 5 };
        assert_eq!(parse_mesh("tensor=5, data=2,fsdp=3"), Ok(all));
        for (text, word) in [("fsdp", "no `=`"), ("fsdp=0", "number"), ("pp=2", "not an axis")] {
            assert!(parse_mesh(text).unwrap_err().contains(word), "{text}");
        }
    }
}
