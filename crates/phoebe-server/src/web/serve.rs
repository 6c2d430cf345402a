//! The listener: accepts connections until shutdown, then waits for the connections it has started.

use std::future::Future;
use std::io::{Error, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection;
use super::connection_limit::{ConnectionLimiter, ConnectionLimits};
use super::tls::Tls;
use crate::config::ServerSettings;

/// How long requests in flight may take after shutdown has begun.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait before the next accept after the system refused one, for example for lack of
/// file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The most connections, whatever the limit on open files.
const MAX_CONNECTIONS: u64 = 20_000;
/// The accept backlog. A class that starts together exceeds the usual 128, and a client that does
/// not fit waits a second.
const BACKLOG: i32 = 1024;

/// Serves `router` on `listener` until `shutdown` resolves, inside TLS if `tls` is given.
///
/// After that it accepts nothing more and gives requests in flight two seconds to finish. All its
/// tasks have ended when it returns.
pub async fn serve_http(
    listener: TcpListener,
    tls: Option<Tls>,
    limits: ConnectionLimits,
    router: Router,
    shutdown: impl Future<Output = ()>,
) {
    // On a listening socket, `listen` replaces the backlog.
    if let Err(error) = rustix::net::listen(&listener, BACKLOG) {
        tracing::warn!(%error, "the backlog of the listener could not be set");
    }
    let limiter = ConnectionLimiter::new(limits);
    let (stop, abandon) = (CancellationToken::new(), CancellationToken::new());
    let connections = TaskTracker::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            let (stream, peer) = accept(&listener, &limiter).await;
            (stream, peer, limiter.admit(peer.ip()).await)
        };
        let (stream, peer, slot) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            next = next => next,
        };
        let acceptor = tls.as_ref().map(Tls::acceptor);
        let served = connection::serve(stream, peer, router.clone(), acceptor, slot, stop.clone());
        let abandon = abandon.clone();
        connections.spawn(async move { abandon.run_until_cancelled(served).await });
    }
    drop(listener);
    stop.cancel();
    connections.close();
    if timeout(FINISH_TIMEOUT, connections.wait()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "requests did not finish in time and are aborted"
        );
        abandon.cancel();
        connections.wait().await;
    }
}

