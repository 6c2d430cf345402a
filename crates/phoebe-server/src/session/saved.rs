//! What of a session is on disk, and when the rest has to go there: decisions without I/O.

use std::time::Duration;

use phoebe_protocol::command::SnapshotFormat;
use tokio::time::Instant;

use crate::config::Durability;

/// A snapshot larger than this is not taken with every command, but at most every [`LARGE_INTERVAL`].
pub(super) const LARGE_BYTES: usize = 32 << 20;
/// A change of a large Bundle is on disk after this time and the time that writing takes.
const LARGE_INTERVAL: Duration = Duration::from_secs(2);
/// A session that has not changed for so long is idle enough to be written down.
const QUIET: Duration = Duration::from_secs(5);
/// What could not be written is tried again after this time, then after twice that, and so on.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAXIMUM: Duration = Duration::from_secs(30);

/// Which changes are on disk.
pub(super) struct Saved {
    durability: Durability,
    large: bool,
    /// Counts changes.
    changes: u64,
    unsaved: Option<Unsaved>,
    /// When the portable copy shall be made, if it is older than the Bundle.
    portable: Option<Instant>,
    asked: bool,
}

struct Unsaved {
    /// The last change that is not on disk.
    change: u64,
    due: Instant,
    retry: Duration,
    /// Why not.
    reason: String,
}

impl Saved {
    pub(super) fn new(durability: Durability) -> Self {
        Self { durability, large: false, changes: 0, unsaved: None, portable: None, asked: false }
    }

    /// Whether the worker shall send its Bundle with the answer to a change.
    pub(super) fn with_every_change(&self) -> bool {
        self.durability == Durability::Command && !self.large
    }

    /// Why something is not on disk, if something is not.
    pub(super) fn problem(&self) -> Option<&str> {
        self.unsaved.as_ref().map(|unsaved| unsaved.reason.as_str())
    }

    /// Whether a portable copy of the Bundle as it is now is to be made.
    pub(super) fn wants_portable(&self) -> bool {
        self.portable.is_some()
    }

    /// Notes a change and returns its number.
    pub(super) fn changed(&mut self) -> u64 {
        self.changes += 1;
        self.want_portable();
        self.changes
    }

    /// Notes that the portable copy is older than the Bundle, or missing.
    pub(super) fn want_portable(&mut self) {
        self.portable = (self.durability != Durability::Off).then(|| Instant::now() + QUIET);
    }

    /// Notes that the change is in the worker's memory only, as the settings want it.
    pub(super) fn postpone(&mut self, change: u64) {
        let now = Instant::now();
        let (due, reason) = match self.durability {
            Durability::Off => return,
            Durability::Idle => (now + QUIET, "it is saved when the session is idle"),
            Durability::Command => {
                // Not later because of further changes.
                let due = self.unsaved.as_ref().map_or(now + LARGE_INTERVAL, |before| before.due);
                (due, "the Bundle is very large and is saved every few seconds")
            }
        };
        self.unsaved = Some(Unsaved { change, due, retry: RETRY, reason: reason.to_owned() });
    }

    /// Notes that the change could not be written.
    pub(super) fn failed(&mut self, change: u64, reason: String) {
        let retry = self.unsaved.as_ref().map_or(RETRY, |before| before.retry);
        self.unsaved = Some(Unsaved {
            change: change.max(self.unsaved.as_ref().map_or(0, |before| before.change)),
            due: Instant::now() + retry,
            retry: (retry * 2).min(RETRY_MAXIMUM),
            reason,
        });
    }

    /// Notes that everything up to this change is on disk, in a snapshot of so many bytes.
    pub(super) fn saved(&mut self, change: u64, bytes: usize) {
        self.large = bytes > LARGE_BYTES;
        if self.unsaved.as_ref().is_some_and(|unsaved| unsaved.change <= change) {
            self.unsaved = None;
        }
    }

    /// The last change.
    pub(super) fn last_change(&self) -> u64 {
        self.changes
    }

    /// Notes that the portable copy of everything up to this change is on disk, or could not be made.
    pub(super) fn portable_done(&mut self, change: u64) {
        if change == self.changes {
            self.portable = None;
        }
    }

    /// Which form of the Bundle the worker has to be asked for, and when.
    pub(super) fn next(&self) -> Option<(Instant, SnapshotFormat)> {
        if self.asked {
            return None;
        }
        let exact = self.unsaved.as_ref().map(|unsaved| (unsaved.due, SnapshotFormat::Pickle));
        let portable = self.portable.map(|due| (due, SnapshotFormat::Portable));
        exact.or(portable)
    }

    /// Notes that the worker was asked.
    pub(super) fn asked(&mut self) {
        self.asked = true;
    }

    /// Notes that the worker answered, or never will.
    pub(super) fn answered(&mut self) {
        self.asked = false;
    }

    /// Notes that a worker begins with what is on disk.
    pub(super) fn begin_anew(&mut self) {
        self.unsaved = None;
        self.asked = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_tried_again_later_and_later_until_the_change_is_saved() {
        let mut saved = Saved::new(Durability::Command);
        assert!(saved.with_every_change() && saved.next().is_none());
        let first = saved.changed();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            saved.failed(first, "disk full".to_owned());
            let (due, format) = saved.next().unwrap();
            assert_eq!(format, SnapshotFormat::Pickle);
            pauses.push((due - Instant::now()).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(saved.problem(), Some("disk full"));
        let second = saved.changed();
        saved.failed(second, "disk full".to_owned());
        saved.saved(first, 1);
        assert!(saved.problem().is_some(), "the second change is not saved");
        saved.saved(second, 1);
        assert!(saved.problem().is_none());
        assert_eq!(saved.next().unwrap().1, SnapshotFormat::Portable);
        saved.portable_done(first);
        assert!(saved.wants_portable());
        saved.portable_done(second);
        assert!(saved.next().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_bundle_is_saved_within_the_bound_however_often_it_changes() {
        let mut saved = Saved::new(Durability::Command);
        let change = saved.changed();
        saved.saved(change, LARGE_BYTES + 1);
        assert!(!saved.with_every_change());
        let bound = Instant::now() + LARGE_INTERVAL;
        for _ in 0..10 {
            let change = saved.changed();
            saved.postpone(change);
            assert_eq!(saved.next().unwrap(), (bound, SnapshotFormat::Pickle));
            tokio::time::advance(Duration::from_millis(150)).await;
        }
        saved.asked();
        assert!(saved.next().is_none());
        saved.answered();
        saved.saved(saved.last_change(), LARGE_BYTES);
        assert!(saved.with_every_change() && saved.problem().is_none());
    }
}
