//! The user's cache directory, and folders in it that only the user may enter.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::error::EnvironmentError;

/// `$XDG_CACHE_HOME/phoebe-server`, or `~/.cache/phoebe-server`.
///
/// # Errors
/// Where neither is known.
pub fn cache_directory() -> Result<PathBuf, EnvironmentError> {
    // The XDG specification has relative paths ignored.
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || Some(std::env::home_dir()?.join(".cache")).filter(|path| path.is_absolute());
    let base = named.or_else(home).ok_or(EnvironmentError::NoCacheDirectory)?;
    Ok(base.join("phoebe-server"))
}

/// Makes `folder`, and those above it, for the user alone.
pub(super) fn make_private(folder: &Path) -> Result<(), EnvironmentError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(EnvironmentError::file("created", folder))?;
    if !is_private(folder) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
            .map_err(EnvironmentError::file("made private", folder))?;
    }
    Ok(())
}

/// Whether only the user, who owns it, can write to `path`.
pub(super) fn is_private(path: &Path) -> bool {
    let user = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(path)
        .is_ok_and(|found| found.uid() == user && found.permissions().mode() & 0o022 == 0)
}

/// Removes `folder` and all in it, if it is there.
pub(super) fn remove(folder: &Path) -> Result<(), EnvironmentError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(EnvironmentError::file("removed", folder)(error))
        }
        _ => Ok(()),
    }
}
