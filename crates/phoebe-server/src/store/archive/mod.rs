//! Everything a server keeps, or one session of it, as one file: to be put away, and brought back elsewhere.
//!
//! ```text
//! a tar archive, compressed with gzip
//!   sessions/<session id>/…   what is kept of each session
//!   sessions.db               the database; in a backup only
//!   manifest.json             the last entry: what the archive is, and each file's size and SHA-256
//! ```
//!
//! An archive that was cut or changed is noticed before anything of it is used. Payloads of snapshots are never interpreted: they
//! may be code. The data directory's instance id stays behind: two directories with one id could end each other's processes. What
//! fresh sessions begin with (`templates/`) is made again by itself.

mod collect;
mod read;
mod restore;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::data_directory::names_in;
use super::database::Database;
use super::{Bounds, StoreError};
use collect::Collected;
pub use restore::{NewOwner, Restored, import_session, restore};
use write::Writer;

/// The folder of all sessions, in the data directory and in an archive.
const SESSIONS: &str = "sessions";
/// The database in an archive, whatever its file is called.
const DATABASE: &str = "sessions.db";
const MANIFEST: &str = "manifest.json";
const FORMAT: &str = "phoebe-server archive 1";

/// What an archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A whole server.
    Backup,
    /// One session.
    Session,
}

/// An archive's list of its own content.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: String,
    kind: Kind,
    /// Version of the server that wrote it.
    server: String,
    /// Unix seconds.
    created_at: f64,
    files: BTreeMap<String, Listed>,
}

/// A file in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Listed {
    size: u64,
    sha256: String,
}

/// What was written.
#[derive(Debug, Default)]
pub struct Report {
    /// Sessions in it.
    pub sessions: usize,
    /// Bytes of the archive.
    pub bytes: u64,
    /// Snapshots that are not whole; they are in it as they are.
    pub damaged: Vec<String>,
}

/// Why an archive was not written or not used.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// It would replace a file.
    #[error("{0} exists and stays as it is; name another file, or give --force")]
    Exists(String),
    /// There is nothing to put in.
    #[error(
        "there is no {0}: the settings name another data directory, or no server has used it yet"
    )]
    Nothing(String),
    /// No session has this id.
    #[error("no session {0} is kept in {1}")]
    NoSession(String, String),
    /// A data directory that is not empty.
    #[error(
        "the data directory {0} holds {1}; restore into an empty one, or give --force, which puts aside what is there"
    )]
    NotEmpty(String, &'static str),
    /// The file is no archive, or not all of it.
    #[error("{0} cannot be used: {1}. Nothing has changed")]
    Unusable(String, String),
    /// It is an archive of the other kind.
    #[error("{0} is {1}")]
    OtherKind(String, &'static str),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Anything the file system says.
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

/// Writes everything that is kept in `root` and the database to `file`, also while a server works on them. What was acknowledged
/// before it began is in it.
///
/// # Errors
/// Then there is no new file.
pub fn back_up(
    root: &Path,
    database: &Path,
    file: &Path,
    force: bool,
) -> Result<Report, ArchiveError> {
    if !database.exists() {
        return Err(ArchiveError::Nothing(format!("database {}", database.display())));
    }
    let mut writer = Writer::create(file, force)?;
    let mut sessions = 0;
    for id in ids(&root.join(SESSIONS))? {
        sessions += usize::from(add_session(&mut writer, root, &id)?);
    }
    // After the sessions: so every owner is in it.
    let copy = copy_database(database, writer.folder())?;
    writer.add_file(DATABASE, &copy)?;
    finish(writer, Kind::Backup, sessions)
}

/// Writes one session to `file`, also while a server works on it.
///
/// # Errors
/// Then there is no new file.
pub fn export_session(
    root: &Path,
    id: &str,
    file: &Path,
    force: bool,
) -> Result<Report, ArchiveError> {
    let unknown = || ArchiveError::NoSession(id.to_owned(), root.display().to_string());
    let id = uuid::Uuid::parse_str(id).map_err(|_| unknown())?.to_string();
    let mut writer = Writer::create(file, force)?;
    if !add_session(&mut writer, root, &id)? {
        return Err(unknown());
    }
    finish(writer, Kind::Session, 1)
}

fn finish(mut writer: Writer, kind: Kind, sessions: usize) -> Result<Report, ArchiveError> {
    let damaged = writer.take_damaged();
    let bytes = writer.finish(kind)?;
    Ok(Report { sessions, bytes, damaged })
}

/// False if the session has ended.
fn add_session(writer: &mut Writer, root: &Path, id: &str) -> Result<bool, ArchiveError> {
    let folder = root.join(SESSIONS).join(id);
    let Some(Collected { state, history }) = collect::collect(&folder).map_err(at(&folder))? else {
        return Ok(false);
    };
    for (name, content) in state {
        writer.add(&format!("{SESSIONS}/{id}/{name}"), content)?;
    }
    for name in history {
        // What vanishes meanwhile was let go, or is a checkpoint that was removed.
        if let Some(content) = collect::read_if_there(&folder.join(&name)).map_err(at(&folder))? {
            writer.add(&format!("{SESSIONS}/{id}/{name}"), content)?;
        }
    }
    Ok(true)
}

/// The ids of all sessions, in order.
fn ids(folder: &Path) -> Result<Vec<String>, ArchiveError> {
    let mut ids = names_in(folder).map_err(at(folder))?;
    ids.retain(|id| uuid::Uuid::parse_str(id).is_ok());
    ids.sort();
    Ok(ids)
}

/// The database as it is at this moment, in a file that is removed with what is returned.
fn copy_database(database: &Path, folder: &Path) -> Result<tempfile::TempPath, ArchiveError> {
    let copy = tempfile::Builder::new().prefix(".phoebe-server-database-").tempfile_in(folder);
    let copy = copy.map_err(at(folder))?.into_temp_path();
    Database::copy(database, &copy, Bounds::default())?;
    Ok(copy)
}

/// Unix seconds.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

fn at(path: &Path) -> impl Fn(io::Error) -> ArchiveError + use<> {
    let path = path.display().to_string();
    move |error| ArchiveError::Io(path.clone(), error)
}

/// The folder of a file; the current one where the name alone is given.
fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}
