//! The manifest of an archive, and the errors of reading and writing archives.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::store::StoreError;

/// The folder of all sessions, in the data directory and in an archive.
pub(super) const SESSIONS: &str = "sessions";
/// The name of the database in an archive.
pub(super) const DATABASE: &str = "sessions.db";
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const FORMAT: &str = "phoebe-server archive 1";

/// The kind of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A whole server.
    Backup,
    /// One session.
    Session,
}

/// The manifest of an archive.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: String,
    pub(super) kind: Kind,
    /// Version of the server that wrote it.
    pub(super) server: String,
    /// Unix seconds.
    pub(super) created_at: f64,
    pub(super) files: BTreeMap<String, FileEntry>,
}

/// The size and checksum of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileEntry {
    pub(super) size: u64,
    pub(super) sha256: String,
}

/// Why an archive was not written or not read.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The file exists.
    #[error("{0} exists and is not overwritten; name another file, or use --force")]
    Exists(String),
    /// There is no data.
    #[error(
        "there is no {0}: the settings name another data directory, or no server has used it yet"
    )]
    Nothing(String),
    /// The session does not exist.
    #[error("there is no session {0} in {1}")]
    NoSession(String, String),
    /// The data directory is not empty.
    #[error(
        "the data directory {0} holds {1}; restore into an empty one, or use --force, which moves \
         the existing data aside"
    )]
    NotEmpty(String, &'static str),
    /// The file is not a complete archive.
    #[error("{0} cannot be used: {1}. Nothing has changed")]
    Unusable(String, String),
    /// The archive is of the other kind.
    #[error("{0} is {1}")]
    OtherKind(String, &'static str),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An error of the file system.
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

/// Unix seconds.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> ArchiveError + use<> {
    let path = path.display().to_string();
    move |error| ArchiveError::Io(path.clone(), error)
}

/// Returns the folder of a file; the current one for a bare name.
pub(super) fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}
