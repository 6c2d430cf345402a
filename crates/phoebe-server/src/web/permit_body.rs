//! A response body that holds a permit until the client has read it to its end.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// A body with a permit. The permit is dropped with the body.
pub(super) struct PermitBody<T> {
    body: Body,
    _permit: T,
}

impl<T> PermitBody<T> {
    pub(super) fn new(body: Body, permit: T) -> Self {
        Self { body, _permit: permit }
    }
}

impl<T: Unpin> hyper::body::Body for PermitBody<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
