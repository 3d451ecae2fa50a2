//! Running other programs, with errors that say which one failed and how.

use coda_cli::{Exit, Failure, signals::Stop};
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root").to_owned()
}

/// The cargo that runs this program.
///
/// It is not told what the outer cargo says of `xtask`: build scripts that watch such variables (ring's)
/// would run again for every other caller, and all that needs them be compiled once more.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
    command
}

/// The binary of that name beside this one: the same target folder and profile.
pub(crate) fn sibling(name: &str) -> Result<Command, Failure> {
    let own = std::env::current_exe()
        .map_err(|e| Failure::io(format!("cannot find this program's own path: {e}")))?;
    let path = own.with_file_name(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    let mut command = Command::new(path);
    command.current_dir(root());
    Ok(command)
}

/// Runs a program to its end with its output going to stderr: stdout is for results.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    shown(command);
    let status = command
        .stdout(std::io::stderr())
        .status()
        .map_err(|e| Failure::io(format!("cannot start {}: {e}", name(command))))?;
    check(command, status)
}

/// Runs a program and gives what it printed on stdout.
pub(crate) fn capture(command: &mut Command) -> Result<String, Failure> {
    shown(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| Failure::io(format!("cannot start {}: {e}", name(command))))?;
    check(command, output.status)?;
    String::from_utf8(output.stdout)
        .map_err(|_| Failure::io(format!("{} printed something that is not UTF-8", name(command))))
}

fn check(command: &Command, status: ExitStatus) -> Result<(), Failure> {
    if status.success() {
        return Ok(());
    }
    // Children in the foreground get a Ctrl-C too; they save and leave with these codes.
    match status.code() {
        Some(130) => Err(Failure::new(Exit::Interrupted, "stopped; call again to go on")),
        Some(143) => Err(Failure::new(Exit::Terminated, "stopped; call again to go on")),
        _ => Err(Failure::check_failed(format!("{} failed with {status}", line(command)))
            .hint("its own message stands above")),
    }
}

/// Leaves a Ctrl-C to the programs that are running, which save before they leave.
pub(crate) fn leave_signals_to_children() {
    let _ = Stop::install();
}

fn shown(command: &Command) {
    eprintln!("    {}", line(command));
}

fn name(command: &Command) -> String {
    Path::new(command.get_program())
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The command as one could type it, with paths of the repository shown from its root.
fn line(command: &Command) -> String {
    let root = format!("{}/", root().display());
    let word = |word: &OsStr| word.to_string_lossy().replace(&root, "");
    std::iter::once(name(command)).chain(command.get_args().map(word)).collect::<Vec<_>>().join(" ")
}

/// Builds the programs in release. The whole workspace is named, as the tests name it: a choice of
/// packages would choose other features for shared dependencies and compile them once more.
pub(crate) fn build_programs() -> Result<(), Failure> {
    run(cargo().args([
        "build",
        "--release",
        "--locked",
        "--workspace",
        "--exclude",
        "xtask",
        "--bins",
    ]))
}
