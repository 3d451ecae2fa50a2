//! Attention through cuDNN's graphs, for rows that are one segment each.
//!
//! A [`Card`] uses it after [`Card::use_cudnn`], for sizes that cuDNN has kernels for; segments, other
//! sizes and cards without cuDNN get our own kernels.
//!
//! [`plan_attention`] asks cuDNN what it would do on a card that is only described. That loads cuDNN and
//! makes its kernels, and runs nothing: it proves that cuDNN takes our graphs and has kernels for them,
//! and how much memory they want. It says nothing of their results or their speed.

mod descriptor;
mod functions;
mod graph;
mod plan;

use crate::{Arena, AttentionSizes, Card, CudaError, Library, Stream};
use cudarc::cudnn::sys::{
    self, cudnnBackendAttributeName_t as Name, cudnnBackendDescriptorType_t as What,
};
use descriptor::{Descriptor, check};
use functions::cudnn;
use graph::{Graph, Role};
use plan::{Plan, Target};
use std::{cell::RefCell, collections::HashMap, rc::Rc};

/// Before it sums in memory want zeros, which this module does not give them.
const OLDEST: usize = 90_600;

/// From here on every length of rows has kernels; before, lengths that are no multiple of 128 want a mask.
const ANY_LENGTH: usize = 91_600;

/// How the gradient of the queries is summed over blocks of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SumOrder {
    /// Blocks of keys add to it as they finish, so that its last bits change from run to run.
    Any,
    /// The same in every run, by the graph that NVIDIA's front end has for it on Hopper, for
    /// `rows · heads · len²` more bf16 values of memory. Two runs on an H200 gave the same weights to the last
    /// bit; of other generations nothing is known.
    #[default]
    Fixed,
}

/// Which half of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// The result and its statistics.
    Forward,
    /// The gradients.
    Backward(SumOrder),
}

/// What cuDNN would run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttentionPlan {
    /// The kernel's name, if cuDNN tells it.
    pub kernel: Option<String>,
    /// Bytes of the card's memory that it wants beside inputs and outputs.
    pub workspace: usize,
}

impl From<&Plan> for AttentionPlan {
    fn from(plan: &Plan) -> Self {
        let scratch: usize = plan.scratch.iter().map(|(_, bytes)| bytes).sum();
        Self { kernel: plan.kernel.clone(), workspace: plan.workspace + scratch }
    }
}

fn graph(sizes: &AttentionSizes, pass: Pass) -> Graph {
    match pass {
        Pass::Forward => Graph::forward(sizes),
        Pass::Backward(order) => Graph::backward(sizes, order),
    }
}

/// Opens cuDNN, if it is new enough.
///
/// # Errors
/// If it is missing, or older than 9.6.
pub fn open() -> Result<(), CudaError> {
    // Some of cuDNN's kernels are compiled when they are planned.
    Library::Nvrtc.open()?;
    let version = version()?;
    if version < OLDEST {
        let status = format!("{} is older than {}", words(version), words(OLDEST));
        return Err(CudaError::Library { call: "cudnnGetVersion", status });
    }
    Ok(())
}

/// As cuDNN counts: 9.19.1 is 91901.
fn version() -> Result<usize, CudaError> {
    // SAFETY: it takes nothing and gives a number.
    Ok(unsafe { (functions::open()?.version)() })
}

fn words(version: usize) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}

/// Refuses lengths for which this cuDNN wants a mask, which our graphs do not have.
fn check_length(sizes: &AttentionSizes) -> Result<(), CudaError> {
    let version = version()?;
    if version < ANY_LENGTH && !sizes.len.is_multiple_of(128) {
        let status = format!(
            "rows of {} tokens are no multiple of 128, which {} wants; {} does not",
            sizes.len,
            words(version),
            words(ANY_LENGTH)
        );
        return Err(CudaError::Library { call: "planning attention", status });
    }
    Ok(())
}

/// What cuDNN would run on a card that need not be here, from its properties as the JSON that cuDNN
/// reads (`tests/cards` of this crate has examples).
///
/// cuDNN wants a `libcuda` even so, any that says its version.
///
/// # Errors
/// If cuDNN is missing or too old, does not understand the properties, or has no kernel for the
/// sizes.
pub fn plan_attention(
    properties: &str,
    sizes: &AttentionSizes,
    pass: Pass,
) -> Result<AttentionPlan, CudaError> {
    sizes.check()?;
    open()?;
    check_length(sizes)?;
    let card = Descriptor::new(What::CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR)?
        .set(Name::CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, properties.as_bytes())?
        .finish()?;
    let plan = Plan::new(&graph(sizes, pass), Target::Described(&card))?;
    Ok(AttentionPlan::from(&plan))
}

/// The plans of some sizes.
#[derive(Debug)]
pub(crate) struct Plans {
    forward: Plan,
    backward: Plan,
}

/// cuDNN on a card, with a plan for each of the sizes that were asked for.
#[derive(Debug)]
pub(crate) struct Cudnn {
    plans: RefCell<HashMap<AttentionSizes, Result<Rc<Plans>, String>>>,
    handle: sys::cudnnHandle_t,
    order: SumOrder,
    stream: Stream,
    arena: Arena,
}

