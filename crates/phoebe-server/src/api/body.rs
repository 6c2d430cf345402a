//! Reads request bodies within limits on size, time and memory, and unpacks gzip within the same
//! limits.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_ENCODING, HeaderMap};
use bytes::BytesMut;
use flate2::write::MultiGzDecoder;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::state::Shared;
use crate::config::ServerSettings;
use crate::error::HttpError;

/// The whole body of a request, up to `[server] max_body_mb`, with its memory permit. Keep the
/// permit as long as the body.
pub(super) struct LargeBody(pub(super) Bytes, pub(super) BodyPermit);

/// The whole body of a request that is small by nature.
pub(super) struct SmallBody(pub(super) Bytes);

/// Bytes per permit.
const PERMIT_BYTES: u64 = 64 * 1024;

/// The largest [`SmallBody`] in bytes.
const MAX_SMALL: u64 = 256 * 1024;

/// A body may take this long, plus the time that its bytes need at [`MIN_BYTES_PER_SECOND`].
const BASE_TIMEOUT: Duration = Duration::from_secs(30);
/// The slowest accepted transfer.
const MIN_BYTES_PER_SECOND: u64 = 16 * 1024;

impl FromRequest<Shared> for LargeBody {
    type Rejection = HttpError;

    async fn from_request(request: Request, context: &Shared) -> Result<Self, HttpError> {
        let limit = context.app.settings.server.max_body_mb.saturating_mul(1024 * 1024);
        let mut permit = BodyPermit::of(&context.body_memory);
        let body = read(request, limit, BASE_TIMEOUT, &mut permit).await?;
        Ok(Self(body, permit))
    }
}

impl FromRequest<Shared> for SmallBody {
    type Rejection = HttpError;

    async fn from_request(request: Request, context: &Shared) -> Result<Self, HttpError> {
        let limit = context.app.settings.server.max_body_mb.saturating_mul(1024 * 1024);
        let mut permit = BodyPermit::of(&context.body_memory);
        read(request, limit.min(MAX_SMALL), BASE_TIMEOUT, &mut permit).await.map(Self)
    }
}

/// Returns the permits for the memory of all request bodies, `[server] max_bodies_mb`, one per
/// [`PERMIT_BYTES`].
pub(super) fn memory_limit(settings: &ServerSettings) -> Arc<Semaphore> {
    // The largest allowed body must fit when it is alone.
    let mebibytes = settings.max_bodies_mb.max(settings.max_body_mb);
    let pieces = mebibytes.saturating_mul(1024 * 1024 / PERMIT_BYTES);
    let pieces = usize::try_from(pieces).unwrap_or(usize::MAX);
    Arc::new(Semaphore::new(pieces.min(Semaphore::MAX_PERMITS)))
}

/// The memory permit of one body. A body below [`PERMIT_BYTES`] needs none: the limit on requests
/// in flight bounds such bodies.
pub(super) struct BodyPermit {
    all: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
}

impl BodyPermit {
    fn of(all: &Arc<Semaphore>) -> Self {
        Self { all: Arc::clone(all), taken: None }
    }

    /// Takes the permits that a body of this many bytes still needs. Returns `false` if there are
    /// not enough.
    fn grow(&mut self, bytes: u64) -> bool {
        let taken = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted =
            usize::try_from(bytes / PERMIT_BYTES).unwrap_or(usize::MAX).saturating_sub(taken);
        let Ok(wanted) = u32::try_from(wanted) else { return false };
        if wanted == 0 {
            return true;
        }
        match (Arc::clone(&self.all).try_acquire_many_owned(wanted), &mut self.taken) {
            (Err(_), _) => false,
            (Ok(more), Some(taken)) => {
                taken.merge(more);
                true
            }
            (Ok(more), taken @ None) => {
                *taken = Some(more);
                true
            }
        }
    }
}

async fn read(
    request: Request,
    limit: u64,
    base_timeout: Duration,
    permit: &mut BodyPermit,
) -> Result<Bytes, HttpError> {
    let mut content = Content::of(request.headers(), limit)?;
    let body = request.into_body();
    // Exact if the client sent a length, else a lower bound.
    if body.size_hint().lower() > limit {
        return Err(too_large(limit));
    }
    let start = Instant::now();
    let mut stream = body.into_data_stream();
    let mut received: u64 = 0;
    loop {
        let deadline = start + base_timeout + Duration::from_secs(received / MIN_BYTES_PER_SECOND);
        let frame = match timeout_at(deadline, stream.next()).await {
            Err(_) => return Err(too_slow()),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(incomplete(&error)),
            Ok(Some(Ok(frame))) => frame,
        };
        received += frame.len() as u64;
        let length = content.add(frame)?;
        if length > limit {
            return Err(too_large(limit));
        }
        if !permit.grow(length) {
            return Err(HttpError::unavailable(
                "The server has no memory for more large request bodies; try again in a moment",
            ));
        }
    }
    content.finish()
}

