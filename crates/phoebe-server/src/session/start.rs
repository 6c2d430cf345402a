//! From a session's id to a worker that answers: port, process, connection, Bundle. A failure
//! leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use phoebe_protocol::command::SnapshotFormat;
use phoebe_protocol::packet::Info;
use phoebe_protocol::sign::Key;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::error::SessionError;
use super::file_queue::FileQueue;
use super::ports::PortLease;
use super::reply::{logged_reason, no_base, problem_of, take_base};
use super::shared::Shared;
use crate::store::snapshots::{Format, Snapshot, Versions};
use crate::worker::connection::{Connection, ConnectionError, Wanted};
use crate::worker::{LaunchError, Worker, WorkerSpec};

/// Where no port was given to anybody for this long, there is none.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long to wait before idle sessions are looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A worker, the connection to it and its port.
pub(super) struct Started {
    pub(super) worker: Worker,
    pub(super) connection: Connection,
    pub(super) port: PortLease,
    /// Set where the Bundle was migrated: what scripts begin with from now on, or why there is
    /// nothing.
    pub(super) migrated: Option<Result<Bytes, String>>,
    /// A message for the user about how the Bundle was read.
    pub(super) notice: Option<String>,
}

/// A worker that has its Bundle.
pub(super) struct BroughtUp {
    pub(super) started: Started,
    /// A message for the user.
    pub(super) notice: Option<String>,
    /// The portable copy is on disk, or is not wanted.
    pub(super) portable: bool,
}

/// Starts a worker with the session's kept Bundle, or with a fresh one where none is kept.
pub(super) async fn bring_up(
    shared: &Arc<Shared>,
    session: &str,
    files: Option<&FileQueue>,
) -> Result<BroughtUp, SessionError> {
    let Some(files) = files else {
        let started = start(shared, session, Vec::new()).await?;
        return Ok(BroughtUp { started, notice: None, portable: true });
    };
    let info = shared.python_info().await?;
    let versions = versions_of(&info);
    let recovered = files.submit(move |folder| folder.recover(&versions)).await;
    let recovered = recovered
        .map_err(|error| SessionError::Unreadable(error.to_string()))?
        .map_err(|error| SessionError::Unreadable(error.to_string()))?;
    let mut forms = recovered.forms;
    let portable = forms.iter().any(|form| form.header.format == Format::Portable);
    loop {
        match start(shared, session, forms.clone()).await {
            // The Bundle itself may have crashed the worker; its other form may be readable.
            Err(SessionError::StartFailed(reason)) if forms.len() > 1 => {
                warn!(session, reason, "a kept Bundle crashed its worker; the other form is tried");
                forms.remove(0);
            }
            started => {
                let started = started?;
                let notices = [recovered.notice, started.notice.clone()].into_iter().flatten();
                let notice = notices.collect::<Vec<_>>().join(" ");
                let notice = Some(notice).filter(|notice| !notice.is_empty());
                return Ok(BroughtUp { started, notice, portable });
            }
        }
    }
}

/// Starts a worker for `session` within the time that the settings allow, with the first of the
/// `forms` of its kept Bundle that can be read.
async fn start(
    shared: &Arc<Shared>,
    session: &str,
    forms: Vec<Snapshot>,
) -> Result<Started, SessionError> {
    let limit = Duration::from_secs_f64(shared.settings.session.start_timeout_seconds);
    match timeout(limit, shared.python_info()).await {
        Ok(info) => drop(info?),
        Err(_) => {
            return Err(SessionError::Overloaded("PHOEBE is still being imported".to_owned()));
        }
    }
    // A timeout drops the worker and the lease, which ends the process and frees the port.
    match timeout(limit, start_in_time(shared, session, forms)).await {
        Ok(result) => result,
        Err(_) => Err(SessionError::StartFailed(format!(
            "it was not ready within {} s",
            limit.as_secs_f64()
        ))),
    }
}

async fn start_in_time(
    shared: &Arc<Shared>,
    session: &str,
    forms: Vec<Snapshot>,
) -> Result<Started, SessionError> {
    let began = Instant::now();
    let (worker, port, key) = launch(shared, session).await?;
    let launched = began.elapsed();
    let ready = tokio::select! {
        ready = make_ready(shared, &worker, session, &key, forms) => ready,
        exit = worker.ended() => {
            Err(SessionError::StartFailed(format!("it ended before it was ready ({exit})")))
        }
    };
    match ready {
        Ok(Ready { connection, migrated, notice }) => {
            let launch_ms = launched.as_secs_f64() * 1000.0;
            let ready_ms = (began.elapsed() - launched).as_secs_f64() * 1000.0;
            debug!(session, launch_ms, ready_ms, "worker ready");
            Ok(Started { worker, connection, port, migrated, notice })
        }
        Err(error) => {
            worker.stop(Duration::ZERO).await;
            Err(error)
        }
    }
}

