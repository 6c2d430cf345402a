//! The calls from commands into the modules that do the work.

use std::path::PathBuf;

use super::Failure;
use crate::config::Settings;
use crate::store::DataDirectory;
use crate::worker::orphans;

/// Serves until a signal ends it.
pub(super) fn serve(settings: Settings, python: PathBuf, package: PathBuf) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the server cannot start: {error}")))?;
    runtime.block_on(crate::serve::serve(settings, python, package)).map_err(Failure::failed)
}

/// Ends the processes that an earlier server left; says what it ended.
pub(super) fn clean(settings: &Settings) -> Result<Vec<String>, Failure> {
    let data = DataDirectory::open(&settings.database.path).map_err(Failure::failed)?;
    let orphans = orphans::clean(data.run(), data.instance_id()).map_err(Failure::failed)?;
    Ok(orphans.iter().map(|orphan| format!("ended process {}", orphan.pid)).collect())
}

/// Makes the database.
pub(super) fn init_db(settings: &Settings, force: bool) -> Result<(), Failure> {
    super::init_db::run(settings, force, super::init_db::ask_on_terminal).map_err(Failure::failed)
}

/// Who has the data directory, in words, if somebody has.
pub(super) fn data_directory_holder(settings: &Settings) -> Result<Option<String>, Failure> {
    let view = DataDirectory::peek(&settings.database.path).map_err(Failure::failed)?;
    let holder = || view.holder_pid.map_or("a process".to_owned(), |pid| format!("process {pid}"));
    Ok(view.is_in_use.then(holder))
}
