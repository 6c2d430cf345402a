//! `/send`: passes commands to a session byte for byte.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde::Serialize;

use super::body::LargeBody;
use super::caller::{self, OwnedSession};
use super::json::{self, Command};
use super::state::Shared;
use crate::error::{ErrorBody, HttpError, ValidationBody};
use crate::session::{SessionError, SessionManager};

/// The most commands in one batch.
const MAX_BATCH: usize = 1000;

/// A command: its name and its arguments.
#[derive(utoipa::ToSchema)]
#[schema(example = json!({"command": "set_value", "twig": "period@binary", "value": 1.5}))]
#[allow(
    dead_code,
    reason = "describes the request in the OpenAPI document; the body is passed on unparsed"
)]
pub(super) struct CommandBody {
    /// The command's name. Without a string here the command fails with `success: false`.
    #[schema(value_type = Option<Value>, example = "get_value")]
    command: (),
}

/// The worker's answer.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(example = json!({"success": true, "result": 1.5}))]
#[allow(dead_code, reason = "describes the answer in the OpenAPI document; the worker writes it")]
pub(super) struct CommandAnswer {
    /// Whether the command succeeded.
    success: bool,
    /// The command's result; only on success.
    #[schema(value_type = Option<Value>)]
    result: (),
    /// The error message; only on failure.
    error: Option<String>,
    /// The remedy, if only the server's operator can fix the error.
    advice: Option<String>,
    /// The Python traceback, if there is one.
    traceback: Option<String>,
}

/// Send a command
///
/// The answer comes when the command is done. A command that PHOEBE refuses gets a 200 with
/// `success: false`.
#[utoipa::path(
    post, path = "/send/{session_id}", tag = "commands",
    params(("session_id" = String, Path, description = "The session's id")),
    request_body = CommandBody,
    responses(
        (status = 200, description = "The worker's answer", body = CommandAnswer),
        (status = 413, description = "The command is too large", body = ErrorBody),
        (status = 422, description = "The body is not a JSON object", body = ValidationBody),
        (status = 429, description = "Too many commands wait in this session", body = ErrorBody),
        (status = 507, description = "The disk quota is exceeded", body = ErrorBody),
    )
)]
pub(super) async fn send(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    LargeBody(body, _permit): LargeBody,
) -> Result<Response, HttpError> {
    let name = json::command_name(&body)?;
    let sessions = &context.app.sessions;
    let answer = sessions.send(&session.session_id, &name, body).await.map_err(command_error)?;
    Ok(json_bytes(Body::from(answer.body)))
}

/// Send a list of commands
///
/// The commands run in order, each after the answer to the one before. A failed command does not
/// stop the list. The answers come in the same order, each as soon as it is ready.
#[utoipa::path(
    post, path = "/send/{session_id}/batch", tag = "commands",
    params(("session_id" = String, Path, description = "The session's id")),
    request_body = Vec<CommandBody>,
    responses(
        (status = 200, description = "One answer for each command", body = Vec<CommandAnswer>),
        (status = 413, description = "The list is too large", body = ErrorBody),
        (status = 422, body = ValidationBody,
         description = "The body is not a JSON list of objects, or has more than 1000"),
    )
)]
pub(super) async fn send_batch(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    LargeBody(body, _permit): LargeBody,
) -> Result<Response, HttpError> {
    let commands = json::commands(&body, MAX_BATCH)?;
    Ok(json_bytes(answers(context.app.sessions.clone(), session.session_id, commands)))
}

/// Streams the answers as one JSON list. Only one answer is in memory at a time.
fn answers(sessions: SessionManager, id: String, commands: Vec<Command>) -> Body {
    let last = commands.len().saturating_sub(1);
    if commands.is_empty() {
        return Body::from("[]");
    }
    let commands = commands.into_iter().enumerate();
    let parts = stream::unfold((sessions, id, commands), |(sessions, id, mut commands)| async {
        let (position, command) = commands.next()?;
        let answer = match sessions.send(&id, &command.name, command.body).await {
            Ok(answer) => answer.body,
            Err(error) => refusal(&error),
        };
        Some(((position, answer), (sessions, id, commands)))
    });
    let pieces = futures::StreamExt::flat_map(parts, move |(position, answer)| {
        let before = if position == 0 { "[" } else { "," };
        let after = if position == last { "]" } else { "" };
        let pieces =
            [Bytes::from_static(before.as_bytes()), answer, Bytes::from_static(after.as_bytes())];
        stream::iter(pieces.map(Ok::<_, std::convert::Infallible>))
    });
    Body::from_stream(pieces)
}

/// The answer in a batch to a command that the session did not accept.
fn refusal(error: &SessionError) -> Bytes {
    serde_json::json!({"success": false, "error": error.to_string()}).to_string().into()
}

fn command_error(error: SessionError) -> HttpError {
    match error {
        SessionError::NotFound => caller::session_not_found("/send/"),
        other => other.into(),
    }
}

fn json_bytes(body: Body) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}
