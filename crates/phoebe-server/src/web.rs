//! Serving: listener, connections, limits, graceful shutdown, and what holds for every route alike.

mod client_address;
mod connection;
mod gate;
mod lent_body;
mod request_log;
mod serve;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

pub use client_address::ClientAddress;
pub use serve::serve_http;

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
    let proxies: Arc<[_]> = settings.server.trusted_proxies.clone().into();
    routes
        .layer(CatchPanicLayer::custom(answer_panic))
        .layer(middleware::from_fn(request_log::log_request))
        .layer(middleware::from_fn(move |request, next| {
            client_address::find(Arc::clone(&proxies), request, next)
        }))
        .layer(cors(&settings.server.cors_origins))
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

/// Which pages of other origins may use the API. Tokens travel in a header, so cookies are never allowed.
fn cors(origins: &[String]) -> CorsLayer {
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| {
            HeaderValue::from_str(origin.trim_end_matches('/'))
                .inspect_err(|_| {
                    tracing::warn!(origin, "[server] cors_origins: not an origin; ignored")
                })
                .ok()
        }))
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([header::RETRY_AFTER, HeaderName::from_static("www-authenticate")])
}
