//! The bounds that no kernel keeps for everybody: how many processes one worker has, and how much
//! its scratch directory holds.
//!
//! The kernel counts processes by user, and root's not at all; a folder without a quota has no
//! bound. So the server looks: at two numbers of the whole machine four times a second, and at each
//! worker where one of them jumped, or a few seconds have passed. A worker that exceeds a limit is
//! killed with all its processes, which cannot leave its process group.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::deleted_files;
use super::limits::{SCRATCH_MB, most_processes};
use crate::worker::census::{self, Group};
use crate::worker::exits::Bound;
use crate::worker::process::Process;

const MACHINE_CHECK_INTERVAL: Duration = Duration::from_millis(250);
const WORKER_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// A look is due when the machine has so many threads more than at the last one.
const THREADS_JUMP: u64 = 32;
/// A look is due when the disk has so many bytes less than at the last one.
const SPACE_DROP: u64 = 32 * 1024 * 1024;
/// Names in a scratch directory are not for nothing either.
const FILES_MAXIMUM: u64 = 10_000;

const MEBIBYTE: u64 = 1024 * 1024;

/// The workers that are monitored.
#[derive(Debug, Clone, Default)]
pub(crate) struct UsageMonitor {
    workers: Arc<Mutex<Vec<MonitoredWorker>>>,
}

#[derive(Debug, Clone)]
struct MonitoredWorker {
    process: Weak<Process>,
    session: String,
    scratch: PathBuf,
    /// The processor time that its processes had used at the last check of its disk.
    processor_ticks: Arc<AtomicU64>,
}

impl UsageMonitor {
    /// Begins to look, until `closing`.
    pub(crate) fn start(closing: CancellationToken) -> Self {
        let monitor = Self::default();
        let work = monitor.clone();
        tokio::spawn(async move {
            closing.run_until_cancelled(work.run()).await;
        });
        monitor
    }

    /// Looks after a worker from now on, as long as somebody holds it.
    pub(crate) fn add(&self, process: &Arc<Process>, session: &str, scratch: &Path) {
        let worker = MonitoredWorker {
            process: Arc::downgrade(process),
            session: session.to_owned(),
            scratch: scratch.to_owned(),
            processor_ticks: Arc::default(),
        };
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
    }

    async fn run(self) {
        let mut ticks = interval(MACHINE_CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = None;
        loop {
            ticks.tick().await;
            let monitor = self.clone();
            let checked = tokio::task::spawn_blocking(move || monitor.check_all(last)).await;
            last = checked.unwrap_or(last);
        }
    }

    /// Looks at all workers where that is due. Returns what the machine was like at the last look.
    fn check_all(&self, last: Option<Machine>) -> Option<Machine> {
        let workers = {
            let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            workers.retain(|worker| worker.process.strong_count() > 0);
            workers.clone()
        };
        let now = Machine::measure(&workers.first()?.scratch);
        if last.is_some_and(|last| !now.needs_check_since(&last)) {
            return last;
        }
        let groups = census::groups();
        let disk_filled = last.is_none_or(|last| now.filled_disk_since(&last));
        for worker in workers {
            worker.check(&groups, disk_filled);
        }
        Some(now)
    }
}

impl MonitoredWorker {
    /// Looks at it, where all processes are in these groups, and somebody may have taken much of
    /// the disk.
    fn check(&self, groups: &HashMap<i32, Group>, disk_filled: bool) {
        let Some(process) = self.process.upgrade() else { return };
        let most = most_processes();
        let Some(group) = groups.get(&process.pid()) else { return };
        let bound = if group.threads > most {
            Bound::Processes(most)
        } else if self.exceeds_scratch_limit(group, disk_filled) {
            Bound::Scratch(SCRATCH_MB)
        } else {
            return;
        };
        warn!(session = self.session, %bound, "a worker exceeds a limit; the server kills it");
        process.set_exceeded(bound);
        process.signal(Signal::KILL);
    }

    /// Whether it takes more of the disk than it may. A worker that has used no processor since the
    /// last look has taken little: `fallocate` takes much in less than a clock tick, but then the
    /// disk has lost that.
    fn exceeds_scratch_limit(&self, group: &Group, disk_filled: bool) -> bool {
        if self.processor_ticks.swap(group.processor_ticks, Ordering::Relaxed)
            == group.processor_ticks
            && !disk_filled
        {
            return false;
        }
        let most = SCRATCH_MB * MEBIBYTE;
        named_bytes(&self.scratch).is_none_or(|named| {
            named.saturating_add(deleted_files::bytes(&group.processes, &self.scratch, most)) > most
        })
    }
}

/// What changes when any worker takes much.
#[derive(Debug, Clone, Copy)]
struct Machine {
    at: Instant,
    threads: u64,
    space: u64,
}

impl Machine {
    fn measure(folder: &Path) -> Self {
        let space = rustix::fs::statvfs(folder).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
        Self { at: Instant::now(), threads: threads().unwrap_or(0), space }
    }

    fn needs_check_since(&self, last: &Self) -> bool {
        self.at.duration_since(last.at) >= WORKER_CHECK_INTERVAL
            || self.threads > last.threads + THREADS_JUMP
            || self.filled_disk_since(last)
    }

    fn filled_disk_since(&self, last: &Self) -> bool {
        self.space + SPACE_DROP < last.space
    }
}

/// All threads of the machine (`proc_loadavg(5)`).
fn threads() -> Option<u64> {
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    load.split_ascii_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

/// The bytes on disk of the files in a scratch directory, which has no folders in it; `None` where
/// they are too many files.
fn named_bytes(scratch: &Path) -> Option<u64> {
    let (mut files, mut bytes) = (0, 0_u64);
    for entry in fs::read_dir(scratch).into_iter().flatten().flatten() {
        files += 1;
        if files > FILES_MAXIMUM {
            return None;
        }
        bytes =
            bytes.saturating_add(entry.metadata().map_or(0, |file| deleted_files::on_disk(&file)));
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FallocateFlags, fallocate};

    use super::*;

    #[test]
    fn counts_blocks_on_disk_not_file_lengths() {
        let scratch = tempfile::tempdir().unwrap();
        let create = |name| fs::File::create(scratch.path().join(name)).unwrap();
        create("sparse").set_len(1 << 30).unwrap();
        assert!(named_bytes(scratch.path()).unwrap() < 1 << 20);
        fallocate(create("full"), FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
        assert!(named_bytes(scratch.path()).unwrap() >= 1 << 20);
    }

    #[test]
    fn a_check_is_due_after_a_jump_or_an_interval() {
        let last = Machine { at: Instant::now(), threads: 100, space: 1 << 40 };
        assert!(!last.needs_check_since(&last));
        assert!(Machine { threads: 200, ..last }.needs_check_since(&last));
        let filled = Machine { space: 1 << 39, ..last };
        assert!(filled.needs_check_since(&last) && filled.filled_disk_since(&last));
        assert!(!last.filled_disk_since(&last));
        assert!(Machine { at: last.at + WORKER_CHECK_INTERVAL, ..last }.needs_check_since(&last));
        assert!(threads().unwrap() > 1);
    }
}
