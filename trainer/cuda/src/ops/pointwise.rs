//! SwiGLU, sums, casts, and moving rows.

use super::{eights, int};
use crate::{
    Card, CudaError, Element, Span,
    launch::{Argument as Arg, Geometry, Kernel},
};

/// Values of a block that takes eight a thread.
const BLOCK: usize = 256 * 8;

const fn kernel(name: &'static str, threads: u32) -> Kernel {
    Kernel { file: "pointwise.cu", name, threads }
}

/// Blocks for rows of `inner` values, and how many a row has.
fn swiglu_rows(rows: Span<'_>, inner: usize) -> Result<(Geometry, Arg), CudaError> {
    eights("width of SwiGLU", inner)?;
    if inner == 0 || !rows.len().is_multiple_of(inner) {
        return Err(CudaError::Shape(format!("{} values in rows of {inner}", rows.len())));
    }
    let blocks = inner.div_ceil(BLOCK);
    Ok((Geometry::line(rows.len() / inner * blocks)?, Arg::Int(int(blocks)?)))
}

impl Card {
    /// `y = silu(gate) · up`, for rows of `gate_up` `[n, 2 · inner]` that have the gate in front and `y`
    /// `[n, inner]`.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn swiglu(&self, gate_up: Span<'_>, inner: usize, y: Span<'_>) -> Result<(), CudaError> {
        let (geometry, blocks) = swiglu_rows(y, inner)?;
        let mut arguments = [
            Arg::Pointer(gate_up.need("gate and up", Element::Bf16, 2 * y.len())?),
            Arg::Pointer(y.need("y", Element::Bf16, y.len())?),
            Arg::Int(int(inner)?),
            blocks,
        ];
        self.kernels.launch(kernel("swiglu_forward", 256), geometry, &mut arguments)
    }

    /// Sends `gy` back through [`Card::swiglu`] into `g_gate_up`, which is overwritten.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn swiglu_backward(
        &self,
        gy: Span<'_>,
        gate_up: Span<'_>,
        inner: usize,
        g_gate_up: Span<'_>,
    ) -> Result<(), CudaError> {
        let (geometry, blocks) = swiglu_rows(gy, inner)?;
        let mut arguments = [
            Arg::Pointer(g_gate_up.need("their gradient", Element::Bf16, 2 * gy.len())?),
            Arg::Pointer(gy.need("gy", Element::Bf16, gy.len())?),
            Arg::Pointer(gate_up.need("gate and up", Element::Bf16, 2 * gy.len())?),
            Arg::Int(int(inner)?),
            blocks,
        ];
        self.kernels.launch(kernel("swiglu_backward", 256), geometry, &mut arguments)
    }

    /// `into += from`, bf16.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn add(&self, into: Span<'_>, from: Span<'_>) -> Result<(), CudaError> {
        let n = into.len();
        let mut arguments = [
            Arg::Pointer(into.need("sum", Element::Bf16, n)?),
            Arg::Pointer(from.need("summand", Element::Bf16, n)?),
            Arg::Long(eights("sum", n)? as u64),
        ];
        let geometry = Geometry::line(n.div_ceil(BLOCK))?;
        self.kernels.launch(kernel("add_into", 256), geometry, &mut arguments)
    }

    /// `into += from`, f32.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn add_floats(&self, into: Span<'_>, from: Span<'_>) -> Result<(), CudaError> {
        let n = into.len();
        let mut arguments = [
            Arg::Pointer(into.need("sum", Element::F32, n)?),
            Arg::Pointer(from.need("summand", Element::F32, n)?),
            Arg::Long(n as u64),
        ];
        let geometry = Geometry::line(n.div_ceil(256 * 4))?;
        self.kernels.launch(kernel("add_floats", 256), geometry, &mut arguments)
    }

    /// Rounds f32 values to bf16, ties to even.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn round(&self, from: Span<'_>, into: Span<'_>) -> Result<(), CudaError> {
        let n = from.len();
        let mut arguments = [
            Arg::Pointer(from.need("f32 values", Element::F32, n)?),
            Arg::Pointer(into.need("bf16 values", Element::Bf16, n)?),
            Arg::Long(n as u64),
        ];
        let geometry = Geometry::line(n.div_ceil(256))?;
        self.kernels.launch(kernel("round_to_bf16", 256), geometry, &mut arguments)
    }

    /// `out[i] = rows[indices[i]]` for rows of `width`. The caller has checked the indices.
    ///
    /// # Errors
    /// If sizes do not fit.
    pub fn gather(
        &self,
        rows: Span<'_>,
        indices: Span<'_>,
        width: usize,
        out: Span<'_>,
    ) -> Result<(), CudaError> {
        let n = indices.len();
        eights("width of a row", width)?;
        let mut arguments = [
            Arg::Pointer(rows.need("rows", Element::Bf16, rows.len())?),
            Arg::Pointer(indices.need("indices", Element::U32, n)?),
            Arg::Pointer(out.need("gathered rows", Element::Bf16, n * width)?),
            Arg::Int(int(width)?),
        ];
        self.kernels.launch(kernel("gather_rows", 128), Geometry::line(n)?, &mut arguments)
    }

    /// `out[indices[i]] = rows[i]` for rows of `width`; no index comes twice. The caller has checked
    /// the indices.
    ///
    /// # Errors
    /// If sizes do not fit.
    pub fn scatter(
        &self,
        rows: Span<'_>,
        indices: Span<'_>,
        width: usize,
        out: Span<'_>,
    ) -> Result<(), CudaError> {
        let n = indices.len();
        eights("width of a row", width)?;
        let mut arguments = [
            Arg::Pointer(rows.need("rows", Element::Bf16, n * width)?),
            Arg::Pointer(indices.need("indices", Element::U32, n)?),
            Arg::Pointer(out.need("rows to fill", Element::Bf16, out.len())?),
            Arg::Int(int(width)?),
        ];
        self.kernels.launch(kernel("scatter_rows", 128), Geometry::line(n)?, &mut arguments)
    }

    /// Adds to the gradient of an embedding `[V, width]`, in f32, the rows of `gy` by their ids: row
    /// `ids[i]` receives those of `tokens[starts[i]..starts[i + 1]]`, in order. `ids` are distinct.
    ///
    /// # Errors
    /// If sizes do not fit.
    pub fn embedding_backward(
        &self,
        gy: Span<'_>,
        [ids, starts, tokens]: [Span<'_>; 3],
        width: usize,
        grad: Span<'_>,
    ) -> Result<(), CudaError> {
        let n = ids.len();
        eights("width of an embedding", width)?;
        let mut arguments = [
            Arg::Pointer(grad.need("gradient", Element::F32, grad.len())?),
            Arg::Pointer(gy.need("gy", Element::Bf16, tokens.len() * width)?),
            Arg::Pointer(ids.need("ids", Element::U32, n)?),
            Arg::Pointer(starts.need("starts", Element::U32, n + 1)?),
            Arg::Pointer(tokens.need("tokens", Element::U32, tokens.len())?),
            Arg::Int(int(width)?),
        ];
        let geometry = Geometry::grid([n, width.div_ceil(256), 1])?;
        self.kernels.launch(kernel("embedding_backward", 32), geometry, &mut arguments)
    }
}
