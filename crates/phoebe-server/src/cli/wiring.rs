//! The calls from commands into the modules that do the work.

use std::path::PathBuf;

use super::Failure;
use crate::config::{Resolved, Settings};
use crate::reload::Reload;
use crate::signals::{self, Signals};
use crate::store::DataDirectory;
use crate::worker::orphans;

/// Prepares what workers need, and serves until a signal ends it, which may be before.
pub(super) fn serve(
    resolved: Resolved,
    reload: Reload,
    prepare: impl FnOnce(&Settings) -> Result<Prepared, Failure> + Send + 'static,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the server cannot start: {error}")))?;
    runtime.block_on(async move {
        let mut signals = Signals::listen().map_err(Failure::failed)?;
        let settings = resolved.settings;
        let prepared = tokio::task::spawn_blocking({
            let settings = settings.clone();
            move || prepare(&settings)
        });
        let Prepared { python, package } = tokio::select! {
            prepared = prepared => prepared.map_err(Failure::failed)??,
            number = signals.stopped_at_start() => {
                tracing::info!(signal = signals::name(number), "stopped during the start");
                // What prepares cannot be stopped; the next start goes on where it was.
                std::process::exit(0);
            }
        };
        crate::serve::serve(settings, python, package, signals, reload)
            .await
            .map_err(Failure::failed)
    })
}

/// What workers need, made ready.
pub(super) struct Prepared {
    pub(super) python: PathBuf,
    pub(super) package: PathBuf,
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
