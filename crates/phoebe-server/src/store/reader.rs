//! The connection for reading: it never waits for the writer.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::database::{Database, FileIdentity};
use super::{Bounds, StoreError};

/// One connection that reads, opened when it is first needed.
pub(super) struct Reader {
    path: PathBuf,
    bounds: Bounds,
    database: Mutex<Option<Database>>,
}

impl Reader {
    pub(super) fn new(path: &Path, bounds: Bounds) -> Self {
        Self { path: path.to_owned(), bounds, database: Mutex::new(None) }
    }

    /// Runs `query`. Blocks on the disk.
    pub(super) fn read<T>(
        &self,
        query: &dyn Fn(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut open = self.lock();
        // The connection of a deleted file would go on answering from it.
        let database = match open.take() {
            Some(database) if database.is_in_place() => database,
            _ => Database::open_for_reading(&self.path, self.bounds)?,
        };
        query(&open.insert(database).connection).map_err(|error| self.sqlite_error(&error))
    }

    /// Whether there is a file to read.
    pub(super) fn is_in_place(&self) -> bool {
        FileIdentity::of(&self.path).is_some()
    }

    /// Closes the connection and keeps it from being opened as long as the guard lives.
    pub(super) fn shut(&self) -> MutexGuard<'_, Option<Database>> {
        let mut open = self.lock();
        *open = None;
        open
    }

    pub(super) fn error(&self, message: impl Into<String>) -> StoreError {
        StoreError::new(&self.path, message)
    }

    fn sqlite_error(&self, error: &rusqlite::Error) -> StoreError {
        StoreError::from_sqlite(&self.path, error)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
