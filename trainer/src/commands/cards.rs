//! NVIDIA cards on the command line.

use super::engines::policy;
use crate::{
    engine::{
        EngineError, Learner, LearnerSettings,
        cuda::{self, CudaEngine, CudaLearner, Link},
    },
    fit::optimizer_settings,
    model::{ModelConfig, Params},
    optim::Optimizer,
    parallel::{ParallelLearner, RankLearner, RankStart},
};
use coda_cli::{Exit, Failure};
use coda_cuda::{CommunicatorId, CudaError, Library, SumOrder, device_count};
use coda_manifests::{CudaAttention, Recompute};
use coda_stages::Recipe;

/// What a learner on cards begins with.
pub(super) struct Start<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) config: &'a ModelConfig,
    pub(super) settings: LearnerSettings,
    /// Rows of a pass.
    pub(super) rows: usize,
}

impl Start<'_> {
    /// The learner: on the first card, or in so many ranks on as many.
    pub(super) fn learner(
        &self,
        attention: CudaAttention,
        params: Params,
        optimizer: Optimizer,
        ranks: Option<usize>,
    ) -> Result<Box<dyn Learner>, Failure> {
        let Start { recipe, config, settings, rows } = *self;
        let attention = for_training(attention);
        let of_optimizer = optimizer_settings(&recipe.optimizer);
        let Some(ranks) = ranks else {
            let engine = open(0, config, recipe.recompute, attention)?;
            return CudaLearner::new(engine, params, optimizer, &of_optimizer, settings, rows)
                .map(|learner| Box::new(learner) as Box<dyn Learner>)
                .map_err(|error| failure(&error));
        };
        let link = match ranks {
            1 => Link::Host,
            _ => Link::Nccl(CommunicatorId::new().map_err(|error| failure(&error.into()))?),
        };
        let (config, policy) = (config.clone(), policy(recipe.recompute));
        let settings_of_optimizer = of_optimizer.clone();
        let open = move |start: RankStart| {
            let ordinal = i32::try_from(start.rank()).expect("8 ranks at most");
            let engine = CudaEngine::open_card(ordinal, &config, policy, order(attention))?;
            let learner =
                CudaLearner::among(engine, start, link, &settings_of_optimizer, settings, rows)?;
            Ok(Box::new(learner) as Box<dyn RankLearner>)
        };
        ParallelLearner::start(ranks, params, optimizer, &of_optimizer, rows, open)
            .map(|learner| Box::new(learner) as Box<dyn Learner>)
            .map_err(|error| failure(&error))
    }
}

/// Refuses more ranks than cards, and several cards without NCCL.
pub(super) fn check(ranks: usize) -> Result<(), Failure> {
    let refused = |error: CudaError| failure(&error.into());
    let cards = usize::try_from(device_count().map_err(refused)?).unwrap_or(0);
    if ranks > cards {
        let cards = if cards == 1 { "1 card".to_owned() } else { format!("{cards} cards") };
        return Err(Failure::usage(format!("there are {cards} for {ranks} ranks")).hint(
            "every rank has a card of its own: lower --ranks, or look at nvidia-smi and at \
             CUDA_VISIBLE_DEVICES",
        ));
    }
    if ranks > 1 { Library::Nccl.open().map_err(refused) } else { Ok(()) }
}

/// Whose kernels train, where `auto` leaves it open.
fn for_training(wanted: CudaAttention) -> CudaAttention {
    if wanted != CudaAttention::Auto {
        return wanted;
    }
    match cuda::probe_cudnn() {
        Ok(()) => CudaAttention::Cudnn,
        Err(error) => {
            eprintln!("attention: our own kernels ({error})");
            CudaAttention::Own
        }
    }
}

/// The order in which cuDNN sums, if it is to compute attention.
const fn order(attention: CudaAttention) -> Option<SumOrder> {
    match attention {
        CudaAttention::Auto | CudaAttention::Own => None,
        CudaAttention::Cudnn => Some(SumOrder::Fixed),
        CudaAttention::CudnnUnordered => Some(SumOrder::Any),
    }
}

/// An engine on card `ordinal`.
pub(super) fn open(
    ordinal: i32,
    config: &ModelConfig,
    recompute: Recompute,
    attention: CudaAttention,
) -> Result<CudaEngine, Failure> {
    CudaEngine::open_card(ordinal, config, policy(recompute), order(attention))
        .map_err(|error| failure(&error))
}

/// A driver, card or library that is missing is a matter of usage, as is a model without kernels.
pub(super) fn failure(error: &EngineError) -> Failure {
    let exit = match error.cause() {
        EngineError::CudaShape(_) | EngineError::Parallel(_) => Exit::Usage,
        EngineError::Cuda(error) => match **error {
            CudaError::NoLibrary { .. } | CudaError::NoDevice | CudaError::OldDevice { .. } => {
                Exit::Usage
            }
            _ => Exit::Incompatible,
        },
        _ => Exit::Incompatible,
    };
    Failure::from_error(exit, error).maybe_hint(hint(error))
}

/// What to do about it. Where there is no way with our kernels, XLA may be one.
fn hint(error: &EngineError) -> Option<String> {
    let hint = error.hint()?;
    Some(match error.cause() {
        EngineError::CudaShape(_) => format!("{hint} or --engine xla"),
        EngineError::Cuda(of_card)
            if matches!(**of_card, CudaError::NoLibrary { library: "libcuda.so.1", .. }) =>
        {
            format!("{hint}, or --engine xla with a plugin for your card")
        }
        _ => hint,
    })
}
