//! What a monitoring system reads.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::state::Shared;
use crate::error::ErrorBody;
use crate::metrics::CONTENT_TYPE as PROMETHEUS_TEXT;

/// Show metrics
///
/// For Prometheus, in its text format. An administrator may read them, and whoever sends the
/// setting `[metrics] token` as a bearer token; on a server without users, everybody whom it lets
/// in.
#[utoipa::path(
    get, path = "/metrics", tag = "system",
    responses(
        (status = 200, description = "The metrics", body = String, content_type = "text/plain"),
        (
            status = 403,
            description = "You are no administrator and have no token for the metrics",
            body = ErrorBody
        ),
    )
)]
pub(super) async fn metrics(State(context): State<Shared>) -> impl IntoResponse {
    ([(CONTENT_TYPE, PROMETHEUS_TEXT)], context.app.sessions.metrics().await)
}
