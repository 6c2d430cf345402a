//! The command line: arguments to calls, errors to exit codes.

pub mod init_db;

use std::process::ExitCode;

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
