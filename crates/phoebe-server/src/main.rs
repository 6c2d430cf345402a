//! The `phoebe-server` program: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    phoebe_server::cli::main()
}
