//! Which changes of a session are on disk, and when the rest goes there: decisions without I/O.

use std::time::Duration;

use phoebe_protocol::command::SnapshotFormat;
use tokio::time::Instant;

use crate::config::Durability;

/// A snapshot larger than this is not taken with every command, but at most every
/// [`LARGE_INTERVAL`].
const LARGE_BYTES: usize = 32 << 20;
/// A change of a large Bundle is on disk after this time and the time that writing takes.
const LARGE_INTERVAL: Duration = Duration::from_secs(2);
/// A session that has not changed for this long is idle enough to be saved.
const QUIET: Duration = Duration::from_secs(5);
/// The first pause after a failed write; each further pause is twice as long.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Which changes are on disk. A change is named by its number, which counts from 1.
#[derive(Debug)]
pub(super) struct Saving {
    durability: Durability,
    large: bool,
    last_change: u64,
    unsaved: Option<Unsaved>,
    /// When the portable copy is to be made, if it is older than the Bundle.
    portable_due: Option<Instant>,
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Unsaved {
    /// The last change that is not on disk.
    change: u64,
    due: Instant,
    retry: Duration,
    reason: String,
}

/// The Bundle that the worker was asked for, until it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) format: SnapshotFormat,
    /// The last change that it contains.
    change: u64,
    bytes: usize,
}

impl Saving {
    pub(super) fn new(durability: Durability) -> Self {
        Self {
            durability,
            large: false,
            last_change: 0,
            unsaved: None,
            portable_due: None,
            asked: None,
        }
    }

    /// Whether anything is kept on disk.
    pub(super) fn is_kept(&self) -> bool {
        self.durability != Durability::Off
    }

    /// Whether the worker sends its Bundle with the answer to a change.
    pub(super) fn with_every_change(&self) -> bool {
        self.durability == Durability::Command && !self.large
    }

    /// Why the last change is not on disk, if it is not.
    pub(super) fn problem(&self) -> Option<&str> {
        self.unsaved.as_ref().map(|unsaved| unsaved.reason.as_str())
    }

    /// Whether everything up to this change is on disk.
    pub(super) fn is_saved(&self, change: u64) -> bool {
        self.unsaved.as_ref().is_none_or(|unsaved| unsaved.change < change)
    }

    /// The last change that is not on disk.
    pub(super) fn unsaved_change(&self) -> Option<u64> {
        self.unsaved.as_ref().map(|unsaved| unsaved.change)
    }

    /// Whether the portable copy is older than the Bundle.
    pub(super) fn wants_portable(&self) -> bool {
        self.portable_due.is_some()
    }

    pub(super) fn last_change(&self) -> u64 {
        self.last_change
    }

    /// The Bundle that the worker was asked for and that is not written yet.
    pub(super) fn asked(&self) -> Option<Asked> {
        self.asked
    }

    /// Records a change and returns its number.
    pub(super) fn record_change(&mut self, now: Instant) -> u64 {
        self.last_change += 1;
        self.want_portable(now);
        self.last_change
    }

    /// Records that the portable copy is older than the Bundle, or missing.
    pub(super) fn want_portable(&mut self, now: Instant) {
        self.portable_due = self.is_kept().then(|| now + QUIET);
    }

    /// Records that the change is in the worker's memory only, as the settings want it.
    pub(super) fn postpone(&mut self, now: Instant, change: u64) {
        let (due, reason) = match self.durability {
            Durability::Off => return,
            Durability::Idle => (now + QUIET, "it is saved when the session is idle"),
            Durability::Command => {
                // Further changes do not delay it.
                let due = self.unsaved.as_ref().map_or(now + LARGE_INTERVAL, |before| before.due);
                (due, "the Bundle is very large and is saved every few seconds")
            }
        };
        self.unsaved = Some(Unsaved { change, due, retry: RETRY, reason: reason.to_owned() });
    }

    /// Records that the change could not be written.
    pub(super) fn record_failure(&mut self, now: Instant, change: u64, reason: String) {
        let (before, retry) =
            self.unsaved.as_ref().map_or((0, RETRY), |before| (before.change, before.retry));
        self.unsaved = Some(Unsaved {
            change: change.max(before),
            due: now + retry,
            retry: (retry * 2).min(RETRY_MAX),
            reason,
        });
    }

