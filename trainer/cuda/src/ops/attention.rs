//! Attention by tiles.

use super::{int, norm::head_refused};
use crate::{
    Block, Card, CudaError, Element, Span,
    cudnn::Plans,
    launch::{Argument as Arg, Geometry, Kernel},
};
use std::rc::Rc;

/// Queries (or keys) of a block.
const BLOCK: usize = 128;
/// Keys at a time of the forward pass.
const TILE: usize = 64;
/// Keys (or queries) at a time of the backward pass.
const SMALL: usize = 32;
const THREADS: u32 = 256;

/// The sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionSizes {
    /// Rows of the batch (B).
    pub rows: usize,
    /// Tokens per row (L).
    pub len: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head: 64 or 128.
    pub head: usize,
}

/// What the forward pass keeps for the backward pass: `[rows, heads, len]`, f32.
#[derive(Debug)]
pub struct Statistics {
    log_sums: Block,
    /// cuDNN's plans, if it ran the forward pass: its logarithms are natural, ours binary.
    plans: Option<Rc<Plans>>,
}

impl AttentionSizes {
    fn queries(&self) -> usize {
        self.rows * self.len * self.heads * self.head
    }

    fn keys(&self) -> usize {
        self.rows * self.len * self.kv_heads * self.head
    }

    fn statistics(&self) -> usize {
        self.rows * self.heads * self.len
    }

    /// `1 / sqrt(head)`.
    #[allow(clippy::cast_possible_truncation, reason = "the kernels compute in f32")]
    pub(crate) fn plain_scale(&self) -> f32 {
        (1.0 / (self.head as f64).sqrt()) as f32
    }

    /// `log2(e) / sqrt(head)`: scores are kept as powers of two.
    #[allow(clippy::cast_possible_truncation, reason = "the kernels compute in f32")]
    fn scale(&self) -> f32 {
        (std::f64::consts::LOG2_E / (self.head as f64).sqrt()) as f32
    }

    pub(crate) fn check(&self) -> Result<(), CudaError> {
        if !matches!(self.head, 64 | 128) {
            return Err(head_refused(self.head));
        }
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) || self.len == 0 {
            return Err(CudaError::Shape(format!("an attention of {self:?}")));
        }
        Ok(())
    }

    /// Bytes of shared memory of a block that holds so many rows of a head.
    fn shared(&self, rows: usize) -> u32 {
        u32::try_from(rows * self.head * 2).expect("some KiB")
    }

    fn numbers(&self) -> Result<[Arg; 4], CudaError> {
        Ok([
            Arg::Int(int(self.len)?),
            Arg::Int(int(self.heads)?),
            Arg::Int(int(self.kv_heads)?),
            Arg::Float(self.scale()),
        ])
    }

    fn kernel(&self, narrow: &'static str, wide: &'static str) -> Kernel {
        let name = if self.head == 64 { narrow } else { wide };
        Kernel { file: "attention.cu", name, threads: THREADS }
    }
}

/// The keys each token reads, or 0: all of its row.
fn ranges_at(ranges: Option<Span<'_>>, sizes: &AttentionSizes) -> Result<u64, CudaError> {
    match ranges {
        Some(ranges) => ranges.need("ranges of keys", Element::Pair, sizes.rows * sizes.len),
        None => Ok(0),
    }
}

