//! Limits the requests in flight, in total and per caller, to bound the server's memory.
//!
//! A request is in flight until the client has read its answer. Requests that wait for a
//! computation count. The limits are far above what a class needs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use super::permit_body::PermitBody;
use crate::error::HttpError;

/// Routes without limit: health checks and monitoring must work on a busy server.
const EXEMPT: [&str; 3] = ["/health", "/health/ready", "/metrics"];

/// Middleware: refuses a request when the server has reached its limit.
pub(super) async fn limit(permits: Arc<Semaphore>, request: Request, next: Next) -> Response {
    if EXEMPT.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    match permits.try_acquire_owned() {
        Ok(permit) => next.run(request).await.map(|body| Body::new(PermitBody::new(body, permit))),
        Err(_) => HttpError::unavailable(
            "The server has too many requests in flight; try again in a moment",
        )
        .into_response(),
    }
}

/// A caller whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum LimitedCaller {
    /// A user.
    User(String),
    /// An address, where the server has no users.
    Address(IpAddr),
}

/// The requests in flight per caller; cheap to clone.
#[derive(Clone)]
pub(crate) struct CallerLimit {
    limit: usize,
    counts: Arc<Mutex<HashMap<LimitedCaller, usize>>>,
}

/// A caller's request in flight.
pub(crate) struct CallerPermit {
    caller: LimitedCaller,
    counts: Arc<Mutex<HashMap<LimitedCaller, usize>>>,
}

impl CallerLimit {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, counts: Arc::default() }
    }

    /// Runs a caller's request, or refuses it if the caller has reached the limit.
    pub(crate) async fn limit(
        &self,
        caller: LimitedCaller,
        request: Request,
        next: Next,
    ) -> Response {
        match self.acquire(caller) {
            Some(permit) => {
                next.run(request).await.map(|body| Body::new(PermitBody::new(body, permit)))
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

    /// Counts a request until the permit is dropped. `None` if the caller has reached the limit.
    pub(crate) fn acquire(&self, caller: LimitedCaller) -> Option<CallerPermit> {
        let mut counts = lock(&self.counts);
        let count = counts.entry(caller.clone()).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(CallerPermit { caller, counts: Arc::clone(&self.counts) })
    }
}

impl Drop for CallerPermit {
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
    fn callers_are_counted_separately_and_removed() {
        let limit = CallerLimit::new(2);
        let ada = || LimitedCaller::User("ada".to_owned());
        let first = limit.acquire(ada()).unwrap();
        let second = limit.acquire(ada()).unwrap();
        assert!(limit.acquire(ada()).is_none());
        assert!(limit.acquire(LimitedCaller::User("bob".to_owned())).is_some());
        assert!(limit.acquire(LimitedCaller::Address(IpAddr::from([10, 0, 0, 1]))).is_some());
        drop(first);
        assert!(limit.acquire(ada()).is_some());
        drop(second);
        assert!(lock(&limit.counts).is_empty());
    }
}
