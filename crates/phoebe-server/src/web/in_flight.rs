//! How many requests may be in flight, in all and of one caller, so that nobody's requests take all of the server's memory.
//!
//! A request is in flight until its answer has been read. Those that wait for a computation count: the bounds are far above what a
//! class needs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use super::held_body::HeldBody;
use crate::error::HttpError;

/// Whether the server is well must be told when it is full, too.
const EXEMPT: [&str; 2] = ["/health", "/health/ready"];

/// Lets a request go on if the server has room for it.
pub(super) async fn bound(room: Arc<Semaphore>, request: Request, next: Next) -> Response {
    if EXEMPT.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    match room.try_acquire_owned() {
        Ok(place) => next.run(request).await.map(|body| Body::new(HeldBody::new(body, place))),
        Err(_) => HttpError::unavailable(
            "The server has as many requests in flight as it takes; try again in a moment",
        )
        .into_response(),
    }
}

/// Somebody whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum LimitedCaller {
    /// A user.
    User(String),
    /// An address, where users are not known.
    Address(IpAddr),
}

/// The requests in flight of each caller; cheap to clone.
#[derive(Clone)]
pub(crate) struct CallerLimit {
    limit: usize,
    counts: Arc<Mutex<HashMap<LimitedCaller, usize>>>,
}

/// A request in flight of a caller.
struct Entered {
    caller: LimitedCaller,
    counts: Arc<Mutex<HashMap<LimitedCaller, usize>>>,
}

impl CallerLimit {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, counts: Arc::default() }
    }

    /// Lets a caller's request go on unless they have too many already.
    pub(crate) async fn limit(
        &self,
        caller: LimitedCaller,
        request: Request,
        next: Next,
    ) -> Response {
        match self.enter(caller) {
            Some(entered) => {
                next.run(request).await.map(|body| Body::new(HeldBody::new(body, entered)))
            }
            None => {
                let text = format!(
                    "You have {} requests in flight, which is the limit; wait for their answers",
                    self.limit
                );
                HttpError::new(StatusCode::TOO_MANY_REQUESTS, text).retry_later().into_response()
            }
        }
    }

    fn enter(&self, caller: LimitedCaller) -> Option<Entered> {
        let mut counts = lock(&self.counts);
        let count = counts.entry(caller.clone()).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Entered { caller, counts: Arc::clone(&self.counts) })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.caller);
            }
        }
    }
}

fn lock(
    counts: &Mutex<HashMap<LimitedCaller, usize>>,
) -> MutexGuard<'_, HashMap<LimitedCaller, usize>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_counted_apart_and_forgotten() {
        let bound = CallerLimit::new(2);
        let ada = || LimitedCaller::User("ada".to_owned());
        let first = bound.enter(ada()).unwrap();
        let second = bound.enter(ada()).unwrap();
        assert!(bound.enter(ada()).is_none());
        assert!(bound.enter(LimitedCaller::User("bob".to_owned())).is_some());
        assert!(bound.enter(LimitedCaller::Address(IpAddr::from([10, 0, 0, 1]))).is_some());
        drop(first);
        assert!(bound.enter(ada()).is_some());
        drop(second);
        assert!(lock(&bound.counts).is_empty());
    }
}
