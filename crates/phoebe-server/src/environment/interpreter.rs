//! Python interpreters on `PATH`, and what each can do.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::command;
use super::error::EnvironmentError;
use super::version::{MINIMUM_PYTHON, PythonVersion};

/// The names that are tried, in this order: first those for which PHOEBE is ready-made.
const NAMES: [&str; 6] =
    ["python3.13", "python3.12", "python3.11", "python3.10", "python3", "python3.14"];

/// How long an interpreter may take to say what it is.
const PROBE_LIMIT: Duration = Duration::from_secs(20);

/// Prints the version, and which modules that make environments are missing.
const PROBE: &str = "import sys
from importlib.util import find_spec
missing = [name for name in ('venv', 'ensurepip') if find_spec(name) is None]
print('phoebe-server-probe', *sys.version_info[:2], *missing)";

/// An interpreter that runs.
pub(super) struct Interpreter {
    pub(super) path: PathBuf,
    pub(super) version: PythonVersion,
    /// The first module that it would need for a virtual environment and lacks.
    missing: Option<&'static str>,
}

/// The interpreter to make an environment with: the first on `path` that is new enough and
/// complete.
pub(super) fn find(path: &OsStr) -> Result<Interpreter, EnvironmentError> {
    let mut too_old = Vec::new();
    let mut incomplete = None;
    for candidate in candidates(path) {
        // What does not run (such as a shim of an interpreter that is not installed) is passed
        // over.
        let Some(found) = ask(&candidate) else { continue };
        match found.missing {
            _ if found.version < MINIMUM_PYTHON => too_old.push(found),
            None => return Ok(found),
            Some(_) => incomplete = incomplete.or(Some(found)),
        }
    }
    if let Some(Interpreter { path, version, missing: Some(module) }) = incomplete {
        return Err(EnvironmentError::NoVenvModule { python: path, version, module });
    }
    let found: Vec<String> =
        too_old.iter().map(|old| format!("{} is {}", old.path.display(), old.version)).collect();
    let found = if found.is_empty() { String::new() } else { format!(" ({})", found.join(", ")) };
    Err(EnvironmentError::NoPython { minimum: MINIMUM_PYTHON, found })
}

fn candidates(path: &OsStr) -> impl Iterator<Item = PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(path).filter(|p| p.is_absolute()).collect();
    NAMES.into_iter().flat_map(move |name| {
        folders.clone().into_iter().map(move |folder| folder.join(name)).filter(|p| p.is_file())
    })
}

fn ask(python: &Path) -> Option<Interpreter> {
    let outcome = command::run(isolated(python).args(["-c", PROBE]), PROBE_LIMIT, |_| ()).ok()?;
    let line = outcome.said.lines().find_map(|line| line.strip_prefix("phoebe-server-probe "))?;
    let mut words = line.split_whitespace();
    let version =
        PythonVersion { major: words.next()?.parse().ok()?, minor: words.next()?.parse().ok()? };
    let missing = words.next().map(|name| if name == "venv" { "venv" } else { "ensurepip" });
    Some(Interpreter { path: python.to_owned(), version, missing })
}

/// A call of `python` that neither the user's own packages nor `PYTHON*` variables change.
pub(super) fn isolated(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.arg("-I").env_remove("__PYVENV_LAUNCHER__");
    command
}
