//! The reading connection. It never waits for the writer.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::StoreError;
use super::bounds::Bounds;
use super::database::{Database, FileIdentity};

/// A connection for reading, opened on first use. It opens only the file that the writer has open:
/// with another file at the path it would read the write-ahead log of the old one.
pub(super) struct Reader {
    path: PathBuf,
    bounds: Bounds,
    open: Mutex<Open>,
}

/// The open connection.
pub(super) struct Open {
    /// The file that the writer has open.
    pub(super) file: Option<FileIdentity>,
    database: Option<Database>,
}

impl Reader {
    pub(super) fn new(path: &Path, file: Option<FileIdentity>, bounds: Bounds) -> Self {
        Self { path: path.to_owned(), bounds, open: Mutex::new(Open { file, database: None }) }
    }

    /// Runs `query`. Blocks on the disk.
    pub(super) fn read<T>(
        &self,
        query: &dyn Fn(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut open = self.lock();
        let database = match open.database.take() {
            Some(database) => database,
            None => Database::open_for_reading(&self.path, self.bounds)?,
        };
        if !database.is_in_place() || database.identity() != open.file {
            return Err(self.error("it was deleted or replaced"));
        }
        query(&open.database.insert(database).connection)
            .map_err(|error| StoreError::from_sqlite(&self.path, &error))
    }

    /// Returns the database's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the path still leads to the file that the writer has open.
    pub(super) fn is_in_place(&self) -> bool {
        let file = self.lock().file;
        file.is_some() && FileIdentity::of(&self.path) == file
    }

    /// Closes the connection. No new one is opened while the guard exists.
    pub(super) fn shut(&self) -> MutexGuard<'_, Open> {
        let mut open = self.lock();
        open.database = None;
        open.file = None;
        open
    }

    pub(super) fn error(&self, message: impl Into<String>) -> StoreError {
        StoreError::new(&self.path, message)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
