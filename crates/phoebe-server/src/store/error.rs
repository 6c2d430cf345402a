//! Why the database did not do what was asked, in words that name the file and the way out.

use std::path::Path;

use rusqlite::ErrorCode;
use thiserror::Error;

/// Why the database did not do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another account has this address.
    #[error("A user with this email already exists")]
    EmailTaken,
    /// No account has this address.
    #[error("there is no account {0}")]
    NoUser(String),
    /// Anything SQLite says.
    #[error("the database {path}: {message}")]
    Database {
        /// The database file.
        path: String,
        /// What is wrong and, where it is known, what to do.
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

/// What SQLite says, and the way out where there is one.
pub(super) fn explain(error: &rusqlite::Error) -> String {
    let way_out = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            return "this is not an SQLite database. Move the file away, let [database] path name another one, or run \
                    `phoebe-server init-db --force`, which keeps a copy"
                .to_owned();
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            "restore it from a copy, or run `phoebe-server init-db --force`, which keeps this one beside a new one"
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
