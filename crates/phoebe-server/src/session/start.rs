//! From a session's id to a worker that answers: port, process, connection, first ping. All of it or nothing.

use std::time::Duration;

use bytes::Bytes;
use phoebe_protocol::sign::Key;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::SessionError;
use super::manager::Shared;
use super::ports::PortLease;
use crate::worker::connection::{Commands, Replies, connect};
use crate::worker::{LaunchError, Worker, WorkerSpec};

/// What a started session has.
pub(super) struct Started {
    pub(super) worker: Worker,
    pub(super) commands: Commands,
    pub(super) replies: Replies,
    pub(super) port: PortLease,
}

/// Starts a worker for `session` within the time the settings allow.
pub(super) async fn start(shared: &Shared, session: &str) -> Result<Started, SessionError> {
    let limit = Duration::from_secs_f64(shared.settings.session.start_timeout_seconds);
    // Known from here on: no command of this session can come before the kinds of commands are known.
    match timeout(limit, shared.python_info()).await {
        Ok(info) => info?,
        Err(_) => {
            return Err(SessionError::Overloaded("PHOEBE is still being imported".to_owned()));
        }
    };
    // Giving up drops whatever there is so far, and with it the process and the port.
    match timeout(limit, start_in_time(shared, session)).await {
        Ok(result) => result,
        Err(_) => Err(SessionError::StartFailed(format!(
            "it was not ready within {} s",
            limit.as_secs_f64()
        ))),
    }
}

async fn start_in_time(shared: &Shared, session: &str) -> Result<Started, SessionError> {
    let began = Instant::now();
    let (worker, port, key) = launch(shared, session).await?;
    let launched = began.elapsed();
    match first_ping(&worker, session, &key).await {
        Ok((commands, replies)) => {
            let launch_ms = launched.as_secs_f64() * 1000.0;
            let ping_ms = (began.elapsed() - launched).as_secs_f64() * 1000.0;
            debug!(session, launch_ms, ping_ms, "worker ready");
            Ok(Started { worker, commands, replies, port })
        }
        Err(reason) => {
            worker.stop(Duration::ZERO).await;
            Err(SessionError::StartFailed(reason))
        }
    }
}

async fn launch(shared: &Shared, session: &str) -> Result<(Worker, PortLease, Key), SessionError> {
    // Held until there is a worker: no port is tried twice.
    let mut lost = Vec::new();
    loop {
        let no_port = SessionError::NoPort { total: shared.ports.total() };
        let lease = shared.ports.lease().ok_or(no_port)?;
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
            // Somebody took the port between the look and the worker's bind: the next one, then.
            Err(LaunchError::AddressInUse(_)) => {
                lease.note_stranger();
                lost.push(lease);
            }
            Err(LaunchError::Overloaded(reason)) => return Err(SessionError::Overloaded(reason)),
            Err(error) => return Err(SessionError::StartFailed(error.to_string())),
        }
    }
}

async fn first_ping(
    worker: &Worker,
    session: &str,
    key: &Key,
) -> Result<(Commands, Replies), String> {
    let ping = async {
        let (mut commands, mut replies) =
            connect(worker.address(), session, key).await.map_err(|error| error.to_string())?;
        let body = Bytes::from_static(br#"{"command":"ping"}"#);
        commands.request(body, None).await.map_err(|error| error.to_string())?;
        let reply = replies.next().await.map_err(|error| error.to_string())?;
        match reply.header.success {
            Some(true) => Ok((commands, replies)),
            _ => Err("it answered the first ping with a failure".to_owned()),
        }
    };
    tokio::select! {
        result = ping => result,
        exit = worker.ended() => Err(format!("it ended before it was ready ({exit})")),
    }
}
