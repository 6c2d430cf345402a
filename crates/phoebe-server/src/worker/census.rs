//! Reads from `/proc` the processes of this machine: whose group they are in, since when, and
//! what contains them. It only looks.
//!
//! A worker's processes cannot leave its process group (its system call filter has no call for
//! that), so the group, and not the tree of parents and children, says what belongs to a worker: a
//! parent may be gone, or another one than expected.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The environment variable that holds the instance id of a server's data directory.
pub(super) const INSTANCE_VARIABLE: &str = "PHOEBE_SERVER_INSTANCE";

/// The state of a process, as read from `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessStat {
    pub(super) pid: i32,
    /// The process group: the process id of its leader, which may be gone.
    pub(super) group: i32,
    pub(super) threads: u64,
    /// Processor time that it has used, in clock ticks.
    pub(super) processor_ticks: u64,
    /// Clock ticks between the machine's start and the process's; with the id it names one process
    /// for ever.
    pub(super) started: u64,
}

/// Whose a process is by its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Environment {
    /// It carries our instance id.
    Ours,
    /// It does not.
    Other,
    /// It cannot be read, or there is none: some kernels say so of a process that is about to end.
    Unreadable,
}

impl ProcessStat {
    /// Reads process `pid`; `None` when it is gone.
    pub(super) fn read(pid: i32) -> Option<Self> {
        Self::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Reads the fields of `/proc/PID/stat`, which `proc_pid_stat(5)` numbers from 1.
    fn parse(pid: i32, stat: &str) -> Option<Self> {
        // The name in parentheses may hold anything, spaces and parentheses included: count from
        // its end.
        let after_name = &stat[stat.rfind(')')? + 1..];
        let mut fields = after_name.split_ascii_whitespace();
        let group = fields.nth(2)?.parse().ok()?;
        let user: u64 = fields.nth(8)?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        let threads = fields.nth(4)?.parse().ok()?;
        let started = fields.nth(1)?.parse().ok()?;
        Some(Self { pid, group, threads, processor_ticks: user.saturating_add(system), started })
    }
}

/// All processes.
pub(super) fn processes() -> Vec<ProcessStat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(ProcessStat::read).collect()
}

/// A process group.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) processes: Vec<i32>,
    pub(super) threads: u64,
    /// Processor time that its processes have used, in clock ticks.
    pub(super) processor_ticks: u64,
}

/// All process groups, by their ids.
pub(super) fn groups() -> HashMap<i32, Group> {
    let mut groups: HashMap<i32, Group> = HashMap::new();
    for process in processes() {
        let group = groups.entry(process.group).or_default();
        group.processes.push(process.pid);
        group.threads += process.threads;
        group.processor_ticks = group.processor_ticks.saturating_add(process.processor_ticks);
    }
    groups
}

/// Whether process `pid` carries this instance id.
pub(super) fn environment(pid: i32, instance: &str) -> Environment {
    let expected = format!("{INSTANCE_VARIABLE}={instance}");
    let read = |thread: &Path| fs::read(thread.join("environ")).ok().filter(|it| !it.is_empty());
    match read_any_thread(pid, read) {
        None => Environment::Unreadable,
        Some(text) if text.split(|byte| *byte == 0).any(|one| one == expected.as_bytes()) => {
            Environment::Ours
        }
        Some(_) => Environment::Other,
    }
}

/// The program that process `pid` runs.
pub(super) fn program(pid: i32) -> Option<PathBuf> {
    read_any_thread(pid, |thread| fs::read_link(thread.join("exe")).ok())
}

/// Whether process `pid` is in a sandbox as a worker makes it, which nobody leaves: it may gain no
/// rights, and has a system call filter.
pub(super) fn is_sandboxed(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let has = |name: &str, value: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name));
        found.is_some_and(|found| found.trim() == value)
    };
    has("NoNewPrivs:", "1") && has("Seccomp:", "2")
}

/// What a process's threads share, read from the first that tells: one that has ended tells
/// nothing, and that may be the first.
fn read_any_thread<T>(pid: i32, read: impl Fn(&Path) -> Option<T>) -> Option<T> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    read(&process).or_else(|| {
        let threads = fs::read_dir(process.join("task")).ok()?.flatten();
        threads.map(|thread| thread.path()).find_map(|thread| read(&thread))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_change_the_fields_after_it() {
        let stat = "7 (a) S 1 1 1 (b) R 1 5 6 0 -1 1077936384 1 2 3 4 50 60 7 8 20 0 9 0 12345 1 2";
        let expected =
            ProcessStat { pid: 7, group: 5, threads: 9, processor_ticks: 110, started: 12345 };
        assert_eq!(ProcessStat::parse(7, stat), Some(expected));
        assert_eq!(ProcessStat::parse(7, "7 (a) S 1"), None);
        assert_eq!(ProcessStat::parse(7, ""), None);
    }

    #[test]
    fn reads_this_process_and_returns_none_for_an_unknown_id() {
        let own = std::process::id().cast_signed();
        let stat = ProcessStat::read(own).unwrap();
        assert!(stat.started > 0 && stat.threads > 1);
        assert!(processes().iter().any(|process| process.pid == own));
        let group = groups().remove(&stat.group).unwrap();
        assert!(group.threads >= 2 && group.processes.contains(&own));
        assert_eq!(program(own), fs::read_link("/proc/self/exe").ok());
        assert_eq!(environment(own, "other"), Environment::Other);
        assert!(!is_sandboxed(own));
        assert_eq!(ProcessStat::read(i32::MAX), None);
        assert_eq!(environment(i32::MAX, "other"), Environment::Unreadable);
    }
}
