//! `phoebe-server doctor`: whether this machine can run the server, and what to do where not. Each
//! check is a function that gives findings; none changes anything.

mod data;
mod finding;
mod kernel;
mod ports;
mod python;
mod secrets;
mod tls;

use std::process::ExitCode;

use super::{Failure, print};
use crate::config::{Resolved, Settings};
use finding::{Finding, Level};

const CHECKS: [fn(&Settings) -> Vec<Finding>; 6] =
    [python::check, data::check, ports::check, tls::check, kernel::check, kernel::check_limits];

/// Checks the machine; prints each finding as soon as it is known. Exit code 1 if anything failed.
pub(super) fn execute(resolved: &Resolved) -> Result<ExitCode, Failure> {
    let mut worst = Level::Ok;
    for check in CHECKS {
        for finding in check(&resolved.settings) {
            worst = worst.max(finding.level);
            print(&format!("{finding}\n"))?;
        }
    }
    for finding in secrets::check(resolved) {
        worst = worst.max(finding.level);
        print(&format!("{finding}\n"))?;
    }
    Ok(if worst == Level::Failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