impl Card {
    /// `softmax(q · kᵀ / sqrt(head)) · v` in both directions: `q` and `y` `[B·L, heads · head]`, `k`
    /// and `v` `[B·L, kv_heads · head]`. `ranges` `[B·L]` are the keys `[x, y)` of its row that a
    /// token reads: they never fall, and a token's range holds the tokens whose ranges hold it.
    ///
    /// # Errors
    /// If sizes do not fit.
    pub fn attention(
        &self,
        [q, k, v]: [Span<'_>; 3],
        sizes: &AttentionSizes,
        ranges: Option<Span<'_>>,
        y: Span<'_>,
    ) -> Result<Statistics, CudaError> {
        sizes.check()?;
        let log_sums = self.room(Element::F32, sizes.statistics())?;
        let (q, k) = (
            q.need("queries", Element::Bf16, sizes.queries())?,
            k.need("keys", Element::Bf16, sizes.keys())?,
        );
        let (v, y) = (
            v.need("values", Element::Bf16, sizes.keys())?,
            y.need("result", Element::Bf16, sizes.queries())?,
        );
        if let (None, Some(cudnn)) = (ranges, &self.cudnn)
            && let Ok(plans) = cudnn.plans(sizes)
        {
            cudnn.forward(&plans, sizes, [q, k, v, y, log_sums.pointer()])?;
            return Ok(Statistics { log_sums, plans: Some(plans) });
        }
        let at = ranges_at(ranges, sizes)?;
        self.attention_forward([q, k, v, at, y, log_sums.pointer()], sizes, sizes.len)?;
        Ok(Statistics { log_sums, plans: None })
    }

    /// As [`Card::attention`] without ranges, for `queries` tokens of each row, wherever they stand in it: `q`
    /// and `y` `[B·queries, heads · head]`. Nothing is kept for a backward pass.
    ///
    /// # Errors
    /// If sizes do not fit.
    pub fn attention_of(
        &self,
        [q, k, v]: [Span<'_>; 3],
        sizes: &AttentionSizes,
        queries: usize,
        y: Span<'_>,
    ) -> Result<(), CudaError> {
        sizes.check()?;
        let n = sizes.rows * queries * sizes.heads * sizes.head;
        let pointers = [
            q.need("queries", Element::Bf16, n)?,
            k.need("keys", Element::Bf16, sizes.keys())?,
            v.need("values", Element::Bf16, sizes.keys())?,
            0,
            y.need("result", Element::Bf16, n)?,
            0,
        ];
        self.attention_forward(pointers, sizes, queries)
    }

    /// Queues our own forward pass. The caller has checked `[q, k, v, ranges, y, log_sums]`.
    fn attention_forward(
        &self,
        pointers: [u64; 6],
        sizes: &AttentionSizes,
        queries: usize,
    ) -> Result<(), CudaError> {
        let [length, heads, kv_heads, scale] = sizes.numbers()?;
        let numbers = [length, heads, kv_heads, Arg::Int(int(queries)?), scale];
        let mut arguments = [&pointers.map(Arg::Pointer)[..], &numbers].concat();
        let grid = Geometry::grid([queries.div_ceil(BLOCK), sizes.heads, sizes.rows])?;
        // Keys and values, twice.
        let geometry = Geometry { shared: sizes.shared(4 * TILE), ..grid };
        let kernel = sizes.kernel("attention_forward_64", "attention_forward_128");
        self.kernels.launch(kernel, geometry, &mut arguments)
    }

    /// Sends `gy` back through [`Card::attention`] into `gq`, `gk` and `gv`, which are overwritten.
    /// Every sum has a fixed order.
    ///
    /// # Errors
    /// If sizes do not fit.
    pub fn attention_backward(
        &self,
        [q, k, v, y, gy]: [Span<'_>; 5],
        statistics: &Statistics,
        sizes: &AttentionSizes,
        ranges: Option<Span<'_>>,
        [gq, gk, gv]: [Span<'_>; 3],
    ) -> Result<(), CudaError> {
        sizes.check()?;
        let n = sizes.queries();
        if let (Some(plans), Some(cudnn)) = (&statistics.plans, &self.cudnn) {
            let inputs = [
                q.need("queries", Element::Bf16, n)?,
                k.need("keys", Element::Bf16, sizes.keys())?,
                v.need("values", Element::Bf16, sizes.keys())?,
                y.need("result", Element::Bf16, n)?,
                gy.need("gy", Element::Bf16, n)?,
            ];
            let outputs = [
                gq.need("gq", Element::Bf16, n)?,
                gk.need("gk", Element::Bf16, sizes.keys())?,
                gv.need("gv", Element::Bf16, sizes.keys())?,
            ];
            let log_sums = statistics.log_sums.pointer();
            return cudnn.backward(plans, sizes, inputs, log_sums, outputs);
        }
        let deltas = self.room(Element::F32, sizes.statistics())?;
        let [length, heads, kv_heads, scale] = sizes.numbers()?;
        let gy_at = gy.need("gy", Element::Bf16, n)?;
        let items = sizes.statistics();
        let mut arguments = [
            Arg::Pointer(y.need("result", Element::Bf16, n)?),
            Arg::Pointer(gy_at),
            Arg::Pointer(deltas.pointer()),
            Arg::Int(int(items)?),
            heads,
            length,
        ];
        let kernel = sizes.kernel("attention_deltas_64", "attention_deltas_128");
        self.kernels.launch(
            kernel,
            Geometry::line(items.div_ceil(THREADS as usize / 32))?,
            &mut arguments,
        )?;

        let inputs = [
            Arg::Pointer(q.need("queries", Element::Bf16, n)?),
            Arg::Pointer(k.need("keys", Element::Bf16, sizes.keys())?),
            Arg::Pointer(v.need("values", Element::Bf16, sizes.keys())?),
            Arg::Pointer(gy_at),
            Arg::Pointer(statistics.log_sums.pointer()),
            Arg::Pointer(deltas.pointer()),
            Arg::Pointer(ranges_at(ranges, sizes)?),
        ];
        let numbers = [length, heads, kv_heads, scale];
        let shared = sizes.shared(2 * BLOCK + 4 * SMALL);
        let tiles = sizes.len.div_ceil(BLOCK);

        let outputs = [
            Arg::Pointer(gk.need("gk", Element::Bf16, sizes.keys())?),
            Arg::Pointer(gv.need("gv", Element::Bf16, sizes.keys())?),
        ];
        let mut arguments = [&inputs[..], &outputs, &numbers].concat();
        let geometry = Geometry { shared, ..Geometry::grid([tiles, sizes.kv_heads, sizes.rows])? };
        let kernel = sizes.kernel("attention_backward_keys_64", "attention_backward_keys_128");
        self.kernels.launch(kernel, geometry, &mut arguments)?;

        let outputs = [Arg::Pointer(gq.need("gq", Element::Bf16, n)?)];
        let mut arguments = [&inputs[..], &outputs, &numbers].concat();
        let geometry = Geometry { shared, ..Geometry::grid([tiles, sizes.heads, sizes.rows])? };
        let kernel =
            sizes.kernel("attention_backward_queries_64", "attention_backward_queries_128");
        self.kernels.launch(kernel, geometry, &mut arguments)
    }
}
