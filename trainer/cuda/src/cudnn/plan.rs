//! A graph in cuDNN's words, and the kernel that cuDNN chooses for it.

use super::{
    descriptor::{Address, Descriptor, Raw},
    graph::{Graph, Node, Place, Pointwise, Role, Tensor},
};
use crate::{CudaError, Element};
use cudarc::cudnn::sys::{
    self, cudnnBackendAttributeName_t as Name, cudnnBackendDescriptorType_t as What,
    cudnnBackendHeurMode_t as Mode, cudnnDataType_t as DataType, cudnnPointwiseMode_t,
    cudnnReduceTensorOp_t,
};

/// What a plan is made for.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// The card of a handle.
    Card(sys::cudnnHandle_t),
    /// A card that is described.
    Described(&'a Descriptor),
}

/// A graph with the kernel that runs it.
#[derive(Debug)]
pub(super) struct Plan {
    made: Descriptor,
    /// Tensors outside the graph, by id.
    roles: Vec<Role>,
    /// Those of them that only the graph uses, with their bytes.
    pub(super) scratch: Vec<(Role, usize)>,
    /// Bytes that the kernel wants beside them.
    pub(super) workspace: usize,
    /// The kernel's name, if cuDNN tells it.
    pub(super) kernel: Option<String>,
    /// The graph, as long as the plan is used.
    _parts: Vec<Descriptor>,
}

/// Ids of tensors inside a graph begin here; the others' are their roles.
const INSIDE: usize = 100;

