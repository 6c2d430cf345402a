//! The steps that make an environment: `venv`, `pip install` from the lock file, a first import.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::command::{self, Outcome};
use super::error::{EnvironmentError, Tail};
use super::interpreter::{Interpreter, isolated};
use super::progress::Progress;

const LIMIT: Duration = Duration::from_secs(3600);

/// Variables that would have pip install elsewhere, or less than is asked for.
const MISLEADING: [&str; 7] = [
    "PIP_USER",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_DRY_RUN",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_NO_DEPS",
];

const FIRST_IMPORT: &str = "import phoebe, zmq, orjson";

/// Makes the environment in the empty folder `folder`.
pub(super) fn install(
    base: &Interpreter,
    folder: &Path,
    lock: &str,
    progress: &Progress,
) -> Result<(), EnvironmentError> {
    let installer = Installer { base, folder, progress };
    let mut total = requirements(lock);
    let list = folder.join("requirements.lock");
    progress.step(0, total, "making a virtual environment");
    let venv = isolated(&base.path).args(["-m", "venv"]).arg(folder).run(|_| ());
    installer.succeeded("making a virtual environment", venv)?;
    std::fs::write(&list, lock).map_err(EnvironmentError::file("written", &list))?;

    let python = folder.join("bin/python");
    let mut collected = 0;
    let pip = pip(&python, &list).run(|line| {
        if let Some(name) = line.trim_start().strip_prefix("Collecting ") {
            collected += 1;
            let name = name.split(&['=', ' ', '<', '>', '['][..]).next().unwrap_or(name);
            progress.step(collected.min(total), total, name);
        } else if line.starts_with("Ignoring ") {
            // It is for another version of Python or another system.
            total = total.saturating_sub(1);
        } else if line.starts_with("Installing collected packages") {
            progress.step(collected.min(total), total, "installing what was downloaded");
        }
    });
    installer.succeeded("installing PHOEBE", pip)?;

    progress.step(collected.min(total), total, "importing PHOEBE for the first time");
    let import = isolated(&python)
        .args(["-c", FIRST_IMPORT])
        .env("PHOEBE_ENABLE_ONLINE_PASSBANDS", "FALSE")
        .run(|_| ());
    installer.succeeded("importing PHOEBE for the first time", import)
}

fn pip(python: &Path, list: &Path) -> Command {
    let mut command = isolated(python);
    command
        .args(["-m", "pip", "install", "--require-hashes", "--no-input", "--progress-bar", "off"])
        .args(["--disable-pip-version-check", "--no-color", "-r"])
        .arg(list)
        .env("PYTHONUNBUFFERED", "1");
    for variable in MISLEADING {
        command.env_remove(variable);
    }
    command
}

/// How many packages a lock file holds.
fn requirements(lock: &str) -> u64 {
    lock.lines().filter(|line| line.contains("==") && !line.starts_with([' ', '#'])).count() as u64
}

trait Run {
    fn run(&mut self, see: impl FnMut(&str)) -> std::io::Result<Outcome>;
}

impl Run for Command {
    fn run(&mut self, see: impl FnMut(&str)) -> std::io::Result<Outcome> {
        command::run(self, LIMIT, see)
    }
}

struct Installer<'a> {
    base: &'a Interpreter,
    folder: &'a Path,
    progress: &'a Progress,
}

impl Installer<'_> {
    /// Turns the end of a step into an error that says what to do.
    fn succeeded(
        &self,
        step: &str,
        outcome: std::io::Result<Outcome>,
    ) -> Result<(), EnvironmentError> {
        let said = match outcome {
            Ok(outcome) if outcome.success() => return Ok(()),
            Ok(outcome) => format!("{}{}", outcome.said, outcome.end()),
            Err(error) => error.to_string(),
        };
        self.progress.clear();
        Err(self.explain(step, &said))
    }

    fn explain(&self, step: &str, said: &str) -> EnvironmentError {
        let tail = Tail::of(said);
        let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
        let version = self.base.version;
        if says(&["No space left on device", "Disk quota exceeded"]) {
            EnvironmentError::DiskFull { folder: self.folder.to_owned(), tail }
        } else if says(&["ensurepip is not available", "No module named ensurepip"]) {
            let python = self.base.path.clone();
            EnvironmentError::NoVenvModule { python, version, module: "ensurepip" }
        } else if says(&["DO NOT MATCH THE HASHES"]) {
            EnvironmentError::HashMismatch { tail }
        } else if says(&NETWORK) {
            EnvironmentError::NoNetwork { tail }
        } else if says(&["Failed building wheel", "Failed to build", "metadata-generation-failed"])
        {
            EnvironmentError::BuildFailed { version, tail }
        } else {
            EnvironmentError::StepFailed { step: step.to_owned(), tail }
        }
    }
}

/// What pip says when it cannot reach the index.
const NETWORK: [&str; 9] = [
    // No answer at all looks to pip like an index without the package.
    "(from versions: none)",
    "Max retries exceeded",
    "NewConnectionError",
    "ConnectTimeoutError",
    "Temporary failure in name resolution",
    "Name or service not known",
    "Connection refused",
    "Network is unreachable",
    "Read timed out",
];
