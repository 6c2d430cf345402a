//! The listener: accepts until told to stop, then waits for what it started.

use std::future::Future;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection;
use super::gate::Gate;

/// How long requests in flight may take after the server was told to stop.
const FINISH_WITHIN: Duration = Duration::from_secs(2);
/// How long to wait before accepting again when the system refuses, e.g. for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The most connections, however many files may be open.
const MAX_CONNECTIONS: u64 = 20_000;

/// Serves `router` on `listener` until `shutdown` resolves.
///
/// Then nothing more is accepted, requests in flight have two seconds to finish, and every task has ended when this returns.
pub async fn serve_http(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    serve_at_most(connection_limit(), listener, router, shutdown).await;
}

/// [`serve_http`] with at most `limit` connections.
async fn serve_at_most(
    limit: usize,
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
) {
    let gate = Gate::new(limit);
    let (stop, abandon) = (CancellationToken::new(), CancellationToken::new());
    let connections = TaskTracker::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            let (stream, peer) = accept(&listener, &gate).await;
            (stream, peer, gate.admit().await)
        };
        let (stream, peer, place) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            next = next => next,
        };
        let served = connection::serve(stream, peer, router.clone(), place, stop.clone());
        let abandon = abandon.clone();
        connections.spawn(async move { abandon.run_until_cancelled(served).await });
    }
    drop(listener);
    stop.cancel();
    connections.close();
    if timeout(FINISH_WITHIN, connections.wait()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "requests did not finish in time and are given up"
        );
        abandon.cancel();
        connections.wait().await;
    }
}

/// The next connection, however often the system refuses one.
async fn accept(listener: &TcpListener, gate: &Gate) -> (TcpStream, SocketAddr) {
    let mut reported = false;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                if !reported {
                    tracing::error!(%error, "no connection can be accepted; trying again");
                    reported = true;
                }
                gate.close_longest_idle();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether the error concerns one client that has left already.
fn is_the_clients(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}

/// Half of the files that may be open: workers, the database and logs need the others.
fn connection_limit() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from((files / 2).clamp(16, MAX_CONNECTIONS)).unwrap_or(16)
}
