//! The inside: a launcher shuts itself in and becomes the program.
//!
//! ```text
//! launcher ── watches the clock and the socket
//!   └─ keeper ── first process of the process namespace, or a reaper; waits for the program
//!        └─ program ── rlimits, Landlock, seccomp, exec
//! ```

mod filter;
mod namespaces;
mod processes;
mod program;
mod system;

use crate::program::{Answer, Files, Isolation, Network, Order, Tree};
use processes::{Child, fork, sweep};
use std::{
    fs::File,
    io::{self, PipeWriter, Read as _, Write as _, pipe},
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::Path,
};

/// What a launcher does: reads an order from the socket at stdin, runs the program, answers on the socket.
///
/// # Errors
/// If stdin is no such socket, or the process has several threads already: what follows a `fork` would
/// not be safe then.
pub fn enter() -> Result<(), String> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        return Err(format!("the launcher of a sandbox has {threads} threads, it must have one"));
    }
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
    let mut socket = UnixStream::from(stdin);
    let order = read_order(&mut socket)
        .map_err(|error| format!("this command is started by the sandbox, not by hand: {error}"))?;
    // Not even the program's end could be told apart from ours if it kept the socket.
    let null = File::open("/dev/null").map_err(|error| error.to_string())?;
    system::become_stdin(null.as_fd()).map_err(|error| error.to_string())?;
    let answer = match serve(&order, &socket) {
        Ok(answer) => answer,
        Err(problem) => Answer::Unable(problem),
    };
    let answer = serde_json::to_vec(&answer).map_err(|error| error.to_string())?;
    // Nobody listens any more: then nobody wants the answer.
    let _ = socket.write_all(&answer);
    Ok(())
}

fn read_order(socket: &mut UnixStream) -> io::Result<Order> {
    let mut length = [0; 8];
    socket.read_exact(&mut length)?;
    let mut order = Vec::new();
    socket.take(u64::from_le_bytes(length)).read_to_end(&mut order)?;
    serde_json::from_slice(&order).map_err(io::Error::from)
}

/// What failed, in words.
fn failed<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}

fn serve(order: &Order, socket: &UnixStream) -> Result<Answer, String> {
    let shut = order.namespaces;
    if shut {
        let protected = namespaces::enter()
            .map_err(failed("no namespaces"))
            .and_then(|()| namespaces::protect(&order.work, order.limits.disk));
        if let Err(problem) = protected {
            return Ok(Answer::NoNamespaces(problem));
        }
    } else {
        processes::become_the_reaper()?;
    }
    let files = if shut {
        Files::Mounts
    } else if program::landlock_is_there() {
        Files::Landlock
    } else {
        Files::Open
    };
    let isolation = Isolation {
        network: if shut { Network::Namespace } else { Network::Seccomp },
        files,
        tree: if shut { Tree::Namespace } else { Tree::Reaper },
    };
    if files == Files::Open && !order.weaker {
        let problem = "it has neither user namespaces for us nor Landlock, so nothing would protect \
                       the user's files";
        return Ok(Answer::Weak(problem.to_owned()));
    }
    write_files(order)?;
    let keeper = keeper(order, shut, files)?;
    let end = keeper.wait(socket, order.limits.wall)?;
    if !shut {
        sweep();
    }
    let (cpu, kib) =
        system::usage_of_children().map_err(failed("cannot read what the program used"))?;
    Ok(Answer::Ran { end: end?, cpu, resident: kib * 1024, isolation })
}

fn write_files(order: &Order) -> Result<(), String> {
    for (name, text) in &order.program.files {
        if Path::new(name).file_name() != Some(name.as_ref()) {
            return Err(format!("`{name}` is not a plain file name"));
        }
        let path = order.work.join(name);
        let written = File::create_new(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(failed(&format!("cannot write {name}")))?;
    }
    Ok(())
}

/// Forks the process that forks the program.
fn keeper(order: &Order, shut: bool, files: Files) -> Result<Child, String> {
    let (read, write) = pipe().map_err(failed("cannot make a pipe"))?;
    let pid = fork(move || keep(order, shut, files, write))?;
    Ok(Child::new(pid, read))
}

/// Waits for the program and says how it ended. What it says of a failure goes the same way.
fn keep(order: &Order, shut: bool, files: Files, mut report: PipeWriter) -> i32 {
    let ended = processes::die_with_the_parent()
        .and_then(|()| if shut { namespaces::own_proc() } else { Ok(()) })
        .and_then(|()| program::start(order, files))
        .and_then(processes::wait_for);
    let line = serde_json::to_string(&ended).unwrap_or_default();
    i32::from(report.write_all(line.as_bytes()).is_err())
}
