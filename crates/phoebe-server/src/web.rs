//! Serving: listener, TLS, connections, limits, graceful shutdown, and what holds for every route alike.

mod client_address;
mod connection;
mod gate;
mod lent_body;
mod origins;
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
use tower_http::catch_panic::CatchPanicLayer;

pub use client_address::ClientAddress;
use origins::Origins;
pub use serve::serve_http;
pub use tls::{Tls, TlsError};

use crate::api;
use crate::auth::Authenticator;
use crate::config::Settings;
use crate::error::HttpError;
use crate::session::SessionManager;
use crate::store::Store;

/// The parts of the server that requests need.
#[derive(Clone)]
pub struct App {
    /// The settings.
    pub settings: Arc<Settings>,
    /// All sessions.
    pub sessions: SessionManager,
    /// The database.
    pub store: Store,
    /// Who is asking.
    pub authenticator: Authenticator,
}

/// All routes with everything that surrounds them.
pub fn router(app: App) -> Router {
    let settings = Arc::clone(&app.settings);
    surround(api::routes(app), &settings)
}

/// What holds for every route alike, from the inside out.
fn surround(routes: Router, settings: &Settings) -> Router {
    let guard = Origins::of(settings);
    let cors = guard.cors();
    let proxies: Arc<[_]> = settings.server.trusted_proxies.clone().into();
    routes
        .layer(CatchPanicLayer::custom(answer_panic))
        .layer(middleware::from_fn(request_log::log_request))
        .layer(middleware::from_fn(move |request, next| {
            client_address::find(Arc::clone(&proxies), request, next)
        }))
        .layer(middleware::from_fn(move |request, next| guard.clone().guard(request, next)))
        .layer(cors)
}

/// A defect in a handler is this request's problem only.
fn answer_panic(panic: Box<dyn Any + Send>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(message, "a handler panicked");
    HttpError::internal().into_response()
}
