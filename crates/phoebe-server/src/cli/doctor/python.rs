//! Python, PHOEBE and its passbands; and whether workers can have a root folder of their own, which
//! a Python process tries.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::finding::Finding;
use crate::config::{Sandbox, Settings};
use crate::environment::{self, EnvironmentError};
use crate::passbands;
use crate::worker::{BOOTSTRAP, ROOT_FOLDER_VARIABLE, sandbox};

/// What the worker package says of its surroundings.
#[derive(Deserialize)]
struct Info {
    python: String,
    phoebe: String,
    passbands: Vec<String>,
    #[serde(default)]
    metadata_problem: Option<String>,
}

pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    match interpreter(settings) {
        Ok(Some(python)) => import(&python, settings),
        Ok(None) => vec![not_made_yet()],
        Err(error) => vec![Finding::failed("Python", error.to_string(), "see there")],
    }
}

fn interpreter(settings: &Settings) -> Result<Option<PathBuf>, EnvironmentError> {
    match &settings.worker.python {
        Some(python) => environment::check_named(python).map(Some),
        None => environment::existing_python(),
    }
}

fn not_made_yet() -> Finding {
    match environment::base_python() {
        Ok((path, version)) => Finding::warning(
            "Python",
            format!(
                "{} is Python {version}; the environment with PHOEBE is not made yet",
                path.display()
            ),
            "`phoebe-server run` makes it, with an internet connection, in a few minutes",
        ),
        Err(error) => Finding::failed("Python", error.to_string(), "see there"),
    }
}

fn import(python: &Path, settings: &Settings) -> Vec<Finding> {
    match probe(python, settings) {
        Ok(info) => {
            let mut findings = vec![
                Finding::ok("Python", format!("{} at {}", info.python, python.display())),
                Finding::ok("PHOEBE", info.phoebe),
                counted(&info.passbands),
            ];
            if settings.worker.sandbox != Sandbox::Off {
                findings.push(metadata(info.metadata_problem));
            }
            findings
        }
        Err(said) => vec![Finding::failed(
            "PHOEBE",
            format!("{} cannot import PHOEBE: {said}", python.display()),
            format!(
                "run `{} -c 'import phoebe'` and see why; a private environment is made anew by \
                 the next `phoebe-server run` after its folder is removed",
                python.display()
            ),
        )],
    }
}

fn probe(python: &Path, settings: &Settings) -> Result<Info, String> {
    let package = environment::package_directory().map_err(|error| error.to_string())?;
    let mut command = Command::new(python);
    if let Some(folder) = passbands::folder(settings).ok().flatten() {
        command.env("PHOEBE_SERVER_PASSBANDS", folder);
    }
    // A server may run in the data directory.
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    if settings.worker.sandbox != Sandbox::Off {
        let told = serde_json::to_string(&sandbox::root_folder(scratch.path()));
        command.env(ROOT_FOLDER_VARIABLE, told.map_err(|error| error.to_string())?);
    }
    let output = command
        .args(["-I", "-c", BOOTSTRAP])
        .arg(package)
        .arg("probe")
        .env("PHOEBE_ENABLE_ONLINE_PASSBANDS", "FALSE")
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    let info = said.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    info.ok_or_else(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        let last = errors.lines().rfind(|line| !line.trim().is_empty()).map(str::to_owned);
        last.unwrap_or_else(|| format!("it said nothing ({})", output.status))
    })
}

/// Whether code in workers can see the metadata of files that it may not read.
fn metadata(problem: Option<String>) -> Finding {
    match problem {
        None => Finding::ok("metadata", "workers see files and processes of their own only"),
        Some(reason) => Finding::warning(
            "metadata",
            format!(
                "code in workers can see the size, owner and times of all files, and which \
                 processes there are, but not read them: {reason}"
            ),
            "let the server make mount namespaces: as root with CAP_SYS_ADMIN, else with user \
             namespaces (`sysctl user.max_user_namespaces`, `kernel.unprivileged_userns_clone`, \
             `kernel.apparmor_restrict_unprivileged_userns`), which a container's seccomp profile \
             or a unit's RestrictNamespaces= may refuse too",
        ),
    }
}

fn counted(names: &[String]) -> Finding {
    if names.is_empty() {
        return Finding::failed(
            "passbands",
            "PHOEBE finds none",
            "`phoebe-server passbands install FILE` adds some; docs/passbands.md says where \
             they are",
        );
    }
    let shown = names.iter().take(4).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if names.len() > 4 { ", …" } else { "" };
    Finding::ok("passbands", format!("{}: {shown}{more}", names.len()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::finding::Level;
    use super::*;

    #[test]
    fn an_interpreter_that_cannot_import_phoebe_is_reported_with_what_it_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let python = folder.path().join("python");
        let script = "#!/bin/sh\necho 'ImportError: libstdc++ is gone' >&2\nexit 1\n";
        std::fs::write(&python, script).expect("written");
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&python, all).expect("set");
        let findings = import(&python, &Settings::default());
        assert_eq!(findings[0].level, Level::Failed);
        assert!(findings[0].text.contains("libstdc++ is gone"), "{:?}", findings[0]);
    }

    #[test]
    fn metadata_that_can_be_seen_is_told_with_the_reason() {
        assert_eq!(metadata(None).level, Level::Ok);
        let seen = metadata(Some("unshare: Operation not permitted".to_owned()));
        assert_eq!(seen.level, Level::Warning);
        assert!(seen.text.ends_with("unshare: Operation not permitted"), "{seen}");
    }

    #[test]
    fn passbands_are_counted() {
        assert_eq!(counted(&[]).level, Level::Failed);
        let many: Vec<String> = (0..9).map(|number| format!("P:{number}")).collect();
        assert_eq!(counted(&many).text, "9: P:0, P:1, P:2, P:3, …");
    }
}
