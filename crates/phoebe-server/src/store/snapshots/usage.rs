//! Disk usage of sessions, counted with each write, and its limits.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::names::{BASES, CHECKPOINTS, JOURNAL, RESULTS};

/// Limits in bytes; 0 for no limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskLimits {
    /// For one session.
    pub session: u64,
    /// For all sessions of a user.
    pub user: u64,
}

/// The disk usage of one session. Files that sessions share count for each.
#[derive(Debug, Default)]
pub struct DiskUsage {
    files: Mutex<HashMap<PathBuf, u64>>,
    bytes: AtomicU64,
    /// The disk usage of all sessions of the user.
    user: Option<Arc<AtomicU64>>,
}

/// A limit that would be exceeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskLimitExceeded {
    /// Whether it is the user's limit, not the session's.
    pub of_user: bool,
    /// Bytes in use.
    pub taken: u64,
    /// The limit in bytes.
    pub bound: u64,
}

impl DiskUsage {
    /// Creates the counter of a session that counts for a user, too.
    #[must_use]
    pub fn new(user: Option<Arc<AtomicU64>>) -> Self {
        Self { files: Mutex::default(), bytes: AtomicU64::new(0), user }
    }

    /// Returns the bytes of the session.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the bytes of all sessions of the user.
    #[must_use]
    pub fn user_bytes(&self) -> Option<u64> {
        self.user.as_ref().map(|user| user.load(Ordering::Relaxed))
    }

    /// Returns the bytes of one file.
    #[must_use]
    pub fn file(&self, path: &Path) -> u64 {
        self.lock().get(path).copied().unwrap_or(0)
    }

    /// Returns the bytes of the largest snapshot, as an estimate of the next.
    #[must_use]
    pub fn snapshot(&self) -> u64 {
        let is_snapshot = |path: &Path| path.extension().is_some_and(|end| end == "snapshot");
        let files = self.lock();
        let snapshots = files.iter().filter(|(path, _)| is_snapshot(path));
        snapshots.map(|(_, bytes)| *bytes).max().unwrap_or(0)
    }

    /// Returns the bytes of the sources of scripts: the journal and the bases.
    #[must_use]
    pub fn script_source(&self) -> u64 {
        let is_source = |path: &Path| {
            path.file_name().is_some_and(|name| name == JOURNAL)
                || path.parent().and_then(Path::file_name).is_some_and(|name| name == BASES)
        };
        let files = self.lock();
        let sources = files.iter().filter(|(path, _)| is_source(path));
        sources.map(|(_, bytes)| *bytes).sum()
    }

    /// Checks whether `need` more bytes are within the limits.
    ///
    /// # Errors
    /// The exceeded limit.
    pub fn admit(&self, need: u64, bounds: DiskLimits) -> Result<(), DiskLimitExceeded> {
        let user = self.user_bytes().unwrap_or(0);
        for (of_user, taken, bound) in
            [(false, self.bytes(), bounds.session), (true, user, bounds.user)]
        {
            if bound > 0 && taken.saturating_add(need) > bound {
                return Err(DiskLimitExceeded { of_user, taken, bound });
            }
        }
        Ok(())
    }

    /// Counts a file's current size, or its removal.
    pub(super) fn note(&self, path: &Path) {
        let bytes = fs::symlink_metadata(path).map_or(0, |file| file.len());
        let mut files = self.lock();
        let before = match bytes {
            0 => files.remove(path),
            _ => files.insert(path.to_owned(), bytes),
        };
        self.count(before.unwrap_or(0), bytes);
    }

    /// Counts all files of a session's folder again.
    pub(super) fn measure(&self, folder: &Path) {
        let mut found = HashMap::new();
        for folder in
            [folder.to_owned(), folder.join(CHECKPOINTS), folder.join(BASES), folder.join(RESULTS)]
        {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            for entry in entries {
                if let Ok(file) = entry.metadata()
                    && file.is_file()
                {
                    found.insert(entry.path(), file.len());
                }
            }
        }
        let mut files = self.lock();
        let before = files.values().sum();
        let now = found.values().sum();
        *files = found;
        self.count(before, now);
    }

    fn count(&self, before: u64, now: u64) {
        for total in [Some(&self.bytes), self.user.as_deref()].into_iter().flatten() {
            total.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, u64>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DiskUsage {
    /// Subtracts the session from its user's total.
    fn drop(&mut self) {
        self.count(self.bytes(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_for_session_and_user() {
        let folder = tempfile::tempdir().unwrap();
        let user = Arc::new(AtomicU64::new(0));
        let (one, other) =
            (DiskUsage::new(Some(Arc::clone(&user))), DiskUsage::new(Some(Arc::clone(&user))));
        let path = folder.path().join("1.snapshot");
        for length in [10, 30, 20] {
            fs::write(&path, vec![0; length]).unwrap();
            one.note(&path);
        }
        assert_eq!((one.bytes(), one.user_bytes(), one.snapshot()), (20, Some(20), 20));
        other.measure(folder.path());
        assert_eq!((other.bytes(), other.user_bytes()), (20, Some(40)));
        let bounds = DiskLimits { session: 30, user: 50 };
        assert_eq!(one.admit(10, bounds), Ok(()));
        assert_eq!(one.admit(11, bounds).unwrap_err().bound, 30);
        let over = one.admit(11, DiskLimits { session: 0, ..bounds }).unwrap_err();
        assert_eq!(over, DiskLimitExceeded { of_user: true, taken: 40, bound: 50 });
        fs::remove_file(&path).unwrap();
        one.note(&path);
        drop(other);
        assert_eq!((one.bytes(), user.load(Ordering::Relaxed)), (0, 0));
        assert_eq!(one.admit(u64::MAX, DiskLimits::default()), Ok(()));
    }
}
