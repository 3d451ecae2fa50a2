//! RMSNorm over rows, and over heads with the rotation of positions.

use super::{eights, int};
use crate::{
    Block, Card, CudaError, Element, Span,
    launch::{Argument as Arg, Geometry, Kernel},
};

/// Rows whose sums one block keeps. Part of the result: the weight's gradient is a sum of such parts.
const ROWS: usize = 32;

/// Heads of tokens whose sums one block keeps.
const HEADS: usize = 256;

/// Widest row.
const WIDEST: usize = 8192;

const fn kernel(name: &'static str) -> Kernel {
    Kernel { file: "norm.cu", name, threads: 256 }
}

/// The kernels over rows, forward and backward, for rows up to 2048, 4096 and 8192 wide.
const fn of_rows(width: usize) -> [Kernel; 2] {
    match width {
        0..=2048 => [kernel("rms_norm_forward_2048"), kernel("rms_norm_backward_2048")],
        2049..=4096 => [kernel("rms_norm_forward_4096"), kernel("rms_norm_backward_4096")],
        _ => [kernel("rms_norm_forward_8192"), kernel("rms_norm_backward_8192")],
    }
}

/// Cosines and sines `[len, head / 2]` of the rotary angles.
#[derive(Clone, Copy, Debug)]
pub struct RopeTables<'a> {
    /// Cosines.
    pub cosines: Span<'a>,
    /// Sines.
    pub sines: Span<'a>,
    /// Positions.
    pub len: usize,
}

/// Columns of a matrix `[tokens, width]`, from `from` on.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// The matrix.
    pub matrix: Span<'a>,
    /// Its width.
    pub width: usize,
    /// The first column.
    pub from: usize,
}

impl<'a> Columns<'a> {
    /// All of them.
    #[must_use]
    pub const fn all(matrix: Span<'a>, width: usize) -> Self {
        Self { matrix, width, from: 0 }
    }

    /// Where the columns of the first token begin, if the matrix has so many tokens, and `wide` columns
    /// from there on.
    fn need(self, what: &str, tokens: usize, wide: usize) -> Result<u64, CudaError> {
        let Self { matrix, width, from } = self;
        eights("width of a matrix", width)?;
        eights("its first column", from)?;
        if from + wide > width {
            return Err(CudaError::Shape(format!(
                "{what}: columns {from}..{} of {width}",
                from + wide
            )));
        }
        Ok(matrix.need(what, Element::Bf16, tokens * width)? + 2 * from as u64)
    }
}

impl Card {
    /// `y = x / sqrt(mean(x²) + eps) · weight` by rows of `weight`'s width; `scales` keeps each
    /// row's factor for the backward pass.
    ///
    /// # Errors
    /// If sizes do not fit.
    pub fn rms_norm(
        &self,
        x: Span<'_>,
        weight: Span<'_>,
        eps: f32,
        y: Span<'_>,
        scales: Span<'_>,
    ) -> Result<(), CudaError> {
        let (rows, width) = rows_of(x, weight)?;
        let mut arguments = [
            Arg::Pointer(x.need("x", Element::Bf16, rows * width)?),
            Arg::Pointer(weight.need("weight", Element::Bf16, width)?),
            Arg::Pointer(y.need("y", Element::Bf16, rows * width)?),
            Arg::Pointer(scales.need("scales", Element::F32, rows)?),
            Arg::Int(int(rows)?),
            Arg::Int(int(width)?),
            Arg::Float(eps),
        ];
        let [forward, _] = of_rows(width);
        self.kernels.launch(forward, Geometry::line(rows.div_ceil(8))?, &mut arguments)
    }

    /// Sends `gy` back through [`Card::rms_norm`]: into `gx`, added if it `holds` something, and
    /// added to the weight's gradient `[width]` in f32.
    ///
    /// # Errors
    /// If sizes do not fit, or there is no room for the sums of the blocks.
    #[allow(clippy::too_many_arguments, reason = "the operands of one kernel")]
    pub fn rms_norm_backward(
        &self,
        gy: Span<'_>,
        x: Span<'_>,
        weight: Span<'_>,
        scales: Span<'_>,
        gx: Span<'_>,
        holds: bool,
        g_weight: Span<'_>,
    ) -> Result<(), CudaError> {
        let (rows, width) = rows_of(x, weight)?;
        let blocks = rows.div_ceil(ROWS);
        let partial = self.room(Element::F32, blocks * width)?;
        let mut arguments = [
            Arg::Pointer(gx.need("gx", Element::Bf16, rows * width)?),
            Arg::Pointer(partial.pointer()),
            Arg::Pointer(gy.need("gy", Element::Bf16, rows * width)?),
            Arg::Pointer(x.need("x", Element::Bf16, rows * width)?),
            Arg::Pointer(weight.need("weight", Element::Bf16, width)?),
            Arg::Pointer(scales.need("scales", Element::F32, rows)?),
            Arg::Int(int(rows)?),
            Arg::Int(int(ROWS)?),
            Arg::Int(int(width)?),
            Arg::Int(i32::from(holds)),
        ];
        let [_, backward] = of_rows(width);
        self.kernels.launch(backward, Geometry::line(blocks)?, &mut arguments)?;
        self.add_rows(&partial, blocks, width, g_weight)
    }

