//! `phoebe-server doctor`.

use std::process::ExitCode;

use crate::config::Settings;

/// Checks the machine.
pub(super) fn execute(_settings: &Settings) -> ExitCode {
    ExitCode::SUCCESS
}
