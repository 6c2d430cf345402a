//! Logs one line per request: method, route, status, duration, client, session, user. No bodies,
//! tokens or query strings.

use std::net::IpAddr;
use std::time::Instant;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{MatchedPath, RawPathParams, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

use super::client_address::ClientAddress;

/// The user's id, which the guard adds to a response for the request log.
#[derive(Debug, Clone)]
pub(crate) struct CallerId(pub(crate) String);

/// The fields of a request's log line. The line is written on drop.
struct Line {
    method: Method,
    route: Option<MatchedPath>,
    client: Option<IpAddr>,
    session_id: Option<String>,
    user_id: Option<String>,
    status: Option<u16>,
    start: Instant,
}

/// Middleware: logs the request, also when the client leaves before the answer.
pub(super) async fn log_request(
    route: Option<MatchedPath>,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    ClientAddress(client): ClientAddress,
    request: Request,
    next: Next,
) -> Response {
    let mut line = Line {
        method: request.method().clone(),
        route,
        client,
        session_id: parameters.as_ref().ok().and_then(session_id),
        user_id: None,
        status: None,
        start: Instant::now(),
    };
    let response = next.run(request).await;
    line.status = Some(response.status().as_u16());
    line.user_id = response.extensions().get().map(|CallerId(id)| id.clone());
    response
}

/// Returns the session's id from the path if it is a UUID. Other text is not logged.
fn session_id(parameters: &RawPathParams) -> Option<String> {
    let (_, id) = parameters.iter().find(|(name, _)| *name == "session_id")?;
    uuid::Uuid::parse_str(id).ok().map(|id| id.to_string())
}

impl Drop for Line {
    fn drop(&mut self) {
        let route = self.route.as_ref().map_or("-", MatchedPath::as_str);
        let duration_ms = self.start.elapsed().as_secs_f64() * 1000.0;
        let (session, user) = (self.session_id.as_deref(), self.user_id.as_deref());
        let client = self.client.map(tracing::field::display);
        let method = self.method.as_str();
        match self.status {
            Some(status) => {
                tracing::info!(
                    method,
                    route,
                    status,
                    duration_ms,
                    client,
                    session,
                    user,
                    "request"
                );
            }
            None => tracing::info!(
                method,
                route,
                duration_ms,
                client,
                session,
                user,
                "request abandoned by its client"
            ),
        }
    }
}
