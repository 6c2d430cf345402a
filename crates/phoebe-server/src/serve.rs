//! A running server: its parts put together, from the data directory to the listener, and taken
//! apart again in order.
//!
//! This is the one place that knows all parts. It holds no state and decides nothing that a part
//! could decide.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api::{self, App};
use crate::auth::{AuthSetupError, Authenticator};
use crate::config::{Durability, Settings, WorkerStart};
use crate::passbands;
use crate::reload::Reload;
use crate::session::SessionManager;
use crate::signals::{self, Action, Signals};
use crate::store::snapshots::{Rules, SnapshotStore};
use crate::store::{
    CommandFilter, DataDirectory, DataDirectoryError, DataDirectoryProbe, Store, StoreError,
};
use crate::web::{self, ConnectionLimits, Tls, TlsError};
use crate::worker::cgroup::{CgroupError, Cgroups};
use crate::worker::sandbox::{self, Containment, SandboxError};
use crate::worker::{Interpreter, Launcher, Registry, bounds, orphans, reap_children};

/// Why rows of an earlier run are closed.
const CRASH_REASON: &str = "server_died";
/// The whole shutdown may take so long; what is not done by then is left to the kernel and the next
/// start.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a server could not run.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The data directory.
    #[error(transparent)]
    DataDirectory(#[from] DataDirectoryError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The containment of workers.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The cgroups of workers.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The authentication settings.
    #[error(transparent)]
    Auth(#[from] AuthSetupError),
    /// The certificate or its key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address to listen on.
    #[error(
        "cannot listen on {host}:{port}: {source}. Stop what uses it, or choose another with \
         --host and --port"
    )]
    Listen {
        /// As set.
        host: String,
        /// As set.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
    /// The operating system refused something else.
    #[error("the operating system refused: {0}")]
    System(#[from] io::Error),
}

/// Runs a server until a signal stops it. A second one ends the process at once.
///
/// `python` is an interpreter that has PHOEBE, `package` the folder that holds our package for it.
/// `reload` reads the settings again, at SIGHUP.
///
/// # Errors
/// What kept it from starting.
pub async fn serve(
    settings: Settings,
    python: PathBuf,
    package: PathBuf,
    mut signals: Signals,
    mut reload: Reload,
) -> Result<(), ServeError> {
    raise_open_files();
    let settings = Arc::new(settings);
    let tls = tls(&settings)?;
    let data = DataDirectory::open(&settings.database.path)?;
    orphans::clean(data.run(), data.instance_id())?;
    let store = Store::open(
        &settings.database.path,
        CommandFilter {
            include: settings.database.log_include_commands.clone(),
            exclude: settings.database.log_exclude_commands.clone(),
        },
    )?;
    let snapshots = open_snapshots(&settings, &data)?;
    let last_activity = store.active_sessions().await?;
    let jobs = store.open_jobs().await?;
    store.close_stale_sessions(CRASH_REASON).await?;
    let listener = listen(&settings).await?;
    let address = listener.local_addr()?;

    reap_children()?;
    let containment = Containment::plan(&settings.worker, data.run(), data.instance_id())?;
    sandbox::announce(containment.as_ref());
    let interpreter = Interpreter {
        python,
        package,
        instance: data.instance_id().to_owned(),
        accelerate: settings.worker.accelerate,
        passband_dir: passbands::folder(&settings)?,
        root_folder: containment.as_ref().map(Containment::root_folder),
    };
    interpreter.passband_dir.as_deref().map_or(Ok(()), passbands::create)?;
    let records = orphans::Records::open(data.run())?;
    let session = bounds::cgroup_bounds(&settings);
    let cgroups = Cgroups::open(&settings.worker.cgroup, data.instance_id(), session)?;
    bounds::announce(&settings, cgroups.as_ref().map(Cgroups::place));
    let registry = Registry::new(records, cgroups);
    let launcher = match settings.worker.start {
        WorkerStart::Fork => {
            Launcher::fork(interpreter, registry, containment, settings.worker.spares)
        }
        WorkerStart::Spawn => Launcher::spawn(interpreter, registry, containment),
    };
    let sessions = SessionManager::new(Arc::clone(&settings), store.clone(), launcher, snapshots);
    match sessions.take_over(&last_activity, jobs)? {
        0 => {}
        sessions => info!(sessions, "sessions of an earlier run are asleep; work wakes them"),
    }
    let idle_watch = tokio::spawn(sessions.clone().retire_idle_sessions());
    let authenticator = Authenticator::from_settings(&settings.auth, store.clone())?;
    let app = App {
        settings,
        sessions: sessions.clone(),
        store: store.clone(),
        data: DataDirectoryProbe::of(data.root())?,
        authenticator: authenticator.clone(),
    };

    let stopping = CancellationToken::new();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let certificate_watch = tls.clone().map(|tls| tokio::spawn(watch_certificate(tls)));
    let stopped = stopping.clone().cancelled_owned();
    let limits = ConnectionLimits::of(&app.settings.server);
    let has_proxy = !app.settings.server.trusted_proxies.is_empty();
    let settings = Arc::clone(&app.settings);
    let router = web::with_middleware(api::routes(app), &settings);
    let http = tokio::spawn(web::serve_http(listener, tls, limits, router, stopped));
    let url = format!("{scheme}://{address}");
    if scheme == "http" && !address.ip().is_loopback() && !has_proxy {
        warn!(
            "passwords, tokens and data travel in clear text: set [server] tls_cert and \
             tls_key, or put a proxy that ends TLS in front"
        );
    }
    info!(%address, url, version = env!("CARGO_PKG_VERSION"), "listening");

    loop {
        match signals.next_action().await {
            Action::Reload => reload.run(&authenticator),
            Action::Stop(number) => {
                info!(
                    signal = signals::name(number),
                    "stopping: sessions are written down; a second signal ends the server at once"
                );
                break;
            }
        }
    }
    let shutdown = async {
        stopping.cancel();
        idle_watch.abort();
        if let Some(watch) = certificate_watch {
            watch.abort();
        }
        sessions.shut_down().await;
        // A panic of the listener is logged where it happens.
        let _ = http.await;
        store.close().await;
    };
    tokio::select! {
        done = timeout(SHUTDOWN_TIMEOUT, shutdown) => match done {
            Ok(()) => info!("stopped"),
            Err(_) => error!("not everything ended in time; the next start ends the rest"),
        },
        () = signals.second_signal() => std::process::exit(130),
    }
    drop(data);
    Ok(())
}

/// Where sessions are kept, if they are.
fn open_snapshots(settings: &Settings, data: &DataDirectory) -> io::Result<Option<SnapshotStore>> {
    if settings.session.durability == Durability::Off {
        return Ok(None);
    }
    let rules = Rules { fsync: settings.session.fsync, history: settings.session.undo_depth };
    SnapshotStore::open(data.root(), rules).map(Some)
}

/// Allows as many open files as an administrator permits: a session needs four, and shells allow
/// 1024 in all.
fn raise_open_files() {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, files) {
        warn!(%error, "the limit of open files stays low; many sessions may not fit");
    }
}

async fn listen(settings: &Settings) -> Result<TcpListener, ServeError> {
    let (host, port) = (settings.server.host.clone(), settings.server.port);
    let listener = TcpListener::bind((host.as_str(), port)).await;
    listener.map_err(|source| ServeError::Listen { host, port, source })
}

/// The certificate and key of the settings, which name both or neither.
fn tls(settings: &Settings) -> Result<Option<Tls>, TlsError> {
    let server = &settings.server;
    server
        .tls_cert
        .clone()
        .zip(server.tls_key.clone())
        .map(|(cert, key)| Tls::open(cert, key))
        .transpose()
}

async fn watch_certificate(tls: Tls) {
    if let Err(error) = tls.watch().await {
        error!(%error, "a renewed certificate will not be noticed: restart the server to serve it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_may_be_open_as_an_administrator_permits() {
        let mut lower = getrlimit(Resource::Nofile);
        // One less: other tests in this process need files meanwhile.
        lower.current = lower.maximum.map(|maximum| maximum - 1);
        setrlimit(Resource::Nofile, lower).unwrap();
        raise_open_files();
        assert_eq!(getrlimit(Resource::Nofile).current, lower.maximum);
    }
}
