//! Which system calls a worker may make, as seccomp programs. Landlock decides *what* may be opened and signalled; this closes
//! what Landlock leaves open: it knows nothing of UDP, of a file's mode and owner, of other processes' limits.
//!
//! A call that is not in the list fails with EPERM, so that Python says what it was; nothing is killed. New calls of future kernels
//! are not in the list. The programs are compiled here and installed by the worker itself.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule,
};

const EPERM: u32 = libc::EPERM.cast_unsigned();
const ENOSYS: u32 = libc::ENOSYS.cast_unsigned();

/// The programs for this processor, in the order of installation, in the form in which a worker is told them.
pub(super) fn programs() -> Result<Vec<String>, BackendError> {
    Ok(vec![encode(&only_what_computing_needs()?), encode(&no_clone3()?)])
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
    rules.extend(with_conditions()?);
    compile(rules, SeccompAction::Errno(EPERM), SeccompAction::Allow)
}

/// `clone3` hides its flags in memory, where no filter sees them. A C library that is told that there is none takes `clone`.
fn no_clone3() -> Result<BpfProgram, BackendError> {
    let rules = [(libc::SYS_clone3, Vec::new())].into();
    compile(rules, SeccompAction::Allow, SeccompAction::Errno(ENOSYS))
}

/// Calls that depend on their arguments. A call with several rules is allowed by any of them.
fn with_conditions() -> Result<Rules, BackendError> {
    let any_of = |argument, values: &[i32]| -> Result<Vec<SeccompRule>, BackendError> {
        values.iter().map(|value| rule(&[is(argument, *value)?])).collect()
    };
    let flag_is_off = |argument, flag: i32| rule(&[bits(argument, flag, 0)?]);
    let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    Ok([
        // A child is a plain process or a thread, and its own: no namespaces, no siblings.
        (libc::SYS_clone, vec![rule(&[long_bits(0, NEW_NAMESPACE | SIBLING, 0)?])?]),
        // TCP Fast Open would connect without `connect`.
        (libc::SYS_sendto, vec![flag_is_off(3, libc::MSG_FASTOPEN)?]),
        (libc::SYS_sendmsg, vec![flag_is_off(2, libc::MSG_FASTOPEN)?]),
        // Memory that is shared and of no file is not counted by the limit of memory.
        (
            libc::SYS_mmap,
            vec![
                rule(&[bits(3, shared, 0)?])?,
                rule(&[bits(3, shared, libc::MAP_SHARED)?])?,
                rule(&[bits(3, shared, libc::MAP_ANONYMOUS)?])?,
            ],
        ),
        // Its own limits and niceness only, not those of another process of the same user.
        (libc::SYS_prlimit64, any_of(0, &[0])?),
        (libc::SYS_setpriority, vec![rule(&[is(0, 0)?, is(1, 0)?])?]),
        // ZeroMQ's threads insist on confirming the policy that every process has; no other can be set, for nobody.
        (libc::SYS_sched_setscheduler, any_of(1, &[libc::SCHED_OTHER])?),
        // For the programs that follow the first: whoever adds one can only forbid himself more.
        (libc::SYS_seccomp, any_of(0, &[libc::SECCOMP_SET_MODE_FILTER.cast_signed()])?),
        (libc::SYS_prctl, prctl()?),
        // Nothing that sends signals (F_SETOWN, F_SETSIG).
        (libc::SYS_fcntl, any_of(1, FCNTL)?),
        // What Python asks of every file; nothing that types into a terminal or sends signals.
        (libc::SYS_ioctl, any_of(1, IOCTL)?),
    ]
    .into())
}

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID` and `NEWNET`.
const NEW_NAMESPACE: u64 = 0x7e02_0000;
/// `CLONE_PARENT`: the zygote would be told of it, and the worker would not.
const SIBLING: u64 = 0x8000;
/// `PR_SET_VMA`, with which the C library names its memory.
const PR_SET_VMA: i32 = 0x5356_4d41;

const PRCTL: &[i32] = &[
    libc::PR_SET_PDEATHSIG,
    libc::PR_GET_PDEATHSIG,
    libc::PR_GET_DUMPABLE,
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_GET_CHILD_SUBREAPER,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_GET_SECCOMP,
    libc::PR_CAPBSET_READ,
    PR_SET_VMA,
];

const FCNTL: &[i32] = &[
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_GETLK,
    libc::F_SETLK,
    libc::F_SETLKW,
    libc::F_OFD_GETLK,
    libc::F_OFD_SETLK,
    libc::F_OFD_SETLKW,
    libc::F_GETPIPE_SZ,
    libc::F_SETPIPE_SZ,
];

/// `TCGETS`, `TIOCGWINSZ`, `FIONREAD`, `FIONBIO`, `FIONCLEX` and `FIOCLEX`, by their numbers: their type differs between C libraries.
const IOCTL: &[i32] = &[0x5401, 0x5413, 0x541b, 0x5421, 0x5450, 0x5451];

/// What a process may set and get of itself. It may take orphans over, and not give them away.
fn prctl() -> Result<Vec<SeccompRule>, BackendError> {
    let mut rules = vec![rule(&[is(0, libc::PR_SET_CHILD_SUBREAPER)?, is(1, 1)?])?];
    for option in PRCTL {
        rules.push(rule(&[is(0, *option)?])?);
    }
    Ok(rules)
}

fn rule(conditions: &[SeccompCondition]) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.to_vec())
}

fn is(argument: u8, value: i32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, Dword, Eq, u64::from(value.cast_unsigned()))
}

fn bits(argument: u8, mask: i32, value: i32) -> Result<SeccompCondition, BackendError> {
    let (mask, value) = (u64::from(mask.cast_unsigned()), u64::from(value.cast_unsigned()));
    SeccompCondition::new(argument, Dword, MaskedEq(mask), value)
}

fn long_bits(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, Qword, MaskedEq(mask), value)
}

/// Calls that every processor has. Not in the list, and why it matters: `socket`, `bind`, `connect`, `execve`, `ptrace`, `process_vm_*`, `setsid` and
/// `setpgid` (all of a worker's processes stay in its group, which is what the server ends), `chmod`, `chown`, `utime` and extended
/// attributes (Landlock does not see them), `socketpair` (a datagram pair can send to any Unix socket), `memfd_create`, System V
/// memory, `inotify`, `unshare`, `mount`, `bpf`, `io_uring`, `userfaultfd`, `perf_event_open`, keys, `personality`, clocks, modules.
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
    libc::SYS_openat,
    libc::SYS_openat2,
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
    libc::SYS_fallocate,
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
    libc::SYS_setsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
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
    libc::SYS_open,
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
        calls.extend(with_conditions().unwrap().keys());
        let all = calls.len();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), all);
    }
}
