//! What a model sees at every step: S1, S2, S3, the noise level, and the schedules over them.
//!
//! Pure functions only. A [`Curriculum`] holds schedules; [`Curriculum::settings`] reads them at a
//! [`Progress`]; [`plan_row`] turns the [`Settings`] and the shape of a row into a [`MaskPlan`];
//! [`apply`] turns the plan and the row's tokens into the clean and the noised ids. No I/O, no clock,
//! no threads, and every random draw is named by its key ([`draws`]), so a row's plan is the same
//! on any engine, in any batch split, after any restart. [`expected`] says in closed form what the
//! plans come to on average. Schedules that wait for a loss have clocks of their own ([`HoldRule`]).
//!
//! The method is that of the `CoDA` report (arXiv 2510.03270) and of its released code, which differ:
//! [`Profile`](coda_manifests::Profile) chooses between them.
//!
//! ```
//! use coda_curriculum::{
//!     Context, RowView, Settings, SpecialIds, SyntaxSpans, apply, plan_row,
//! };
//! use coda_manifests::{MaskBlocks, Profile};
//!
//! let settings = Settings {
//!     p1: 0.0,
//!     p2: 0.0,
//!     p3: 1.0,
//!     block_sizes: vec![4],
//!     mask_blocks: MaskBlocks::Tokens,
//!     sampling_eps: 1e-3,
//!     span_ratio: 1.0,
//! };
//! let context = Context { profile: Profile::CodaPaper, seed: 17, step: 0, score_pads: true };
//! let tokens: Vec<u32> = (100..164).collect();
//! let row = RowView {
//!     length: 64,
//!     row_key: 0x00C0_FFEE,
//!     epoch: 0,
//!     prefix_len: 0,
//!     valid_len: 64,
//!     maskable_starts: &[0],
//!     maskable_lens: &[64],
//!     spans: SyntaxSpans::default(),
//! };
//! let plan = plan_row(&settings, &context, &row);
//! let (clean, noised) = apply(&plan, &tokens, SpecialIds { mask: 1, pad: 0 });
//! assert_eq!(clean, tokens);
//! assert_eq!(noised.iter().filter(|&&id| id == 1).count(), plan.masked.len());
//! ```

mod blocks;
pub mod draws;
pub mod expected;
mod hold;
mod maskable;
mod plan;
pub mod schedule;
mod settings;
mod spans;

pub use hold::{Clocks, HoldPath, HoldRule, HoldState, NotRecorded};
pub use plan::{
    Context, MaskPlan, RowView, SpecialIds, SyntaxSpans, apply, apply_into, plan_row, plan_row_at,
};
pub use schedule::Progress;
pub use settings::{Curriculum, CurriculumError, Settings, SpansNotNoted};