fn tensor(at: usize, tensor: &Tensor) -> Result<Descriptor, CudaError> {
    let (id, inside, host) = match tensor.place {
        Place::Memory(role) => (role as usize, false, false),
        Place::Host(role) => (role as usize, false, true),
        Place::Inside => (INSIDE + at, true, false),
    };
    let element = match tensor.element {
        Element::Bf16 => DataType::CUDNN_DATA_BFLOAT16,
        Element::F32 => DataType::CUDNN_DATA_FLOAT,
        other => return Err(CudaError::Shape(format!("a graph has no {other:?}"))),
    };
    Descriptor::new(What::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?
        .set(Name::CUDNN_ATTR_TENSOR_DATA_TYPE, &[element])?
        .set(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, &tensor.sizes)?
        .set(Name::CUDNN_ATTR_TENSOR_STRIDES, &tensor.strides)?
        .set(Name::CUDNN_ATTR_TENSOR_UNIQUE_ID, &[i64::try_from(id).expect("small")])?
        .set(Name::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[16_i64])?
        .set(Name::CUDNN_ATTR_TENSOR_IS_VIRTUAL, &[inside])?
        .set(Name::CUDNN_ATTR_TENSOR_IS_BY_VALUE, &[host])?
        .finish()
}

/// The operation, and what it is made with if that has a descriptor of its own.
fn operation(
    node: &Node,
    tensors: &[Descriptor],
) -> Result<(Descriptor, Option<Descriptor>), CudaError> {
    let single = DataType::CUDNN_DATA_FLOAT;
    let referring = |what: What, parts: &[(Name, &Descriptor)]| {
        parts
            .iter()
            .try_fold(Descriptor::new(what)?, |made, (name, part)| made.refer(*name, part))?
            .finish()
    };
    let at = |at: &usize| &tensors[*at];
    Ok(match node {
        Node::Attention { q, k, v, y, statistics, scale } => {
            let parts = [
                (Name::CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, at(q)),
                (Name::CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, at(k)),
                (Name::CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, at(v)),
                (Name::CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, at(y)),
                (Name::CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC, at(statistics)),
                (Name::CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, at(scale)),
            ];
            (referring(What::CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, &parts)?, None)
        }
        Node::Pointwise { mode, x, b, y } => {
            let mode = match mode {
                Pointwise::Multiply => cudnnPointwiseMode_t::CUDNN_POINTWISE_MUL,
                Pointwise::Subtract => cudnnPointwiseMode_t::CUDNN_POINTWISE_SUB,
                Pointwise::Exp => cudnnPointwiseMode_t::CUDNN_POINTWISE_EXP,
                Pointwise::Copy => cudnnPointwiseMode_t::CUDNN_POINTWISE_IDENTITY,
            };
            let how = Descriptor::new(What::CUDNN_BACKEND_POINTWISE_DESCRIPTOR)?
                .set(Name::CUDNN_ATTR_POINTWISE_MODE, &[mode])?
                .set(Name::CUDNN_ATTR_POINTWISE_MATH_PREC, &[single])?
                .finish()?;
            let mut parts = vec![
                (Name::CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, &how),
                (Name::CUDNN_ATTR_OPERATION_POINTWISE_XDESC, at(x)),
                (Name::CUDNN_ATTR_OPERATION_POINTWISE_YDESC, at(y)),
            ];
            if let Some(b) = b {
                parts.push((Name::CUDNN_ATTR_OPERATION_POINTWISE_BDESC, at(b)));
            }
            (referring(What::CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, &parts)?, Some(how))
        }
        Node::Sum { x, y } => {
            let add = cudnnReduceTensorOp_t::CUDNN_REDUCE_TENSOR_ADD;
            let how = Descriptor::new(What::CUDNN_BACKEND_REDUCTION_DESCRIPTOR)?
                .set(Name::CUDNN_ATTR_REDUCTION_OPERATOR, &[add])?
                .set(Name::CUDNN_ATTR_REDUCTION_COMP_TYPE, &[single])?
                .finish()?;
            let parts = [
                (Name::CUDNN_ATTR_OPERATION_REDUCTION_DESC, &how),
                (Name::CUDNN_ATTR_OPERATION_REDUCTION_XDESC, at(x)),
                (Name::CUDNN_ATTR_OPERATION_REDUCTION_YDESC, at(y)),
            ];
            (referring(What::CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, &parts)?, Some(how))
        }
        Node::Product { left, right, out } => {
            let how = Descriptor::new(What::CUDNN_BACKEND_MATMUL_DESCRIPTOR)?
                .set(Name::CUDNN_ATTR_MATMUL_COMP_TYPE, &[single])?
                .finish()?;
            let parts = [
                (Name::CUDNN_ATTR_OPERATION_MATMUL_DESC, &how),
                (Name::CUDNN_ATTR_OPERATION_MATMUL_ADESC, at(left)),
                (Name::CUDNN_ATTR_OPERATION_MATMUL_BDESC, at(right)),
                (Name::CUDNN_ATTR_OPERATION_MATMUL_CDESC, at(out)),
            ];
            (referring(What::CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, &parts)?, Some(how))
        }
        Node::View { x, y } => {
            let parts = [
                (Name::CUDNN_ATTR_OPERATION_RESHAPE_XDESC, at(x)),
                (Name::CUDNN_ATTR_OPERATION_RESHAPE_YDESC, at(y)),
            ];
            (referring(What::CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, &parts)?, None)
        }
    })
}

impl Plan {
    /// Asks cuDNN for its ways to run the graph, best first, and takes the first that it can make.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn new(graph: &Graph, target: Target<'_>) -> Result<Self, CudaError> {
        let mut parts = graph
            .tensors
            .iter()
            .enumerate()
            .map(|(at, one)| tensor(at, one))
            .collect::<Result<Vec<_>, _>>()?;
        let tensors = parts.len();
        let mut operations = Vec::with_capacity(graph.nodes.len());
        let mut hows = Vec::new();
        for node in &graph.nodes {
            let (made, how) = operation(node, &parts[..tensors])?;
            operations.push(made);
            hows.extend(how);
        }
        let raws: Vec<Raw> = operations.iter().map(Descriptor::raw).collect();
        let mut described = Descriptor::new(What::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?
            .set(Name::CUDNN_ATTR_OPERATIONGRAPH_OPS, &raws)?;
        if let Target::Card(handle) = target {
            described = described.set(Name::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, &[handle])?;
        }
        let described = described.finish()?;
        let plan = choose(&described, target)?;
        let workspace = plan.number(Name::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)?;
        let kernel = plan
            .text(Name::CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION)
            .ok()
            .and_then(|text| kernel_in(&text));
        parts.extend(operations);
        parts.extend(hows);
        parts.push(described);
        let roles = graph.tensors.iter().filter_map(|tensor| match tensor.place {
            Place::Memory(role) | Place::Host(role) => Some(role),
            Place::Inside => None,
        });
        Ok(Self {
            made: plan,
            roles: roles.collect(),
            scratch: graph.scratch(),
            workspace: usize::try_from(workspace).unwrap_or_default(),
            kernel,
            _parts: parts,
        })
    }

    /// Runs the plan.
    ///
    /// # Safety
    /// `address` gives what each role's tensor lies at: on the handle's card, as large as the graph
    /// says; the numbers' on the host, until this returns. `workspace` is that of this plan.
    pub(super) unsafe fn run(
        &self,
        handle: sys::cudnnHandle_t,
        address: impl Fn(Role) -> u64,
        workspace: u64,
    ) -> Result<(), CudaError> {
        let ids: Vec<i64> = self.roles.iter().map(|role| *role as i64).collect();
        let addresses: Vec<Address> =
            self.roles.iter().map(|role| Address(address(*role))).collect();
        let pack = Descriptor::new(What::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?
            .set(Name::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &ids)?
            .set(Name::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, &addresses)?
            .set(Name::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, &[Address(workspace)])?
            .finish()?;
        // SAFETY: as the caller vouches.
        unsafe { self.made.run(handle, &pack) }
    }
}

/// The first plan that can be made: by cuDNN's heuristics, then by what always works.
fn choose(graph: &Descriptor, target: Target<'_>) -> Result<Descriptor, CudaError> {
    let mut last = CudaError::Library {
        call: "cudnnBackendGetAttribute",
        status: "cuDNN knows no kernel for this graph".to_owned(),
    };
    for mode in [Mode::CUDNN_HEUR_MODE_A, Mode::CUDNN_HEUR_MODE_FALLBACK] {
        let mut heuristics = Descriptor::new(What::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?
            .refer(Name::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph)?
            .set(Name::CUDNN_ATTR_ENGINEHEUR_MODE, &[mode])?;
        if let Target::Described(card) = target {
            heuristics = heuristics.refer(Name::CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, card)?;
        }
        let found = heuristics.finish().and_then(|heuristics| {
            let results = Name::CUDNN_ATTR_ENGINEHEUR_RESULTS;
            heuristics.found(results, What::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)
        });
        let engines = match found {
            Ok(engines) => engines,
            Err(error) => {
                last = error;
                continue;
            }
        };
        for engine in engines {
            let plan = Descriptor::new(What::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?
                .refer(Name::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, &engine)?;
            let plan = match target {
                Target::Card(handle) => {
                    plan.set(Name::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, &[handle])?
                }
                Target::Described(card) => {
                    plan.refer(Name::CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, card)?
                }
            };
            match plan.finish() {
                Ok(plan) => return Ok(plan),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

/// The kernel's name in a plan's own description of itself.
fn kernel_in(text: &str) -> Option<String> {
    let start = text.find("cudnn_generated_")?;
    let name = text[start..].split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()?;
    Some(name.to_owned())
}
