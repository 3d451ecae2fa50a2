//! Starting the process that loads the plugin.

use super::{Answer, Compiled, Job, Target, gpu, words::OutOfMemory};
use coda_cli::human;
use std::{
    env,
    io::Write,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};
use thiserror::Error;

/// What the process finds in its environment, over whatever stood there: no questions to the
/// metadata server; no search for a machine that is not there; no waiting for a run that uses the
/// machine's own TPU, for compiling touches none; errors only on stderr.
const ENVIRONMENT: [(&str, &str); 8] = [
    ("TPU_SKIP_MDS_QUERY", "1"),
    ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
    ("TPU_WORKER_HOSTNAMES", "localhost"),
    ("TPU_WORKER_ID", "0"),
    ("TPU_ACCELERATOR_TYPE", "v5litepod-4"),
    ("TPU_MIN_LOG_LEVEL", "3"),
    ("TPU_STDERR_LOG_LEVEL", "3"),
    ("TF_CPP_MIN_LOG_LEVEL", "3"),
];

/// Lines of the plugin's stderr that an error repeats.
const LAST_LINES: usize = 12;

/// Why nothing was compiled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AheadError {
    /// The process could not be run.
    #[error("cannot run {program} to compile in: {error}")]
    Start {
        /// This program.
        program: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The process ended without an answer.
    #[error("{plugin} ended its process ({status}) while compiling for {topology}\n{last}")]
    Died {
        /// The plugin.
        plugin: String,
        /// How it ended.
        status: ExitStatus,
        /// The slice.
        topology: String,
        /// What it wrote last.
        last: String,
    },
    /// It did not come to compiling.
    #[error("{message}")]
    Unable {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The step does not fit into a device.
    #[error("the step does not fit into a device of {topology}: {}", .words.text)]
    OutOfMemory {
        /// The slice.
        topology: String,
        /// What the compiler says of it.
        words: OutOfMemory,
    },
    /// The program was compiled although it takes more than a device has, as XLA does for GPUs.
    #[error(
        "the step does not fit into a device of {topology}: it takes {} of {}",
        human::bytes(*.peak),
        human::bytes(*.limit)
    )]
    TooLarge {
        /// The devices.
        topology: String,
        /// Bytes that it takes.
        peak: u64,
        /// Bytes of a device.
        limit: u64,
    },
    /// The compiler refuses for another reason.
    #[error("the compiler for {topology} refuses the step: {words}")]
    Refused {
        /// The slice.
        topology: String,
        /// The compiler's words.
        words: String,
    },
}

impl AheadError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::OutOfMemory { .. } | Self::TooLarge { .. } => Some(
                "fewer rows at a time (train.micro_batch), more devices that share out the weights \
                 (--mesh fsdp=N, tensor=N), or smaller pieces (train.xla.query_chunk, \
                 train.xla.loss_chunk)"
                    .to_owned(),
            ),
            Self::Unable { hint, .. } => hint.clone(),
            _ => None,
        }
    }
}

/// Compiles in a process of its own, which is this program with the command `compile-ahead`.
///
/// # Errors
/// If the process cannot be run or dies, the slice is not known or too small, or the compiler
/// refuses the program.
pub fn compile(job: &Job) -> Result<Compiled, AheadError> {
    let program = std::env::current_exe()
        .map_err(|error| AheadError::Start { program: "this program".to_owned(), error })?;
    let start = |error| AheadError::Start { program: program.display().to_string(), error };
    // only a path that is not Unicode cannot be written
    let text = serde_json::to_string(job).map_err(|error| AheadError::Unable {
        message: format!("{}: {error}", job.plugin.display()),
        hint: Some("give the plugin a path in Unicode".to_owned()),
    })?;
    let mut child = command(&program, job).spawn().map_err(start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It reads everything before it writes anything. If it dies before, its end tells why.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(start)?;
    let answer = output.stdout.split(|byte| *byte == b'\n').rev().find_map(|line| {
        // the plugin may print lines of its own
        serde_json::from_slice(line).ok()
    });
    match answer {
        Some(Answer::Compiled(compiled)) => match compiled.limit {
            Some(limit) if compiled.peak > limit => {
                let (topology, peak) = (job.topology.clone(), compiled.peak);
                Err(AheadError::TooLarge { topology, peak, limit })
            }
            _ => Ok(compiled),
        },
        Some(Answer::Unable { message, hint }) => Err(AheadError::Unable { message, hint }),
        Some(Answer::Refused(words)) => {
            let topology = job.topology.clone();
            Err(match OutOfMemory::read(&words) {
                Some(words) => AheadError::OutOfMemory { topology, words },
                None => AheadError::Refused { topology, words },
            })
        }
        None => Err(AheadError::Died {
            plugin: job.plugin.display().to_string(),
            status: output.status,
            topology: job.topology.clone(),
            last: last_lines(&String::from_utf8_lossy(&output.stderr)),
        }),
    }
}

fn command(program: &Path, job: &Job) -> Command {
    let mut command = Command::new(program);
    command
        .arg("compile-ahead")
        .envs(ENVIRONMENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let (Target::Gpu { .. }, Some(toolkit)) = (&job.target, gpu::toolkit(&job.plugin)) {
        let of_user = env::var("XLA_FLAGS").unwrap_or_default();
        let flag = format!("--xla_gpu_cuda_data_dir={}", toolkit.display());
        command.env("XLA_FLAGS", format!("{flag} {of_user}").trim_end());
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(toolkit.join("bin")).chain(env::split_paths(&path));
        // Only a folder with a colon in its name cannot be joined.
        if let Ok(path) = env::join_paths(folders) {
            command.env("PATH", path);
        }
    }
    command
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::{Job, Target, command, last_lines};
    use std::{ffi::OsStr, path::Path};

    #[test]
    fn the_questions_are_forbidden_whatever_the_user_has_set() {
        let job = Job {
            plugin: "libtpu.so".into(),
            topology: "v5p:2x2x1".to_owned(),
            target: Target::Tpu,
            devices: 4,
            program: String::new(),
        };
        let command = command(Path::new("coda-trainer"), &job);
        let set = command.get_envs().find(|(name, _)| *name == "TPU_SKIP_MDS_QUERY");
        assert_eq!(set.and_then(|(_, value)| value), Some(OsStr::new("1")));
    }

    #[test]
    fn the_last_lines_are_kept() {
        let lines: Vec<String> = (0..20).map(|k| format!("line {k}\n")).collect();
        let last = last_lines(&lines.join("\n"));
        assert_eq!((last.lines().count(), last.lines().next()), (12, Some("line 8")));
        assert_eq!(last_lines(""), "");
    }
}
