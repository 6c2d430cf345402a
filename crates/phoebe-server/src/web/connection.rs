//! One connection from its first byte to its last, plain or inside TLS.

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
use super::gate::{Busy, Place};
use super::held_body::HeldBody;
use super::lent_body;
use crate::error::HttpError;

/// How long a connection may say nothing, and how long the head of a request may take.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// How long a TLS handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long a client may take to read any part of an answer that does not fit into the socket's buffers.
const READS_WITHIN: Duration = Duration::from_secs(60);
/// How long an idle connection that has to close may take to send what is left.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// The most that is buffered of a request's head, and of a body at a time.
const MAX_BUFFER: usize = 64 * 1024;

/// Serves a connection's requests until it closes, has to leave, or `stop` is cancelled; requests in flight are finished.
///
/// With `tls` the requests are inside TLS, and whoever speaks plain HTTP is told so.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    tls: Option<TlsAcceptor>,
    place: Arc<Place>,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection without TCP_NODELAY");
    }
    // A connection that says nothing holds a socket and this future, and no buffer.
    let mut first_byte = [0];
    tokio::select! {
        () = stop.cancelled() => return,
        () = place.told_to_leave() => return,
        spoke = timeout(HEAD_WITHIN, stream.peek(&mut first_byte)) => {
            if !matches!(spoke, Ok(Ok(1))) {
                return;
            }
        }
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(READS_WITHIN));
    let stream = Box::pin(stream);
    let router = if place.is_one_too_many() { too_many() } else { router };
    // Boxed, so that the many bytes of a connection's state are spent on those who speak only.
    match tls {
        None => Box::pin(converse(stream, peer, router, place, stop)).await,
        Some(acceptor) if first_byte[0] == TLS_HANDSHAKE => {
            Box::pin(converse_inside_tls(acceptor, stream, peer, router, place, stop)).await;
        }
        Some(_) => Box::pin(converse(stream, peer, https_only(), place, stop)).await,
    }
}

/// What is said to those who speak plain HTTP where TLS is served. No redirect: a token has been on the wire by then, and would be
/// sent so again with each request.
fn https_only() -> Router {
    Router::new().fallback(|| async {
        HttpError::new(
            StatusCode::BAD_REQUEST,
            "This server speaks HTTPS only: use https:// in its address",
        )
    })
}

/// What is said to an address that has as many connections as it may.
fn too_many() -> Router {
    Router::new().fallback(|| async {
        let refusal = HttpError::unavailable(
            "Your address has as many connections open as it may; close some, or try again in a moment",
        );
        ([(CONNECTION, "close")], refusal)
    })
}

/// Agrees on TLS, then serves the requests inside. Until then the connection is idle: it goes first where there is no room.
async fn converse_inside_tls(
    acceptor: TlsAcceptor,
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    peer: SocketAddr,
    router: Router,
    place: Arc<Place>,
    stop: CancellationToken,
) {
    let handshake = tokio::select! {
        () = stop.cancelled() => return,
        () = place.told_to_leave() => return,
        handshake = timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)) => handshake,
    };
    match handshake {
        Ok(Ok(stream)) => converse(stream, peer, router, place, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, peer = %peer.ip(), "a TLS handshake failed"),
        Err(_) => tracing::debug!(peer = %peer.ip(), "a TLS handshake took too long"),
    }
}

/// Serves the requests of a connection that has begun to speak.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    place: Arc<Place>,
    stop: CancellationToken,
) {
    let service = service_fn(|request| answer(request, peer, router.clone(), place.busy()));
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stop.cancelled() => None,
        () = place.told_to_leave() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None if !place.has_asked() => return,
        None => {
            connection.as_mut().graceful_shutdown();
            loop {
                tokio::select! {
                    ended = connection.as_mut() => break ended,
                    () = sleep(CLOSE_WITHIN) => if !place.is_busy() { return },
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
    busy: Busy,
) -> Result<Response<HeldBody<Busy>>, Infallible> {
    // A client that asked for leave to send its body does not send it once it has its answer.
    let waits_for_leave = request.headers().contains_key(EXPECT);
    let (parts, body) = request.into_parts();
    let (body, lender) = lent_body::lend(body);
    let mut request = Request::from_parts(parts, body);
    request.extensions_mut().insert(Peer(peer.ip()));
    let response = router.oneshot(request).await?;
    if !waits_for_leave {
        lender.discard_rest().await;
    }
    // The connection is busy until its answer has been read.
    Ok(response.map(|body| HeldBody::new(body, busy)))
}
