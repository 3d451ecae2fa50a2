//! One position: from logits to a token and how sure the model is of it.

use super::Algorithm;
use crate::ops::{largest, negative_entropy, softmax};

/// The token chosen at one position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Its id.
    pub token: u32,
    /// How sure the model is, by the algorithm's measure: higher is surer.
    pub confidence: f32,
    /// The token's probability in the distribution that it was chosen from.
    pub probability: f32,
}

/// How logits become a distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    /// Divides the logits; 0 takes the largest.
    pub(crate) temperature: f64,
    /// The share of probability that is kept.
    pub(crate) top_p: Option<f64>,
    /// The number of tokens that are kept.
    pub(crate) top_k: Option<usize>,
}

/// Chooses a token from the logits of one position. `draw`, in `[0, 1)`, decides when the temperature
/// is above 0. Ties go to the lowest id.
///
/// Temperature first, then `top_p` (tokens after the one that crosses the threshold are dropped),
/// then `top_k`, then softmax; confidences in `f32`.
///
/// # Panics
/// If there are more than 2^32 logits.
#[must_use]
pub fn choose(
    logits: &[f32],
    algorithm: Algorithm,
    temperature: f64,
    top_p: Option<f64>,
    top_k: Option<usize>,
    draw: f64,
) -> Choice {
    let shape = Shape { temperature, top_p, top_k };
    let probabilities = distribution(logits, shape);
    let best = largest(&probabilities);
    let token = if temperature > 0.0 { pick(&probabilities, draw) } else { best };
    let confidence = match algorithm {
        Algorithm::Origin | Algorithm::MaskgitPlus => probabilities[token],
        Algorithm::TopkMargin => {
            let second = probabilities
                .iter()
                .enumerate()
                .filter(|&(id, _)| id != best)
                .fold(0.0_f32, |most, (_, &p)| most.max(p));
            probabilities[best] - second
        }
        Algorithm::Entropy => negative_entropy(&probabilities),
    };
    let probability = probabilities[token];
    Choice { token: u32::try_from(token).expect("token ids are 32 bits"), confidence, probability }
}

/// The token at which the running sum of probabilities, in the order of ids, passes `draw`.
fn pick(probabilities: &[f32], draw: f64) -> usize {
    let total: f64 = probabilities.iter().map(|&p| f64::from(p)).sum();
    let mut sum = 0.0;
    let mut last = 0;
    for (id, &p) in probabilities.iter().enumerate().filter(|&(_, &p)| p > 0.0) {
        sum += f64::from(p);
        last = id;
        if sum > draw * total {
            break;
        }
    }
    last
}

fn distribution(logits: &[f32], shape: Shape) -> Vec<f32> {
    let mut logits = logits.to_vec();
    if shape.temperature > 0.0 {
        #[allow(clippy::cast_possible_truncation, reason = "logits are f32")]
        let temperature = shape.temperature as f32;
        for logit in &mut logits {
            *logit /= temperature;
        }
    }
    let top_p = shape.top_p.filter(|&p| p < 1.0);
    let top_k = shape.top_k.filter(|&k| k < logits.len());
    if top_p.is_some() || top_k.is_some() {
        let order = by_logit(&logits);
        let mut keep = order.len();
        if let Some(threshold) = top_p {
            let mut probabilities = logits.clone();
            softmax(&mut probabilities);
            let mut sum = 0.0_f32;
            // A token stays when what stands before it has not passed the threshold: the one that
            // crosses it stays, and the first always does.
            #[allow(clippy::cast_possible_truncation, reason = "probabilities are f32")]
            let passed = |sum: f32| sum > threshold as f32;
            keep = 0;
            for &id in &order {
                if keep > 0 && passed(sum) {
                    break;
                }
                sum += probabilities[id];
                keep += 1;
            }
        }
        keep = keep.min(top_k.unwrap_or(keep).max(1));
        for &id in &order[keep..] {
            logits[id] = f32::NEG_INFINITY;
        }
    }
    softmax(&mut logits);
    logits
}

