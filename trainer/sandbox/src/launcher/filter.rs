//! The system calls that a program may not make.

use super::failed;
use libc::{ENOSYS, EPERM};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use std::collections::BTreeMap;

/// Refused whatever their arguments: sockets and what opens them in other ways; other processes; mounts,
/// namespaces and everything that a user in a namespace of his own is offered of the kernel.
const REFUSED: [libc::c_long; 52] = [
    libc::SYS_socket,
    libc::SYS_io_uring_setup,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_tkill,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_mq_open,
];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Applies the filters to this process and what it becomes. `processes` lets it start some; `alone` means
/// that a process namespace keeps it from all others.
pub(super) fn apply(processes: bool, alone: bool) -> Result<(), String> {
    let mut refused: Rules = REFUSED.into_iter().map(|call| (call, vec![])).collect();
    let mut missing = Rules::new();
    let me = u64::from(std::process::id());
    let other = |argument, ids: &[u64]| {
        let differs = |&id: &u64| {
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, id)
        };
        let differing: Result<Vec<_>, _> = ids.iter().map(differs).collect();
        differing.and_then(SeccompRule::new).map_err(failed("cannot describe a system call"))
    };
    if !(processes && alone) {
        refused.insert(libc::SYS_kill, vec![other(0, &[me])?]);
        refused.insert(libc::SYS_tgkill, vec![other(0, &[me])?]);
        refused.insert(libc::SYS_prlimit64, vec![other(0, &[0, me])?]);
    }
    if !processes {
        let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
        let no_thread =
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(thread), 0);
        let rule = no_thread.and_then(|condition| SeccompRule::new(vec![condition]));
        refused.insert(libc::SYS_clone, vec![rule.map_err(failed("cannot describe clone"))?]);
        #[cfg(target_arch = "x86_64")]
        refused.extend([(libc::SYS_fork, vec![]), (libc::SYS_vfork, vec![])]);
        // Its flags lie in memory, where a filter cannot look. The C library falls back to clone.
        missing.insert(libc::SYS_clone3, vec![]);
    }
    for (rules, errno) in [(refused, EPERM), (missing, ENOSYS)] {
        if !rules.is_empty() {
            install(also_x32(rules), errno)?;
        }
    }
    Ok(())
}

/// The same calls by the numbers of the x32 interface, which some kernels still answer.
fn also_x32(rules: Rules) -> Rules {
    let twice = cfg!(target_arch = "x86_64").then(|| {
        let again = rules.iter().map(|(call, rules)| (call | 0x4000_0000, rules.clone()));
        again.collect::<Rules>()
    });
    rules.into_iter().chain(twice.into_iter().flatten()).collect()
}

fn install(rules: Rules, errno: i32) -> Result<(), String> {
    let arch = std::env::consts::ARCH.try_into().map_err(failed("no filter for this processor"))?;
    let action = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch)
        .map_err(failed("cannot make a filter"))?;
    let program = BpfProgram::try_from(filter).map_err(failed("cannot compile a filter"))?;
    seccompiler::apply_filter(&program).map_err(failed("cannot install a filter"))
}
