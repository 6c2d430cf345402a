//! Which arguments the calls of a worker may have, where not all of them may be allowed.
//! `docs/threat-model.md` lists the same calls, with the reasons.
//!
//! A filter sees numbers only, not what a pointer leads to: a call whose flags are in memory is not
//! for here.

use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{BackendError, SeccompCondition, SeccompRule};

/// The name of a call, its number, and what is allowed of it: what fits any of the rules.
pub(super) type Conditional = (&'static str, i64, Vec<SeccompRule>);

/// Calls that depend on their arguments.
pub(super) fn rules() -> Result<Vec<Conditional>, BackendError> {
    let mut all = vec![
        // A child is a plain process or a thread, and its own: no namespaces, no siblings.
        ("clone", libc::SYS_clone, vec![rule(&[long_bits(0, NEW_NAMESPACE | SIBLING, 0)?])?]),
        ("mmap", libc::SYS_mmap, mmap()?),
        // A file that never has a name is nowhere to be counted.
        ("openat", libc::SYS_openat, flag_is_off(2, TMPFILE)?),
        // Blocks behind a file's end do not show in its length.
        ("fallocate", libc::SYS_fallocate, any_of(1, &[0])?),
        // TCP Fast Open would connect without `connect`.
        ("sendto", libc::SYS_sendto, flag_is_off(3, libc::MSG_FASTOPEN)?),
        // What ZeroMQ sets of a connection that it has accepted.
        (
            "setsockopt",
            libc::SYS_setsockopt,
            vec![rule(&[is(1, libc::IPPROTO_TCP)?, is(2, libc::TCP_NODELAY)?])?],
        ),
        // Its own limits and niceness only, not those of another process of the same user.
        ("prlimit64", libc::SYS_prlimit64, any_of(0, &[0])?),
        ("setpriority", libc::SYS_setpriority, vec![rule(&[is(0, 0)?, is(1, 0)?])?]),
        // ZeroMQ's threads insist on confirming the policy that every process has. A process may
        // give way to all others; it cannot make others do so.
        (
            "sched_setscheduler",
            libc::SYS_sched_setscheduler,
            vec![
                rule(&[is(1, libc::SCHED_OTHER)?])?,
                rule(&[is(0, 0)?, is(1, libc::SCHED_IDLE)?])?,
            ],
        ),
        // For the programs that follow the first: whoever adds one can only forbid himself more.
        ("seccomp", libc::SYS_seccomp, any_of(0, &[libc::SECCOMP_SET_MODE_FILTER.cast_signed()])?),
        ("prctl", libc::SYS_prctl, prctl()?),
        // Nothing that sends signals (F_SETOWN, F_SETSIG).
        ("fcntl", libc::SYS_fcntl, any_of(1, FCNTL)?),
        // What Python asks of every file; nothing that types into a terminal or sends signals.
        ("ioctl", libc::SYS_ioctl, any_of(1, IOCTL)?),
    ];
    #[cfg(target_arch = "x86_64")]
    all.push(("open", libc::SYS_open, flag_is_off(1, TMPFILE)?));
    all.sort_by_key(|(name, ..)| *name);
    Ok(all)
}

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID` and `NEWNET`.
const NEW_NAMESPACE: u64 = 0x7e02_0000;
/// `CLONE_PARENT`: the zygote would be told of it, and the worker would not.
const SIBLING: u64 = 0x8000;
/// The bit by which `O_TMPFILE` differs from `O_DIRECTORY`.
const TMPFILE: i32 = libc::O_TMPFILE & !libc::O_DIRECTORY;
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

/// `TCGETS`, `TIOCGWINSZ`, `FIONREAD`, `FIONBIO`, `FIONCLEX` and `FIOCLEX`, by their numbers: their
/// type differs between C libraries.
const IOCTL: &[i32] = &[0x5401, 0x5413, 0x541b, 0x5421, 0x5450, 0x5451];

/// Two kinds are not counted by the limit of memory: what is shared and of no file, and what grows
/// like a stack.
fn mmap() -> Result<Vec<SeccompRule>, BackendError> {
    let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    [0, libc::MAP_SHARED, libc::MAP_ANONYMOUS]
        .map(|flags| rule(&[bits(3, shared | libc::MAP_GROWSDOWN, flags)?]))
        .into_iter()
        .collect()
}

/// What a process may set and get of itself. It may take orphans over, and not give them away.
fn prctl() -> Result<Vec<SeccompRule>, BackendError> {
    let mut rules = any_of(0, PRCTL)?;
    rules.push(rule(&[is(0, libc::PR_SET_CHILD_SUBREAPER)?, is(1, 1)?])?);
    Ok(rules)
}

fn any_of(argument: u8, values: &[i32]) -> Result<Vec<SeccompRule>, BackendError> {
    values.iter().map(|value| rule(&[is(argument, *value)?])).collect()
}

fn flag_is_off(argument: u8, flag: i32) -> Result<Vec<SeccompRule>, BackendError> {
    Ok(vec![rule(&[bits(argument, flag, 0)?])?])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_list_the_same_calls() {
        let model = include_str!("../../../../../docs/threat-model.md");
        let (_, after) = model.split_once("| call | allowed |").expect("the table");
        let rows = after.lines().skip(2).map(str::trim_start);
        let table = rows.take_while(|row| row.starts_with('|'));
        let listed: Vec<&str> = table
            .flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
            .collect();
        let mut names: Vec<&str> = rules().unwrap().iter().map(|(name, ..)| *name).collect();
        // A name for each processor.
        if !names.contains(&"open") {
            names.push("open");
        }
        names.sort_unstable();
        let mut sorted = listed.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, names);
    }
}
