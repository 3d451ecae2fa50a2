//! The last steps before the program: limits, Landlock, seccomp, exec.

use super::{
    failed, filter, processes,
    system::{self, Pid},
};
use crate::program::{Files, Limits, Order};
use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
};
use std::{
    io::{PipeReader, Read as _, Write as _, pipe},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
};

/// What a pipe takes without a reader.
const STDIN_BYTES: usize = 1 << 16;

/// Starts the program as a child of this process.
pub(super) fn start(order: &Order, files: Files) -> Result<Pid, String> {
    let stdin = stdin_of(&order.program.stdin)?;
    // Closed by exec: an end without words is a start.
    let (mut read, mut write) = pipe().map_err(failed("cannot make a pipe"))?;
    let pid = processes::fork(move || {
        let problem = become_it(order, files, stdin);
        let _ = write.write_all(problem.as_bytes());
        127
    })?;
    let mut problem = String::new();
    read.read_to_string(&mut problem).map_err(failed("cannot read from a pipe"))?;
    if problem.is_empty() { Ok(pid) } else { Err(problem) }
}

fn stdin_of(text: &str) -> Result<PipeReader, String> {
    if text.len() > STDIN_BYTES {
        return Err(format!("stdin has {} bytes, at most {STDIN_BYTES} are allowed", text.len()));
    }
    let (read, mut write) = pipe().map_err(failed("cannot make a pipe"))?;
    write.write_all(text.as_bytes()).map_err(failed("cannot fill stdin"))?;
    Ok(read)
}

/// Does not come back but with what went wrong.
fn become_it(order: &Order, files: Files, stdin: PipeReader) -> String {
    let ready = processes::die_with_the_parent()
        .and_then(|()| system::new_session().map_err(failed("cannot start a session")))
        .and_then(|()| std::env::set_current_dir(&order.work).map_err(failed("cannot enter")))
        .and_then(|()| limit(&order.limits))
        .and_then(|()| if files == Files::Landlock { protect(&order.work) } else { Ok(()) })
        .and_then(|()| filter::apply(order.limits.processes.is_some(), files == Files::Mounts));
    if let Err(problem) = ready {
        return problem;
    }
    let program = &order.program;
    let error = Command::new(&program.program)
        .args(&program.args)
        .env_clear()
        .envs(&program.env)
        .env("HOME", &order.work)
        .env("TMPDIR", &order.work)
        .stdin(Stdio::from(stdin))
        .exec();
    format!("cannot start it: {error}")
}

fn limit(limits: &Limits) -> Result<(), String> {
    let mut all = vec![
        (libc::RLIMIT_AS, limits.memory),
        (libc::RLIMIT_CPU, limits.cpu_seconds),
        (libc::RLIMIT_FSIZE, limits.file),
        (libc::RLIMIT_NOFILE, limits.open_files),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_MEMLOCK, 0),
        (libc::RLIMIT_MSGQUEUE, 0),
    ];
    all.extend(limits.processes.map(|count| (libc::RLIMIT_NPROC, count)));
    for (resource, limit) in all {
        system::limit(resource, limit).map_err(failed(&format!("cannot set limit {resource}")))?;
    }
    Ok(())
}

/// Whether the kernel has Landlock and lets us use it.
pub(super) fn landlock_is_there() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
}

/// From now on only files below `work` can be written, and `/dev/null`.
fn protect(work: &Path) -> Result<(), String> {
    let abi = ABI::V5;
    let place = |path: &Path| PathFd::new(path).map_err(failed("cannot open a directory"));
    let (work, null) = (place(work)?, place(Path::new("/dev/null"))?);
    let status = Ruleset::default()
        .handle_access(AccessFs::from_write(abi))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rule(PathBeneath::new(work, AccessFs::from_write(abi))))
        .and_then(|rules| rules.add_rule(PathBeneath::new(null, AccessFs::WriteFile)))
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(failed("cannot restrict files"))?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err("the kernel does not enforce Landlock".to_owned());
    }
    Ok(())
}
