//! What goes wrong inside a query, before it is known which file it was about.

use std::path::Path;

use super::StoreError;

/// A refusal, or anything SQLite says.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The query's own answer.
    Refused(StoreError),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl Fault {
    /// The error of the database at `path`.
    pub(super) fn at(self, path: &Path) -> StoreError {
        match self {
            Self::Refused(error) => error,
            Self::Sqlite(error) => StoreError::from_sqlite(path, &error),
        }
    }
}