/// Accepts the next connection. Retries for as long as the system refuses.
async fn accept(listener: &TcpListener, limiter: &ConnectionLimiter) -> (TcpStream, SocketAddr) {
    let mut reported = false;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_client_error(&error) => {}
            Err(error) => {
                if !reported {
                    tracing::error!(%error, "no connection can be accepted; trying again");
                    reported = true;
                }
                limiter.close_longest_idle();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Returns whether the error concerns one client that has left.
fn is_client_error(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}

impl ConnectionLimits {
    /// Reads the limits from the settings. The total is half of the files that may be open;
    /// workers, the database and logs need the rest.
    #[must_use]
    pub fn of(settings: &ServerSettings) -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let total = usize::try_from((files / 2).clamp(16, MAX_CONNECTIONS)).unwrap_or(16);
        // A proxy on this machine needs no entry in the settings.
        let here: [ipnet::IpNet; 2] =
            [IpAddr::from(Ipv4Addr::LOCALHOST).into(), IpAddr::from(Ipv6Addr::LOCALHOST).into()];
        let shared_addresses = [&settings.trusted_proxies[..], &here].concat();
        Self { total, per_address: settings.max_connections_per_address, shared_addresses }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    const PATIENCE: Duration = Duration::from_secs(20);
    const ASK: &[u8] = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    const ASK_SLOW: &[u8] = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n";

    /// More than a socket's buffers hold.
    const LARGE: usize = 64 << 20;

    /// A server on a free port. It answers `/health` at once and `/slow` on demand.
    struct Server {
        address: SocketAddr,
        reached: Arc<Notify>,
        go_on: Arc<Notify>,
        stop: CancellationToken,
        task: JoinHandle<()>,
    }

    impl Server {
        async fn start(total: usize) -> Self {
            Self::with(ConnectionLimits { total, per_address: 0, shared_addresses: Vec::new() })
                .await
        }

        async fn with(limits: ConnectionLimits) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (reached, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let slow = {
                let (reached, go_on) = (Arc::clone(&reached), Arc::clone(&go_on));
                move || async move {
                    reached.notify_one();
                    go_on.notified().await;
                    "slow"
                }
            };
            let router = Router::new()
                .route("/health", get(|| async { "ok" }))
                .route("/large", get(|| async { vec![b'x'; LARGE] }))
                .route("/slow", get(slow));
            let stop = CancellationToken::new();
            let stopped = stop.clone().cancelled_owned();
            let task = tokio::spawn(serve_http(listener, None, limits, router, stopped));
            Self { address, reached, go_on, stop, task }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        async fn ends(self) {
            timeout(PATIENCE, self.task).await.expect("it ends").unwrap();
        }
    }

    /// Reads until `text` has arrived.
    async fn read_until(stream: &mut TcpStream, text: &str) {
        let mut got = Vec::new();
        let read = async {
            while !String::from_utf8_lossy(&got).contains(text) {
                assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0, "closed: {got:?}");
            }
        };
        timeout(PATIENCE, read).await.expect("an answer in time");
    }

    async fn is_closed(stream: &mut TcpStream) -> bool {
        matches!(timeout(PATIENCE, stream.read(&mut [0])).await, Ok(Ok(0) | Err(_)))
    }

    #[tokio::test]
    async fn silent_connections_are_closed_for_one_with_a_request() {
        let server = Server::start(8).await;
        let mut silent = Vec::new();
        for _ in 0..40 {
            silent.push(server.connect().await);
        }
        let mut asking = server.connect().await;
        asking.write_all(ASK).await.unwrap();
        read_until(&mut asking, "ok").await;
        assert!(is_closed(&mut silent[0]).await, "the longest-idle one has left");
        server.stop.cancel();
        server.ends().await;
    }

    #[tokio::test]
    async fn a_connection_with_an_incomplete_head_is_closed_too() {
        let server = Server::start(2).await;
        let mut half = [server.connect().await, server.connect().await];
        for stream in &mut half {
            stream.write_all(b"GET /health HTT").await.unwrap();
        }
        let mut asking = server.connect().await;
        asking.write_all(ASK).await.unwrap();
        read_until(&mut asking, "ok").await;
        server.stop.cancel();
        server.ends().await;
    }

    #[tokio::test]
    async fn an_address_with_too_many_busy_connections_gets_a_503() {
        let limits = ConnectionLimits { total: 16, per_address: 1, shared_addresses: Vec::new() };
        let server = Server::with(limits).await;
        let mut busy = server.connect().await;
        busy.write_all(ASK_SLOW).await.unwrap();
        server.reached.notified().await;
        let mut another = server.connect().await;
        another.write_all(ASK).await.unwrap();
        let mut refusal = Vec::new();
        timeout(PATIENCE, another.read_to_end(&mut refusal)).await.expect("closed").unwrap();
        let refusal = String::from_utf8_lossy(&refusal);
        assert!(refusal.contains("503") && refusal.contains("retry-after"), "{refusal}");
        server.go_on.notify_one();
        read_until(&mut busy, "slow").await;
        drop(busy);
        let mut later = server.connect().await;
        later.write_all(ASK).await.unwrap();
        read_until(&mut later, "ok").await;
        server.stop.cancel();
        server.ends().await;
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        let server = Server::start(2).await;
        for large in [
            format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(300_000)),
            format!("GET /health HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "x".repeat(300_000)),
            format!("GET /health HTTP/1.1\r\nhost: x\r\n{}\r\n", "x-many: x\r\n".repeat(200)),
        ] {
            let mut stream = server.connect().await;
            // The server may refuse the connection before all is written.
            let _refused = stream.write_all(large.as_bytes()).await;
            read_until(&mut stream, "HTTP/1.1 4").await;
        }
        server.stop.cancel();
        server.ends().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_its_answer_is_disconnected() {
        let server = Server::start(2).await;
        let mut lazy = server.connect().await;
        lazy.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        sleep(Duration::from_secs(3600)).await;
        let (mut answer, mut piece) = (0, vec![0; 1 << 20]);
        while let Ok(length @ 1..) = lazy.read(&mut piece).await {
            answer += length;
        }
        assert!((1..LARGE).contains(&answer), "{answer}");
        server.stop.cancel();
        server.ends().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_incomplete_head_times_out() {
        let server = Server::start(2).await;
        let mut half = server.connect().await;
        half.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n").await.unwrap();
        let given_up = timeout(Duration::from_secs(3600), half.read_to_end(&mut Vec::new())).await;
        assert!(given_up.is_ok());
        server.stop.cancel();
        server.ends().await;
    }

    #[tokio::test]
    async fn a_refused_client_can_finish_sending_and_send_another_request() {
        let server = Server::start(2).await;
        let mut stream = server.connect().await;
        let head = format!("POST /nope HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", 4 << 20);
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..4 {
            stream.write_all(&[b'x'; 1 << 20]).await.unwrap();
        }
        read_until(&mut stream, "404").await;
        stream.write_all(ASK).await.unwrap();
        read_until(&mut stream, "ok").await;
        server.stop.cancel();
        server.ends().await;
    }

    #[tokio::test]
    async fn a_busy_connection_is_not_closed_for_another() {
        let server = Server::start(2).await;
        let mut busy = server.connect().await;
        busy.write_all(ASK_SLOW).await.unwrap();
        server.reached.notified().await;
        for _ in 0..10 {
            let mut asking = server.connect().await;
            asking.write_all(ASK).await.unwrap();
            read_until(&mut asking, "ok").await;
        }
        server.go_on.notify_one();
        read_until(&mut busy, "slow").await;
        server.stop.cancel();
        server.ends().await;
    }

    #[tokio::test]
    async fn shutdown_finishes_requests_in_flight_and_closes_idle_connections() {
        let server = Server::start(8).await;
        let (mut idle, mut kept, mut busy) =
            (server.connect().await, server.connect().await, server.connect().await);
        kept.write_all(ASK).await.unwrap();
        read_until(&mut kept, "ok").await;
        busy.write_all(ASK_SLOW).await.unwrap();
        server.reached.notified().await;
        server.stop.cancel();
        assert!(is_closed(&mut idle).await);
        assert!(is_closed(&mut kept).await);
        server.go_on.notify_one();
        read_until(&mut busy, "slow").await;
        assert!(is_closed(&mut busy).await);
        let address = server.address;
        server.ends().await;
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
    }

    #[tokio::test]
    async fn shutdown_has_a_time_limit() {
        let server = Server::start(8).await;
        let mut busy = server.connect().await;
        busy.write_all(ASK_SLOW).await.unwrap();
        server.reached.notified().await;
        server.stop.cancel();
        server.ends().await;
        assert!(is_closed(&mut busy).await);
    }
}