    /// Records that everything up to this change is on disk, in a snapshot of this many bytes.
    pub(super) fn record_saved(&mut self, change: u64, bytes: usize) {
        self.large = bytes > LARGE_BYTES;
        self.record_step(change);
    }

    /// Records that the Bundle as it was after this change is a state that is on disk.
    pub(super) fn record_step(&mut self, change: u64) {
        if self.unsaved.as_ref().is_some_and(|unsaved| unsaved.change <= change) {
            self.unsaved = None;
        }
    }

    /// The form of the Bundle that the worker is to be asked for next, and when.
    pub(super) fn next(&self) -> Option<(Instant, SnapshotFormat)> {
        if self.asked.is_some() {
            return None;
        }
        let exact = self.unsaved.as_ref().map(|unsaved| (unsaved.due, SnapshotFormat::Pickle));
        let portable = self.portable_due.map(|due| (due, SnapshotFormat::Portable));
        exact.or(portable)
    }

    /// Records that the worker is asked for its Bundle.
    pub(super) fn ask(&mut self, format: SnapshotFormat) {
        self.asked = Some(Asked { format, change: self.last_change, bytes: 0 });
    }

    /// Records the size of the Bundle that the worker gave.
    pub(super) fn record_given(&mut self, bytes: usize) {
        if let Some(asked) = &mut self.asked {
            asked.bytes = bytes;
        }
    }

    /// Records what came of the Bundle that the worker was asked for.
    pub(super) fn finish(&mut self, now: Instant, result: Result<(), String>) {
        let Some(Asked { format, change, bytes }) = self.asked.take() else { return };
        match (format, result) {
            (SnapshotFormat::Pickle, Ok(())) => self.record_saved(change, bytes),
            (SnapshotFormat::Pickle, Err(reason)) => self.record_failure(now, change, reason),
            // A portable copy that cannot be made is not tried again before the next change.
            _ if change == self.last_change => self.portable_due = None,
            _ => {}
        }
    }

    /// Records that the next worker begins with what is on disk.
    pub(super) fn begin_anew(&mut self) {
        self.unsaved = None;
        self.asked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_is_tried_again_with_growing_pauses_until_the_change_is_saved() {
        let now = Instant::now();
        let mut saving = Saving::new(Durability::Command);
        assert!(saving.with_every_change() && saving.next().is_none());
        let first = saving.record_change(now);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            saving.record_failure(now, first, "disk full".to_owned());
            let (due, format) = saving.next().unwrap();
            assert_eq!(format, SnapshotFormat::Pickle);
            pauses.push((due - now).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(saving.problem(), Some("disk full"));
        let second = saving.record_change(now);
        saving.record_failure(now, second, "disk full".to_owned());
        saving.record_saved(first, 1);
        assert!(saving.problem().is_some(), "the second change is not saved");
        saving.record_saved(second, 1);
        assert!(saving.problem().is_none());
        assert_eq!(saving.next().unwrap().1, SnapshotFormat::Portable);
        saving.ask(SnapshotFormat::Portable);
        saving.record_change(now);
        saving.finish(now, Ok(()));
        assert!(saving.wants_portable(), "the copy is older than the third change");
        saving.ask(SnapshotFormat::Portable);
        saving.finish(now, Ok(()));
        assert!(saving.next().is_none());
    }

    #[test]
    fn a_large_bundle_is_saved_within_the_bound_however_often_it_changes() {
        let mut now = Instant::now();
        let mut saving = Saving::new(Durability::Command);
        let change = saving.record_change(now);
        saving.record_saved(change, LARGE_BYTES + 1);
        assert!(!saving.with_every_change());
        let bound = now + LARGE_INTERVAL;
        for _ in 0..10 {
            let change = saving.record_change(now);
            saving.postpone(now, change);
            assert_eq!(saving.next().unwrap(), (bound, SnapshotFormat::Pickle));
            now += Duration::from_millis(150);
        }
        saving.ask(SnapshotFormat::Pickle);
        assert!(saving.next().is_none());
        saving.record_given(LARGE_BYTES);
        saving.finish(now, Ok(()));
        assert!(saving.with_every_change() && saving.problem().is_none());
    }
}
