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
