//! The private environment: one folder for each lock file and Python version, made once.
//!
//! A virtual environment holds absolute paths, so it is made where it stays; a marker, written
//! last, says that it is complete. What lacks the marker, or whose interpreter went away, is made
//! anew. A lock file keeps two starts from making it at the same time.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use rustix::io::FdFlags;
use sha2::{Digest as _, Sha256};

use super::error::EnvironmentError;
use super::progress::Progress;
use super::{cache, install, interpreter};

const MARKER: &str = "phoebe-server-complete";

/// The exact versions, with hashes, of PHOEBE and what it needs.
pub(super) const LOCK: &str = include_str!("../../../../worker/requirements.lock");

/// What an environment is made from, so that tests need neither the real cache nor the real `PATH`.
pub(super) struct Surroundings<'a> {
    pub(super) cache: PathBuf,
    pub(super) path: OsString,
    pub(super) lock: &'a str,
}

impl Surroundings<'static> {
    pub(super) fn of_process() -> Result<Self, EnvironmentError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Ok(Self { cache: cache::cache_directory()?, path, lock: LOCK })
    }
}

/// The interpreter of the environment, which is made if it is not there.
pub(super) fn python(
    surroundings: &Surroundings<'_>,
    progress: &Progress,
) -> Result<PathBuf, EnvironmentError> {
    if let Some(python) = existing(surroundings) {
        return Ok(python);
    }
    cache::make_private(&surroundings.cache)?;
    let _guard = guard(surroundings, progress)?;
    // Another start may have made it meanwhile.
    if let Some(python) = existing(surroundings) {
        return Ok(python);
    }
    let base = interpreter::find(&surroundings.path)?;
    let folder = surroundings.cache.join(format!("{}{}", prefix(surroundings), base.version));
    cache::remove(&folder)?;
    cache::make_private(&folder)?;
    let python = folder.join("bin/python");
    install::install(&base, &folder, surroundings.lock, progress)?;
    mark(&folder, &python)?;
    progress.done(&format!("Python environment ready in {}", folder.display()));
    Ok(python)
}

/// The interpreter of a complete environment: that of the newest Python, if there are several.
pub(super) fn existing(surroundings: &Surroundings<'_>) -> Option<PathBuf> {
    let prefix = prefix(surroundings);
    let entries = fs::read_dir(&surroundings.cache).ok()?.flatten();
    let mut folders: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    // 3.9 would sort behind 3.10, but is too old to be there.
    folders.sort();
    folders.into_iter().rev().find(|folder| is_complete(folder)).map(|f| f.join("bin/python"))
}

fn prefix(surroundings: &Surroundings<'_>) -> String {
    let hash = hex::encode(Sha256::digest(surroundings.lock.as_bytes()));
    format!("python-{}-", &hash[..16])
}

/// The marker holds the path of the real interpreter: if the system's `python3` becomes another
/// version, the packages are not seen by it.
fn is_complete(folder: &Path) -> bool {
    let marked = fs::read_to_string(folder.join(MARKER)).unwrap_or_default();
    let real = fs::canonicalize(folder.join("bin/python"));
    cache::is_private(folder) && real.is_ok_and(|real| marked.trim_end() == real.to_string_lossy())
}

fn mark(folder: &Path, python: &Path) -> Result<(), EnvironmentError> {
    let marker = folder.join(MARKER);
    let real = fs::canonicalize(python).map_err(EnvironmentError::file("read", python))?;
    fs::write(&marker, format!("{}\n", real.display()))
        .map_err(EnvironmentError::file("written", &marker))
}

/// Waits until no other start is making the environment. The lock ends with the returned file.
fn guard(surroundings: &Surroundings<'_>, progress: &Progress) -> Result<File, EnvironmentError> {
    let path = surroundings.cache.join("python.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(EnvironmentError::file("opened", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            progress.step(0, 0, "waiting for another start that makes the Python environment");
            file.lock().map_err(EnvironmentError::file("locked", &path))?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(EnvironmentError::file("locked", &path)(error));
        }
    }
    // The programs that are run inherit the lock: if this process is killed, a pip that works on
    // has the next start wait for it.
    rustix::io::fcntl_setfd(&file, FdFlags::empty())
        .map_err(|error| EnvironmentError::file("locked", &path)(error.into()))?;
    Ok(file)
}
