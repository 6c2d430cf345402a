//! Backup and export: all state of a server, or one session, as an archive file.
//!
//! ```text
//! a tar archive, compressed with gzip
//!   sessions/<session id>/…   the files of each session
//!   sessions.db               the database; in a backup only
//!   manifest.json             the last entry: kind, size and SHA-256 of each file
//! ```
//!
//! A cut or changed archive is rejected before any of it is used. Payloads of snapshots are never
//! interpreted, because they may be code. The data directory's instance id is not included: two
//! servers with one id could kill each other's processes. Templates (`templates/`) are not
//! included, because the server makes them again.

mod collect;
mod format;
mod read;
mod restore;
#[cfg(test)]
mod tests;
mod write;

use std::path::Path;

use super::bounds::Bounds;
use super::data_directory::names_in;
use super::database::Database;
use collect::Collected;
pub use format::{ArchiveError, Kind};
use format::{DATABASE, SESSIONS, at};
pub use restore::{NewOwner, Restored, import_session, restore};
use write::Writer;

/// The result of writing an archive.
#[derive(Debug, Default)]
pub struct Report {
    /// Number of sessions.
    pub sessions: usize,
    /// Size of the archive in bytes.
    pub bytes: u64,
    /// Damaged snapshots; the archive has them as they are.
    pub damaged: Vec<String>,
}

/// Writes all state in `root` and the database to `file`, also while a server uses them. The
/// archive has everything that was acknowledged before.
///
/// # Errors
/// Then no file is created.
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
    // After the sessions, so that every owner is in it.
    let copy = copy_database(database, writer.folder())?;
    writer.add_file(DATABASE, &copy)?;
    finish(writer, Kind::Backup, sessions)
}

/// Writes one session to `file`, also while a server uses it.
///
/// # Errors
/// Then no file is created.
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

/// Returns false if the session has ended.
fn add_session(writer: &mut Writer, root: &Path, id: &str) -> Result<bool, ArchiveError> {
    let folder = root.join(SESSIONS).join(id);
    let Some(Collected { state, history }) = collect::collect(&folder).map_err(at(&folder))? else {
        return Ok(false);
    };
    for (name, content) in state {
        writer.add(&format!("{SESSIONS}/{id}/{name}"), content)?;
    }
    for name in history {
        // A missing file was removed meanwhile.
        if let Some(content) = collect::read_if_there(&folder.join(&name)).map_err(at(&folder))? {
            writer.add(&format!("{SESSIONS}/{id}/{name}"), content)?;
        }
    }
    Ok(true)
}

/// Returns the ids of all sessions, in order.
fn ids(folder: &Path) -> Result<Vec<String>, ArchiveError> {
    let mut ids = names_in(folder).map_err(at(folder))?;
    ids.retain(|id| uuid::Uuid::parse_str(id).is_ok());
    ids.sort();
    Ok(ids)
}

/// Copies the database to a temporary file, which is removed on drop.
fn copy_database(database: &Path, folder: &Path) -> Result<tempfile::TempPath, ArchiveError> {
    let copy = tempfile::Builder::new().prefix(".phoebe-server-database-").tempfile_in(folder);
    let copy = copy.map_err(at(folder))?.into_temp_path();
    Database::copy(database, &copy, Bounds::default())?;
    Ok(copy)
}