async fn launch(
    shared: &Arc<Shared>,
    session: &str,
) -> Result<(Worker, PortLease, Key), SessionError> {
    // Held until a worker has started, so that no port is tried twice.
    let mut foreign = Vec::new();
    loop {
        let lease = lease(shared).await?;
        let key = Key::new(rand::random());
        let memory_mb = shared.settings.resources.worker_memory_mb;
        let spec = WorkerSpec {
            session: session.to_owned(),
            port: lease.port(),
            key: key.clone(),
            memory_mb: (memory_mb > 0).then_some(memory_mb),
        };
        match shared.launcher.start(&spec).await {
            Ok(worker) => return Ok((worker, lease, key)),
            // Another program took the port between the check and the worker's bind.
            Err(LaunchError::AddressInUse(_)) => {
                lease.record_foreign();
                foreign.push(lease);
            }
            Err(LaunchError::Overloaded(reason)) => return Err(SessionError::Overloaded(reason)),
            Err(error) => return Err(SessionError::StartFailed(error.to_string())),
        }
    }
}

/// Leases a port, in the order of the requests. Where none is free, the longest-idle session is
/// evicted. It waits as long as other requests are being served.
async fn lease(shared: &Arc<Shared>) -> Result<PortLease, SessionError> {
    let mut asked = shared.ports.ask();
    let (_, mut given) = shared.ports.demand();
    let mut give_up = Instant::now() + PATIENCE;
    loop {
        if let Ok(lease) = asked.try_recv() {
            return Ok(lease);
        }
        let (_, given_now) = shared.ports.demand();
        if given != given_now {
            (given, give_up) = (given_now, Instant::now() + PATIENCE);
        }
        if Instant::now() >= give_up {
            return Err(SessionError::NoPort { total: shared.ports.total() });
        }
        shared.evict_for_ports(LOOK_AGAIN);
        if let Ok(Ok(lease)) = timeout(LOOK_AGAIN, &mut asked).await {
            return Ok(lease);
        }
    }
}

/// A connection to a worker that has its Bundle.
struct Ready {
    connection: Connection,
    migrated: Option<Result<Bytes, String>>,
    /// A message for the user about how the Bundle was read.
    notice: Option<String>,
}

/// Connects and restores the kept Bundle; without one, waits for the answer to a ping.
async fn make_ready(
    shared: &Shared,
    worker: &Worker,
    session: &str,
    key: &Key,
    forms: Vec<Snapshot>,
) -> Result<Ready, SessionError> {
    let broken = |error: ConnectionError| SessionError::StartFailed(error.to_string());
    let connected = Connection::connect(worker.address(), session, key, &shared.answers).await;
    let mut connection = connected.map_err(broken)?;
    if forms.is_empty() {
        let body = Bytes::from_static(br#"{"command":"ping"}"#);
        connection.request(body, None, Wanted::default()).map_err(broken)?;
        let reply = connection.next().await.map_err(broken)?;
        return match reply.header.success {
            Some(true) => Ok(Ready { connection, migrated: None, notice: None }),
            _ => Err(SessionError::StartFailed(
                "it answered the first ping with a failure".to_owned(),
            )),
        };
    }
    let mut problems = Vec::new();
    for Snapshot { header, payload } in forms {
        let format = wire_format(header.format);
        let migrates = header.is_migrated_by(&versions_of(worker.info()));
        let wanted = Wanted { snapshot: false, base: migrates };
        connection.restore(format, payload, wanted).map_err(broken)?;
        let mut reply = connection.next().await.map_err(broken)?;
        if reply.header.success == Some(true) {
            let migrated = migrates.then(|| take_base(&mut reply).unwrap_or_else(no_base));
            let notice = reply.header.notice;
            return Ok(Ready { connection, migrated, notice });
        }
        let problem = problem_of(&reply);
        let reason = logged_reason(&reply.header);
        warn!(session, ?format, reason, "a kept Bundle cannot be read");
        let (phoebe, python) = (header.versions.phoebe, header.versions.python);
        problems
            .push(format!("{format:?}, written by PHOEBE {phoebe} on Python {python}: {problem}"));
    }
    Err(SessionError::Unreadable(problems.join("; ")))
}

/// The versions of PHOEBE and Python that a worker runs.
pub(super) fn versions_of(info: &Info) -> Versions {
    Versions { phoebe: info.phoebe.clone(), python: info.python.clone() }
}

/// The name of a kept form in the protocol.
pub(super) fn wire_format(format: Format) -> SnapshotFormat {
    match format {
        Format::Pickle => SnapshotFormat::Pickle,
        Format::Portable => SnapshotFormat::Portable,
    }
}
