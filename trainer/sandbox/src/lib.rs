//! A process for programs that nobody has read: what a model wrote.
//!
//! [`Sandbox::run`] starts a *launcher* (this program again, or `coda-sandbox`), which shuts itself in
//! and becomes the program. What holds:
//!
//! | | with user namespaces | without |
//! |---|---|---|
//! | network | an empty network namespace, and `socket` refused by seccomp | `socket` refused by seccomp |
//! | files | every mount read-only but a tmpfs as working directory; `/dev` of five harmless devices; `/proc` of its own or none | Landlock: writing below the working directory only |
//! | tree | a process namespace that dies with its first process | a reaper that kills every descendant |
//! | processes | `fork`, `vfork` and `clone` of a process refused by seccomp | the same |
//! | memory, CPU, file size, open files | rlimits | rlimits |
//! | wall time, output | watched from outside | watched from outside |
//!
//! What does not: a program can *read* what the user can read, its environment being empty and the
//! network closed; the kernel is shared, so a fault in it is a way out; timing and the caches of the
//! processor are visible. Whoever must run hostile code for others puts a virtual machine around this.
//!
//! Where the system gives less than a closed network, protected files and a tree that is killed,
//! [`Sandbox::run`] fails unless [`Sandbox::accept_weaker`] was called, and [`Outcome::isolation`] says
//! what was there. There is no sandbox on other systems than Linux on x86-64, ARM64 and RISC-V.

mod program;
mod run;

#[cfg(target_os = "linux")]
mod launcher;

#[cfg(target_os = "linux")]
pub use launcher::enter;
pub use program::{End, Files, Isolation, Limits, Network, Outcome, Program, Tree};
pub use run::{Sandbox, SandboxError};

/// Where there are no namespaces and no seccomp there is no sandbox.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn enter() -> Result<(), String> {
    Err("there is no sandbox on this system".to_owned())
}
