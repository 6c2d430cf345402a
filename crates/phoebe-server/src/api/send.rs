//! `/send`: passes commands to a session byte for byte.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, LOCATION};
use axum::response::{IntoResponse, Response};
use futures::stream;
use phoebe_protocol::kinds::{self, CommandKind};
use serde::Serialize;

use super::body::LargeBody;
use super::caller::{self, Caller, OwnedSession};
use super::json::{self, Command};
use super::sessions::Client;
use super::state::Shared;
use super::v1::jobs;
use crate::error::{ErrorBody, HttpError, ValidationBody};
use crate::session::{Accepted, Job, NewJob, Requester, SessionError, SessionManager};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const RESPOND_ASYNC: &str = "respond-async";
/// The longest wait of a client that prefers an asynchronous answer.
const MAX_WAIT_SECONDS: u64 = 60;
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
/// `success: false`. With `Prefer: respond-async, wait=5` a long command that is not done within
/// 5 s is answered with its job.
#[utoipa::path(
    post, path = "/send/{session_id}", tag = "commands",
    params(("session_id" = String, Path, description = "The session's id")),
    request_body = CommandBody,
    responses(
        (status = 200, description = "The worker's answer", body = CommandAnswer),
        (status = 202, description = "The job of a command that is not done", body = jobs::JobBody),
        (status = 413, description = "The command is too large", body = ErrorBody),
        (status = 422, description = "The body is not a JSON object", body = ValidationBody),
        (status = 429, description = "Too many commands wait in this session", body = ErrorBody),
        (status = 507, description = "The disk quota is exceeded", body = ErrorBody),
    )
)]
pub(super) async fn send(
    State(context): State<Shared>,
    caller: Caller,
    client: Client,
    OwnedSession(session): OwnedSession,
    headers: HeaderMap,
    LargeBody(body, _permit): LargeBody,
) -> Result<Response, HttpError> {
    let name = json::command_name(&body)?;
    let by = client.requester(&caller);
    let sessions = &context.app.sessions;
    if let Some(wait) = asynchronous_wait(&headers)
        && kinds::kind_of(&name) == Some(CommandKind::Long)
    {
        return send_as_job(&context, &session.session_id, &name, body, by, wait).await;
    }
    let answer =
        sessions.send(&session.session_id, &name, body, by).await.map_err(command_error)?;
    Ok(json_bytes(Body::from(answer.body)))
}

/// Stores a long command as a job. Answers with its result if it is done in time, else with the
/// job.
async fn send_as_job(
    context: &Shared,
    session: &str,
    name: &str,
    body: Bytes,
    by: Requester,
    wait: Duration,
) -> Result<Response, HttpError> {
    let sessions = &context.app.sessions;
    let new = NewJob { by, resumes: true };
    let accepted = sessions.submit_job(session, name, body, new, None).await;
    let (Accepted::New(job) | Accepted::Known(job)) = accepted.map_err(command_error)?;
    let is_done = |_: &Job, now: &Job| now.state.is_done();
    let job = sessions.job_after(session, &job.job_id, wait, is_done).await?.unwrap_or(job);
    if job.state.is_done()
        && let Some(result) = sessions.job_result(session, &job.job_id).await?
    {
        return Ok(json_bytes(Body::from(result)));
    }
    let headers = [(LOCATION, jobs::address(&job)), (APPLIED, RESPOND_ASYNC.to_owned())];
    let body = Json(jobs::JobBody::of(context, job));
    Ok((StatusCode::ACCEPTED, headers, body).into_response())
}

/// How long a client waits that prefers an asynchronous answer, if it does (RFC 7240).
fn asynchronous_wait(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(PREFER).iter().filter_map(|line| line.to_str().ok());
    let preferences: Vec<_> =
        lines.flat_map(|line| line.split([',', ';'])).map(str::trim).collect();
    let is_asynchronous =
        preferences.iter().any(|preference| preference.eq_ignore_ascii_case(RESPOND_ASYNC));
    let wait = preferences.iter().find_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        let value = value.trim().trim_matches('"').parse().ok()?;
        name.trim().eq_ignore_ascii_case("wait").then_some(value)
    });
    is_asynchronous.then(|| Duration::from_secs(wait.unwrap_or(0).min(MAX_WAIT_SECONDS)))
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
    caller: Caller,
    client: Client,
    OwnedSession(session): OwnedSession,
    LargeBody(body, _permit): LargeBody,
) -> Result<Response, HttpError> {
    let commands = json::commands(&body, MAX_BATCH)?;
    let by = client.requester(&caller);
    Ok(json_bytes(answers(context.app.sessions.clone(), session.session_id, by, commands)))
}

/// Streams the answers as one JSON list. Only one answer is in memory at a time.
fn answers(sessions: SessionManager, id: String, by: Requester, commands: Vec<Command>) -> Body {
    let last = commands.len().saturating_sub(1);
    if commands.is_empty() {
        return Body::from("[]");
    }
    let commands = commands.into_iter().enumerate();
    let parts = stream::unfold((sessions, id, by, commands), |mut state| async {
        let (sessions, id, by, commands) = &mut state;
        let (position, command) = commands.next()?;
        let answer = match sessions.send(id, &command.name, command.body, by.clone()).await {
            Ok(answer) => answer.body,
            Err(error) => refusal(&error),
        };
        Some(((position, answer), state))
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
