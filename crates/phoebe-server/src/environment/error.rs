//! Why there is no Python environment: each in one sentence with the way out.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::version::PythonVersion;

/// Why there is no Python environment.
#[derive(Debug, Error)]
pub enum EnvironmentError {
    /// Neither `$XDG_CACHE_HOME` nor a home directory is known.
    #[error(
        "no cache directory is known for the Python environment; set XDG_CACHE_HOME to a folder \
         that you may write to, or name an interpreter that has PHOEBE in [worker] python"
    )]
    NoCacheDirectory,
    /// No interpreter can be used.
    #[error(
        "no Python {minimum} or newer was found on PATH{found}; install one (Debian, Ubuntu: \
         `apt install python3 python3-venv`), or name one that has PHOEBE in [worker] python"
    )]
    NoPython {
        /// The oldest that would do.
        minimum: PythonVersion,
        /// What was found instead; empty, or in brackets.
        found: String,
    },
    /// The interpreter cannot make virtual environments.
    #[error(
        "{} (Python {version}) has no module {module}, which makes virtual environments; install \
         it (Debian, Ubuntu: `apt install python3-venv`)", python.display()
    )]
    NoVenvModule {
        /// The interpreter.
        python: PathBuf,
        /// Its version.
        version: PythonVersion,
        /// `venv` or `ensurepip`.
        module: &'static str,
    },
    /// The interpreter that the settings name does not run.
    #[error(
        "[worker] python names {}, which cannot be used: {reason}; name a Python interpreter that \
         has PHOEBE, or remove the setting to have a private one made", python.display()
    )]
    NamedUnusable {
        /// The interpreter.
        python: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The interpreter that the settings name lacks packages.
    #[error(
        "[worker] python names {}, which lacks {missing}; install it there \
         (`{} -m pip install phoebe pyzmq orjson`), or remove the setting to have a private \
         environment made", python.display(), python.display()
    )]
    NamedLacks {
        /// The interpreter.
        python: PathBuf,
        /// Names of packages.
        missing: String,
    },
    /// The interpreter that the settings name has an old PHOEBE.
    #[error(
        "[worker] python names {}, which has PHOEBE {found}, and {minimum} or newer is needed; \
         update it there (`{} -m pip install --upgrade phoebe`), or remove the setting to have a \
         private environment made", python.display(), python.display()
    )]
    PhoebeTooOld {
        /// The interpreter.
        python: PathBuf,
        /// Its PHOEBE.
        found: String,
        /// The oldest that would do.
        minimum: &'static str,
    },
    /// The package index cannot be reached.
    #[error(
        "PHOEBE cannot be downloaded because the package index cannot be reached; connect to the \
         internet or set PIP_INDEX_URL or HTTPS_PROXY as your site needs, and start again, or name \
         an interpreter that has PHOEBE in [worker] python{tail}"
    )]
    NoNetwork {
        /// The last lines of what was said.
        tail: Tail,
    },
    /// The disk is full.
    #[error(
        "the Python environment needs about 1 GB and the disk of {} is full; free some space, or \
         set XDG_CACHE_HOME to a folder on another disk, and start again{tail}", folder.display()
    )]
    DiskFull {
        /// Where it was to be.
        folder: PathBuf,
        /// The last lines of what was said.
        tail: Tail,
    },
    /// A package is not what the lock file says.
    #[error(
        "a downloaded package is not the one that this server was tested with (its hash differs), \
         and was not installed; start again, and if it stays, ask whoever runs your package index \
         or proxy{tail}"
    )]
    HashMismatch {
        /// The last lines of what was said.
        tail: Tail,
    },
    /// No ready-made package fits this machine, and building it failed.
    #[error(
        "a package has to be compiled for this Python ({version}) and machine, and that failed; \
         install Python 3.13 or 3.12, for which it is ready-made, or a C++ compiler and Python's \
         headers (Debian, Ubuntu: `apt install g++ python3-dev`), and start again{tail}"
    )]
    BuildFailed {
        /// The interpreter's version.
        version: PythonVersion,
        /// The last lines of what was said.
        tail: Tail,
    },
    /// Something else went wrong.
    #[error(
        "{step} failed; the lines below say why. Start again when it is solved, or name an \
         interpreter that has PHOEBE in [worker] python{tail}"
    )]
    StepFailed {
        /// What was tried.
        step: String,
        /// The last lines of what was said.
        tail: Tail,
    },
    /// A file or folder.
    #[error(
        "{} cannot be {action}: {reason}; make it yours to write, or set XDG_CACHE_HOME to another \
         folder", path.display()
    )]
    File {
        /// What was to be done, as `created`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
}

impl EnvironmentError {
    /// For `map_err` of calls on `path`.
    pub(super) fn file(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |reason| match reason.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { folder: path, tail: Tail::default() }
            }
            _ => Self::File { action, path, reason },
        }
    }
}

/// The last lines of what a program said, shown indented behind a message.
#[derive(Debug, Clone, Default)]
pub struct Tail(Vec<String>);

impl Tail {
    const LINES: usize = 12;

    /// The last lines of `text`, without what pip says of packages for other machines.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let telling = |line: &&str| !line.trim().is_empty() && !line.starts_with("Ignoring ");
        let lines: Vec<&str> = text.lines().filter(telling).collect();
        let from = lines.len().saturating_sub(Self::LINES);
        Self(lines[from..].iter().map(|line| (*line).to_owned()).collect())
    }
}

impl std::fmt::Display for Tail {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|line| write!(formatter, "\n    {line}"))
    }
}
