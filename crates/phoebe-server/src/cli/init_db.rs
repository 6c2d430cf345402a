//! `phoebe-server init-db`: makes a database; one that exists is kept under another name, never
//! destroyed.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use thiserror::Error;

use crate::config::Settings;
use crate::store::{self, DataDirectory, DataDirectoryError, StoreError, with_suffix};

/// How long another program may hold the database before it counts as open there.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why no database was made.
#[derive(Debug, Error)]
pub enum InitDbError {
    /// The user did not want it.
    #[error(
        "the database {path} exists and stays as it is. `init-db --force` puts it aside, \
         as a copy, and makes a new one"
    )]
    Kept {
        /// The database file.
        path: String,
    },
    /// A server works on it.
    #[error(transparent)]
    DataDirectory(#[from] DataDirectoryError),
    /// Some other program has it open.
    #[error("the database {path} is open in another program; close it there first")]
    OpenElsewhere {
        /// The database file.
        path: String,
    },
    /// The old database could not be put aside; it is where it was.
    #[error("the database {path} could not be put aside: {message}")]
    Backup {
        /// The database file.
        path: String,
        /// What went wrong.
        message: String,
    },
    /// The new database could not be made.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes the database that the settings name. If there is one, it is put aside as
/// `NAME.backup-TIME`, after `confirm` (asked with one question) agreed or if `force` is set.
///
/// # Errors
/// See [`InitDbError`]; nothing is lost in any of them.
pub fn run(
    settings: &Settings,
    force: bool,
    confirm: impl FnOnce(&str) -> bool,
) -> Result<(), InitDbError> {
    let path = &settings.database.path;
    let _held = DataDirectory::open(path)?;
    if path.exists() {
        let question = format!(
            "The database {} exists. Put it aside, as a copy, and make a new one?",
            path.display()
        );
        if !force && !confirm(&question) {
            return Err(InitDbError::Kept { path: path.display().to_string() });
        }
        let backup = put_aside(path)?;
        println!("The earlier database is kept as {}", backup.display());
    }
    store::create(path)?;
    println!("Created the database {}", path.display());
    Ok(())
}

/// Asks on the terminal; without one the answer is no.
#[must_use]
pub fn ask_on_terminal(question: &str) -> bool {
    if !io::stdin().is_terminal() {
        return false;
    }
    let mut answer = String::new();
    eprint!("{question} [y/N] ");
    let _ = io::stderr().flush();
    match io::stdin().lock().read_line(&mut answer) {
        Ok(_) => matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"),
        Err(_) => false,
    }
}

/// Renames the database, whatever it is: a copy would need room, and could not be made of a damaged
/// file.
pub(super) fn put_aside(path: &Path) -> Result<PathBuf, InitDbError> {
    let failed =
        |message: String| InitDbError::Backup { path: path.display().to_string(), message };
    fold_in_write_ahead_log(path)?;
    let backup = free_name(path).map_err(|error| failed(error.to_string()))?;
    // A damaged file keeps its log beside it.
    let wal = with_suffix(path, "-wal");
    if wal.exists() {
        fs::rename(&wal, with_suffix(&backup, "-wal"))
            .map_err(|error| failed(error.to_string()))?;
    }
    let _ = fs::remove_file(with_suffix(path, "-shm"));
    fs::rename(path, &backup).map_err(|error| failed(error.to_string()))?;
    Ok(backup)
}

fn fold_in_write_ahead_log(path: &Path) -> Result<(), InitDbError> {
    let fold = |connection: Connection| {
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "locking_mode", "exclusive")?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))
    };
    let is_blocked = Connection::open(path).and_then(fold);
    match is_blocked {
        Ok(false) => Ok(()),
        Ok(true) => Err(InitDbError::OpenElsewhere { path: path.display().to_string() }),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Ok(()),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Err(InitDbError::OpenElsewhere { path: path.display().to_string() })
            }
            _ => Err(InitDbError::Backup {
                path: path.display().to_string(),
                message: error.to_string(),
            }),
        },
    }
}

/// `NAME.backup-20260131T235959Z`, with a number behind it if that is taken.
pub(super) fn free_name(path: &Path) -> rusqlite::Result<PathBuf> {
    let time: String = Connection::open_in_memory()?.query_row(
        "SELECT strftime('%Y%m%dT%H%M%SZ', 'now')",
        [],
        |row| row.get(0),
    )?;
    let first = with_suffix(path, &format!(".backup-{time}"));
    let numbered = (2..).map(|number| with_suffix(&first, &format!("-{number}")));
    // The numbers do not end, so one is free.
    Ok(std::iter::once(first.clone()).chain(numbered).find(|name| !name.exists()).unwrap_or(first))
}
