//! The CUDA engine: the model on one NVIDIA card, bf16 with sums in f32.
//!
//! The same layers as on the CPU, on the same tape; weights, activations and gradients live in the
//! card's memory ([`coda_cuda`]). Everything is queued on one stream, every sum has a fixed order,
//! and a step like the one before it allocates nothing.

mod batch;
mod decoder;
mod learner;
mod loss;
mod model;
mod ops;
mod optimizer;
mod ranks;
mod tape;
mod weights;

pub use learner::CudaLearner;
pub(crate) use loss::tokens_at_once;
pub use ranks::Link;

use super::{Batch, Decoder, Engine, EngineError, Ids, LossOutput};
use crate::{
    model::{Grads, ModelConfig, Params, RecomputePolicy},
    ops::{Cpu, NoneTape, OwnedTape, Rotary},
};
use batch::{Prepared, Ready};
use coda_cuda::{
    ArenaUse, Block, Card, CudaError, Device, DeviceInfo, Element, Library, PinnedBytes, Span,
    SumOrder,
};
use decoder::CudaDecoder;
use loss::{linear_cross_entropy, logits_of};
use model::Network;
use ops::Rope;
use std::{collections::HashMap, rc::Rc, sync::Arc};
use tape::Run;
use weights::{Places, Sums};

/// Logits that are computed at a time when they are asked for by themselves.
const LOGITS_AT_ONCE: usize = 512;

/// Runs a model on a card.
#[derive(Debug)]
pub struct CudaEngine {
    config: ModelConfig,
    recompute: RecomputePolicy,
    run: Rc<Run>,
    places: Places,
    ropes: HashMap<usize, Rc<Rope>>,
    host: PinnedBytes,
    /// The parameters that lie on the card, by the tensors they came from.
    loaded: Option<(Tensors, Rc<Block>)>,
}

/// Parameters in this process's memory, shared with whoever owns them.
type Tensors = Vec<Arc<Vec<f32>>>;

/// Whether a card can be used, and which: the first.
///
/// # Errors
/// With what is missing.
pub fn probe() -> Result<DeviceInfo, CudaError> {
    let device = Device::open(0)?;
    Library::Nvrtc.open()?;
    Library::CublasLt.open()?;
    Ok(device.info().clone())
}

/// Whether cuDNN can be used.
///
/// # Errors
/// If it is missing or too old.
pub fn probe_cudnn() -> Result<(), CudaError> {
    coda_cuda::open_cudnn()
}

impl CudaEngine {
    /// An engine for models of this shape on the first card, with our own attention.
    ///
    /// # Errors
    /// If there is no card or library, or the kernels are not made for the shape.
    pub fn open(config: &ModelConfig, recompute: RecomputePolicy) -> Result<Self, EngineError> {
        Self::open_card(0, config, recompute, None)
    }

    /// An engine on card `ordinal`. With `cudnn`, attention by cuDNN where rows are one segment each:
    /// made for sizes that stay, as in training, for each new size is planned for seconds.
    ///
    /// # Errors
    /// As [`CudaEngine::open`], and if cuDNN is missing or too old.
    pub fn open_card(
        ordinal: i32,
        config: &ModelConfig,
        recompute: RecomputePolicy,
        cudnn: Option<SumOrder>,
    ) -> Result<Self, EngineError> {
        fits(config)?;
        let mut card = Card::open(ordinal)?;
        if let Some(order) = cudnn {
            card.use_cudnn(order)?;
        }
        Ok(Self::on(card, config, recompute))
    }

    fn on(card: Card, config: &ModelConfig, recompute: RecomputePolicy) -> Self {
        Self {
            config: config.clone(),
            recompute,
            host: PinnedBytes::new(&card),
            run: Run::new(card),
            places: Places::of(config),
            ropes: HashMap::new(),
            loaded: None,
        }
    }

    /// The card.
    #[must_use]
    pub fn info(&self) -> &DeviceInfo {
        self.run.card.info()
    }

    /// The card, ready.
    #[must_use]
    pub fn card(&self) -> &Card {
        &self.run.card
    }

    /// What the card's memory holds.
    #[must_use]
    pub fn usage(&self) -> ArenaUse {
        self.run.card.usage()
    }

