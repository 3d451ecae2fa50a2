//! Matrix products through cuBLASLt, each kind planned once.

use crate::{Arena, Block, Card, CudaError, Element, Library, Span, Stream};
use cudarc::cublaslt::{
    result::{self, CublasError},
    sys::{self, cublasLtMatmulDescAttributes_t as Attribute, cudaDataType},
};
use std::{
    cell::RefCell,
    collections::{HashMap, hash_map::Entry},
    ffi::c_void,
};

/// Room that a product may use beside its matrices.
const WORKSPACE: usize = 32 << 20;

/// How a factor lies in memory, row-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// As it is multiplied.
    Plain,
    /// Its transpose.
    Transposed,
}

/// `[rows, inner] · [inner, columns]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    /// Rows of the result.
    pub rows: usize,
    /// Columns of the result.
    pub columns: usize,
    /// What is summed over.
    pub inner: usize,
    /// How the left factor lies.
    pub left: Order,
    /// How the right factor lies.
    pub right: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    product: Product,
    out: cudaDataType,
}

/// cuBLASLt, its plans and its workspace.
#[derive(Debug)]
pub(crate) struct Products {
    stream: Stream,
    handle: sys::cublasLtHandle_t,
    workspace: Block,
    plans: RefCell<HashMap<Key, Plan>>,
}

/// Descriptions of the matrices and the algorithm that cuBLASLt chose for them.
#[derive(Debug)]
struct Plan {
    description: Handle<sys::cublasLtMatmulDesc_t>,
    /// The factors, in cuBLASLt's order, and the result.
    layouts: [Handle<sys::cublasLtMatrixLayout_t>; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

#[derive(Debug)]
struct Handle<T: Copy> {
    handle: T,
    destroy: unsafe fn(T) -> Result<(), CublasError>,
}

impl<T: Copy> Drop for Handle<T> {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        let _ = unsafe { (self.destroy)(self.handle) };
    }
}

fn refused(call: &'static str) -> impl FnOnce(CublasError) -> CudaError {
    move |error| CudaError::Library { call, status: format!("{:?}", error.0) }
}

impl Products {
    pub(crate) fn new(stream: &Stream, arena: &Arena) -> Result<Self, CudaError> {
        Library::CublasLt.open()?;
        stream.device().bind()?;
        let handle = result::create_handle().map_err(refused("cublasLtCreate"))?;
        let workspace = arena.block(WORKSPACE)?;
        Ok(Self { stream: stream.clone(), handle, workspace, plans: RefCell::default() })
    }

    /// cuBLASLt's matrices are column-major, so a row-major product is that of the transposes in
    /// the other order: its first factor is our right one.
    fn plan(&self, key: Key) -> Result<Plan, CudaError> {
        let Key { product: Product { rows, columns, inner, left, right }, out } = key;
        let description = Handle {
            handle: result::create_matmul_desc(
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                cudaDataType::CUDA_R_32F,
            )
            .map_err(refused("cublasLtMatmulDescCreate"))?,
            destroy: result::destroy_matmul_desc,
        };
        let operations = [
            (Attribute::CUBLASLT_MATMUL_DESC_TRANSA, right),
            (Attribute::CUBLASLT_MATMUL_DESC_TRANSB, left),
        ];
        for (attribute, order) in operations {
            // CUBLAS_OP_N and CUBLAS_OP_T
            let operation: i32 = match order {
                Order::Plain => 0,
                Order::Transposed => 1,
            };
            // SAFETY: the attribute is an operation.
            unsafe {
                result::set_matmul_desc_attribute(
                    description.handle,
                    attribute,
                    (&raw const operation).cast(),
                    size_of_val(&operation),
                )
            }
            .map_err(refused("cublasLtMatmulDescSetAttribute"))?;
        }
        let layout = |element, height: usize, width: usize| {
            let handle = result::create_matrix_layout(
                element,
                width as u64,
                height as u64,
                i64::try_from(width).expect("a matrix of this machine"),
            )
            .map_err(refused("cublasLtMatrixLayoutCreate"))?;
            Ok::<_, CudaError>(Handle { handle, destroy: result::destroy_matrix_layout })
        };
        let stored = |order, height, width| match order {
            Order::Plain => layout(cudaDataType::CUDA_R_16BF, height, width),
            Order::Transposed => layout(cudaDataType::CUDA_R_16BF, width, height),
        };
        let layouts = [
            stored(right, inner, columns)?,
            stored(left, rows, inner)?,
            layout(out, rows, columns)?,
        ];
        let preference = Handle {
            handle: result::create_matmul_pref()
                .map_err(refused("cublasLtMatmulPreferenceCreate"))?,
            destroy: result::destroy_matmul_pref,
        };
        let [a, b, c] = [layouts[0].handle, layouts[1].handle, layouts[2].handle];
        let workspace = WORKSPACE;
        // SAFETY: all of them were created above; the attribute is a number of bytes.
        let found = unsafe {
            result::set_matmul_pref_attribute(
                preference.handle,
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const workspace).cast(),
                size_of_val(&workspace),
            )
            .and_then(|()| {
                result::get_matmul_algo_heuristic(
                    self.handle,
                    description.handle,
                    a,
                    b,
                    c,
                    c,
                    preference.handle,
                )
            })
        };
        let found = found.map_err(refused("cublasLtMatmulAlgoGetHeuristic"))?;
        Ok(Plan { description, layouts, algorithm: found.algo })
    }

