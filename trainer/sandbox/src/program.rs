//! What is run, under which limits, and what came of it.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// What is run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Program {
    /// The executable, by its full path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment; `HOME` and `TMPDIR` are added.
    pub env: BTreeMap<String, String>,
    /// Files in its working directory, by plain name.
    pub files: BTreeMap<String, String>,
    /// What it reads from stdin; at most 64 KiB.
    pub stdin: String,
}

/// What it may use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// From start to end.
    pub wall: Duration,
    /// Of all its threads together, in whole seconds.
    pub cpu_seconds: u64,
    /// Address space, in bytes.
    pub memory: u64,
    /// One file, in bytes.
    pub file: u64,
    /// All its files together, in bytes; held only where it has a tmpfs of its own.
    pub disk: u64,
    /// Files open at a time.
    pub open_files: u64,
    /// Bytes on stdout and stderr together, after which it is killed.
    pub output: u64,
    /// Whether it may start processes. Their number is limited by `RLIMIT_NPROC`, which the kernel does
    /// not apply to root; without it, threads are all it can start.
    pub processes: Option<u64>,
}

impl Default for Limits {
    /// Ten seconds, 4 GiB (the limit of EvalPlus), no processes.
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(10),
            cpu_seconds: 11,
            memory: 4 << 30,
            file: 16 << 20,
            disk: 64 << 20,
            open_files: 128,
            output: 8 << 20,
            processes: None,
        }
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal of this number: its own fault, or a limit of the kernel's.
    Signalled(i32),
    /// Killed when the wall time was over.
    WallTime,
    /// Killed when it had written too much.
    Output,
}

/// Who closes the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// An empty network namespace, and seccomp.
    Namespace,
    /// Seccomp alone.
    Seccomp,
}

/// Who protects files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Files {
    /// A mount namespace in which everything else is read-only.
    Mounts,
    /// Landlock.
    Landlock,
    /// Nobody: the program can write wherever the user can.
    Open,
}

/// Who ends what a program leaves running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tree {
    /// A process namespace.
    Namespace,
    /// A reaper.
    Reaper,
}

/// What held a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// The network.
    pub network: Network,
    /// Files outside the working directory.
    pub files: Files,
    /// Descendants.
    pub tree: Tree,
}

/// What came of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// What it wrote on stdout.
    pub stdout: Vec<u8>,
    /// What it wrote on stderr.
    pub stderr: Vec<u8>,
    /// From start to end, the launcher's own start included.
    pub wall: Duration,
    /// CPU time, the launcher's own included.
    pub cpu: Duration,
    /// The largest resident set of any of its processes, in bytes.
    pub resident: u64,
    /// What held it.
    pub isolation: Isolation,
}

/// What a launcher is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) program: Program,
    pub(crate) limits: Limits,
    /// An empty directory.
    pub(crate) work: PathBuf,
    /// Try namespaces first.
    pub(crate) namespaces: bool,
    /// Run it even where files are open.
    pub(crate) weaker: bool,
}

/// What a launcher answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The program ran.
    Ran { end: End, cpu: Duration, resident: u64, isolation: Isolation },
    /// It did not.
    Unable(String),
    /// The system gives too little.
    Weak(String),
    /// It gives no namespaces; now this process is of no use.
    NoNamespaces(String),
}
