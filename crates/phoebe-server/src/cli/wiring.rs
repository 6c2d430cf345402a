//! The calls from commands into the modules that do the work.

use std::path::PathBuf;

use super::Failure;
use crate::config::Settings;

/// Serves until a signal ends it.
pub(super) fn serve(_settings: Settings, _python: PathBuf) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the server cannot start: {error}")))?;
    // WIRE: runtime.block_on(crate::web::serve(_settings, _python)).map_err(Failure::failed)
    runtime.block_on(async { Err(Failure::failed("serving is not wired yet")) })
}

/// Ends the processes that an earlier server left; says what it ended.
pub(super) fn clean(_settings: &Settings) -> Result<Vec<String>, Failure> {
    // WIRE: crate::worker::orphans::clean(&DataDirectory::open(&_settings.database.path)?), a line for each
    Err(Failure::failed("cleanup is not wired yet"))
}

/// Makes the database.
pub(super) fn init_db(_settings: &Settings, _force: bool) -> Result<(), Failure> {
    // WIRE: super::init_db::run(_settings, _force, super::init_db::ask).map_err(Failure::failed)
    Err(Failure::failed("init-db is not wired yet"))
}
