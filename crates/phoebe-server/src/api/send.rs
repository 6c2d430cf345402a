//! `/send`: commands to a session, passed on byte for byte.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde::Serialize;

use super::body::Whole;
use super::caller::{self, OwnedSession};
use super::json::{self, Command};
use super::state::Shared;
use crate::error::{ErrorBody, HttpError, ValidationBody};
use crate::session::{SessionError, SessionManager};

/// Commands in one batch.
const MAX_BATCH: usize = 1000;

/// A command: its name, and its arguments beside it.
#[derive(utoipa::ToSchema)]
#[schema(example = json!({"command": "set_value", "twig": "period@binary", "value": 1.5}))]
#[allow(
    dead_code,
    reason = "describes the request in the OpenAPI document; the body is passed on unread"
)]
pub(super) struct CommandBody {
    /// What to do: a text. Without one the command fails with `success: false`.
    #[schema(value_type = Option<Value>, example = "get_value")]
    command: (),
}

/// What the worker says.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(example = json!({"success": true, "result": 1.5}))]
#[allow(dead_code, reason = "describes the answer in the OpenAPI document; the worker writes it")]
pub(super) struct CommandAnswer {
    /// Whether the command was carried out.
    success: bool,
    /// What it gave; only if it succeeded.
    #[schema(value_type = Option<Value>)]
    result: (),
    /// What went wrong; only if it failed.
    error: Option<String>,
    /// What to do about it, where PHOEBE's own error advises what only the server's operator can do.
    advice: Option<String>,
    /// Where in Python it went wrong; only where there is one.
    traceback: Option<String>,
}

/// Send a command
///
/// Answered when it is done. A command that PHOEBE refuses is a 200 with `success: false`.
#[utoipa::path(
    post, path = "/send/{session_id}", tag = "commands", security((), ("token" = []), ("api_key" = [])),
    params(("session_id" = String, Path, description = "The session's id")),
    request_body = CommandBody,
    responses(
        (status = 200, description = "What the worker says", body = CommandAnswer),
        (status = 403, description = "The session belongs to somebody else", body = ErrorBody),
        (status = 404, description = "There is no such session", body = ErrorBody),
        (status = 413, description = "The command is too large", body = ErrorBody),
        (status = 422, description = "The body is no JSON object", body = ValidationBody),
        (status = 429, description = "Too many commands wait in this session", body = ErrorBody),
        (status = 507, description = "There is no room on disk for it within what you may take", body = ErrorBody),
    )
)]
pub(super) async fn send(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    Whole(body, _room): Whole,
) -> Result<Response, HttpError> {
    let name = json::command_name(&body)?;
    let sessions = &context.app.sessions;
    let answer = sessions.send(&session.session_id, &name, body).await.map_err(known)?;
    Ok(json_bytes(Body::from(answer.body)))
}

/// Send a list of commands
///
/// They run in order, each after the one before has been answered, and go on after one that fails. The answers come in the
/// same order, each as soon as it is there.
#[utoipa::path(
    post, path = "/send/{session_id}/batch", tag = "commands", security((), ("token" = []), ("api_key" = [])),
    params(("session_id" = String, Path, description = "The session's id")),
    request_body = Vec<CommandBody>,
    responses(
        (status = 200, description = "One answer for each command", body = Vec<CommandAnswer>),
        (status = 403, description = "The session belongs to somebody else", body = ErrorBody),
        (status = 404, description = "There is no such session", body = ErrorBody),
        (status = 413, description = "The list is too large", body = ErrorBody),
        (status = 422, description = "The body is no JSON list of objects, or a list of more than 1000", body = ValidationBody),
    )
)]
pub(super) async fn send_batch(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    Whole(body, _room): Whole,
) -> Result<Response, HttpError> {
    let commands = json::commands(&body, MAX_BATCH)?;
    Ok(json_bytes(answers(context.app.sessions.clone(), session.session_id, commands)))
}

/// The answers as one JSON list, of which no more than one answer is in memory.
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

/// A command that could not be handed to the session, as an answer among answers.
fn refusal(error: &SessionError) -> Bytes {
    serde_json::json!({"success": false, "error": error.to_string()}).to_string().into()
}

fn known(error: SessionError) -> HttpError {
    match error {
        SessionError::NotFound => caller::unknown("/send/"),
        other => other.into(),
    }
}

fn json_bytes(body: Body) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}
