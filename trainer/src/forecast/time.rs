//! Seconds of a step.

use super::{Card, Job, Keep};
use crate::model::ModelConfig;
use serde::Serialize;

/// Tokens that attention over a row takes as long as over so many more: what a tile costs beside its products.
/// Fitted to rows of 1024 to 8192 on an H200.
const MORE_TOKENS: f64 = 700.0;

/// What share of a card's published rates is reached. The defaults are those of one H200 (docs/benchmarks.md);
/// what other cards and models reach is assumed to be the same.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Assumptions {
    /// Matrix products, of the peak.
    pub gemm: f64,
    /// cuDNN's attention forward over long rows, of the peak.
    pub attention_forward: f64,
    /// cuDNN's attention backward over long rows, with sums in a fixed order, of the peak.
    pub attention_backward: f64,
    /// Passes over memory, of the bandwidth.
    pub bandwidth: f64,
    /// Sums and copies between cards, of the link.
    pub link: f64,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self {
            gemm: 0.7,
            attention_forward: 0.65,
            attention_backward: 0.48,
            bandwidth: 0.75,
            link: 0.75,
        }
    }
}

impl Assumptions {
    /// Changes one, from `NAME=SHARE`.
    ///
    /// # Errors
    /// If there is none of that name, or the share is not above 0 and at most 1.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        let (name, share) = text.split_once('=').ok_or("it has no `=`, as in gemm=0.6")?;
        let place = match name {
            "gemm" => &mut self.gemm,
            "attention_forward" => &mut self.attention_forward,
            "attention_backward" => &mut self.attention_backward,
            "bandwidth" => &mut self.bandwidth,
            "link" => &mut self.link,
            _ => {
                return Err(format!(
                    "there is no assumption `{name}`: gemm, attention_forward, attention_backward, \
                     bandwidth, link"
                ));
            }
        };
        match share.parse() {
            Ok(share) if share > 0.0 && share <= 1.0 => *place = share,
            _ => return Err(format!("`{share}` is not a share above 0 and at most 1")),
        }
        Ok(())
    }
}

/// Seconds of a step on each card. Nothing is taken to happen at the same time as anything else.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Time {
    /// Products of the layers' matrices.
    pub products: f64,
    /// Products of the head, for scored positions.
    pub head: f64,
    /// Attention over whole rows: documents that do not see each other take less.
    pub attention: f64,
    /// Norms, rotation, SwiGLU, residuals.
    pub elementwise: f64,
    /// The norm of the gradient and the optimizer.
    pub optimizer: f64,
    /// Sum of the gradients over the cards, and the new weights back to all.
    pub collectives: f64,
    /// All of it.
    pub total: f64,
}

