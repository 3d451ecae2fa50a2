//! What a run records: `metrics.jsonl`, one object a step, is the source of truth; `TensorBoard` event
//! files in `tb/` tell the same to dashboards.

mod events;
mod jsonl;
mod step;

pub use events::EventWriter;
pub use jsonl::MetricsFile;
pub use step::{HeldOut, Shares, StepMetrics};
