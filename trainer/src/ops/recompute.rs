//! Activation recomputation: keep the input of a block, not what happens inside it.

use super::{Cpu, NoneTape, OwnedTape, Tape, Var};
use dfdx::prelude::{Backward, PutTape, TensorFrom};

/// A part of the model that maps one activation to another and can be run on any tape.
pub trait Block: 'static {
    /// Runs the block.
    fn forward<T: Tape>(&self, tape: &mut T, x: &Var) -> Var;
}

/// Runs `block` without recording its inside. The backward pass runs it once more, this time on a
/// tape of its own, and sends the gradient through that tape: the same operations on the same
/// values, so the gradients are those of the plain run bit for bit.
pub fn recompute<T: Tape, B: Block>(tape: &mut T, x: &Var, block: B) -> Var {
    let out = block.forward(&mut NoneTape, x);
    let (x, y) = (x.clone(), out.clone());
    tape.add_backward_op(move |_| {
        let inner_x = x.detached();
        let mut inner = OwnedTape::<f32, Cpu>::default();
        let inner_y = block.forward(&mut inner, &inner_x);
        inner_y.add_grad(y.take_grad());
        run_backward(inner)?;
        x.add_grad(inner_x.take_grad());
        Ok(())
    });
    out
}

/// Runs a tape backwards. dfdx does that from a scalar only, so a scalar is put at its end.
pub(crate) fn run_backward(
    tape: OwnedTape<f32, Cpu>,
) -> Result<(), <Cpu as dfdx::prelude::HasErr>::Err> {
    let end = Cpu::default().tensor(0.0f32).put_tape(tape);
    end.try_backward().map(drop)
}
