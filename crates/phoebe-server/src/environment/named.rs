//! An interpreter that somebody else looks after: whether it has what workers need.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::command;
use super::error::EnvironmentError;
use super::interpreter::isolated;
use super::version::MINIMUM_PYTHON;

/// The oldest PHOEBE that workers run.
pub const MINIMUM_PHOEBE: &str = "2.4";

/// How long an interpreter may take to look for its packages.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// Says what is there without importing it, which would take seconds at each start; the zygote
/// imports PHOEBE and says what it finds. The words are those of the worker package's `probe`.
const PROBE: &str = "import json, platform
from importlib.util import find_spec
from importlib.metadata import version, PackageNotFoundError
def found(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
modules = {'phoebe': 'phoebe', 'pyzmq': 'zmq', 'orjson': 'orjson'}
missing = [name for name, module in modules.items() if find_spec(module) is None]
python = platform.python_version()
print(json.dumps({'python': python, 'missing': missing, 'phoebe': found('phoebe')}))";

/// What an interpreter has.
#[derive(Debug, Clone, Deserialize)]
struct Probe {
    /// The interpreter's version.
    python: String,
    /// Packages that workers need and that are not there.
    #[serde(default)]
    missing: Vec<String>,
    /// Version of PHOEBE, where it is known.
    phoebe: Option<String>,
}

/// Asks `python` what it has.
fn probe(python: &Path) -> Result<Probe, EnvironmentError> {
    let unusable =
        |reason: String| EnvironmentError::NamedUnusable { python: python.to_owned(), reason };
    // Isolated, as workers are: packages of the user's own do not count.
    let mut command = isolated(python);
    let outcome = command::run(command.args(["-c", PROBE, "probe"]), PROBE_LIMIT, |_| ())
        .map_err(|error| unusable(format!("it does not run ({error})")))?;
    let answer = outcome.said.lines().find_map(|line| serde_json::from_str(line).ok());
    answer.ok_or_else(|| {
        let last = outcome.last_line();
        let said = if last.is_empty() { outcome.end() } else { last.to_owned() };
        unusable(format!("it does not answer as Python {MINIMUM_PYTHON} or newer does ({said})"))
    })
}

/// Checks that `python` has all that workers need, and gives its path.
pub(super) fn check(python: &Path) -> Result<PathBuf, EnvironmentError> {
    let probe = probe(python)?;
    if numbers(&probe.python) < vec![MINIMUM_PYTHON.major, MINIMUM_PYTHON.minor] {
        return Err(EnvironmentError::NamedUnusable {
            python: python.to_owned(),
            reason: format!(
                "it is Python {}, and {MINIMUM_PYTHON} is the oldest that will do",
                probe.python
            ),
        });
    }
    if !probe.missing.is_empty() {
        let missing = probe.missing.join(" and ");
        return Err(EnvironmentError::NamedLacks { python: python.to_owned(), missing });
    }
    match probe.phoebe {
        Some(found) if numbers(&found) < numbers(MINIMUM_PHOEBE) => {
            let python = python.to_owned();
            Err(EnvironmentError::PhoebeTooOld { python, found, minimum: MINIMUM_PHOEBE })
        }
        // A checkout has no version to look at.
        _ => Ok(python.to_owned()),
    }
}

/// The leading numbers of a version, to compare by.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_compare_by_number() {
        assert!(numbers("2.10.1") > numbers("2.4"));
        assert!(numbers("2.3.58") < numbers("2.4"));
        assert!(numbers("2.4.0.dev1") >= numbers("2.4"));
    }
}