/// The received part of a body.
enum Content {
    /// Not compressed. A body in one frame, the usual case, is not copied.
    Plain { first: Bytes, rest: BytesMut },
    /// Compressed by gzip.
    Gzip(Box<MultiGzDecoder<BoundedBuffer>>),
}

impl Content {
    /// Starts an empty body with these headers.
    fn of(headers: &HeaderMap, limit: u64) -> Result<Self, HttpError> {
        let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
        match (encodings.next().map(|encoding| encoding.as_bytes()), encodings.next()) {
            (None, _) => Ok(Self::plain()),
            (Some(one), None) if one.eq_ignore_ascii_case(b"identity") => Ok(Self::plain()),
            (Some(one), None)
                if one.eq_ignore_ascii_case(b"gzip") || one.eq_ignore_ascii_case(b"x-gzip") =>
            {
                let unpacked = BoundedBuffer { bytes: BytesMut::new(), limit };
                Ok(Self::Gzip(Box::new(MultiGzDecoder::new(unpacked))))
            }
            _ => Err(HttpError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The request body has an unsupported Content-Encoding; use gzip, or none",
            )),
        }
    }

    fn plain() -> Self {
        Self::Plain { first: Bytes::new(), rest: BytesMut::new() }
    }

    /// Adds a frame. Returns the length so far, unpacked.
    fn add(&mut self, frame: Bytes) -> Result<u64, HttpError> {
        match self {
            Self::Plain { first, rest } => {
                if first.is_empty() {
                    *first = frame;
                } else {
                    if rest.is_empty() {
                        rest.extend_from_slice(first);
                    }
                    rest.extend_from_slice(&frame);
                }
                Ok(first.len().max(rest.len()) as u64)
            }
            Self::Gzip(decoder) => match decoder.write_all(&frame) {
                Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                    Err(too_large(decoder.get_ref().limit))
                }
                Err(error) => Err(not_gzip(&error)),
                Ok(()) => Ok(decoder.get_ref().bytes.len() as u64),
            },
        }
    }

    fn finish(self) -> Result<Bytes, HttpError> {
        match self {
            Self::Plain { first, rest } if rest.is_empty() => Ok(first),
            Self::Plain { rest, .. } => Ok(rest.freeze()),
            Self::Gzip(decoder) => {
                let limit = decoder.get_ref().limit;
                match decoder.finish() {
                    Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                        Err(too_large(limit))
                    }
                    Err(error) => Err(not_gzip(&error)),
                    Ok(unpacked) => Ok(unpacked.bytes.freeze()),
                }
            }
        }
    }
}

/// The decoder's output, bounded by the limit.
struct BoundedBuffer {
    bytes: BytesMut,
    limit: u64,
}

impl Write for BoundedBuffer {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() + piece.len()) as u64 > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn not_gzip(error: &io::Error) -> HttpError {
    HttpError::new(StatusCode::BAD_REQUEST, format!("The request body is not valid gzip: {error}"))
}

fn too_large(limit: u64) -> HttpError {
    let limit = match limit / (1024 * 1024) {
        0 => format!("{} KiB", limit / 1024),
        mebibytes => format!("{mebibytes} MiB"),
    };
    HttpError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("The request body is larger than the limit of {limit}"),
    )
}

fn too_slow() -> HttpError {
    HttpError::new(StatusCode::REQUEST_TIMEOUT, "The request body arrived too slowly")
}

