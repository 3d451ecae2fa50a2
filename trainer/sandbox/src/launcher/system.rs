//! The system calls that the standard library does not have: the only `unsafe` of this crate.

use std::{
    ffi::{CStr, CString, c_int},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    process,
    ptr::null,
    time::Duration,
};

/// A process.
pub(super) type Pid = libc::pid_t;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Exited(i32),
    Signalled(i32),
}

/// The error of a call that gives -1.
fn done(result: c_int) -> io::Result<c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Runs `child` in a child of this process, which ends with what it gives.
///
/// # Safety
/// This process must have one thread, so that no lock is held and nothing half done in the child.
pub(super) unsafe fn fork(child: impl FnOnce() -> i32) -> io::Result<Pid> {
    // SAFETY: the caller's promise; the child runs `child` and ends.
    match done(unsafe { libc::fork() })? {
        0 => process::exit(child()),
        pid => Ok(pid),
    }
}

/// Waits for one child, or for any with -1.
pub(super) fn wait(child: Pid) -> io::Result<(Pid, Ended)> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a place for the answer.
        match done(unsafe { libc::waitpid(child, &raw mut status, 0) }) {
            Ok(pid) if libc::WIFEXITED(status) => {
                return Ok((pid, Ended::Exited(libc::WEXITSTATUS(status))));
            }
            Ok(pid) if libc::WIFSIGNALED(status) => {
                return Ok((pid, Ended::Signalled(libc::WTERMSIG(status))));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// SIGKILL. Who is gone already needs none.
pub(super) fn kill(pid: Pid) {
    // SAFETY: plain numbers.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Waits until one of two descriptors can be read; which of them can.
pub(super) fn readable(
    descriptors: [BorrowedFd<'_>; 2],
    timeout: Duration,
) -> io::Result<[bool; 2]> {
    let mut waiting = descriptors.map(|descriptor| libc::pollfd {
        fd: descriptor.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    });
    let timeout = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: the pointer and the number are those of the array.
    match done(unsafe { libc::poll(waiting.as_mut_ptr(), 2, timeout) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(waiting.map(|descriptor| descriptor.revents != 0)),
    }
}

/// CPU time and largest resident set, in KiB, of the children that were waited for.
pub(super) fn usage_of_children() -> io::Result<(Duration, u64)> {
    // SAFETY: an rusage is numbers, of which all zeros are some.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a place for the answer.
    done(unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) })?;
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs())
            + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    Ok((time(usage.ru_utime) + time(usage.ru_stime), usage.ru_maxrss.unsigned_abs()))
}

/// One of prctl's switches with a number.
pub(super) fn set(switch: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the switches used here take a number.
    done(unsafe { libc::prctl(switch, libc::c_long::from(value), 0_i64, 0_i64, 0_i64) }).map(drop)
}

/// A session of its own.
pub(super) fn new_session() -> io::Result<()> {
    // SAFETY: it takes nothing.
    done(unsafe { libc::setsid() }).map(drop)
}

/// The soft and the hard limit.
pub(super) fn limit(resource: libc::__rlimit_resource_t, value: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the pointer is to a limit.
    done(unsafe { libc::setrlimit(resource, &raw const limit) }).map(drop)
}

/// Who runs this: user and group.
pub(super) fn ids() -> (u32, u32) {
    // SAFETY: they take nothing and cannot fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Puts a descriptor in the place of stdin.
pub(super) fn become_stdin(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both are descriptors; nobody here owns 0 but the standard library, which never closes it.
    done(unsafe { libc::dup2(descriptor.as_raw_fd(), 0) }).map(drop)
}

/// Namespaces of its own for this process.
pub(super) fn unshare(namespaces: c_int) -> io::Result<()> {
    // SAFETY: flags; none of those used here takes memory away.
    done(unsafe { libc::unshare(namespaces) }).map(drop)
}

/// Mounts `source` at `target`; without a kind for bind mounts and changes of flags.
pub(super) fn mount(
    source: &Path,
    target: &Path,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    options: &str,
) -> io::Result<()> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::from);
    let (source, target) =
        (text(source.as_os_str().as_bytes())?, text(target.as_os_str().as_bytes())?);
    let options = text(options.as_bytes())?;
    let kind = kind.map_or(null(), CStr::as_ptr);
    // SAFETY: C strings that outlive the call, or none where the call allows it.
    let result = unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind, flags, options.as_ptr().cast())
    };
    done(result).map(drop)
}

/// Makes every mount below `/` read-only, and none of their programs set another user.
pub(super) fn mounts_read_only() -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: a C string, and the structure of mount_setattr(2) with its size; libc has no wrapper.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            c"/".as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