    /// The parameters on the card, rounded to bf16. They are sent again only when they are others.
    fn load(&mut self, params: &Params) -> Result<Rc<Block>, CudaError> {
        let tensors: Tensors = (0..params.len()).map(|index| params.shared(index)).collect();
        if let Some((known, block)) = &self.loaded
            && known.iter().zip(&tensors).all(|(a, b)| Arc::ptr_eq(a, b))
        {
            return Ok(Rc::clone(block));
        }
        self.loaded = None;
        let card = &self.run.card;
        let block = self.places.zeros(card, Element::Bf16)?;
        self.places.write_rounded(card, &block, params)?;
        self.loaded = Some((tensors, Rc::clone(&block)));
        Ok(block)
    }

    /// The rotary tables for rows of `len` tokens.
    fn rope(&mut self, len: usize) -> Result<Rc<Rope>, CudaError> {
        if let Some(rope) = self.ropes.get(&len) {
            return Ok(Rc::clone(rope));
        }
        let rotary = Rotary::new(len, self.config.head_dim, self.config.rope_theta);
        let rope = Rc::new(Rope::upload(&self.run.card, &rotary, self.config.head_dim)?);
        self.ropes.insert(len, Rc::clone(&rope));
        Ok(rope)
    }

    /// Brings a batch to the card and waits for it.
    fn receive(&mut self, prepared: Prepared) -> Result<Ready, CudaError> {
        let card = &self.run.card;
        card.synchronize()?;
        prepared.send(card, &mut self.host)?.receive(card)
    }

    /// Forward, and backward if there are gradients to add to: the cross entropy of every scored
    /// token, still on the card.
    fn pass(
        &self,
        network: &Network,
        batch: &Ready,
        rope: &Rc<Rope>,
        backward: bool,
    ) -> Result<Block, CudaError> {
        let (run, config, policy) = (&self.run, &self.config, self.recompute);
        if !backward {
            let hidden = network.hidden(&mut NoneTape, run, config, batch, rope, policy)?;
            return linear_cross_entropy(run, &hidden, &network.weights.head, batch, false);
        }
        let mut tape = OwnedTape::<f32, Cpu>::default();
        let hidden = network.hidden(&mut tape, run, config, batch, rope, policy)?;
        let losses = linear_cross_entropy(run, &hidden, &network.weights.head, batch, true)?;
        run.run_backward(tape)?;
        Ok(losses)
    }

    /// The loss of a batch whose cross entropies are on the card.
    fn output(
        &self,
        losses: &Block,
        weights: &[(usize, f64)],
        rows: usize,
        denominator: f64,
    ) -> Result<LossOutput, CudaError> {
        let losses: Vec<f32> =
            self.run.card.read(Span::of(losses, Element::F32, 0, weights.len())?)?;
        let mut row_sums = vec![0.0; rows];
        for ((row, weight), loss) in weights.iter().zip(losses) {
            row_sums[*row] += weight * f64::from(loss);
        }
        let loss = row_sums.iter().sum::<f64>() / denominator;
        Ok(LossOutput { row_sums, scored: weights.len() as u64, loss })
    }

    fn loss_on(
        &mut self,
        weights: &Rc<Block>,
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
    ) -> Result<LossOutput, EngineError> {
        let vocabulary = self.config.vocab_size;
        let prepared = Prepared::of_batch(batch, mask_id, denominator, vocabulary)?;
        let network = Network::new(&self.config, &self.places, weights, None);
        let rope = self.rope(batch.len)?;
        let ready = self.receive(prepared)?;
        let losses = self.pass(&network, &ready, &rope, false)?;
        Ok(self.output(&losses, &ready.weights, batch.rows, denominator)?)
    }
}

impl Engine for CudaEngine {
    fn loss_and_grads(
        &mut self,
        params: &Params,
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
        grads: &mut Grads,
    ) -> Result<LossOutput, EngineError> {
        let vocabulary = self.config.vocab_size;
        let prepared = Prepared::of_batch(batch, mask_id, denominator, vocabulary)?;
        let weights = self.load(params)?;
        let on_card = Rc::new(Sums::new(&self.run.card, &self.places)?);
        let network = Network::new(&self.config, &self.places, &weights, Some(&on_card));
        let rope = self.rope(batch.len)?;
        let ready = self.receive(prepared)?;
        let losses = self.pass(&network, &ready, &rope, true)?;
        let output = self.output(&losses, &ready.weights, batch.rows, denominator)?;
        on_card.finish(&self.run.card, &self.places)?;
        let fresh = self.places.read(&self.run.card, &on_card.block, Element::F32)?;
        for (grad, fresh) in grads.values.iter_mut().zip(fresh) {
            for (grad, fresh) in grad.iter_mut().zip(fresh) {
                *grad += fresh;
            }
        }
        Ok(output)
    }