    /// The norm of each head, then its rotation: columns of `x` and `y` `[tokens, heads · head]`, `weight`
    /// `[head]`; the position of a token is its place modulo the tables' length.
    ///
    /// # Errors
    /// If sizes do not fit; heads are 64 or 128 wide.
    pub fn head_norm_rope(
        &self,
        x: Columns<'_>,
        weight: Span<'_>,
        eps: f32,
        heads: usize,
        tables: RopeTables<'_>,
        y: Span<'_>,
    ) -> Result<(), CudaError> {
        let head = weight.len();
        let items = items_of(y, head, heads)?;
        let mut arguments = [
            Arg::Pointer(x.need("x", items / heads, heads * head)?),
            Arg::Pointer(weight.need("weight", Element::Bf16, head)?),
            Arg::Pointer(tables.cosines.need("cosines", Element::F32, tables.len * head / 2)?),
            Arg::Pointer(tables.sines.need("sines", Element::F32, tables.len * head / 2)?),
            Arg::Pointer(y.need("y", Element::Bf16, items * head)?),
            Arg::Int(int(items)?),
            Arg::Int(int(heads)?),
            Arg::Int(int(x.width)?),
            Arg::Int(int(tables.len)?),
            Arg::Float(eps),
        ];
        let kernel = match head {
            64 => kernel("head_norm_rope_forward_64"),
            128 => kernel("head_norm_rope_forward_128"),
            other => return Err(head_refused(other)),
        };
        // 16 values a thread.
        let geometry = Geometry::line((items * head).div_ceil(256 * 16))?;
        self.kernels.launch(kernel, geometry, &mut arguments)
    }

    /// Sends `gy` back through [`Card::head_norm_rope`]: into the same columns of `gx`, overwritten, a matrix
    /// as wide as `x`, and added to the weight's gradient `[head]` in f32.
    ///
    /// # Errors
    /// As there.
    #[allow(clippy::too_many_arguments, reason = "the operands of one kernel")]
    pub fn head_norm_rope_backward(
        &self,
        gy: Span<'_>,
        x: Columns<'_>,
        weight: Span<'_>,
        eps: f32,
        heads: usize,
        tables: RopeTables<'_>,
        gx: Span<'_>,
        g_weight: Span<'_>,
    ) -> Result<(), CudaError> {
        let head = weight.len();
        let items = items_of(gy, head, heads)?;
        let (tokens, wide) = (items / heads, heads * head);
        let blocks = items.div_ceil(HEADS);
        let partial = self.room(Element::F32, blocks * head)?;
        let mut arguments = [
            Arg::Pointer(Columns { matrix: gx, ..x }.need("gx", tokens, wide)?),
            Arg::Pointer(partial.pointer()),
            Arg::Pointer(gy.need("gy", Element::Bf16, items * head)?),
            Arg::Pointer(x.need("x", tokens, wide)?),
            Arg::Pointer(weight.need("weight", Element::Bf16, head)?),
            Arg::Pointer(tables.cosines.need("cosines", Element::F32, tables.len * head / 2)?),
            Arg::Pointer(tables.sines.need("sines", Element::F32, tables.len * head / 2)?),
            Arg::Int(int(items)?),
            Arg::Int(int(HEADS)?),
            Arg::Int(int(heads)?),
            Arg::Int(int(x.width)?),
            Arg::Int(int(tables.len)?),
            Arg::Float(eps),
        ];
        let kernel = match head {
            64 => kernel("head_norm_rope_backward_64"),
            128 => kernel("head_norm_rope_backward_128"),
            other => return Err(head_refused(other)),
        };
        self.kernels.launch(kernel, Geometry::line(blocks)?, &mut arguments)?;
        self.add_rows(&partial, blocks, head, g_weight)
    }

    /// Adds the rows of `partial` to `into`, in a fixed order.
    fn add_rows(
        &self,
        partial: &Block,
        rows: usize,
        width: usize,
        into: Span<'_>,
    ) -> Result<(), CudaError> {
        let mut arguments = [
            Arg::Pointer(into.need("the weight's gradient", Element::F32, width)?),
            Arg::Pointer(partial.pointer()),
            Arg::Int(int(rows)?),
            Arg::Int(int(width)?),
        ];
        let kernel = Kernel { file: "norm.cu", name: "add_rows", threads: 1024 };
        self.kernels.launch(kernel, Geometry::line(width.div_ceil(32))?, &mut arguments)
    }
}

fn rows_of(x: Span<'_>, weight: Span<'_>) -> Result<(usize, usize), CudaError> {
    let width = weight.len();
    eights("width of a norm", width)?;
    if width == 0 || width > WIDEST || !x.len().is_multiple_of(width) {
        let values = x.len();
        return Err(CudaError::Shape(format!(
            "{values} values in rows of {width} (at most {WIDEST})"
        )));
    }
    Ok((x.len() / width, width))
}

fn items_of(x: Span<'_>, head: usize, heads: usize) -> Result<usize, CudaError> {
    if head == 0 || heads == 0 || !x.len().is_multiple_of(head * heads) {
        let values = x.len();
        return Err(CudaError::Shape(format!("{values} values in {heads} heads of {head}")));
    }
    Ok(x.len() / head)
}

pub(super) fn head_refused(head: usize) -> CudaError {
    CudaError::Shape(format!(
        "the kernels are made for heads of 64 and 128, the model's are {head}"
    ))
}
