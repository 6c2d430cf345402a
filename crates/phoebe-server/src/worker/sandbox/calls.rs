//! Which system calls a worker may make, as seccomp programs. Landlock decides *what* may be opened
//! and signalled; this closes what Landlock leaves open: it knows nothing of UDP, of a file's mode
//! and owner, of other processes' limits.
//!
//! A call that is not in the list fails with EPERM, so that Python says what it was; nothing is
//! killed. New calls of future kernels are not in the list. The programs are compiled here and
//! installed by the worker itself.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompFilter, SeccompRule};

use super::arguments;

const EPERM: u32 = libc::EPERM.cast_unsigned();
const ENOSYS: u32 = libc::ENOSYS.cast_unsigned();

/// The programs for this processor, in the order of installation, in the form in which a worker is
/// told them.
pub(super) fn programs() -> Result<Vec<String>, BackendError> {
    Ok(vec![encode(&only_what_computing_needs()?), encode(&no_hidden_arguments()?)])
}

/// The bytes of an array of `struct sock_filter`.
fn encode(program: &BpfProgram) -> String {
    let bytes = program.iter().flat_map(|instruction| {
        let [code, code_high] = instruction.code.to_ne_bytes();
        let [a, b, c, d] = instruction.k.to_ne_bytes();
        [code, code_high, instruction.jt, instruction.jf, a, b, c, d]
    });
    STANDARD.encode(bytes.collect::<Vec<u8>>())
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, otherwise, matched, arch)?.try_into()
}

fn only_what_computing_needs() -> Result<BpfProgram, BackendError> {
    let mut rules: Rules = ALWAYS.iter().chain(OLDER).map(|call| (*call, Vec::new())).collect();
    rules.extend(arguments::rules()?.into_iter().map(|(_, call, rules)| (call, rules)));
    compile(rules, SeccompAction::Errno(EPERM), SeccompAction::Allow)
}

/// These hide their flags in memory, where no filter sees them. A C library that is told that there
/// is none takes `clone` and `openat`.
fn no_hidden_arguments() -> Result<BpfProgram, BackendError> {
    let rules = [libc::SYS_clone3, libc::SYS_openat2].map(|call| (call, Vec::new())).into();
    compile(rules, SeccompAction::Allow, SeccompAction::Errno(ENOSYS))
}

/// Calls that every processor has. Not in the list, and why it matters: `socket`, `bind`,
/// `connect`, `execve`, `ptrace`, `process_vm_*`, `setsid` and `setpgid` (all of a worker's
/// processes stay in its group, which is what the server ends), `chmod`, `chown`, `utime` and
/// extended attributes (Landlock does not see them), `socketpair` (a datagram pair can send to any
/// Unix socket), `memfd_create`, System V memory, `sendmsg` (it can send descriptors, which count
/// while they are on their way, and nobody receives), `shutdown` (a deaf socket keeps its peer
/// waiting), `inotify`, `unshare`, `mount`, `bpf`, `io_uring`, `userfaultfd`, `perf_event_open`,
/// keys, `personality`, clocks, modules.
const ALWAYS: &[i64] = &[
    // Files: Landlock decides which.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fadvise64,
    libc::SYS_umask,
    libc::SYS_flock,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    // Descriptors and waiting.
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_signalfd4,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_msync,
    libc::SYS_membarrier,
    libc::SYS_get_mempolicy,
    // Processes and threads of its own.
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_futex,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_getitimer,
    libc::SYS_setitimer,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_getcpu,
    // The command socket, which is bound before: no other can be made, bound or connected.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    // Questions.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_capget,
    libc::SYS_getpriority,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getrandom,
    libc::SYS_gettimeofday,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
];

/// Older forms of the same, which only x86-64 has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = &[
    libc::SYS_creat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_getpgrp,
    libc::SYS_getrlimit,
    libc::SYS_setrlimit,
    libc::SYS_alarm,
    libc::SYS_pause,
    libc::SYS_time,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[libc::SYS_getrlimit, libc::SYS_setrlimit];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_are_whole_instructions_and_fit_into_a_packet() {
        let mut length = 0;
        for program in programs().unwrap() {
            let bytes = STANDARD.decode(&program).unwrap();
            assert!(!bytes.is_empty() && bytes.len() % 8 == 0);
            length += program.len();
        }
        assert!(length < phoebe_protocol::packet::MAXIMUM_LENGTH / 2, "{length}");
    }

    #[test]
    fn no_call_is_listed_twice_or_both_with_and_without_conditions() {
        let mut calls: Vec<i64> = ALWAYS.iter().chain(OLDER).copied().collect();
        calls.extend(arguments::rules().unwrap().iter().map(|(_, call, _)| call));
        let all = calls.len();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), all);
    }
}
