//! Which bounds of memory and of processes are in force for a session, in words: for the log at the
//! server's start and for `doctor`. It decides from what others found out.

use std::fmt;

use tracing::{info, warn};

use super::cgroup::{self, Place};
use super::sandbox::{self, Counting, most_processes};
use crate::config::{Sandbox, Settings};

/// What bounds the memory of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryBound {
    /// Its cgroup, as a whole, and each of its processes besides.
    Cgroup {
        /// MiB of the whole session.
        session_mb: u64,
        /// MiB of each process.
        process_mb: u64,
    },
    /// A limit of each process.
    Process {
        /// MiB.
        process_mb: u64,
    },
    /// Nothing.
    None,
}

/// What bounds the number of a session's processes and threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessBound {
    /// Its cgroup.
    Cgroup(u64),
    /// The kernel's count for the worker's user namespace.
    Namespace(u64),
    /// The server's regular checks only, for this reason.
    Polling(u64, Counting),
    /// Nothing.
    None,
}

impl MemoryBound {
    /// What is in force with these settings, where cgroups are at `place`.
    #[must_use]
    pub fn of(settings: &Settings, place: Option<&Place>) -> Self {
        let process_mb = settings.resources.worker_memory_mb;
        match cgroup_bounds(settings).memory_mb {
            None => Self::None,
            Some(session_mb) if place.is_some_and(|place| place.memory) => {
                Self::Cgroup { session_mb, process_mb }
            }
            Some(_) => Self::Process { process_mb },
        }
    }
}

impl ProcessBound {
    /// What is in force with these settings, where cgroups are at `place` and the kernel counts so.
    #[must_use]
    pub fn of(settings: &Settings, place: Option<&Place>, counting: Counting) -> Self {
        let most = most_processes();
        match counting {
            _ if place.is_some_and(|place| place.processes) => Self::Cgroup(most),
            _ if settings.worker.sandbox == Sandbox::Off => Self::None,
            Counting::Offered => Self::Namespace(most),
            counting => Self::Polling(most, counting),
        }
    }
}

/// The bounds of a session as a whole that these settings ask for.
#[must_use]
pub fn cgroup_bounds(settings: &Settings) -> cgroup::Bounds {
    cgroup::Bounds::of(settings.resources.worker_memory_mb, most_processes())
}

/// Says in the log what is in force, where cgroups are at `place`.
pub fn announce(settings: &Settings, place: Option<&Place>) {
    let counting = sandbox::counting(&settings.worker);
    let memory = MemoryBound::of(settings, place);
    let processes = ProcessBound::of(settings, place, counting);
    match processes {
        // Asked for, and not to be had.
        ProcessBound::Polling(_, Counting::Refused(_)) => {
            warn!(%memory, %processes, "bounds of a session; the kernel lacks one");
        }
        _ => info!(%memory, %processes, "bounds of a session"),
    }
}

impl fmt::Display for MemoryBound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup { session_mb, process_mb } => write!(
                formatter,
                "{session_mb} MiB a session (cgroup), {process_mb} MiB each of its processes"
            ),
            Self::Process { process_mb } => {
                write!(formatter, "{process_mb} MiB each process of a session (limit of data)")
            }
            Self::None => formatter.write_str("none ([resources] worker_memory_mb = 0)"),
        }
    }
}

impl fmt::Display for ProcessBound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(most) => write!(formatter, "{most} a session (cgroup)"),
            Self::Namespace(most) => {
                write!(formatter, "{most} a session (the kernel counts a user namespace)")
            }
            Self::Polling(most, reason) => {
                write!(formatter, "{most} a session, by the server's checks only: {reason}")
            }
            Self::None => formatter.write_str("none ([worker] sandbox = \"off\")"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_available_bound_is_named() {
        let mut settings = Settings::default();
        let place = |memory, processes| Place { folder: "/".into(), memory, processes };
        let memory = |settings: &Settings, place| MemoryBound::of(settings, place).to_string();
        let [both, only_memory, only_processes] =
            [place(true, true), place(true, false), place(false, true)];
        assert!(memory(&settings, Some(&both)).starts_with("8192 MiB a session (cgr"));
        for place in [Some(&only_processes), None] {
            assert!(memory(&settings, place).starts_with("4096 MiB each process"));
        }
        let processes =
            |settings: &Settings, place, counting| ProcessBound::of(settings, place, counting);
        let most = most_processes();
        let counted = processes(&settings, Some(&both), Counting::Root);
        assert_eq!(counted, ProcessBound::Cgroup(most));
        let counted = processes(&settings, Some(&only_memory), Counting::Offered);
        assert_eq!(counted, ProcessBound::Namespace(most));
        let polling = processes(&settings, None, Counting::Refused(1)).to_string();
        assert!(polling.contains("checks only") && polling.contains("user namespace"), "{polling}");
        settings.worker.sandbox = Sandbox::Off;
        settings.resources.worker_memory_mb = 0;
        assert_eq!(processes(&settings, None, Counting::Offered), ProcessBound::None);
        assert_eq!(MemoryBound::of(&settings, Some(&both)), MemoryBound::None);
    }
}