    fn loss(
        &mut self,
        params: &Params,
        batch: &Batch,
        mask_id: u32,
        denominator: f64,
    ) -> Result<LossOutput, EngineError> {
        let weights = self.load(params)?;
        self.loss_on(&weights, batch, mask_id, denominator)
    }

    fn logits(
        &mut self,
        params: &Params,
        ids: &Ids<'_>,
        positions: Option<&[usize]>,
    ) -> Result<Vec<f32>, EngineError> {
        let prepared = Prepared::of_ids(ids, self.config.vocab_size)?;
        let all: Vec<usize>;
        let positions = if let Some(positions) = positions {
            ids.check_positions(positions)?;
            positions
        } else {
            all = (0..ids.ids.len()).collect();
            &all
        };
        let weights = self.load(params)?;
        let network = Network::new(&self.config, &self.places, &weights, None);
        let rope = self.rope(ids.len)?;
        let ready = self.receive(prepared)?;
        let (run, config) = (&self.run, &self.config);
        let card = &run.card;
        let policy = self.recompute;
        let hidden = network.hidden(&mut NoneTape, run, config, &ready, &rope, policy)?;
        let (d, v) = (config.hidden_size, config.vocab_size);
        let mut logits = Vec::with_capacity(positions.len() * v);
        for part in positions.chunks(LOGITS_AT_ONCE) {
            let n = part.len();
            let indices: Vec<u32> =
                part.iter().map(|&at| u32::try_from(at).expect("checked above")).collect();
            let indices = card.upload(&indices)?;
            let (x, out) = (card.room(Element::Bf16, n * d)?, card.room(Element::F32, n * v)?);
            let x = Span::of(&x, Element::Bf16, 0, n * d)?;
            let out = Span::of(&out, Element::F32, 0, n * v)?;
            card.gather(hidden.hold(card)?.span()?, Span::of(&indices, Element::U32, 0, n)?, d, x)?;
            logits_of(card, x, &network.weights.head, n, out)?;
            logits.extend(card.read::<f32>(out)?);
        }
        Ok(logits)
    }

    fn decoder(&mut self, params: &Params) -> Result<Option<Box<dyn Decoder>>, EngineError> {
        let weights = self.load(params)?;
        let decoder = CudaDecoder::new(&self.config, &self.run, &self.places, &weights);
        Ok(Some(Box::new(decoder)))
    }
}

/// Whether the kernels are made for models of this shape.
///
/// # Errors
/// [`EngineError::CudaShape`], with the size that they are not made for.
pub fn fits(config: &ModelConfig) -> Result<(), EngineError> {
    let widths = [
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("vocab_size", config.vocab_size),
    ];
    if let Some((name, width)) = widths.into_iter().find(|(_, width)| !width.is_multiple_of(8)) {
        return Err(EngineError::CudaShape(format!(
            "{name} is {width}; the kernels move eight values at a time"
        )));
    }
    if !matches!(config.head_dim, 64 | 128) {
        let head = config.head_dim;
        return Err(EngineError::CudaShape(format!(
            "head_dim is {head}; the kernels are made for 64 and 128"
        )));
    }
    if config.hidden_size > 8192 {
        let width = config.hidden_size;
        return Err(EngineError::CudaShape(format!(
            "hidden_size is {width}; the kernels are made for up to 8192"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::fits;
    use crate::model::{ModelConfig, config::tiny};

    #[test]
    fn shapes_without_kernels_are_refused_by_name() {
        let good = ModelConfig { head_dim: 64, vocab_size: 56, ..tiny() };
        assert!(fits(&good).is_ok());
        let refused = |config: ModelConfig| fits(&config).unwrap_err().to_string();
        assert!(refused(ModelConfig { head_dim: 96, ..good.clone() }).contains("head_dim is 96"));
        assert!(
            refused(ModelConfig { vocab_size: 50, ..good.clone() }).contains("vocab_size is 50")
        );
        assert!(refused(ModelConfig { hidden_size: 8200, ..good }).contains("up to 8192"));
    }
}
