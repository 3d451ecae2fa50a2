//! The settings of sampling in blocks.

use super::{Algorithm, Sampler};
use serde::Serialize;
use std::str::FromStr;

/// How a row is sampled: the plain sampler's settings, and what makes it faster (method §6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Decoding {
    /// How tokens and positions are chosen.
    #[serde(flatten)]
    pub sampler: Sampler,
    /// How many positions a step reveals.
    pub accept: Accept,
    /// Positions in a block; one block is filled before the next begins. Absent: the row is one block,
    /// or with a cache, blocks are fitted to what is masked, [`FITTED`] positions wide at most.
    pub block_length: Option<usize>,
    /// What is kept between the forwards of a block.
    pub cache: Cache,
}

/// The most positions in a block that is fitted to what is masked: from its first mask to its last.
pub const FITTED: usize = 128;

/// How many positions a step reveals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Accept {
    /// As many as the steps that are left ask for; with blocks, the steps are shared out among them.
    #[default]
    Schedule,
    /// All whose probability reaches the threshold, and at least one.
    Threshold(f64),
    /// The most that the factor rule allows, and at least one.
    Factor(f64),
}

/// What is kept between the forwards of a block. The first forward of a block computes the whole row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cache {
    /// Nothing: every forward computes the whole row.
    #[default]
    None,
    /// Keys and values before the block; a forward computes the block and what follows.
    Prefix,
    /// Keys and values before and after the block; a forward computes the block.
    Dual,
}

/// Settings that exclude each other or mean nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodingError {
    /// A number outside its range.
    #[error("{0}")]
    Range(&'static str),
    /// `origin` reveals by chance and knows no confidence.
    #[error("the algorithm origin reveals by chance: it takes no threshold and no factor")]
    Origin,
    /// Positions cannot be drawn when their number is not given.
    #[error("alg_temp draws a given number of positions: it takes no threshold and no factor")]
    Drawn,
}

impl Cache {
    /// Every kind by its name.
    pub const NAMES: [(&'static str, Self); 3] =
        [("none", Self::None), ("prefix", Self::Prefix), ("dual", Self::Dual)];
}

impl FromStr for Cache {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found
            .map(|&(_, cache)| cache)
            .ok_or_else(|| format!("there is no cache {name}, only none, prefix, dual"))
    }
}

impl Decoding {
    /// Refuses settings that mean nothing.
    ///
    /// # Errors
    /// With the first that does.
    pub fn check(&self) -> Result<(), DecodingError> {
        let Sampler { steps, eps, algorithm, alg_temp, temperature, top_p, top_k, .. } =
            self.sampler;
        let ranges = [
            (steps > 0, "steps must be at least 1"),
            (temperature >= 0.0 && alg_temp >= 0.0, "temperatures are 0 or more"),
            (top_p.is_none_or(|p| (0.0..=1.0).contains(&p)), "top_p is from 0 to 1"),
            (top_k != Some(0), "top_k must be at least 1"),
            ((0.0..1.0).contains(&eps), "eps is at least 0 and below 1"),
            (self.block_length != Some(0), "the block length must be at least 1"),
            (
                !matches!(self.accept, Accept::Threshold(t) if !(t > 0.0 && t <= 1.0)),
                "the threshold is above 0 and at most 1",
            ),
            (
                !matches!(self.accept, Accept::Factor(f) if !(f >= 0.0 && f.is_finite())),
                "the factor is 0 or more",
            ),
        ];
        if let Some((_, message)) = ranges.into_iter().find(|(holds, _)| !holds) {
            return Err(DecodingError::Range(message));
        }
        if self.accept != Accept::Schedule {
            if algorithm == Algorithm::Origin {
                return Err(DecodingError::Origin);
            }
            if alg_temp > 0.0 {
                return Err(DecodingError::Drawn);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Accept, Algorithm, Cache, Decoding, DecodingError, Sampler};

    #[test]
    fn settings_that_mean_nothing_are_refused() {
        let good = Decoding {
            accept: Accept::Threshold(0.9),
            block_length: Some(32),
            cache: Cache::Dual,
            ..Decoding::default()
        };
        assert_eq!(good.check(), Ok(()));
        let origin = Sampler { algorithm: Algorithm::Origin, ..Sampler::default() };
        let drawn = Sampler { alg_temp: 0.1, ..Sampler::default() };
        assert_eq!(Decoding { sampler: origin, ..good }.check(), Err(DecodingError::Origin));
        assert_eq!(Decoding { sampler: drawn, ..good }.check(), Err(DecodingError::Drawn));
        assert_eq!(Decoding { block_length: None, ..good }.check(), Ok(()));
        for bad in [
            Decoding { block_length: Some(0), ..good },
            Decoding { accept: Accept::Threshold(0.0), ..good },
            Decoding { accept: Accept::Threshold(f64::NAN), ..good },
            Decoding { accept: Accept::Factor(-1.0), ..good },
            Decoding { sampler: Sampler { steps: 0, ..Sampler::default() }, ..good },
            Decoding { sampler: Sampler { temperature: f64::NAN, ..Sampler::default() }, ..good },
            Decoding { sampler: Sampler { top_p: Some(1.5), ..Sampler::default() }, ..good },
            Decoding { sampler: Sampler { eps: 1.0, ..Sampler::default() }, ..good },
        ] {
            assert!(matches!(bad.check(), Err(DecodingError::Range(_))), "{bad:?}");
        }
    }
}
