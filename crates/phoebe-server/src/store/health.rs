//! Logs when the database cannot be written, and when it can again: once each.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts lost records and logs failures once.
pub(super) struct Health {
    path: PathBuf,
    is_failing: AtomicBool,
    lost: AtomicU64,
}

impl Health {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), is_failing: AtomicBool::new(false), lost: AtomicU64::new(0) }
    }

    /// Logs a failure, unless the last one is still being reported.
    pub(super) fn report_failure(&self, reason: &str) {
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            tracing::error!(
                path = %self.path.display(),
                reason,
                "the session log cannot be written; sessions continue, log records may be lost"
            );
        }
    }

    /// Counts `count` dropped records.
    pub(super) fn count_lost(&self, count: usize) {
        self.lost.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Logs the end of a failure.
    pub(super) fn report_recovery(&self) {
        if self.is_failing.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                path = %self.path.display(),
                records_lost_since_start = self.lost(),
                "the session log is written again"
            );
        }
    }

    /// Returns the number of records lost since the start.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
