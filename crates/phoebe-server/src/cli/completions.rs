//! `phoebe-server completions`: completions for shells.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Failure, print};

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  source <(phoebe-server completions bash)
  phoebe-server completions fish > ~/.config/fish/completions/phoebe-server.fish")]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

/// Prints them.
pub(super) fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "phoebe-server", &mut text);
    print(&String::from_utf8_lossy(&text))
}
