//! `phoebe-server doctor`: whether this machine can run the server, and what to do where not. Each
//! check is a function that gives findings; none changes anything.

mod data;
mod finding;
mod kernel;
mod name;
mod ports;
mod python;
mod secrets;
mod settings;
mod tls;

use std::process::ExitCode;

use super::{Failure, print};
use crate::config::{ConfigError, Resolved};
use finding::{Finding, Level};

/// What a check looks at: the settings as far as they can be resolved, and what is wrong with them.
type Check = fn(&Resolved, &[ConfigError]) -> Vec<Finding>;

const CHECKS: [Check; 9] = [
    settings::check,
    |_, _| name::check(),
    |resolved, _| python::check(&resolved.settings),
    |resolved, _| data::check(&resolved.settings),
    |resolved, _| ports::check(&resolved.settings),
    |resolved, _| tls::check(&resolved.settings),
    |resolved, _| kernel::check(&resolved.settings),
    |resolved, _| kernel::check_limits(&resolved.settings),
    |resolved, _| secrets::check(resolved),
];

/// Checks the machine; prints each finding as soon as it is known. Exit code 1 if anything failed.
pub(super) fn execute(resolved: &Resolved, errors: &[ConfigError]) -> Result<ExitCode, Failure> {
    let mut worst = Level::Ok;
    for check in CHECKS {
        for finding in check(resolved, errors) {
            worst = worst.max(finding.level);
            print(&format!("{finding}\n"))?;
        }
    }
    Ok(if worst == Level::Failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
