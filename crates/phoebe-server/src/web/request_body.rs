//! A request body whose unread rest is drained after the answer.
//!
//! A request that is refused early leaves its body in the connection. Closing the connection then
//! would reset it while the client still sends, and the client would never read the answer. So the
//! rest is read and discarded, within limits.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::poll_fn;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long the rest of a body is drained.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The body that the handler reads. When dropped unread, it goes to [`UnreadBody`].
pub(super) struct RequestBody {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
}

/// Receives a body that the handler has not read to its end.
pub(super) struct UnreadBody(oneshot::Receiver<Incoming>);

/// Splits a body into the handler's part and the part that drains the rest.
pub(super) fn track(body: Incoming) -> (RequestBody, UnreadBody) {
    let (back, unread) = oneshot::channel();
    (RequestBody { body: Some(body), back: Some(back) }, UnreadBody(unread))
}

impl UnreadBody {
    /// Reads and discards the rest of the body.
    pub(super) async fn drain(mut self) {
        let Ok(mut body) = self.0.try_recv() else { return };
        let rest = async {
            while let Some(Ok(_)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
            {
            }
        };
        if timeout(DRAIN_TIMEOUT, rest).await.is_err() {
            tracing::debug!("the rest of an unread request body did not arrive in time");
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let (false, Some(body), Some(back)) =
            (self.is_end_stream(), self.body.take(), self.back.take())
        {
            // The receiver is gone if the request was given up; then the body is dropped.
            let _ = back.send(body);
        }
    }
}
