//! The CPU engine: f32, all cores.

use super::{Batch, CpuDecoder, Decoder, Engine, EngineError, Ids, LossOutput};
use crate::{
    model::{Grads, ModelConfig, Network, Params, RecomputePolicy},
    ops::{Cpu, NoneTape, OwnedTape, Scored, Tape, View, ViewMut, linear_cross_entropy, matmul},
};
use dfdx::prelude::{Backward, Rank0, Tensor};

/// The loss at the end of a tape.
type Scalar<T> = Tensor<Rank0, f32, Cpu, T>;

/// Runs the model on the CPU. Deterministic: the same batch gives the same bits whatever the number
/// of threads.
#[derive(Clone, Debug)]
pub struct CpuEngine {
    config: ModelConfig,
    recompute: RecomputePolicy,
}

impl CpuEngine {
    /// An engine for models of this shape.
    #[must_use]
    pub const fn new(config: ModelConfig, recompute: RecomputePolicy) -> Self {
        Self { config, recompute }
    }

    /// The model's shape.
    #[must_use]
    pub const fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn run<T: Tape>(
        &self,
        mut tape: T,
        network: &Network,
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
    ) -> Result<(Scalar<T>, LossOutput), EngineError> {
        batch.check()?;
        let ids = batch.noised();
        ids.check(self.config.vocab_size)?;
        let scored = scored(batch, mask_id, self.config.vocab_size)?;
        let hidden = network.hidden(&mut tape, &self.config, &ids, self.recompute);
        let (loss, row_sums) =
            linear_cross_entropy(tape, &hidden, network.head(), &scored, batch.rows, denominator);
        let total = row_sums.iter().sum::<f64>() / denominator;
        Ok((loss, LossOutput { row_sums, scored: scored.len() as u64, loss: total }))
    }
}

impl Engine for CpuEngine {
    fn loss_and_grads(
        &mut self,
        params: &Params,
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
        grads: &mut Grads,
    ) -> Result<LossOutput, EngineError> {
        let network = Network::new(&self.config, params, Some(grads));
        let outcome = self
            .run(OwnedTape::<f32, Cpu>::default(), &network, batch, mask_id, denominator)
            .and_then(|(loss, output)| {
                loss.try_backward().map_err(|e| EngineError::Tape(format!("{e:?}")))?;
                Ok(output)
            });
        network.give_back(grads);
        outcome
    }

    fn loss(
        &mut self,
        params: &Params,
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
    ) -> Result<LossOutput, EngineError> {
        let network = Network::new(&self.config, params, None);
        self.run(NoneTape, &network, batch, mask_id, denominator).map(|(_, output)| output)
    }

    fn logits(
        &mut self,
        params: &Params,
        ids: &Ids<'_>,
        positions: Option<&[usize]>,
    ) -> Result<Vec<f32>, EngineError> {
        ids.check(self.config.vocab_size)?;
        let network = Network::new(&self.config, params, None);
        let hidden = network.hidden(&mut NoneTape, &self.config, ids, self.recompute);
        let (d, v) = (self.config.hidden_size, self.config.vocab_size);
        let chosen: Vec<f32> = match positions {
            None => hidden.data().to_vec(),
            Some(positions) => {
                ids.check_positions(positions)?;
                positions.iter().flat_map(|&p| &hidden.data()[p * d..][..d]).copied().collect()
            }
        };
        let n = chosen.len() / d;
        let mut logits = vec![0.0; n * v];
        matmul(
            ViewMut::new(&mut logits, n, v),
            false,
            View::new(&chosen, n, d),
            View::new(network.head().data(), v, d).t(),
            1.0,
            rayon::current_num_threads(),
        );
        Ok(logits)
    }

    fn decoder(&mut self, params: &Params) -> Result<Option<Box<dyn Decoder>>, EngineError> {
        Ok(Some(Box::new(CpuDecoder::new(&self.config, params))))
    }
}

/// The tokens that count, row by row.
#[allow(clippy::cast_possible_truncation, reason = "weights are f32")]
fn scored(batch: &Batch, mask_id: u32, vocab: usize) -> Result<Vec<Scored>, EngineError> {
    let mut scored = Vec::new();
    for (row, &sigma) in batch.sigma.iter().enumerate() {
        for token in batch.scored_tokens(row, mask_id) {
            scored.push(Scored {
                output: token - 1,
                row,
                target: batch.target(token, vocab)?,
                weight: (1.0 / sigma) as f32,
            });
        }
    }
    Ok(scored)
}
