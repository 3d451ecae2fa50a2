//! Several processes for one run: which one is this, how many are there, and how they meet.
//!
//! [`Launch::resolve`] answers the first two from the command line or from what a launcher leaves in
//! the environment; it is pure. [`Group::join`] then brings the processes together: process 0
//! serves a small key-value store, the others connect to it. Plugins of XLA exchange their
//! addresses through it, [`Group::barrier`] waits for everybody, and [`Group::exchange`] and
//! [`Group::gather`] carry what the fit loop has to know of other processes.

mod exchange;
mod group;
mod remote;
mod server;
mod slurm;
mod wire;

pub use group::Group;
pub use remote::RemoteStore;
pub use server::StoreServer;

use coda_cli::{Exit, Failure};
use coda_pjrt::{OptionValue, PluginKind};
use std::fmt;
use thiserror::Error;

/// Where libtpu's own convention has the coordinator.
const TPU_PORT: u16 = 8476;

/// Which of several processes this one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The place of this process.
    pub process: usize,
    /// How many there are.
    pub count: usize,
    /// `HOST:PORT` where process 0 listens; none if this process is alone.
    pub coordinator: Option<String>,
    /// Who said so.
    pub source: Source,
}

/// Where a [`Launch`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything: one process.
    Alone,
    /// `--process` and `--coordinator`.
    CommandLine,
    /// `RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`.
    Ranks,
    /// `SLURM_PROCID` and others of a step that srun started.
    Slurm,
    /// `TPU_WORKER_ID` and `TPU_WORKER_HOSTNAMES`.
    TpuVm,
    /// `JOB_COMPLETION_INDEX`.
    Kubernetes,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alone => "one process",
            Self::CommandLine => "--process",
            Self::Ranks => "RANK",
            Self::Slurm => "Slurm",
            Self::TpuVm => "TPU VM",
            Self::Kubernetes => "Kubernetes",
        })
    }
}

/// Why the processes do not find each other.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// A variable or option that is missing or makes no sense.
    #[error("{name}: {problem}")]
    Setting {
        /// The variable or option.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The store could not be reached or served.
    #[error("process {process} of {count} at {address}: {problem}")]
    Meeting {
        /// This process.
        process: usize,
        /// How many there should be.
        count: usize,
        /// Where process 0 listens.
        address: String,
        /// What happened.
        problem: String,
    },
    /// The processes are not of one run.
    #[error("the processes differ in {what}: process {process} has {found}, process 0 {first}")]
    Apart {
        /// What they have to agree on.
        what: String,
        /// The first process that differs.
        process: usize,
        /// What it has.
        found: String,
        /// What process 0 has.
        first: String,
    },
}

impl LaunchError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Setting { hint, .. } => (*hint).to_owned(),
            Self::Meeting { .. } => "start every process with its own number and the same \
                                     coordinator, whose port the others can reach"
                .to_owned(),
            Self::Apart { .. } => "start all with the same program, command line, manifest and \
                                   shard set, and a run's folder that all of them see"
                .to_owned(),
        })
    }
}

impl From<&LaunchError> for Failure {
    fn from(error: &LaunchError) -> Self {
        let exit = match error {
            LaunchError::Setting { .. } => Exit::Usage,
            LaunchError::Meeting { .. } => Exit::Io,
            LaunchError::Apart { .. } => Exit::Incompatible,
        };
        Self::new(exit, error.to_string()).maybe_hint(error.hint())
    }
}

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        Self::from(&error)
    }
}

