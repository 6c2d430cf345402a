//! Serves one connection, plain or inside TLS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, EXPECT};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::client_address::Peer;
use super::connection_limit::{ConnectionSlot, RequestGuard};
use super::permit_body::PermitBody;
use super::request_body;
use crate::error::HttpError;

/// The longest silence before a request, and the longest time that a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest time that a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// The longest time that a write may block because the client reads nothing.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an idle connection may take to send its remaining bytes before it is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The largest buffer for a request's head, and for a piece of a body.
const MAX_BUFFER: usize = 64 * 1024;

/// Serves a connection's requests until it closes, its slot is needed, or `stop` is cancelled.
/// Requests in flight are finished.
///
/// With `tls` the requests are inside TLS. A client that speaks plain HTTP then gets a 400.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    tls: Option<TlsAcceptor>,
    slot: Arc<ConnectionSlot>,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    // A silent connection costs a socket and this future, but no buffer.
    let mut first_byte = [0];
    tokio::select! {
        () = stop.cancelled() => return,
        () = slot.close_requested() => return,
        spoke = timeout(HEAD_TIMEOUT, stream.peek(&mut first_byte)) => {
            if !matches!(spoke, Ok(Ok(1))) {
                return;
            }
        }
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let stream = Box::pin(stream);
    let router = if slot.exceeds_limit() { refuse_too_many() } else { router };
    // Boxed, so that only connections with requests pay for the large state.
    match tls {
        None => Box::pin(serve_requests(stream, peer, router, slot, stop)).await,
        Some(acceptor) if first_byte[0] == TLS_HANDSHAKE => {
            Box::pin(serve_tls(acceptor, stream, peer, router, slot, stop)).await;
        }
        Some(_) => Box::pin(serve_requests(stream, peer, refuse_plain_http(), slot, stop)).await,
    }
}

/// Answers plain HTTP on a TLS port. It does not redirect: the request may have carried a token in
/// clear text, and each later one would too.
fn refuse_plain_http() -> Router {
    Router::new().fallback(|| async {
        HttpError::new(
            StatusCode::BAD_REQUEST,
            "This server speaks HTTPS only: use https:// in its address",
        )
    })
}

/// Answers a client whose address has reached its limit of connections.
fn refuse_too_many() -> Router {
    Router::new().fallback(|| async {
        let refusal = HttpError::unavailable(
            "Your address has too many open connections; close some, or try again in a moment",
        );
        ([(CONNECTION, "close")], refusal)
    })
}

/// Performs the TLS handshake, then serves the requests. Until then the connection counts as idle
/// and may be closed for a new one.
async fn serve_tls(
    acceptor: TlsAcceptor,
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    peer: SocketAddr,
    router: Router,
    slot: Arc<ConnectionSlot>,
    stop: CancellationToken,
) {
    let handshake = tokio::select! {
        () = stop.cancelled() => return,
        () = slot.close_requested() => return,
        handshake = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => handshake,
    };
    match handshake {
        Ok(Ok(stream)) => serve_requests(stream, peer, router, slot, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, peer = %peer.ip(), "a TLS handshake failed"),
        Err(_) => tracing::debug!(peer = %peer.ip(), "a TLS handshake took too long"),
    }
}

/// Serves the requests of a connection that has sent its first byte.
async fn serve_requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    slot: Arc<ConnectionSlot>,
    stop: CancellationToken,
) {
    let service = service_fn(|request| answer(request, peer, router.clone(), slot.begin_request()));
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stop.cancelled() => None,
        () = slot.close_requested() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None if !slot.had_request() => return,
        None => {
            connection.as_mut().graceful_shutdown();
            loop {
                tokio::select! {
                    ended = connection.as_mut() => break ended,
                    () = sleep(CLOSE_TIMEOUT) => if !slot.is_busy() { return },
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    router: Router,
    guard: RequestGuard,
) -> Result<Response<PermitBody<RequestGuard>>, Infallible> {
    // A client that sent `Expect: 100-continue` does not send its body after a final answer.
    let waits_for_leave = request.headers().contains_key(EXPECT);
    let (parts, body) = request.into_parts();
    let (body, unread) = request_body::track(body);
    let mut request = Request::from_parts(parts, body);
    request.extensions_mut().insert(Peer(peer.ip()));
    let response = router.oneshot(request).await?;
    if !waits_for_leave {
        unread.drain().await;
    }
    // The connection is busy until the client has read the answer.
    Ok(response.map(|body| PermitBody::new(body, guard)))
}
