//! The Python side's surroundings: an interpreter that has PHOEBE ([`python`]), and the worker
//! package on disk ([`package_directory`]). It starts no worker and imports PHOEBE only when it has
//! just installed it.

mod cache;
mod command;
mod error;
mod install;
mod interpreter;
mod named;
mod package;
mod private;
mod progress;
#[cfg(test)]
mod tests;
mod version;

pub use cache::cache_directory;
pub use error::EnvironmentError;
pub use named::MINIMUM_PHOEBE;
pub use package::package_directory;
pub use progress::Progress;
pub use version::{MINIMUM_PYTHON, PythonVersion};

use std::path::{Path, PathBuf};

use crate::config::Settings;
use private::Surroundings;

/// The interpreter that workers run in: the one that the settings name, or that of a private
/// environment, which is made if there is none (minutes) and reused if there is (milliseconds).
///
/// # Errors
/// See [`EnvironmentError`]; each says what to do.
pub fn python(settings: &Settings, progress: &Progress) -> Result<PathBuf, EnvironmentError> {
    match &settings.worker.python {
        Some(python) => named::check(python),
        None => private::python(&Surroundings::of_process()?, progress),
    }
}

/// Checks that the interpreter `python`, which somebody else looks after, has what workers need.
///
/// # Errors
/// What it lacks.
pub fn check_named(python: &Path) -> Result<PathBuf, EnvironmentError> {
    named::check(python)
}

/// The interpreter on `PATH` that a private environment would be made with, and its version.
///
/// # Errors
/// Where none will do.
pub fn base_python() -> Result<(PathBuf, PythonVersion), EnvironmentError> {
    let found = interpreter::find(&std::env::var_os("PATH").unwrap_or_default())?;
    Ok((found.path, found.version))
}

/// The private environment's interpreter, if it is made already.
///
/// # Errors
/// Where no cache directory is known.
pub fn existing_python() -> Result<Option<PathBuf>, EnvironmentError> {
    Ok(private::existing(&Surroundings::of_process()?))
}
