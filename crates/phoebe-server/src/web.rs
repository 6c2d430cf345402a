//! The HTTP server: listener, TLS, connections, limits, graceful shutdown, and the middleware of
//! all routes.

mod client_address;
mod connection;
mod connection_limit;
mod headers;
mod hosts;
mod in_flight;
mod origins;
mod permit_body;
mod proxies;
mod public_address;
mod request_body;
mod request_log;
mod serve;
#[cfg(test)]
mod tests;
mod tls;

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

pub use client_address::ClientAddress;
pub use connection_limit::ConnectionLimits;
use hosts::Hosts;
pub(crate) use in_flight::{CallerLimit, CallerPermit, LimitedCaller};
use origins::Origins;
use proxies::Proxies;
pub(crate) use public_address::PublicAddress;
use public_address::PublicAddresses;
pub(crate) use request_log::CallerId;
pub use serve::serve_http;
pub use tls::{Tls, TlsError};

use crate::config::Settings;
use crate::error::HttpError;

/// Adds the middleware that every route has, innermost first.
pub fn with_middleware(routes: Router, settings: &Settings) -> Router {
    let origins = Origins::of(settings);
    let hosts = Hosts::of(settings, &origins);
    let cors = origins.cors();
    let proxies = Proxies::of(settings);
    let addresses = PublicAddresses::of(settings);
    let permits = Arc::new(Semaphore::new(
        settings.server.max_requests_in_flight.min(Semaphore::MAX_PERMITS),
    ));
    let is_https = settings.server.tls_cert.is_some();
    routes
        .layer(CatchPanicLayer::custom(answer_panic))
        .layer(middleware::from_fn(move |request, next| {
            in_flight::limit(Arc::clone(&permits), request, next)
        }))
        .layer(middleware::from_fn(request_log::log_request))
        .layer(middleware::from_fn(move |request, next| {
            client_address::find(proxies.clone(), request, next)
        }))
        .layer(middleware::from_fn(move |request, next| addresses.clone().find(request, next)))
        .layer(middleware::from_fn(move |request, next| origins.clone().guard(request, next)))
        .layer(cors)
        .layer(middleware::from_fn(move |request, next| hosts.clone().guard(request, next)))
        .layer(middleware::from_fn(move |request, next| headers::add(is_https, request, next)))
}

/// Turns a panic in a handler into a 500 for this request alone.
fn answer_panic(panic: Box<dyn Any + Send>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(message, "a handler panicked");
    HttpError::internal().into_response()
}