/// Looks variables up.
type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Launch {
    /// A process that is alone.
    #[must_use]
    pub fn alone() -> Self {
        Self { process: 0, count: 1, coordinator: None, source: Source::Alone }
    }

    /// Finds out from `--process I/N` and `--coordinator HOST:PORT`, or else from the innermost
    /// launcher: variables `RANK` and others, a step of Slurm, a TPU VM, an indexed job of
    /// Kubernetes.
    ///
    /// # Errors
    /// If what is given is incomplete, contradicts itself, or makes no sense.
    pub fn resolve(
        process: Option<&str>,
        coordinator: Option<&str>,
        variables: Variables<'_>,
    ) -> Result<Self, LaunchError> {
        // An empty variable is how some launchers say that there is none.
        let set = |name: &str| variables(name).filter(|value| !value.trim().is_empty());
        let found = match (process, coordinator) {
            (Some(process), coordinator) => command_line(process, coordinator)?,
            (None, Some(_)) => {
                return Err(setting(
                    "--coordinator",
                    "there is no --process beside it",
                    "give both, for instance --process 0/4 --coordinator host:4700",
                ));
            }
            (None, None) if set("RANK").is_some() => ranks(&set)?,
            (None, None) if set("SLURM_STEP_NODELIST").is_some() => slurm(&set)?,
            (None, None) if set("TPU_WORKER_ID").is_some() => tpu_vm(&set)?,
            (None, None) if set("JOB_COMPLETION_INDEX").is_some() => kubernetes(&set)?,
            (None, None) => Self::alone(),
        };
        Ok(found)
    }

    /// The options by which a client of such a plugin knows its place. libtpu finds out by itself.
    #[must_use]
    pub fn client_options(&self, kind: PluginKind) -> Vec<(String, OptionValue)> {
        if self.count == 1 {
            return Vec::new();
        }
        let number = |value: usize| OptionValue::Int(i64::try_from(value).unwrap_or(i64::MAX));
        match kind {
            PluginKind::Gpu => vec![
                ("node_id".to_owned(), number(self.process)),
                ("num_nodes".to_owned(), number(self.count)),
            ],
            PluginKind::Cpu => vec![("process_id".to_owned(), number(self.process))],
            PluginKind::Tpu | PluginKind::Any => Vec::new(),
        }
    }

    /// An error while the processes meet or wait for each other.
    pub(super) fn failed(&self, problem: String) -> LaunchError {
        LaunchError::Meeting {
            process: self.process,
            count: self.count,
            address: self.coordinator.clone().unwrap_or_default(),
            problem,
        }
    }

    /// Puts it together, and holds what every source has to keep.
    fn checked(
        process: (&'static str, usize),
        count: (&'static str, usize),
        coordinator: Option<String>,
        source: Source,
    ) -> Result<Self, LaunchError> {
        let hint = "numbers go from 0 to one less than the count";
        if count.1 == 0 {
            return Err(setting(count.0, "there must be at least one process", hint));
        }
        if process.1 >= count.1 {
            let problem = format!("there is no process {} of {}", process.1, count.1);
            return Err(setting(process.0, problem, hint));
        }
        if count.1 == 1 {
            return Ok(Self { source, ..Self::alone() });
        }
        Ok(Self { process: process.1, count: count.1, coordinator, source })
    }
}

fn setting(name: &'static str, problem: impl Into<String>, hint: &'static str) -> LaunchError {
    LaunchError::Setting { name, problem: problem.into(), hint }
}

/// The number in a variable that has to be set.
fn number(
    set: Variables<'_>,
    name: &'static str,
    hint: &'static str,
) -> Result<usize, LaunchError> {
    let value = text(set, name, hint)?;
    value.trim().parse().map_err(|_| setting(name, format!("`{value}` is not a number"), hint))
}

/// A variable that has to be set.
fn text(set: Variables<'_>, name: &'static str, hint: &'static str) -> Result<String, LaunchError> {
    set(name).ok_or_else(|| setting(name, "it is not set", hint))
}

/// Checks `HOST:PORT`.
fn address(name: &'static str, value: &str) -> Result<String, LaunchError> {
    let good = value.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if good {
        return Ok(value.to_owned());
    }
    let problem = format!("`{value}` is not HOST:PORT");
    Err(setting(name, problem, "for instance node-0:4700, or [::1]:4700"))
}

/// A host and a port as an address; IPv6 gets its brackets.
fn joined(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn command_line(process: &str, coordinator: Option<&str>) -> Result<Launch, LaunchError> {
    let (name, hint) = ("--process", "I/N, for instance 0/4 for the first of four");
    let parsed =
        process.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    let Some((index, count)) = parsed else {
        return Err(setting(name, format!("`{process}` is not I/N"), hint));
    };
    let coordinator = coordinator.map(|value| address("--coordinator", value)).transpose()?;
    if coordinator.is_none() && count > 1 {
        let hint = "give --coordinator HOST:PORT, where process 0 listens";
        return Err(setting("--coordinator", "several processes need one", hint));
    }
    Launch::checked((name, index), (name, count), coordinator, Source::CommandLine)
}

fn ranks(set: Variables<'_>) -> Result<Launch, LaunchError> {
    let hint = "a launcher that sets RANK sets WORLD_SIZE, MASTER_ADDR and MASTER_PORT too";
    let rank = number(set, "RANK", hint)?;
    let count = number(set, "WORLD_SIZE", hint)?;
    let coordinator = if count > 1 {
        let host = text(set, "MASTER_ADDR", hint)?;
        let port = text(set, "MASTER_PORT", hint)?;
        let port = port.trim().parse().ok().filter(|port| *port != 0);
        let port = port.ok_or_else(|| setting("MASTER_PORT", "it is not a port", hint))?;
        Some(joined(host.trim(), port))
    } else {
        None
    };
    Launch::checked(("RANK", rank), ("WORLD_SIZE", count), coordinator, Source::Ranks)
}

fn slurm(set: Variables<'_>) -> Result<Launch, LaunchError> {
    let hint = "start the processes with srun, or name them with --process and --coordinator";
    let index = number(set, "SLURM_PROCID", hint)?;
    // In a step that is smaller than its job, the job's own count would be wrong.
    let name =
        if set("SLURM_STEP_NUM_TASKS").is_some() { "SLURM_STEP_NUM_TASKS" } else { "SLURM_NTASKS" };
    let count = number(set, name, hint)?;
    let nodes = text(set, "SLURM_STEP_NODELIST", hint)?;
    let nodes =
        slurm::expand(&nodes).map_err(|problem| setting("SLURM_STEP_NODELIST", problem, hint))?;
    let first = nodes.first().ok_or_else(|| setting("SLURM_STEP_NODELIST", "no node", hint))?;
    // Two steps of one job have the same port only if their ids are 4096 apart.
    let job = number(set, "SLURM_JOB_ID", hint)?;
    let step = set("SLURM_STEP_ID").and_then(|step| step.parse::<usize>().ok()).unwrap_or(0);
    let port = 61_440 + u16::try_from((job % 4096 + step % 4096) % 4096).unwrap_or(0);
    let coordinator = Some(joined(first, port));
    Launch::checked(("SLURM_PROCID", index), (name, count), coordinator, Source::Slurm)
}

fn tpu_vm(set: Variables<'_>) -> Result<Launch, LaunchError> {
    let hint = "on a TPU VM, TPU_WORKER_HOSTNAMES lists the workers of the slice with commas";
    let slices = set("MEGASCALE_NUM_SLICES").and_then(|count| count.trim().parse::<usize>().ok());
    if slices.is_some_and(|slices| slices > 1) {
        let hint = "train on one slice";
        return Err(setting("MEGASCALE_NUM_SLICES", "several slices are not supported", hint));
    }
    let index = number(set, "TPU_WORKER_ID", hint)?;
    let hosts = text(set, "TPU_WORKER_HOSTNAMES", hint)?;
    let hosts: Vec<&str> = hosts.split(',').map(str::trim).collect();
    if hosts.iter().any(|host| host.is_empty()) {
        return Err(setting("TPU_WORKER_HOSTNAMES", "a name is empty", hint));
    }
    let coordinator = hosts.first().map(|host| joined(host, TPU_PORT));
    let count = ("TPU_WORKER_HOSTNAMES", hosts.len());
    Launch::checked(("TPU_WORKER_ID", index), count, coordinator, Source::TpuVm)
}

fn kubernetes(set: Variables<'_>) -> Result<Launch, LaunchError> {
    let hint = "an indexed job gives the number only: set CODA_PROCESS_COUNT to its completions, \
                and CODA_COORDINATOR to HOST:PORT of its first pod, in the pod's template";
    let index = number(set, "JOB_COMPLETION_INDEX", hint)?;
    let count = number(set, "CODA_PROCESS_COUNT", hint)?;
    let coordinator = if count > 1 {
        Some(address("CODA_COORDINATOR", &text(set, "CODA_COORDINATOR", hint)?)?)
    } else {
        None
    };
    let (process, count) = (("JOB_COMPLETION_INDEX", index), ("CODA_PROCESS_COUNT", count));
    Launch::checked(process, count, coordinator, Source::Kubernetes)
}

#[cfg(test)]
mod tests;
