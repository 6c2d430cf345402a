//! Opens the database for one command of the command line. A server may be running; it sees the
//! changes within seconds.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Transaction, TransactionBehavior};

use super::StoreError;
use super::bounds::Bounds;
use super::database::Database;
use super::error::QueryError;

/// How long to wait while a server writes.
const PATIENCE: Duration = Duration::from_secs(10);

/// The database, opened to manage accounts.
pub(crate) struct Accounts {
    database: Database,
}

impl Accounts {
    /// Opens the database at `path`, or creates it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let bounds = Bounds { busy_timeout: PATIENCE, ..Bounds::default() };
        Ok(Self { database: Database::create(path, bounds)? })
    }

    /// Runs `work` in one transaction.
    ///
    /// # Errors
    /// Those of `work`. Then nothing has changed.
    pub(crate) fn change<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, QueryError>,
    ) -> Result<T, StoreError> {
        let path = self.database.path().to_owned();
        let connection = &mut self.database.connection;
        connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(QueryError::from)
            .and_then(|transaction| {
                let done = work(&transaction)?;
                transaction.commit()?;
                Ok(done)
            })
            .map_err(|error| error.at(&path))
    }
}
