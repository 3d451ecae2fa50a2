//! What the model sees: strategies and noise over the run, and by source.

use crate::{MaskBlocks, Schedule, schedule};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Masking strategies and noise (method §3 and §4). What is absent comes from stage and profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curriculum {
    /// Probability that S1 (unmaskable prefix) takes a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p1: Option<Schedule<f64>>,
    /// Probability that S2 (truncated suffix) takes a row that S1 did not take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p2: Option<Schedule<f64>>,
    /// Probability that S3 (block masking) takes a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p3: Option<Schedule<f64>>,
    /// Block sizes, in tokens, from which S3 draws evenly.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "schedule::sizes_or_size"
    )]
    pub block_sizes: Option<Schedule<Vec<u32>>>,
    /// What S3 masks as a whole; absent: runs of tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_blocks: Option<MaskBlocks>,
    /// The lowest noise level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling_eps: Option<Schedule<f64>>,
    /// How the prompt of a post-training row is protected (method §5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditioned_span: Option<ConditionedSpan>,
    /// What differs for the rows of single sources, by the source's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, SourceCurriculum>,
}

/// The schedules of one source's rows. What is absent is as for all sources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceCurriculum {
    /// Probability of S1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p1: Option<Schedule<f64>>,
    /// Probability of S2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p2: Option<Schedule<f64>>,
    /// Probability of S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p3: Option<Schedule<f64>>,
    /// Block sizes of S3.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "schedule::sizes_or_size"
    )]
    pub block_sizes: Option<Schedule<Vec<u32>>>,
    /// What S3 masks as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_blocks: Option<MaskBlocks>,
    /// The lowest noise level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling_eps: Option<Schedule<f64>>,
}

/// How the prompt of a post-training row is protected (method §5).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConditionedSpan {
    /// The whole prompt, always.
    Off,
    /// Annealed from nothing to the whole prompt over this share R of the total steps.
    Ratio(f64),
}
