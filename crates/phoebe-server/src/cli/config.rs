//! `phoebe-server config`: the settings in force, their reference, an example file.

use super::{Failure, print};
use crate::config::{Resolved, print as printing, reference};

/// Arguments of `config`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  phoebe-server config
  phoebe-server --config class.toml config
  phoebe-server config --example > config.toml")]
pub(super) struct Arguments {
    /// Print the reference of all settings in Markdown
    #[arg(long)]
    reference: bool,
    /// Print a settings file in which every key is explained and commented out
    #[arg(long, conflicts_with = "reference")]
    example: bool,
}

/// Prints what is asked for; `settings` are resolved only if they are.
pub(super) fn execute(
    arguments: &Arguments,
    settings: impl FnOnce() -> Result<Resolved, Failure>,
) -> Result<(), Failure> {
    if arguments.reference {
        return print(&reference::markdown());
    }
    if arguments.example {
        return print(&reference::example());
    }
    let resolved = settings()?;
    let notes = resolved.notes().into_iter().map(|note| format!("# {note}\n"));
    print(&format!("{}{}", notes.collect::<String>(), printing::with_origins(&resolved)))
}
