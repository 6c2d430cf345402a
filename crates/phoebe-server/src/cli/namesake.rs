//! PHOEBE's Python package installs a script that is called `phoebe-server` too: it serves PHOEBE's
//! desktop and web clients, and PHOEBE starts it by that name. This file tells such a call from one
//! that is meant for this program, and finds the script. It starts nothing.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::Failure;
use crate::config::{Sources, load_lenient};
use crate::environment;

const NAME: &str = "phoebe-server";

/// The arguments of PHOEBE's script, of which this program has none before a command.
const ITS_ARGUMENTS: [&str; 9] = [
    "--host",
    "--port",
    "--parent",
    "--secret",
    "--maxcomputations",
    "--disablesolvers",
    "--includeinfo",
    "--verbose",
    "--debug",
];

/// Refuses a call that is meant for PHOEBE's script.
pub(super) fn refuse_its_call(arguments: &[OsString]) -> Result<(), Failure> {
    if !arguments.first().is_some_and(|first| is_its_argument(first)) {
        return Ok(());
    }
    let script = its_script().map_or_else(
        || "bin/phoebe-server in the environment of that package".to_owned(),
        |path| path.display().to_string(),
    );
    Err(Failure::Usage(format!(
        "this program serves PHOEBE sessions over HTTP (`phoebe-server run`), and these arguments \
         are for the script of the same name that PHOEBE's Python package installs for PHOEBE's \
         own desktop and web clients: start that one by its full path, {script}, with the same \
         arguments"
    )))
}

fn is_its_argument(argument: &OsStr) -> bool {
    let argument = argument.to_string_lossy();
    let name = argument.split_once('=').map_or(&*argument, |(name, _)| name);
    ITS_ARGUMENTS.contains(&name)
}

/// PHOEBE's script: on the search path, else beside the interpreter in which sessions run.
fn its_script() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let beside_python =
        || Some(interpreter()?.with_file_name(NAME)).filter(|path| is_program(path));
    on_path().find(|path| !is_same(path, &own)).or_else(beside_python)
}

fn interpreter() -> Option<PathBuf> {
    let (resolved, _) = load_lenient(&Sources::of_process(None, Vec::new()));
    resolved.settings.worker.python.or_else(|| environment::existing_python().ok().flatten())
}

/// What a shell starts when it is asked for this program's name.
pub(super) fn first_on_path() -> Option<PathBuf> {
    on_path().next()
}

fn on_path() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.into_iter().map(|folder| folder.join(NAME)).filter(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Whether both lead to one file.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(one) == real(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_the_phoebe_script_are_recognized() {
        for first in ["--port", "--port=5555", "--parent", "--disablesolvers", "--verbose"] {
            assert!(is_its_argument(OsStr::new(first)), "{first}");
        }
        for first in ["run", "--config", "--config=x", "--help", "--version", "--prot", "-V", ""] {
            assert!(!is_its_argument(OsStr::new(first)), "{first}");
        }
    }
}
