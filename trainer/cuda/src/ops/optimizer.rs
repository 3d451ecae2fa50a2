//! The global norm, AdamW and Adafactor.

use super::int;
use crate::{
    Card, CudaError, Element, Span,
    launch::{Argument as Arg, Geometry, Kernel},
};

/// Values that one block of the norm sums.
const CHUNK: usize = 16_384;
/// Rows that one block of column sums takes.
const COLUMN_ROWS: usize = 128;

const fn kernel(name: &'static str) -> Kernel {
    Kernel { file: "optimizer.cu", name, threads: 256 }
}

/// A parameter: what the model computes with, bf16, and the f32 copy that is trained, if any.
#[derive(Clone, Copy, Debug)]
pub struct Parameter<'a> {
    /// The f32 copy. Without it the bf16 weights themselves are trained, rounded to nearest.
    pub master: Option<Span<'a>>,
    /// What the model computes with.
    pub weights: Span<'a>,
}

impl Parameter<'_> {
    fn arguments(&self) -> Result<[Arg; 2], CudaError> {
        let n = self.weights.len();
        let master = match self.master {
            Some(master) => master.need("master copy", Element::F32, n)?,
            None => 0,
        };
        Ok([Arg::Pointer(master), Arg::Pointer(self.weights.need("weights", Element::Bf16, n)?)])
    }
}

/// The factors of a step of AdamW.
#[derive(Clone, Copy, Debug)]
pub struct AdamwStep {
    /// What gradients are multiplied by.
    pub clip: f32,
    /// Decay of the first moment, and 1 minus it.
    pub beta1: [f32; 2],
    /// Decay of the second moment, and 1 minus it.
    pub beta2: [f32; 2],
    /// Added to the root of the second moment.
    pub eps: f32,
    /// The learning rate over the first moment's correction.
    pub step_size: f32,
    /// The root of the second moment's correction.
    pub root_of_correction: f32,
    /// What parameters are multiplied by: weight decay.
    pub keep: f32,
}

/// The numbers of a step of Adafactor.
#[derive(Clone, Copy, Debug)]
pub struct AdafactorStep {
    /// What gradients are multiplied by.
    pub clip: f32,
    /// Decay of the averages.
    pub beta2: f64,
    /// Added to squared gradients.
    pub eps: f64,
    /// The learning rate.
    pub lr: f64,
    /// The largest root mean square of an update.
    pub threshold: f64,
    /// What parameters are multiplied by: weight decay.
    pub keep: f32,
}

/// Adafactor's averages of a matrix.
#[derive(Clone, Copy, Debug)]
pub struct FactoredMoments<'a> {
    /// By row.
    pub row: Span<'a>,
    /// By column.
    pub column: Span<'a>,
}

impl Card {
    /// The sum of squares of f32 values into `out[0]`, in f64. Chunks are summed in order, so the
    /// same values give the same bits on every card.
    ///
    /// # Errors
    /// If sizes do not fit.
    pub fn sum_of_squares(&self, values: Span<'_>, out: Span<'_>) -> Result<(), CudaError> {
        let n = values.len();
        let blocks = n.div_ceil(CHUNK);
        let partial = self.room(Element::F64, blocks)?;
        let mut arguments = [
            Arg::Pointer(values.need("values", Element::F32, n)?),
            Arg::Pointer(partial.pointer()),
            Arg::Long(n as u64),
        ];
        self.kernels.launch(kernel("squares"), Geometry::line(blocks)?, &mut arguments)?;
        self.total(Span::of(&partial, Element::F64, 0, blocks)?, out)
    }

    fn total(&self, values: Span<'_>, out: Span<'_>) -> Result<(), CudaError> {
        let mut arguments = [
            Arg::Pointer(values.need("sums", Element::F64, values.len())?),
            Arg::Pointer(out.need("sum", Element::F64, 1)?),
            Arg::Int(int(values.len())?),
        ];
        self.kernels.launch(kernel("total"), Geometry::line(1)?, &mut arguments)
    }

    /// One step of AdamW on a parameter of any shape. All spans begin at multiples of four values.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn adamw(
        &self,
        parameter: Parameter<'_>,
        grad: Span<'_>,
        [first, second]: [Span<'_>; 2],
        step: &AdamwStep,
    ) -> Result<(), CudaError> {
        let n = parameter.weights.len();
        let [master, weights] = parameter.arguments()?;
        let mut arguments = [
            master,
            weights,
            Arg::Pointer(grad.need("gradient", Element::F32, n)?),
            Arg::Pointer(first.need("first moment", Element::F32, n)?),
            Arg::Pointer(second.need("second moment", Element::F32, n)?),
            Arg::Long(n as u64),
            Arg::Float(step.clip),
            Arg::Float(step.beta1[0]),
            Arg::Float(step.beta1[1]),
            Arg::Float(step.beta2[0]),
            Arg::Float(step.beta2[1]),
            Arg::Float(step.eps),
            Arg::Float(step.step_size),
            Arg::Float(step.root_of_correction),
            Arg::Float(step.keep),
        ];
        self.kernels.launch(kernel("adamw"), Geometry::line(n.div_ceil(4 * 256))?, &mut arguments)
    }

