//! `phoebe-server restore`: a backup brought back into a data directory that no server uses.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Failure, init_db, print};
use crate::config::Settings;
use crate::store::DataDirectory;
use crate::store::archive::{self, ArchiveError, Restored};

/// Arguments of `restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  phoebe-server restore sunday.phoebe-backup
  phoebe-server --config /etc/phoebe-server/config.toml restore sunday.phoebe-backup --force")]
pub(super) struct Arguments {
    /// A file that `backup` wrote
    file: PathBuf,
    /// Put aside a database and sessions that are there, and restore
    #[arg(long)]
    force: bool,
}

/// Restores, and says what.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<(), Failure> {
    let database = &settings.database.path;
    let data = DataDirectory::open(database).map_err(Failure::failed)?;
    let restored = archive::restore(&arguments.file, &data, database, arguments.force, put_aside);
    let Restored { sessions, .. } = restored.map_err(Failure::failed)?;
    print(&format!("Restored the database and {sessions} sessions to {}\n", data.root().display()))
}

/// Keeps a database or a folder under another name, and says under which.
fn put_aside(path: &Path) -> Result<(), ArchiveError> {
    let failed =
        |error: String| ArchiveError::Io(path.display().to_string(), io::Error::other(error));
    let kept = if path.is_dir() {
        let name = init_db::free_name(path).map_err(|error| failed(error.to_string()))?;
        fs::rename(path, &name).map_err(|error| failed(error.to_string()))?;
        name
    } else {
        init_db::put_aside(path).map_err(|error| failed(error.to_string()))?
    };
    print(&format!("What was there is kept as {}\n", kept.display()))
        .map_err(|error| failed(error.to_string()))
}