    fn run(&self, key: Key, [left, right, add, out]: [u64; 4], keep: f32) -> Result<(), CudaError> {
        self.stream.device().bind()?;
        let mut plans = self.plans.borrow_mut();
        let plan = match plans.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(self.plan(key)?),
        };
        let one = 1.0_f32;
        let at = |pointer: u64| pointer as *const c_void;
        // SAFETY: the plan's descriptions live; the caller checked that the matrices are as large
        // as they say; the factors of alpha and beta are read before the call returns.
        unsafe {
            result::matmul(
                self.handle,
                plan.description.handle,
                (&raw const one).cast(),
                (&raw const keep).cast(),
                at(right),
                plan.layouts[0].handle,
                at(left),
                plan.layouts[1].handle,
                at(add),
                plan.layouts[2].handle,
                out as *mut c_void,
                plan.layouts[2].handle,
                &raw const plan.algorithm,
                self.workspace.pointer() as *mut c_void,
                WORKSPACE,
                self.stream.handle().cast(),
            )
        }
        .map_err(refused("cublasLtMatmul"))?;
        let Product { rows, columns, inner, left, right } = key.product;
        self.stream.queued(|| {
            let order = |order| if order == Order::Plain { "" } else { "ᵀ" };
            let out = if key.out == cudaDataType::CUDA_R_32F { "f32" } else { "bf16" };
            let (left, right) = (order(left), order(right));
            format!("product {rows}x{inner}{left} . {inner}x{columns}{right} {out}").into()
        })
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        self.plans.borrow_mut().clear();
        let _ = self.stream.synchronize();
        // SAFETY: created once, destroyed once.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl Card {
    /// `out = left · right`, plus `add` if given, which may be `out` itself. Factors are bf16, sums
    /// f32, the result (and `add`) bf16 or f32.
    ///
    /// Widths of bf16 matrices should be multiples of 8: cuBLASLt wants rows at 16 bytes for the
    /// tensor cores.
    ///
    /// # Errors
    /// If the sizes do not fit, or cuBLASLt has no way to do it.
    pub fn multiply(
        &self,
        product: Product,
        left: Span<'_>,
        right: Span<'_>,
        add: Option<Span<'_>>,
        out: Span<'_>,
    ) -> Result<(), CudaError> {
        let Product { rows, columns, inner, .. } = product;
        let element = match out.element() {
            Element::Bf16 => cudaDataType::CUDA_R_16BF,
            Element::F32 => cudaDataType::CUDA_R_32F,
            other => return Err(CudaError::Shape(format!("a product cannot give {other:?}"))),
        };
        let out_at = out.need("product", out.element(), rows * columns)?;
        let add_at = match add {
            Some(add) => add.need("what a product is added to", out.element(), rows * columns)?,
            None => out_at,
        };
        let pointers = [
            left.need("left factor", Element::Bf16, rows * inner)?,
            right.need("right factor", Element::Bf16, inner * columns)?,
            add_at,
            out_at,
        ];
        if rows == 0 || columns == 0 || inner == 0 {
            return Err(CudaError::Shape(format!("an empty product: {product:?}")));
        }
        let keep = if add.is_some() { 1.0 } else { 0.0 };
        self.products.run(Key { product, out: element }, pointers, keep)
    }
}
