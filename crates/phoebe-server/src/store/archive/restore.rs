//! Restores an archive into a data directory that this process holds: unpacks and checks it in a
//! folder beside, then moves it in.

use std::path::{Path, PathBuf};

use super::format::{ArchiveError, DATABASE, Kind, SESSIONS, at};
use super::read::{SizeLimit, move_to, sync_folder, unpack};
use crate::store::data_directory::{create_private_folder, names_in};
use crate::store::snapshots::{Rules, SessionRecord, SnapshotStore};
use crate::store::{DataDirectory, with_suffix};

/// The result of a restore.
#[derive(Debug)]
pub struct Restored {
    /// Number of sessions.
    pub sessions: usize,
    /// When the backup was made, in Unix seconds.
    pub created_at: f64,
}

/// The new owner of an imported session.
#[derive(Debug, Clone)]
pub struct NewOwner {
    /// The user's id.
    pub user_id: String,
    /// First and last name; may be empty.
    pub full_name: String,
}

/// Restores a backup into `data`, with the database at `database`. With `force`, existing data is
/// first passed to `put_aside`.
///
/// # Errors
/// Then nothing has changed, unless one of the final moves failed.
pub fn restore(
    archive: &Path,
    data: &DataDirectory,
    database: &Path,
    force: bool,
    put_aside: impl Fn(&Path) -> Result<(), ArchiveError>,
) -> Result<Restored, ArchiveError> {
    let sessions = data.root().join(SESSIONS);
    let existing = existing_files(&sessions, database)?;
    if let Some(what) = existing.first().filter(|_| !force) {
        return Err(ArchiveError::NotEmpty(data.root().display().to_string(), what.1));
    }
    let staging = staging(data)?;
    let manifest = unpack(archive, staging.path(), SizeLimit::within(None, data.root())?)?;
    if manifest.kind != Kind::Backup {
        let kind = "one session: use `phoebe-server import-session`";
        return Err(ArchiveError::OtherKind(archive.display().to_string(), kind));
    }
    let (new_sessions, new_database) =
        (staging.path().join(SESSIONS), staging.path().join(DATABASE));
    create_private_folder(&new_sessions).map_err(at(&new_sessions))?;
    let count = names_in(&new_sessions).map_err(at(&new_sessions))?.len();
    for (path, _) in existing {
        put_aside(&path)?;
    }
    // The folder is empty or missing; otherwise the move fails.
    let _ = std::fs::remove_dir(&sessions);
    move_to(&new_sessions, &sessions)?;
    if new_database.exists() {
        move_to(&new_database, database)?;
    }
    sync_folder(data.root())?;
    Ok(Restored { sessions: count, created_at: manifest.created_at })
}

/// Returns the files that a restore would replace, with a name for each.
fn existing_files(
    sessions: &Path,
    database: &Path,
) -> Result<Vec<(PathBuf, &'static str)>, ArchiveError> {
    let mut existing = Vec::new();
    if database.exists() || with_suffix(database, "-wal").exists() {
        existing.push((database.to_owned(), "a database"));
    }
    if !names_in(sessions).map_err(at(sessions))?.is_empty() {
        existing.push((sessions.to_owned(), "sessions"));
    }
    Ok(existing)
}

/// Imports one session into `data`. It gets a new id if its own is taken, and a new `owner` if
/// given. The next server start finds it asleep. It may have at most `limit` bytes.
///
/// # Errors
/// Then nothing has changed.
pub fn import_session(
    archive: &Path,
    data: &DataDirectory,
    rules: Rules,
    owner: Option<NewOwner>,
    limit: Option<u64>,
) -> Result<SessionRecord, ArchiveError> {
    let unusable = |why: String| ArchiveError::Unusable(archive.display().to_string(), why);
    let staging = staging(data)?;
    let manifest = unpack(archive, staging.path(), SizeLimit::within(limit, data.root())?)?;
    if manifest.kind != Kind::Session {
        let kind = "a backup of a whole server: use `phoebe-server restore`";
        return Err(ArchiveError::OtherKind(archive.display().to_string(), kind));
    }
    let staged = staging.path().join(SESSIONS);
    let ids = names_in(&staged).map_err(at(&staged))?;
    let [old] = &ids[..] else {
        return Err(unusable("it does not hold exactly one session".to_owned()));
    };
    let store = SnapshotStore::open(staging.path(), rules).map_err(at(staging.path()))?;
    let mut record = store
        .session(old)
        .record()
        .map_err(|error| unusable(format!("its session cannot be read: {error}")))?;

    let sessions = data.root().join(SESSIONS);
    create_private_folder(&sessions).map_err(at(&sessions))?;
    if sessions.join(old).exists() {
        record.session_id = uuid::Uuid::new_v4().to_string();
        move_to(&staged.join(old), &staged.join(&record.session_id))?;
    }
    if let Some(NewOwner { user_id, full_name }) = owner {
        (record.user_id, record.full_name) = (Some(user_id), Some(full_name));
        (record.first_name, record.last_name, record.email) = (None, None, None);
    }
    let folder = store.session(&record.session_id);
    folder.write_record(&record).map_err(at(folder.path()))?;
    move_to(folder.path(), &sessions.join(&record.session_id))?;
    sync_folder(&sessions)?;
    Ok(record)
}

/// Creates a temporary folder in the data directory.
fn staging(data: &DataDirectory) -> Result<tempfile::TempDir, ArchiveError> {
    tempfile::Builder::new().prefix("restore-").tempdir_in(data.root()).map_err(at(data.root()))
}
