//! How processes ended. The zygote reports its children, the kernel reports ours; both meet here,
//! by process id.
//!
//! The server adopts what its dead zygotes leave behind (it is a subreaper), so one loop reaps all
//! children. Nothing else in a running server may wait for a child. Whoever reaps a process kills
//! the group that it led first, so that nothing of a worker outlives it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process_group, set_child_subreaper, waitpid,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// The server killed it, because it exceeded a limit.
    Exceeded(Bound),
    /// It ended; the cause is unknown.
    Unknown,
}

/// A bound that the server keeps for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// So many processes and threads.
    Processes(u64),
    /// So many MiB in its scratch directory.
    Scratch(u64),
}

impl fmt::Display for Bound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Processes(most) => write!(formatter, "more than {most} processes and threads"),
            Self::Scratch(most) => {
                write!(formatter, "more than {most} MiB or too many files in its scratch directory")
            }
        }
    }
}

impl Exit {
    /// The names of [`Self::class`].
    pub(crate) const CLASSES: [&str; 6] =
        ["exited", "killed", "crashed", "signalled", "exceeded", "unknown"];

    /// The kind of its cause, for counting.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Code(_) => "exited",
            Self::Signal(signal) => match signal_name(signal) {
                // Also by the kernel, where memory is short.
                Some("SIGKILL") => "killed",
                Some("SIGSEGV" | "SIGABRT" | "SIGBUS" | "SIGILL" | "SIGFPE" | "SIGTRAP") => {
                    "crashed"
                }
                _ => "signalled",
            },
            Self::Exceeded(_) => "exceeded",
            Self::Unknown => "unknown",
        }
    }

    /// The parts in which the zygote reports an end.
    pub(crate) fn from_parts(code: Option<i32>, signal: Option<i32>) -> Self {
        match (code, signal) {
            (_, Some(signal)) => Self::Signal(signal),
            (Some(code), None) => Self::Code(code),
            (None, None) => Self::Unknown,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit code {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(formatter, "signal {name}"),
                None => write!(formatter, "signal {signal}"),
            },
            Self::Exceeded(bound) => write!(formatter, "killed by the server: {bound}"),
            Self::Unknown => formatter.write_str("unknown cause"),
        }
    }
}

/// Names of signals, by their Linux numbers on x86 and ARM.
pub(crate) fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        26 => "SIGVTALRM",
        27 => "SIGPROF",
        29 => "SIGIO",
        30 => "SIGPWR",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// Ends that nobody has asked for yet; the oldest go, for orphans' ends are never asked for.
const UNCLAIMED_MAXIMUM: usize = 4096;

static UNCLAIMED: LazyLock<Mutex<VecDeque<(i32, Exit)>>> = LazyLock::new(Mutex::default);
static REAPING: Mutex<()> = Mutex::new(());
static REPORTED: LazyLock<Notify> = LazyLock::new(Notify::new);

/// Records how process `pid` ended.
pub(crate) fn report(pid: i32, exit: Exit) {
    let mut unclaimed = UNCLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
    if unclaimed.len() == UNCLAIMED_MAXIMUM {
        unclaimed.pop_front();
    }
    unclaimed.push_back((pid, exit));
    drop(unclaimed);
    REPORTED.notify_waiters();
}

/// How process `pid` ended. To be called when it is known to be gone; the caller bounds the wait.
pub(crate) async fn claim(pid: i32) -> Exit {
    loop {
        let reported = REPORTED.notified();
        if let Some(exit) = take(pid) {
            return exit;
        }
        reported.await;
    }
}

fn take(pid: i32) -> Option<Exit> {
    let mut unclaimed = UNCLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
    let index = unclaimed.iter().position(|(candidate, _)| *candidate == pid)?;
    unclaimed.remove(index).map(|(_, exit)| exit)
}

/// Forgets what is known of an earlier process with this id, before a new one is watched.
pub(crate) fn forget(pid: i32) {
    take(pid);
}

/// Makes this process the one that inherits orphans, and reaps every child from now on. Call once,
/// inside the runtime.
///
/// # Errors
/// When the kernel grants no signal handler.
pub fn reap_children() -> io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    let mut child_ended = signal(SignalKind::child())?;
    tokio::spawn(async move {
        loop {
            reap();
            if child_ended.recv().await.is_none() {
                break;
            }
        }
    });
    Ok(())
}

fn reap() {
    let _guard = pause_reaping();
    while let Some(pid) = ended_child() {
        // What it left of its group goes before it does: as long as it is not reaped, its id is
        // nobody else's, nor is the group's. Most led none.
        let _ = kill_process_group(pid, Signal::KILL);
        let Ok(Some((_, status))) = waitpid(Some(pid), WaitOptions::NOHANG) else { return };
        let exit = Exit::from_parts(status.exit_status(), status.terminating_signal());
        report(pid.as_raw_nonzero().get(), exit);
    }
}

/// A child that has ended and is not reaped yet.
#[allow(unsafe_code, reason = "rustix's waitid does not tell which process it found")]
fn ended_child() -> Option<Pid> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the structure is plain numbers, for which zeros are valid; `waitid` writes into it
    // and keeps no pointer. The process id is one of the fields that it fills for a child, and
    // stays zero where there is none.
    let pid = unsafe {
        let mut found: libc::siginfo_t = std::mem::zeroed();
        match libc::waitid(libc::P_ALL, 0, &raw mut found, options) {
            0 => found.si_pid(),
            _ => 0,
        }
    };
    Pid::from_raw(pid)
}

/// Lets no child be reaped as long as it is held: whoever starts one can take hold of it, however
/// soon it ends.
pub(crate) fn pause_reaping() -> MutexGuard<'static, ()> {
    REAPING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn claim_finds_exits_reported_before_and_after_it() {
        report(-11, Exit::Signal(9));
        assert_eq!(claim(-11).await, Exit::Signal(9));
        let asked = tokio::spawn(claim(-12));
        tokio::task::yield_now().await;
        report(-12, Exit::Code(3));
        assert_eq!(asked.await.unwrap(), Exit::Code(3));
    }

    #[test]
    fn every_exit_has_one_of_the_classes() {
        let exits = [
            Exit::Code(3),
            Exit::Signal(9),
            Exit::Signal(11),
            Exit::Signal(15),
            Exit::Exceeded(Bound::Scratch(1)),
            Exit::Unknown,
        ];
        assert_eq!(exits.map(Exit::class), Exit::CLASSES);
        let classes = (0..=64).map(|signal| Exit::Signal(signal).class());
        assert!(classes.into_iter().all(|class| Exit::CLASSES.contains(&class)));
    }

    #[test]
    fn exits_are_described_in_words() {
        assert_eq!(Exit::Signal(11).to_string(), "signal SIGSEGV");
        assert_eq!(Exit::Code(1).to_string(), "exit code 1");
        assert_eq!(Exit::Signal(64).to_string(), "signal 64");
        let exceeded = Exit::Exceeded(Bound::Processes(66)).to_string();
        assert_eq!(exceeded, "killed by the server: more than 66 processes and threads");
    }
}
