//! Namespaces: users, mounts, processes, network, and what System V left.

use super::{failed, system};
use libc::{MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC};
use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
};

/// Who the program is inside; outside it is the user who runs us. Not root, so that exec leaves it no
/// capabilities.
const INSIDE: u32 = 1000;

/// The devices that are left.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Moves this process into namespaces of its own. Its next child is the first process of the new
/// process namespace.
pub(super) fn enter() -> io::Result<()> {
    let (user, group) = system::ids();
    system::unshare(
        libc::CLONE_NEWUSER
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS,
    )?;
    let tell = |path: &str, text: String| {
        File::options().write(true).open(path)?.write_all(text.as_bytes())
    };
    // Without `deny` an unprivileged user may not map groups.
    tell("/proc/self/setgroups", "deny".to_owned())?;
    tell("/proc/self/uid_map", format!("{INSIDE} {user} 1"))?;
    tell("/proc/self/gid_map", format!("{INSIDE} {group} 1"))
}

/// Makes everything read-only but a new tmpfs of `bytes` at `work`, and leaves few devices.
pub(super) fn protect(work: &Path, bytes: u64) -> Result<(), String> {
    let (root, dev, tmpfs) = (Path::new("/"), Path::new("/dev"), Path::new("tmpfs"));
    system::mount(root, root, None, MS_REC | MS_PRIVATE, "")
        .map_err(failed("cannot leave the mounts of the system"))?;
    system::mounts_read_only().map_err(failed("cannot make the mounts read-only"))?;
    // The devices' own tmpfs, covered by the next one as soon as it stands at /dev.
    system::mount(tmpfs, work, Some(c"tmpfs"), MS_NOSUID | MS_NOEXEC, "size=64k,mode=755")
        .map_err(failed("cannot mount a tmpfs for devices"))?;
    for device in DEVICES {
        let (from, to) = (dev.join(device), work.join(device));
        File::create_new(&to).map_err(failed("cannot make a place for a device"))?;
        system::mount(&from, &to, None, MS_BIND, "").map_err(failed("cannot bind a device"))?;
    }
    system::mount(work, dev, None, MS_BIND | MS_REC, "").map_err(failed("cannot replace /dev"))?;
    let options = format!("size={bytes},mode=700");
    system::mount(tmpfs, work, Some(c"tmpfs"), MS_NOSUID | MS_NODEV, &options)
        .map_err(failed("cannot mount a tmpfs to work in"))
}

/// The first process of a process namespace shows it at `/proc`; where it may not (a container hides
/// parts of its own), nothing is there.
pub(super) fn own_proc() -> Result<(), String> {
    let (proc, at) = (Path::new("proc"), Path::new("/proc"));
    let flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if system::mount(proc, at, Some(c"proc"), flags, "").is_ok() {
        return Ok(());
    }
    system::mount(Path::new("tmpfs"), at, Some(c"tmpfs"), flags | MS_RDONLY, "size=4k")
        .map_err(failed("cannot cover /proc"))
}
