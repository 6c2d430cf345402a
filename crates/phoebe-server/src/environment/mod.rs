//! The Python side's surroundings: an interpreter that has PHOEBE, and the worker package on disk.

use std::path::PathBuf;

use thiserror::Error;

use crate::config::Settings;

/// Why there is no Python environment.
#[derive(Debug, Error)]
pub enum EnvironmentError {
    /// No interpreter is named.
    #[error("set [worker] python to an interpreter that has PHOEBE")]
    NoPython,
}

/// Tells how far the making of the environment is.
#[derive(Debug, Default)]
pub struct Progress {}

impl Progress {
    /// On standard error.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// The interpreter that workers run in.
///
/// # Errors
/// See [`EnvironmentError`].
pub fn python(settings: &Settings, _progress: &Progress) -> Result<PathBuf, EnvironmentError> {
    settings.worker.python.clone().ok_or(EnvironmentError::NoPython)
}

/// The folder that holds the worker package.
///
/// # Errors
/// See [`EnvironmentError`].
pub fn package_directory() -> Result<PathBuf, EnvironmentError> {
    Ok(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../worker")))
}