    /// One step of Adafactor on a matrix, whose second moments are products of averages by row and
    /// by column.
    ///
    /// # Errors
    /// If sizes do not fit.
    pub fn adafactor_matrix(
        &self,
        parameter: Parameter<'_>,
        grad: Span<'_>,
        moments: FactoredMoments<'_>,
        step: &AdafactorStep,
    ) -> Result<(), CudaError> {
        let (rows, columns) = (moments.row.len(), moments.column.len());
        let grad = Arg::Pointer(grad.need("gradient", Element::F32, rows * columns)?);
        let row = Arg::Pointer(moments.row.need("averages by row", Element::F32, rows)?);
        let column =
            Arg::Pointer(moments.column.need("averages by column", Element::F32, columns)?);
        let (clip, beta2, eps) =
            (Arg::Float(step.clip), Arg::Double(step.beta2), Arg::Double(step.eps));
        let (r, c) = (Arg::Int(int(rows)?), Arg::Int(int(columns)?));
        let by_row = Geometry::line(rows)?;
        let across = columns.div_ceil(256);

        let mut arguments = [grad, row, c, clip, beta2, eps];
        self.kernels.launch(kernel("adafactor_rows"), by_row, &mut arguments)?;

        let chunks = rows.div_ceil(COLUMN_ROWS);
        let partial = self.room(Element::F64, chunks * columns)?;
        let geometry = Geometry::grid([across, chunks, 1])?;
        let mut arguments = [grad, Arg::Pointer(partial.pointer()), r, c, clip];
        self.kernels.launch(kernel("adafactor_column_sums"), geometry, &mut arguments)?;
        let mut arguments =
            [Arg::Pointer(partial.pointer()), column, Arg::Int(int(chunks)?), r, c, beta2, eps];
        self.kernels.launch(
            kernel("adafactor_columns"),
            Geometry::line(across)?,
            &mut arguments,
        )?;

        let mean = self.room(Element::F64, 1)?;
        let mut arguments = [row, Arg::Pointer(mean.pointer()), r];
        self.kernels.launch(kernel("adafactor_row_mean"), Geometry::line(1)?, &mut arguments)?;
        let mean = Arg::Pointer(mean.pointer());

        let sums = self.room(Element::F64, rows)?;
        let mut arguments = [grad, row, column, mean, Arg::Pointer(sums.pointer()), c, clip];
        self.kernels.launch(kernel("adafactor_update_squares"), by_row, &mut arguments)?;
        let squares = self.room(Element::F64, 1)?;
        self.total(
            Span::of(&sums, Element::F64, 0, rows)?,
            Span::of(&squares, Element::F64, 0, 1)?,
        )?;

        let [master, weights] = parameter.arguments()?;
        let mut arguments = [
            master,
            weights,
            grad,
            row,
            column,
            mean,
            Arg::Pointer(squares.pointer()),
            r,
            c,
            clip,
            Arg::Double(step.lr),
            Arg::Double(step.threshold),
            Arg::Float(step.keep),
        ];
        self.kernels.launch(kernel("adafactor_apply"), by_row, &mut arguments)
    }

    /// One step of Adafactor on a vector, whose elements have second moments of their own.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn adafactor_vector(
        &self,
        parameter: Parameter<'_>,
        grad: Span<'_>,
        square: Span<'_>,
        step: &AdafactorStep,
    ) -> Result<(), CudaError> {
        let n = parameter.weights.len();
        let [master, weights] = parameter.arguments()?;
        let mut arguments = [
            master,
            weights,
            Arg::Pointer(grad.need("gradient", Element::F32, n)?),
            Arg::Pointer(square.need("second moments", Element::F32, n)?),
            Arg::Int(int(n)?),
            Arg::Float(step.clip),
            Arg::Double(step.beta2),
            Arg::Double(step.eps),
            Arg::Double(step.lr),
            Arg::Double(step.threshold),
            Arg::Float(step.keep),
        ];
        self.kernels.launch(kernel("adafactor_vector"), Geometry::line(1)?, &mut arguments)
    }
}
