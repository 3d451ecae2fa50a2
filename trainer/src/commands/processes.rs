//! Several processes on the command line.

use crate::{
    engine::xla::Processes,
    launch::{Group, Launch},
};
use clap::Args;
use coda_cli::Failure;
use std::{sync::Arc, time::Duration};

/// How long process 0 and the others wait for each other at the start: a queue may give them their
/// machines one after the other.
const MEETING: Duration = Duration::from_mins(10);

/// Which of several processes this one is.
#[derive(Args, Clone, Debug)]
pub(super) struct ProcessArgs {
    /// This process's number and their count, as I/N, when several processes train one model on the XLA
    /// engine. Without it: what torchrun, Slurm, a TPU VM or Kubernetes has set (docs/xla.md).
    #[arg(long, value_name = "I/N")]
    process: Option<String>,
    /// Where process 0 listens for the others.
    #[arg(long, value_name = "HOST:PORT")]
    coordinator: Option<String>,
    /// Let every process compute the whole mesh and keep its own part: tries a run of several processes
    /// where no plugin can run one program over them, such as on the CPU.
    #[arg(long)]
    rehearse: bool,
}

impl ProcessArgs {
    /// Finds the other processes, if there are any, and waits for them. `is_xla`: whether the engine is
    /// one that several processes can share.
    pub(super) fn join(&self, is_xla: bool) -> Result<Processes, Failure> {
        let asked = self.process.is_some() || self.coordinator.is_some() || self.rehearse;
        if !is_xla {
            // What a launcher leaves in the environment is of no concern to an engine of one process.
            if asked {
                return Err(Failure::usage(
                    "--process, --coordinator and --rehearse are options of the XLA engine",
                )
                .hint("add --engine xla, or leave them out"));
            }
            return Ok(Processes::alone());
        }
        let variable = |name: &str| std::env::var(name).ok();
        let (process, coordinator) = (self.process.as_deref(), self.coordinator.as_deref());
        let launch = Launch::resolve(process, coordinator, &variable)?;
        if launch.count > 1 {
            eprintln!(
                "process {} of {} ({}), process 0 at {}",
                launch.process,
                launch.count,
                launch.source,
                launch.coordinator.as_deref().unwrap_or_default()
            );
        }
        let group = Arc::new(Group::join(launch, MEETING)?);
        Ok(Processes { group, rehearse: self.rehearse })
    }
}
