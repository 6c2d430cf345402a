//! One process of ours, held so that its id cannot be mistaken for a later process's: by a pidfd
//! and its start time.
//!
//! It signals and waits; it does not know what the process is for.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::census::ProcessStat;
use super::descriptor;
use super::exits::{self, Bound, Exit};

/// How long to wait for the exit status of a process that has ended.
const EXIT_REPORT_TIMEOUT: Duration = Duration::from_millis(500);

/// A process that leads its own process group (or is about to).
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    start_time: u64,
    descriptor: AsyncFd<OwnedFd>,
    exceeded: OnceLock<Bound>,
}

impl Process {
    /// Opens a pidfd of the living process `pid`.
    ///
    /// # Errors
    /// When it is gone already.
    pub(crate) fn watch(pid: i32) -> io::Result<Self> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the process is gone");
        let pid = Pid::from_raw(pid).ok_or_else(gone)?;
        let descriptor = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        let start_time = start_time(pid.as_raw_nonzero().get()).ok_or_else(gone)?;
        let descriptor = descriptor::watch(descriptor, Interest::READABLE)?;
        Ok(Self { pid, start_time, descriptor, exceeded: OnceLock::new() })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Clock ticks between the machine's start and the process's; with the id it names one process
    /// for ever.
    pub(crate) fn start_time(&self) -> u64 {
        self.start_time
    }

    /// Waits until the process has ended and returns how.
    pub(crate) async fn ended(&self) -> Exit {
        // A pidfd is readable from the process's end on; an error would mean the descriptor itself
        // is broken.
        let _ = self.descriptor.readable().await;
        let exit = tokio::time::timeout(EXIT_REPORT_TIMEOUT, exits::claim(self.pid())).await;
        match self.exceeded.get() {
            Some(bound) => Exit::Exceeded(*bound),
            None => exit.unwrap_or(Exit::Unknown),
        }
    }

    /// Records which bound the process exceeded, before it is killed.
    pub(crate) fn set_exceeded(&self, bound: Bound) {
        // The first bound is the reason.
        let _ = self.exceeded.set(bound);
    }

    /// Signals the process and the group it leads. What is gone already is no error.
    pub(crate) fn signal(&self, signal: Signal) {
        // The pidfd cannot hit a stranger. The group can be signalled by number only: so only while
        // the number still belongs to this very process.
        let _ = pidfd_send_signal(&self.descriptor, signal);
        if start_time(self.pid()) == Some(self.start_time) {
            let _ = kill_process_group(self.pid, signal);
        }
    }
}

/// When process `pid` started, in clock ticks since the machine did. `None` when it is gone.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    ProcessStat::read(pid).map(|stat| stat.started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_known_for_living_processes_only() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(start_time(own).unwrap() > 0);
        assert_eq!(start_time(i32::MAX), None);
    }
}
