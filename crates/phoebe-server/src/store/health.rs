//! Whether the log can be written, said once when it cannot and once when it can again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts what is lost and reports trouble once.
pub(super) struct Health {
    path: PathBuf,
    is_in_trouble: AtomicBool,
    lost: AtomicU64,
}

impl Health {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            is_in_trouble: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        }
    }

    /// Something keeps records from being written. Reported if it is new.
    pub(super) fn trouble(&self, reason: &str) {
        if !self.is_in_trouble.swap(true, Ordering::Relaxed) {
            tracing::error!(
                path = %self.path.display(),
                reason,
                "the session log cannot be written; sessions go on, log records wait and may be lost"
            );
        }
    }

    /// `count` records are given up.
    pub(super) fn lose(&self, count: usize) {
        self.lost.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Records were written. Reported if there was trouble.
    pub(super) fn well(&self) {
        if self.is_in_trouble.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                path = %self.path.display(),
                records_lost_since_start = self.lost(),
                "the session log is written again"
            );
        }
    }

    /// Records lost since the start.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
