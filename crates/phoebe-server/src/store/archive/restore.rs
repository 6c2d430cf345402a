//! Archives brought back into a data directory that this process holds: checked whole beside it first, then moved in.

use std::path::{Path, PathBuf};

use super::format::{ArchiveError, DATABASE, Kind, SESSIONS, at};
use super::read::{Most, move_to, sync_folder, unpack};
use crate::store::data_directory::{create_private_folder, names_in};
use crate::store::snapshots::{Rules, SessionRecord, SnapshotStore};
use crate::store::{DataDirectory, with_suffix};

/// What was brought back.
#[derive(Debug)]
pub struct Restored {
    /// Sessions.
    pub sessions: usize,
    /// When the backup was made, in Unix seconds.
    pub created_at: f64,
}

/// To whom a session shall belong.
#[derive(Debug, Clone)]
pub struct NewOwner {
    /// The user's id.
    pub user_id: String,
    /// First and last name; may be empty.
    pub full_name: String,
}

/// Brings a backup back into `data`, whose database shall be at `database`. What is there is first given to `put_aside`, if
/// `force` is set.
///
/// # Errors
/// Then nothing has changed, unless the last moves failed.
pub fn restore(
    archive: &Path,
    data: &DataDirectory,
    database: &Path,
    force: bool,
    put_aside: impl Fn(&Path) -> Result<(), ArchiveError>,
) -> Result<Restored, ArchiveError> {
    let sessions = data.root().join(SESSIONS);
    let there = what_is_there(&sessions, database)?;
    if let Some(what) = there.first().filter(|_| !force) {
        return Err(ArchiveError::NotEmpty(data.root().display().to_string(), what.1));
    }
    let staging = staging(data)?;
    let manifest = unpack(archive, staging.path(), Most::within(None, data.root())?)?;
    if manifest.kind != Kind::Backup {
        let kind = "one session: use `phoebe-server import-session`";
        return Err(ArchiveError::OtherKind(archive.display().to_string(), kind));
    }
    let (new_sessions, new_database) =
        (staging.path().join(SESSIONS), staging.path().join(DATABASE));
    create_private_folder(&new_sessions).map_err(at(&new_sessions))?;
    let count = names_in(&new_sessions).map_err(at(&new_sessions))?.len();
    for (path, _) in there {
        put_aside(&path)?;
    }
    // An empty folder, or none.
    let _none = std::fs::remove_dir(&sessions);
    move_to(&new_sessions, &sessions)?;
    if new_database.exists() {
        move_to(&new_database, database)?;
    }
    sync_folder(data.root())?;
    Ok(Restored { sessions: count, created_at: manifest.created_at })
}

/// What a restore would replace, and what it is called.
fn what_is_there(
    sessions: &Path,
    database: &Path,
) -> Result<Vec<(PathBuf, &'static str)>, ArchiveError> {
    let mut there = Vec::new();
    if database.exists() || with_suffix(database, "-wal").exists() {
        there.push((database.to_owned(), "a database"));
    }
    if !names_in(sessions).map_err(at(sessions))?.is_empty() {
        there.push((sessions.to_owned(), "sessions"));
    }
    Ok(there)
}

/// Brings one session into `data`, with a new id if its own is taken, and as another's if there is an `owner`. The next server
/// that starts there has it, asleep. It has `most` bytes at the most, where that is set.
///
/// # Errors
/// Then nothing has changed.
pub fn import_session(
    archive: &Path,
    data: &DataDirectory,
    rules: Rules,
    owner: Option<NewOwner>,
    most: Option<u64>,
) -> Result<SessionRecord, ArchiveError> {
    let unusable = |why: String| ArchiveError::Unusable(archive.display().to_string(), why);
    let staging = staging(data)?;
    let manifest = unpack(archive, staging.path(), Most::within(most, data.root())?)?;
    if manifest.kind != Kind::Session {
        let kind = "a backup of a whole server: use `phoebe-server restore`";
        return Err(ArchiveError::OtherKind(archive.display().to_string(), kind));
    }
    let staged = staging.path().join(SESSIONS);
    let ids = names_in(&staged).map_err(at(&staged))?;
    let [old] = &ids[..] else { return Err(unusable("it holds not one session".to_owned())) };
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

/// A folder beside what will be replaced; it is removed with what is left in it.
fn staging(data: &DataDirectory) -> Result<tempfile::TempDir, ArchiveError> {
    tempfile::Builder::new().prefix("restore-").tempdir_in(data.root()).map_err(at(data.root()))
}
