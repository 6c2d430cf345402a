//! A request's body that comes back if nobody read it to its end.
//!
//! A request that is refused early leaves its body in the connection. Closing it there would reset the connection under a client
//! that is still sending, which then never reads why it was refused. So the rest is read and dropped, within bounds.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::poll_fn;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// For how long the rest of a body is read and dropped.
const DISCARD_WITHIN: Duration = Duration::from_secs(10);

/// A body in the hands of a handler.
pub(super) struct LentBody {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
}

/// Where the body comes back to.
pub(super) struct Lender(oneshot::Receiver<Incoming>);

/// Lends a body.
pub(super) fn lend(body: Incoming) -> (LentBody, Lender) {
    let (back, lender) = oneshot::channel();
    (LentBody { body: Some(body), back: Some(back) }, Lender(lender))
}

impl Lender {
    /// Reads and drops what nobody read of a body that has come back.
    pub(super) async fn discard_rest(mut self) {
        let Ok(mut body) = self.0.try_recv() else { return };
        let rest = async {
            while let Some(Ok(_)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
            {
            }
        };
        if timeout(DISCARD_WITHIN, rest).await.is_err() {
            tracing::debug!("the rest of a body that nobody wants did not come in time");
        }
    }
}

impl Body for LentBody {
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

impl Drop for LentBody {
    fn drop(&mut self) {
        if let (false, Some(body), Some(back)) =
            (self.is_end_stream(), self.body.take(), self.back.take())
        {
            // Without a receiver the request has been given up, and its body with it.
            let _given_up = back.send(body);
        }
    }
}
