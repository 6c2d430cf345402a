//! `phoebe-server backup`: everything that is kept, in one file, also while a server runs.

use std::path::PathBuf;

use super::{Failure, print};
use crate::config::Settings;
use crate::store::DataDirectory;
use crate::store::archive::{self, Report};

/// Arguments of `backup` and of `export-session`.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// The file to write, for you alone to read
    pub(super) file: PathBuf,
    /// Replace the file if there is one
    #[arg(long)]
    pub(super) force: bool,
}

/// Writes the backup and says what is in it.
pub(super) fn execute(target: &Target, settings: &Settings) -> Result<(), Failure> {
    let database = &settings.database.path;
    let data = DataDirectory::peek(database).map_err(Failure::failed)?;
    let written = archive::back_up(data.root(), database, &target.file, target.force);
    let written = written.map_err(Failure::failed)?;
    tell_damaged(&written);
    let Report { sessions, bytes, .. } = written;
    let file = target.file.display();
    print(&format!("{file}: the database and {sessions} sessions in {bytes} bytes\n"))
}

/// Says which snapshots are in an archive as they are, and not whole.
pub(super) fn tell_damaged(report: &Report) {
    for damaged in &report.damaged {
        eprintln!("phoebe-server: it is in the file as it is on disk: {damaged}");
    }
}