fn incomplete(error: &axum::Error) -> HttpError {
    tracing::debug!(%error, "a request body ended early");
    HttpError::new(StatusCode::BAD_REQUEST, "The request body ended early")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const MIB: usize = 1024 * 1024;

    fn plenty() -> BodyPermit {
        BodyPermit::of(&memory_limit(&ServerSettings::default()))
    }

    fn request(body: Body) -> Request {
        Request::new(body)
    }

    /// A chunked body of `count` frames of 1 MiB, and the number of frames that were polled.
    fn frames(count: usize) -> (Body, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let stream = futures::stream::iter(0..count).map(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; MIB]))
        });
        (Body::from_stream(stream), asked)
    }

    #[tokio::test]
    async fn a_body_in_one_frame_is_not_copied() {
        let sent = Bytes::from_static(b"{\"command\": \"ping\"}");
        let got = read(request(Body::from(sent.clone())), 100, BASE_TIMEOUT, &mut plenty())
            .await
            .unwrap();
        assert_eq!(got.as_ptr(), sent.as_ptr());
    }

    #[tokio::test]
    async fn frames_are_joined_up_to_the_limit() {
        let (body, _) = frames(2);
        assert_eq!(
            read(request(body), 2 * MIB as u64, BASE_TIMEOUT, &mut plenty()).await.unwrap().len(),
            2 * MIB
        );
        let (body, asked) = frames(100);
        let refused =
            read(request(body), 2 * MIB as u64, BASE_TIMEOUT, &mut plenty()).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(asked.load(Ordering::Relaxed), 3, "no more is asked for");
    }

    #[tokio::test]
    async fn all_bodies_together_are_limited() {
        let permit = Arc::new(Semaphore::new(3 * MIB / PERMIT_BYTES as usize));
        let (mut first, mut second) = (BodyPermit::of(&permit), BodyPermit::of(&permit));
        let limit = 100 * MIB as u64;
        read(request(frames(2).0), limit, BASE_TIMEOUT, &mut first).await.unwrap();
        let refused =
            read(request(frames(2).0), limit, BASE_TIMEOUT, &mut second).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(second);
        let mut third = BodyPermit::of(&permit);
        read(request(frames(1).0), limit, BASE_TIMEOUT, &mut third).await.unwrap();
        let small =
            read(request(Body::from("{}")), limit, BASE_TIMEOUT, &mut BodyPermit::of(&permit))
                .await;
        assert_eq!(small.unwrap(), "{}", "a small one finds room");
        drop((first, third));
        assert_eq!(permit.available_permits(), 3 * MIB / PERMIT_BYTES as usize);
    }

    fn packed(content: &[u8], encoding: &'static str) -> Request {
        let mut writer = GzEncoder::new(Vec::new(), Compression::best());
        writer.write_all(content).unwrap();
        let body = Body::from(writer.finish().unwrap());
        Request::builder().header(CONTENT_ENCODING, encoding).body(body).unwrap()
    }

    #[tokio::test]
    async fn a_compressed_body_is_unpacked_up_to_the_limit() {
        let limit = 2 * MIB as u64;
        for encoding in ["gzip", "GZIP", "x-gzip"] {
            let got =
                read(packed(b"{\"a\": 1}", encoding), limit, BASE_TIMEOUT, &mut plenty()).await;
            assert_eq!(got.unwrap(), "{\"a\": 1}");
        }
        let most = vec![b' '; 2 * MIB];
        assert_eq!(
            read(packed(&most, "gzip"), limit, BASE_TIMEOUT, &mut plenty()).await.unwrap(),
            most
        );
        let bomb = packed(&vec![0; 64 * MIB], "gzip");
        let refused = read(bomb, limit, BASE_TIMEOUT, &mut plenty()).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn unsupported_or_damaged_encodings_are_refused() {
        for encoding in ["br", "gzip, gzip", "deflate", ""] {
            let refused = read(packed(b"{}", encoding), 100, BASE_TIMEOUT, &mut plenty()).await;
            assert_eq!(refused.unwrap_err().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        let damaged = Request::builder().header(CONTENT_ENCODING, "gzip");
        let refused =
            read(damaged.body(Body::from("{}")).unwrap(), 100, BASE_TIMEOUT, &mut plenty()).await;
        assert_eq!(refused.unwrap_err().status(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn a_length_above_the_limit_is_refused_before_reading() {
        let large = request(Body::from(vec![b'x'; 101]));
        let refused = read(large, 100, BASE_TIMEOUT, &mut plenty()).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_body_times_out() {
        let frames = futures::stream::once(async { Ok::<_, std::io::Error>("{".into()) })
            .chain(futures::stream::pending::<Result<Bytes, _>>());
        let refused = read(request(Body::from_stream(frames)), 100, BASE_TIMEOUT, &mut plenty())
            .await
            .unwrap_err();
        assert_eq!(refused.status(), StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test]
    async fn an_incomplete_body_is_a_bad_request() {
        let broken = futures::stream::once(async {
            Err::<Bytes, _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
        });
        let refused = read(request(Body::from_stream(broken)), 100, BASE_TIMEOUT, &mut plenty())
            .await
            .unwrap_err();
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    }
}