impl Job<'_> {
    /// Operations of attention's two products for a token, forward.
    fn attention_per_token(&self) -> f64 {
        let width = self.model.query_width() * self.model.num_hidden_layers;
        4.0 * f64::from(self.row_length) * width as f64
    }

    /// Operations of the head for a scored token, forward.
    fn head_per_token(&self) -> f64 {
        2.0 * (self.model.hidden_size * self.model.vocab_size) as f64
    }

    /// Operations that the model needs for a token, forward and backward, whatever is computed again.
    #[must_use]
    pub fn model_flops_per_token(&self) -> f64 {
        3.0 * (2.0 * self.model.layer_matrices() as f64
            + self.attention_per_token()
            + self.scored * self.head_per_token())
    }

    pub(super) fn time(&self, keep: Keep, card: &Card, assumed: &Assumptions) -> Time {
        let tokens = self.tokens(self.rows_per_card());
        let again = if keep == Keep::Inputs { 1.0 } else { 0.0 };
        let gemm = card.flops * assumed.gemm;
        let memory = card.bandwidth * assumed.bandwidth;
        let products = tokens * (3.0 + again) * 2.0 * self.model.layer_matrices() as f64 / gemm;
        let head = tokens * self.scored * 3.0 * self.head_per_token() / gemm;
        // Backward has five products where forward has two.
        let length = f64::from(self.row_length);
        let attention = tokens * self.attention_per_token() / card.flops
            * ((length + MORE_TOKENS) / length)
            * ((1.0 + again) / assumed.attention_forward + 2.5 / assumed.attention_backward);
        let elementwise = tokens * self.elementwise_bytes_per_token(keep) / memory;
        let parameters = self.model.parameters() as f64;
        let cards = f64::from(self.cards);
        // Gradients are read for their norm on every card. Its share of master weights and state is
        // read and written once, the gradient read, the bf16 weight written.
        let state = self.optimizer_state as f64;
        let weight = if self.master { 2.0 * 4.0 + 2.0 } else { 2.0 * 2.0 };
        let updated = 2.0 * state + parameters * (4.0 + weight);
        let optimizer = (4.0 * parameters + updated / cards) / memory;
        // Each card sends all but its own share: f32 gradients there, bf16 weights back.
        let sent = (4.0 + 2.0) * parameters * (cards - 1.0) / cards;
        let collectives = sent / (card.link * assumed.link);
        let total = products + head + attention + elementwise + optimizer + collectives;
        Time { products, head, attention, elementwise, optimizer, collectives, total }
    }

    /// Bytes that operations between the products read and write for a token, in bf16.
    fn elementwise_bytes_per_token(&self, keep: Keep) -> f64 {
        let ModelConfig { hidden_size: d, intermediate_size: f, num_hidden_layers: layers, .. } =
            *self.model;
        let heads = self.model.query_width() + self.model.kv_width();
        // Two norms, read and written; norm and rotation of q and k; SwiGLU reads two and writes one. Residuals
        // are added by the products.
        let forward = 2 * 2 * d + 2 * heads + 3 * f;
        // A gradient is read where a value was written, and the values are read again.
        let backward = 2 * forward;
        let again = match keep {
            Keep::All => 0,
            Keep::Products | Keep::Inputs => forward,
        };
        2.0 * (layers * (forward + backward + again)) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Card, Keep, tests::job},
        Assumptions,
    };
    use crate::model::config::published;

    /// Gigaoperations a token of this shape, forward and backward with the head in full, as computed elsewhere
    /// from the published shape.
    #[test]
    fn operations_of_the_published_shape() {
        let model = published();
        for (length, giga) in [(1024, 11.0), (2048, 11.7), (4096, 13.1), (8192, 16.0)] {
            let found = job(&model, length, 1).model_flops_per_token() / 1e9;
            assert!((found - giga).abs() < 0.06, "{length}: {found}");
        }
    }

    #[test]
    fn a_step_by_hand() {
        // One row of 8192 tokens on a card that does all of its rates: 64 rows are 524,288 tokens.
        let model = published();
        let card = Card::named("h200").unwrap();
        let perfect = Assumptions {
            gemm: 1.0,
            attention_forward: 1.0,
            attention_backward: 1.0,
            bandwidth: 1.0,
            link: 1.0,
        };
        let time = job(&model, 8192, 1).time(Keep::All, card, &perfect);
        // 28 · (2 · 2048 · 3072 + 3 · 2048 · 6144) = 1.409e9 parameters: 6 operations each.
        let body = 28.0 * (2.0 * 2048.0 * 3072.0 + 3.0 * 2048.0 * 6144.0);
        assert!((time.products - 524_288.0 * 6.0 * body / 989.4e12).abs() < 1e-9);
        // Seven products of 2 · 8192 · 2048 in 28 layers, and 700 tokens more.
        let attention = 524_288.0 * 7.0 * 2.0 * 8892.0 * 2048.0 * 28.0 / 989.4e12;
        assert!((time.attention - attention).abs() < 1e-9);
        // Adam: 16 bytes of state, 8 of master weights, 6 of gradient and weight, 4 for the norm.
        let parameters = model.parameters() as f64;
        assert!((time.optimizer - 34.0 * parameters / 4.8e12).abs() < 1e-12);
        assert!(time.collectives.abs() < f64::EPSILON);
        let eight = job(&model, 8192, 8).time(Keep::All, card, &perfect);
        assert!((eight.collectives - 6.0 * parameters * 7.0 / 8.0 / 450e9).abs() < 1e-12);
    }

    #[test]
    fn assumptions_are_shares_with_a_name() {
        let mut assumed = Assumptions::default();
        assumed.set("gemm=0.5").unwrap();
        assert!((assumed.gemm - 0.5).abs() < f64::EPSILON);
        for (text, word) in [
            ("gemm", "no `=`"),
            ("speed=0.5", "no assumption"),
            ("link=2", "share"),
            ("link=x", "share"),
        ] {
            assert!(assumed.set(text).unwrap_err().contains(word), "{text}");
        }
    }
}
