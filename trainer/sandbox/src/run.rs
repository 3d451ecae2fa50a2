//! The outside: start a launcher, read with a limit, wait with a limit.

use crate::program::{Answer, End, Limits, Order, Outcome, Program};
use std::{
    ffi::OsString,
    io::{self, Read, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How much longer than the program a launcher may take before it is killed itself.
const GRACE: Duration = Duration::from_secs(5);

/// A program that could not be run under the limits.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The launcher could not be started or talked to.
    #[error("cannot run {launcher}: {error}")]
    Launcher {
        /// Its path.
        launcher: String,
        /// What the system says.
        error: io::Error,
    },
    /// The launcher could not prepare or start the program.
    #[error("cannot run {program} in a sandbox: {problem}")]
    Unable {
        /// The program.
        program: String,
        /// What failed.
        problem: String,
    },
    /// The system gives too little to shut a program in.
    #[error("this system gives no sandbox: {0}")]
    Weak(String),
}

impl SandboxError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        matches!(self, Self::Weak(_)).then(|| {
            "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, \
             kernel.apparmor_restrict_unprivileged_userns=0; Docker: --security-opt seccomp=unconfined) \
             or use a kernel with Landlock (5.13); --weak-sandbox runs the programs all the same"
                .to_owned()
        })
    }
}

/// Where programs run.
#[derive(Clone, Debug)]
pub struct Sandbox {
    launcher: PathBuf,
    args: Vec<OsString>,
    /// Not once they were found missing.
    namespaces: Arc<AtomicBool>,
    weaker: bool,
}

impl Sandbox {
    /// A sandbox whose launcher is `launcher` with `args`: a program that calls [`crate::enter`] before it
    /// has started a thread.
    #[must_use]
    pub fn new(launcher: &Path, args: &[&str]) -> Self {
        Self {
            launcher: launcher.to_path_buf(),
            args: args.iter().map(Into::into).collect(),
            namespaces: Arc::new(AtomicBool::new(true)),
            weaker: false,
        }
    }

    /// Does without namespaces, as if the system had none.
    #[must_use]
    pub fn without_namespaces(self) -> Self {
        self.namespaces.store(false, Ordering::Relaxed);
        self
    }

    /// Also runs programs where nothing protects the user's files.
    #[must_use]
    pub fn accept_weaker(mut self, accept: bool) -> Self {
        self.weaker = accept;
        self
    }

    /// Runs a program to its end, or to one of its limits.
    ///
    /// # Errors
    /// If the launcher or the program cannot be started, or the system gives too little.
    pub fn run(&self, program: &Program, limits: &Limits) -> Result<Outcome, SandboxError> {
        let started = Instant::now();
        let mut outcome = self.attempt(program, limits, self.namespaces.load(Ordering::Relaxed))?;
        if outcome.is_none() {
            self.namespaces.store(false, Ordering::Relaxed);
            outcome = self.attempt(program, limits, false)?;
        }
        let unable = || SandboxError::Unable {
            program: program.program.display().to_string(),
            problem: "the launcher wants namespaces that it was told to do without".to_owned(),
        };
        outcome.map(|outcome| Outcome { wall: started.elapsed(), ..outcome }).ok_or_else(unable)
    }

    /// One launcher; nothing when it found no namespaces.
    fn attempt(
        &self,
        program: &Program,
        limits: &Limits,
        namespaces: bool,
    ) -> Result<Option<Outcome>, SandboxError> {
        let failed =
            |error| SandboxError::Launcher { launcher: self.launcher.display().to_string(), error };
        let work = tempfile::Builder::new().prefix("coda-sandbox-").tempdir().map_err(failed)?;
        let order = Order {
            program: program.clone(),
            limits: *limits,
            work: work.path().to_path_buf(),
            namespaces,
            weaker: self.weaker,
        };
        let order = serde_json::to_vec(&order).map_err(|error| failed(error.into()))?;
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut child = Launched(self.command(theirs).spawn().map_err(failed)?);
        let (output, answer) = attend(&mut child.0, &ours, &order, limits).map_err(failed)?;
        let (end, cpu, resident, isolation) = match answer {
            Answer::Ran { end, cpu, resident, isolation } => (end, cpu, resident, isolation),
            Answer::NoNamespaces(_) => return Ok(None),
            Answer::Weak(problem) => return Err(SandboxError::Weak(problem)),
            Answer::Unable(problem) => {
                let program = program.program.display().to_string();
                return Err(SandboxError::Unable { program, problem });
            }
        };
        let [stdout, stderr] = output.texts;
        let end = if output.over { End::Output } else { end };
        let wall = Duration::ZERO;
        Ok(Some(Outcome { end, stdout, stderr, wall, cpu, resident, isolation }))
    }

    fn command(&self, stdin: UnixStream) -> Command {
        let mut command = Command::new(&self.launcher);
        command
            .args(&self.args)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(stdin)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal is for us; we end the program by closing its launcher's socket.
            .process_group(0);
        command
    }
}

/// A launcher that does not outlive the call.
struct Launched(Child);

impl Drop for Launched {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a program wrote.
struct Output {
    texts: [Vec<u8>; 2],
    /// More than it may.
    over: bool,
}

/// Gives the order, reads what is written, and waits for the answer.
fn attend(
    child: &mut Child,
    socket: &UnixStream,
    order: &[u8],
    limits: &Limits,
) -> io::Result<(Output, Answer)> {
    let length = (order.len() as u64).to_le_bytes();
    let mut writer = socket;
    writer.write_all(&length).and_then(|()| writer.write_all(order))?;
    socket.set_read_timeout(Some(limits.wall + GRACE))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let written = AtomicU64::new(0);
    let collect = |pipe: Option<Box<dyn Read + Send>>| {
        let mut text = Vec::new();
        let Some(mut pipe) = pipe else { return text };
        let mut piece = [0; 1 << 14];
        // A pipe that fails ends as one that is closed.
        while let Ok(count @ 1..) = pipe.read(&mut piece) {
            let before = written.fetch_add(count as u64, Ordering::Relaxed);
            if before + count as u64 > limits.output {
                // The launcher sees the end of its orders, and ends the program.
                let _ = socket.shutdown(std::net::Shutdown::Write);
                break;
            }
            text.extend_from_slice(&piece[..count]);
        }
        text
    };
    let (texts, answer) = thread::scope(|scope| {
        let pipes = [
            stdout.map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
            stderr.map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        ];
        let readers = pipes.map(|pipe| scope.spawn(|| collect(pipe)));
        let mut answer = Vec::new();
        let heard = (&mut &*socket).read_to_end(&mut answer);
        // Whoever still holds the pipes dies with the launcher.
        if heard.is_err() {
            let _ = child.kill();
        }
        (readers.map(|reader| reader.join().unwrap_or_default()), heard.map(|_| answer))
    });
    let answer = serde_json::from_slice(&answer?).map_err(|_| {
        let words = String::from_utf8_lossy(&texts[1]).trim().to_owned();
        io::Error::other(format!("the launcher ended without an answer: {words}"))
    })?;
    let over = written.load(Ordering::Relaxed) > limits.output;
    Ok((Output { texts, over }, answer))
}
