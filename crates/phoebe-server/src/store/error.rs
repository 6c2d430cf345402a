//! Errors of the database. Their text names the file and the remedy.

use std::path::Path;

use rusqlite::ErrorCode;
use thiserror::Error;

/// An error of the database.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another account has this address.
    #[error("A user with this email already exists")]
    EmailTaken,
    /// No account has this address.
    #[error("there is no account {0}")]
    NoUser(String),
    /// An error of SQLite.
    #[error("the database {path}: {message}")]
    Database {
        /// The database file.
        path: String,
        /// The error and, where known, the remedy.
        message: String,
    },
}

impl StoreError {
    pub(super) fn new(path: &Path, message: impl Into<String>) -> Self {
        Self::Database { path: path.display().to_string(), message: message.into() }
    }

    pub(super) fn from_sqlite(path: &Path, error: &rusqlite::Error) -> Self {
        Self::new(path, explain(error))
    }
}

/// Returns SQLite's message, with the remedy where there is one.
pub(super) fn explain(error: &rusqlite::Error) -> String {
    let way_out = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            return "this is not an SQLite database. Move the file away, let [database] path name \
                    another one, or run `phoebe-server init-db --force`, which keeps a copy"
                .to_owned();
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            "restore it from a copy, or run `phoebe-server init-db --force`, which keeps this one \
             beside a new one"
        }
        Some(ErrorCode::DiskFull) => "make room on its disk",
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            "the file and its folder must be writable for this user"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds a lock on it; end that program"
        }
        _ => return error.to_string(),
    };
    format!("{error}; {way_out}")
}

/// An error of a query, without the database's path.
#[derive(Debug)]
pub(crate) enum QueryError {
    /// The query was refused.
    Refused(StoreError),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for QueryError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StoreError> for QueryError {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl QueryError {
    /// Adds the path of the database.
    pub(super) fn at(self, path: &Path) -> StoreError {
        match self {
            Self::Refused(error) => error,
            Self::Sqlite(error) => StoreError::from_sqlite(path, &error),
        }
    }
}