impl Cudnn {
    fn new(stream: &Stream, arena: &Arena, order: SumOrder) -> Result<Self, CudaError> {
        open()?;
        stream.device().bind()?;
        let functions = functions::cudnn();
        let mut handle = std::ptr::null_mut();
        // SAFETY: cuDNN writes one handle.
        check("cudnnCreate", unsafe { (functions.create)(&raw mut handle) })?;
        let (stream, arena) = (stream.clone(), arena.clone());
        let cudnn = Self { plans: RefCell::default(), handle, order, stream, arena };
        // SAFETY: the stream lives as long as `cudnn`.
        let status = unsafe { (functions.set_stream)(handle, cudnn.stream.handle().cast()) };
        check("cudnnSetStream", status)?;
        Ok(cudnn)
    }

    /// Plans for both passes, or why there are none. The first call for some sizes takes seconds.
    pub(crate) fn plans(&self, sizes: &AttentionSizes) -> Result<Rc<Plans>, String> {
        if let Some(known) = self.plans.borrow().get(sizes) {
            return known.clone();
        }
        let plan = |pass| Plan::new(&graph(sizes, pass), Target::Card(self.handle));
        let made = self
            .stream
            .device()
            .bind()
            .and_then(|()| check_length(sizes))
            .and_then(|()| {
                let forward = plan(Pass::Forward)?;
                Ok(Rc::new(Plans { forward, backward: plan(Pass::Backward(self.order))? }))
            })
            .map_err(|error| error.to_string());
        self.plans.borrow_mut().insert(*sizes, made.clone());
        made
    }

    /// Queues the forward pass. The caller vouches for the addresses of `[q, k, v, y]` and the
    /// statistics.
    pub(crate) fn forward(
        &self,
        plans: &Plans,
        sizes: &AttentionSizes,
        [q, k, v, y, statistics]: [u64; 5],
    ) -> Result<(), CudaError> {
        let outside = [
            (Role::Q, q),
            (Role::K, k),
            (Role::V, v),
            (Role::Y, y),
            (Role::Statistics, statistics),
        ];
        self.run(&plans.forward, sizes, &outside)?;
        self.stream.queued(|| "cudnn attention forward".into())
    }

    /// Queues the backward pass. The caller vouches for the addresses of `[q, k, v, y, gy]`, the
    /// statistics and `[gq, gk, gv]`.
    pub(crate) fn backward(
        &self,
        plans: &Plans,
        sizes: &AttentionSizes,
        [q, k, v, y, gy]: [u64; 5],
        statistics: u64,
        [gq, gk, gv]: [u64; 3],
    ) -> Result<(), CudaError> {
        let outside = [
            (Role::Q, q),
            (Role::K, k),
            (Role::V, v),
            (Role::Y, y),
            (Role::Gy, gy),
            (Role::Statistics, statistics),
            (Role::Gq, gq),
            (Role::Gk, gk),
            (Role::Gv, gv),
        ];
        self.run(&plans.backward, sizes, &outside)?;
        self.stream.queued(|| "cudnn attention backward".into())
    }

    fn run(
        &self,
        plan: &Plan,
        sizes: &AttentionSizes,
        outside: &[(Role, u64)],
    ) -> Result<(), CudaError> {
        self.stream.device().bind()?;
        let (scale, one) = (sizes.plain_scale(), 1.0_f32);
        let workspace = self.arena.block(plan.workspace)?;
        let scratch = plan
            .scratch
            .iter()
            .map(|(role, bytes)| Ok((*role, self.arena.block(*bytes)?)))
            .collect::<Result<Vec<_>, CudaError>>()?;
        let address = |wanted: Role| match wanted {
            Role::Scale => (&raw const scale) as u64,
            Role::One => (&raw const one) as u64,
            _ => {
                let given = outside.iter().find(|(role, _)| *role == wanted).map(|(_, at)| *at);
                let own = || scratch.iter().find(|(role, _)| *role == wanted);
                given.or_else(|| own().map(|(_, block)| block.pointer())).expect("every role")
            }
        };
        // SAFETY: the caller vouches for what is outside; scratch and workspace are as large as the
        // plan says, and whoever gets them next is queued behind; the numbers live until the return.
        unsafe { plan.run(self.handle, address, workspace.pointer()) }
    }
}

impl Drop for Cudnn {
    fn drop(&mut self) {
        self.plans.borrow_mut().clear();
        let _ = self.stream.synchronize();
        // SAFETY: created once, destroyed once.
        let _ = unsafe { (cudnn().destroy)(self.handle) };
    }
}

impl Card {
    /// From now on, attention without segments goes through cuDNN where it has kernels for the
    /// sizes.
    ///
    /// The first pass of some sizes takes seconds, for planning: made for training, where sizes stay.
    /// To be called once, before the first pass.
    /// No test in CI runs these kernels, for want of a card (see `docs/cudnn.md`).
    ///
    /// # Errors
    /// If cuDNN is missing or older than 9.6; attention stays with our own kernels.
    pub fn use_cudnn(&mut self, order: SumOrder) -> Result<(), CudaError> {
        self.cudnn = Some(Cudnn::new(self.stream(), self.arena(), order)?);
        Ok(())
    }

    /// What cuDNN runs for these sizes, forward and backward; none if it is not used.
    ///
    /// # Errors
    /// Why cuDNN has no kernel for them, so that ours are used.
    pub fn cudnn_plans(
        &self,
        sizes: &AttentionSizes,
    ) -> Result<Option<[AttentionPlan; 2]>, CudaError> {
        let Some(cudnn) = &self.cudnn else { return Ok(None) };
        match cudnn.plans(sizes) {
            Ok(plans) => Ok(Some([(&plans.forward).into(), (&plans.backward).into()])),
            Err(status) => Err(CudaError::Library { call: "cuDNN's planning", status }),
        }
    }
}
