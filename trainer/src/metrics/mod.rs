//! What a run records: `metrics.jsonl`, one object a step, is the source of truth; `TensorBoard` event
//! files in `tb/` tell the same to dashboards. [`Watch`] holds the masks against the curriculum.

mod events;
mod jsonl;
mod nll;
mod step;
mod watch;

pub use events::EventWriter;
pub use jsonl::MetricsFile;
pub use nll::{Level, Nll};
pub use step::{HeldOut, Shares, StepMetrics};
pub use watch::{Count, Parting, Watch};
