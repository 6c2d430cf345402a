//! Opens the SQLite file, and detects when it is moved or deleted.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::bounds::Bounds;
use super::data_directory::create_private_folder;
use super::{StoreError, migrations};

/// At the start another program, such as a backup, may hold a lock for longer.
const BUSY_TIMEOUT_AT_START: Duration = Duration::from_secs(5);

/// An open database with the current schema.
pub(super) struct Database {
    path: PathBuf,
    identity: Option<FileIdentity>,
    /// The `-wal` and `-shm` files.
    companions: Vec<(PathBuf, FileIdentity)>,
    pub(super) connection: Connection,
}

/// The identity of the file at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Database {
    /// Like [`Self::open`], but creates a missing folder.
    pub(super) fn create(path: &Path, bounds: Bounds) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent() {
            create_private_folder(folder).map_err(|error| {
                StoreError::new(path, format!("its folder cannot be created: {error}"))
            })?;
        }
        Self::open(path, bounds)
    }

    /// Opens `path` for writing and migrates it. Creates a missing file for this user only. The
    /// folder must exist: one that was moved away is not recreated.
    pub(super) fn open(path: &Path, bounds: Bounds) -> Result<Self, StoreError> {
        create_file(path)?;
        Self::connect(path).and_then(|mut database| {
            let sqlite = |error: rusqlite::Error| StoreError::from_sqlite(path, &error);
            let connection = &mut database.connection;
            connection.busy_timeout(BUSY_TIMEOUT_AT_START).map_err(sqlite)?;
            // A log row may lack the row of its session, because a lost record must not affect
            // later ones.
            connection.pragma_update(None, "foreign_keys", false).map_err(sqlite)?;
            if let Some(pages) = bounds.max_pages {
                connection.pragma_update(None, "max_page_count", pages).map_err(sqlite)?;
            }
            migrations::check(connection)
                .map_err(|error| StoreError::new(path, error.to_string()))?;
            use_write_ahead_log(connection, path).map_err(sqlite)?;
            migrations::run(connection)
                .map_err(|error| StoreError::new(path, error.to_string()))?;
            connection.busy_timeout(bounds.busy_timeout).map_err(sqlite)?;
            database.companions = companions(path);
            Ok(database)
        })
    }

    /// Opens an existing file for reading.
    pub(super) fn open_for_reading(path: &Path, bounds: Bounds) -> Result<Self, StoreError> {
        let database = Self::connect(path)?;
        database
            .connection
            .busy_timeout(bounds.busy_timeout)
            .and_then(|()| database.connection.pragma_update(None, "query_only", true))
            .map_err(|error| StoreError::from_sqlite(path, &error))?;
        Ok(database)
    }

    /// Writes a consistent copy of the database at `path` to the empty file `copy`, also while the
    /// database is in use.
    pub(super) fn copy(path: &Path, copy: &Path, bounds: Bounds) -> Result<(), StoreError> {
        let sqlite = |error: rusqlite::Error| StoreError::from_sqlite(path, &error);
        let database = Self::connect(path)?;
        database.connection.busy_timeout(bounds.patience).map_err(sqlite)?;
        let name = copy.to_string_lossy();
        database.connection.execute("VACUUM INTO ?1", [name]).map(drop).map_err(sqlite)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the path still leads to the open file. SQLite itself would write to a
    /// deleted file.
    pub(super) fn is_in_place(&self) -> bool {
        match fs::metadata(&self.path) {
            Ok(_) => FileIdentity::of(&self.path) == self.identity,
            Err(error) => error.kind() != ErrorKind::NotFound,
        }
    }

    pub(super) fn identity(&self) -> Option<FileIdentity> {
        self.identity
    }

    /// Closes a database whose file was moved or deleted. Removes the `-wal` and `-shm` files that
    /// SQLite leaves in this case; they would corrupt a new file at the path.
    pub(super) fn abandon(self) {
        let Self { connection, companions, .. } = self;
        // Fails if the file is damaged or deleted; then there is nothing to save.
        let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        drop(connection);
        for (path, identity) in companions {
            if FileIdentity::of(&path) == Some(identity) {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn connect(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)
            .map_err(|error| StoreError::from_sqlite(path, &error))?;
        let identity = FileIdentity::of(path);
        Ok(Self { path: path.to_owned(), identity, companions: Vec::new(), connection })
    }
}

fn companions(path: &Path) -> Vec<(PathBuf, FileIdentity)> {
    // SQLite creates them beside the target of a symbolic link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    ["-wal", "-shm"]
        .iter()
        .map(|suffix| with_suffix(&path, suffix))
        .filter_map(|path| FileIdentity::of(&path).map(|identity| (path, identity)))
        .collect()
}

/// Returns `path` with `suffix` appended to the file's name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn create_file(path: &Path) -> Result<(), StoreError> {
    // An existing file must not be opened here: closing it would release SQLite's locks in this
    // process.
    if FileIdentity::of(path).is_none() {
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| StoreError::new(path, format!("it cannot be created: {error}")))?;
    }
    Ok(())
}

fn use_write_ahead_log(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        tracing::warn!(
            path = %path.display(),
            journal_mode = mode,
            "the file system has no shared memory for SQLite; readers and the writer block \
             each other"
        );
    }
    connection.pragma_update(None, "synchronous", "normal")?;
    // Limits the size of the write-ahead log after a burst.
    connection.pragma_update_and_check(None, "journal_size_limit", 64 << 20, |_| Ok(()))
}
