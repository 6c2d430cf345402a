//! The database for a moment, for the command line: also while a server works on it, which sees what has changed within
//! seconds.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Transaction, TransactionBehavior};

use super::StoreError;
use super::bounds::Bounds;
use super::database::Database;
use super::fault::Fault;

/// How long a server may be busy writing.
const PATIENCE: Duration = Duration::from_secs(10);

/// The database, opened to look after accounts.
pub(crate) struct Accounts {
    database: Database,
}

impl Accounts {
    /// Opens the database at `path`, or makes it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let bounds = Bounds { busy_timeout: PATIENCE, ..Bounds::default() };
        Ok(Self { database: Database::create(path, bounds)? })
    }

    /// Does `work` whole or not at all.
    ///
    /// # Errors
    /// Those of `work`, after which nothing has changed.
    pub(crate) fn change<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let path = self.database.path().to_owned();
        let connection = &mut self.database.connection;
        connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(Fault::from)
            .and_then(|transaction| {
                let done = work(&transaction)?;
                transaction.commit()?;
                Ok(done)
            })
            .map_err(|fault| fault.at(&path))
    }
}