/// Ids from the largest logit to the smallest; equal ones in ascending order.
fn by_logit(logits: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, choose};

    /// Logits whose softmax is the given distribution.
    fn logits(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln()).collect()
    }

    fn close(a: f32, b: f32) -> bool {
        (a - b).abs() < 1e-6
    }

    #[test]
    fn each_algorithm_measures_in_its_own_way() {
        let logits = logits(&[0.1, 0.5, 0.15, 0.25]);
        let sure = |algorithm| {
            let choice = choose(&logits, algorithm, 0.0, None, None, 0.0);
            assert_eq!(choice.token, 1);
            choice.confidence
        };
        assert!(close(sure(Algorithm::MaskgitPlus), 0.5));
        assert!(close(sure(Algorithm::TopkMargin), 0.25));
        let entropy =
            0.1 * 0.1_f32.ln() + 0.5 * 0.5_f32.ln() + 0.15 * 0.15_f32.ln() + 0.25 * 0.25_f32.ln();
        assert!(close(sure(Algorithm::Entropy), entropy));
    }

    #[test]
    fn equal_logits_give_the_lowest_id_and_no_margin() {
        let choice = choose(&[0.0, 2.0, 2.0, 1.0], Algorithm::TopkMargin, 0.0, None, None, 0.9);
        assert_eq!((choice.token, choice.confidence), (1, 0.0));
    }

    #[test]
    fn the_confidence_of_a_drawn_token_is_its_own() {
        let logits = logits(&[0.1, 0.5, 0.15, 0.25]);
        let drawn = |draw| choose(&logits, Algorithm::MaskgitPlus, 1.0, None, None, draw);
        let tokens: Vec<u32> =
            [0.0, 0.09, 0.11, 0.59, 0.61, 0.74, 0.76, 0.999].map(|d| drawn(d).token).into();
        assert_eq!(tokens, [0, 0, 1, 1, 2, 2, 3, 3]);
        assert!(close(drawn(0.61).confidence, 0.15));
    }

    #[test]
    fn top_p_keeps_the_token_that_crosses_and_comes_before_top_k() {
        let logits = logits(&[0.1, 0.5, 0.15, 0.25]);
        let support = |top_p, top_k| {
            let mut seen = [0_u32; 4];
            for i in 0..1000 {
                let draw = f64::from(i) / 1000.0;
                let choice = choose(&logits, Algorithm::MaskgitPlus, 1.0, top_p, top_k, draw);
                seen[choice.token as usize] += 1;
            }
            seen
        };
        // Edges between tokens fall on draws or beside them: one draw more or less is rounding.
        let close = |counts: [u32; 4], expected: [u32; 4]| {
            let near = |(count, expected): (&u32, &u32)| {
                count.abs_diff(*expected) <= u32::from(*expected > 0)
            };
            assert!(counts.iter().zip(&expected).all(near), "{counts:?} {expected:?}");
        };
        // 0.5 does not pass 0.6, so 0.25 stays; then 0.75 has passed it.
        close(support(Some(0.6), None), [0, 667, 0, 333]);
        close(support(Some(0.0), None), [0, 1000, 0, 0]);
        close(support(None, Some(3)), [0, 556, 167, 278]);
        // top_p first: it leaves three of the four, of which top_k takes two.
        close(support(Some(0.8), Some(2)), [0, 667, 0, 333]);
        close(support(Some(1.0), None), [100, 500, 150, 250]);
    }

    #[test]
    fn temperature_sharpens_before_top_p() {
        // At temperature 0.5 the probabilities 0.6, 0.4 become 0.36 / 0.52 and 0.16 / 0.52.
        let logits = logits(&[0.6, 0.4]);
        let drawn = |draw, top_p| choose(&logits, Algorithm::MaskgitPlus, 0.5, top_p, None, draw);
        assert!(close(drawn(0.0, None).confidence, 0.36 / 0.52));
        assert_eq!(drawn(0.99, None).token, 1);
        // 0.692 has passed 0.65 only after the temperature.
        assert_eq!(drawn(0.99, Some(0.65)).token, 0);
    }
}
