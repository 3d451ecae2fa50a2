//! Cross entropy over a chunk of logits.

use super::int;
use crate::{
    Card, CudaError, Element, Span,
    launch::{Argument as Arg, Geometry, Kernel},
};

impl Card {
    /// For each of `targets` (n of them, each below the vocabulary) the cross entropy of its row of
    /// `logits` `[n, V]`, f32, into `losses`; and if `grad` `[n, V]`, bf16, is given, its gradient
    /// times `scales[i]`.
    ///
    /// # Errors
    /// If sizes do not fit.
    pub fn cross_entropy(
        &self,
        logits: Span<'_>,
        targets: Span<'_>,
        scales: Span<'_>,
        losses: Span<'_>,
        grad: Option<Span<'_>>,
    ) -> Result<(), CudaError> {
        let n = targets.len();
        if n == 0 || !logits.len().is_multiple_of(n) {
            return Err(CudaError::Shape(format!("{} logits for {n} targets", logits.len())));
        }
        let grad =
            grad.map(|grad| grad.need("gradient", Element::Bf16, logits.len())).transpose()?;
        let mut arguments = [
            Arg::Pointer(logits.need("logits", Element::F32, logits.len())?),
            Arg::Pointer(targets.need("targets", Element::U32, n)?),
            Arg::Pointer(scales.need("scales", Element::F32, n)?),
            Arg::Pointer(losses.need("losses", Element::F32, n)?),
            Arg::Pointer(grad.unwrap_or(0)),
            Arg::Int(int(logits.len() / n)?),
        ];
        let kernel = Kernel { file: "loss.cu", name: "cross_entropy", threads: 512 };
        self.kernels.launch(kernel, Geometry::line(n)?, &mut arguments)
    }
}
