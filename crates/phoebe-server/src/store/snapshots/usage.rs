//! What a session takes on disk: counted file by file as they are written, so that nobody has to
//! look through folders, and held against what the session and its user may take.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::names::{BASES, CHECKPOINTS, JOURNAL};

/// Bytes that may be taken; 0 for no limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskBounds {
    /// By one session.
    pub session: u64,
    /// By all sessions of a user.
    pub user: u64,
}

/// What one session takes. The session's files count, shared ones too.
#[derive(Debug, Default)]
pub struct DiskUse {
    files: Mutex<HashMap<PathBuf, u64>>,
    bytes: AtomicU64,
    /// What all sessions of its user take.
    user: Option<Arc<AtomicU64>>,
}

/// A bound that is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverBound {
    /// Whose it is: the session's, or that of all sessions of the user.
    pub of_user: bool,
    /// Bytes that are taken.
    pub taken: u64,
    /// The bound in bytes.
    pub bound: u64,
}

impl DiskUse {
    /// Of a session that counts for a user too, if it has one.
    #[must_use]
    pub fn new(user: Option<Arc<AtomicU64>>) -> Self {
        Self { files: Mutex::default(), bytes: AtomicU64::new(0), user }
    }

    /// Bytes that the session takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that all sessions of the user take.
    #[must_use]
    pub fn user_bytes(&self) -> Option<u64> {
        self.user.as_ref().map(|user| user.load(Ordering::Relaxed))
    }

    /// Bytes of one file.
    #[must_use]
    pub fn file(&self, path: &Path) -> u64 {
        self.lock().get(path).copied().unwrap_or(0)
    }

    /// Bytes of the largest snapshot, as the next may be.
    #[must_use]
    pub fn snapshot(&self) -> u64 {
        let is_snapshot = |path: &Path| path.extension().is_some_and(|end| end == "snapshot");
        let files = self.lock();
        let snapshots = files.iter().filter(|(path, _)| is_snapshot(path));
        snapshots.map(|(_, bytes)| *bytes).max().unwrap_or(0)
    }

    /// Bytes from which scripts are made: the journal, and the Bundles that it begins with.
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

    /// Whether `need` more bytes are within the bounds.
    ///
    /// # Errors
    /// The bound that they are beyond.
    pub fn admit(&self, need: u64, bounds: DiskBounds) -> Result<(), OverBound> {
        let user = self.user_bytes().unwrap_or(0);
        for (of_user, taken, bound) in
            [(false, self.bytes(), bounds.session), (true, user, bounds.user)]
        {
            if bound > 0 && taken.saturating_add(need) > bound {
                return Err(OverBound { of_user, taken, bound });
            }
        }
        Ok(())
    }

    /// Counts a file as it is now, or that it is gone.
    pub(super) fn note(&self, path: &Path) {
        let bytes = fs::symlink_metadata(path).map_or(0, |file| file.len());
        let mut files = self.lock();
        let before = match bytes {
            0 => files.remove(path),
            _ => files.insert(path.to_owned(), bytes),
        };
        self.count(before.unwrap_or(0), bytes);
    }

    /// Counts everything in a session's folder anew.
    pub(super) fn measure(&self, folder: &Path) {
        let mut found = HashMap::new();
        for folder in [folder.to_owned(), folder.join(CHECKPOINTS), folder.join(BASES)] {
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

impl Drop for DiskUse {
    /// The session is known no more.
    fn drop(&mut self) {
        self.count(self.bytes(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_is_counted_for_session_and_user() {
        let folder = tempfile::tempdir().unwrap();
        let user = Arc::new(AtomicU64::new(0));
        let (one, other) =
            (DiskUse::new(Some(Arc::clone(&user))), DiskUse::new(Some(Arc::clone(&user))));
        let path = folder.path().join("1.snapshot");
        for length in [10, 30, 20] {
            fs::write(&path, vec![0; length]).unwrap();
            one.note(&path);
        }
        assert_eq!((one.bytes(), one.user_bytes(), one.snapshot()), (20, Some(20), 20));
        other.measure(folder.path());
        assert_eq!((other.bytes(), other.user_bytes()), (20, Some(40)));
        let bounds = DiskBounds { session: 30, user: 50 };
        assert_eq!(one.admit(10, bounds), Ok(()));
        assert_eq!(one.admit(11, bounds).unwrap_err().bound, 30);
        let over = one.admit(11, DiskBounds { session: 0, ..bounds }).unwrap_err();
        assert_eq!(over, OverBound { of_user: true, taken: 40, bound: 50 });
        fs::remove_file(&path).unwrap();
        one.note(&path);
        drop(other);
        assert_eq!((one.bytes(), user.load(Ordering::Relaxed)), (0, 0));
        assert_eq!(one.admit(u64::MAX, DiskBounds::default()), Ok(()));
    }
}
