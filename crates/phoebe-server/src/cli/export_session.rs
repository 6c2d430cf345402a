//! `phoebe-server export-session`: one session in one file, also while a server runs.

use super::backup::{Target, tell_damaged};
use super::{Failure, print};
use crate::config::Settings;
use crate::store::DataDirectory;
use crate::store::archive;

/// Arguments of `export-session`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The session's id
    id: String,
    #[command(flatten)]
    target: Target,
}

/// Writes the session's file.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<(), Failure> {
    let data = DataDirectory::peek(&settings.database.path).map_err(Failure::failed)?;
    let Target { file, force } = &arguments.target;
    let written = archive::export_session(data.root(), &arguments.id, file, *force);
    let written = written.map_err(Failure::failed)?;
    tell_damaged(&written);
    print(&format!("{}: {} bytes\n", file.display(), written.bytes))
}
