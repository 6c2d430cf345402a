//! Copies of sessions.

use axum::Json;
use axum::extract::State;
use utoipa::ToSchema;

use crate::api::body::SmallBody;
use crate::api::caller::{Caller, OwnedSession};
use crate::api::json::Fields;
use crate::api::sessions::{Client, start_request, start_session};
use crate::api::state::Shared;
use crate::api::view::Session;
use crate::error::{ErrorBody, HttpError, ValidationBody};
use crate::session::{CopyOf, SessionView, StartRequest};

/// Optional data about the copy. Other fields are stored and returned as `metadata`.
#[derive(ToSchema)]
#[allow(
    dead_code,
    reason = "describes the request in the OpenAPI document; the body is parsed by `Fields`"
)]
pub(super) struct CloneBody {
    /// The id of the checkpoint to copy; the current Bundle if it is missing.
    checkpoint: Option<String>,
    /// The original's name if it is missing.
    #[schema(example = "Algol with a spot")]
    project_name: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    email: Option<String>,
}

/// Copy a session
///
/// The copy belongs to you. It has the unique ids, datasets, models and journal of the original,
/// but not its checkpoints. The original is unchanged. The body is optional.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/clone", tag = "sessions",
    params(("session_id" = String, Path, description = "The session's id")),
    request_body = Option<CloneBody>,
    responses(
        (status = 200, description = "The new session", body = Session),
        (status = 404, description = "The session or checkpoint does not exist", body = ErrorBody),
        (status = 409, body = ErrorBody,
         description = "The session cannot be copied, or sessions are not stored"),
        (status = 422, description = "The body is not a JSON object", body = ValidationBody),
        (status = 429, description = "You have reached your limit of sessions", body = ErrorBody),
        (status = 503, body = ErrorBody,
         description = "No port is free, or the worker failed to start"),
        (status = 507, description = "The disk quota is exceeded", body = ErrorBody),
    )
)]
pub(super) async fn clone_session(
    State(context): State<Shared>,
    caller: Caller,
    OwnedSession(session): OwnedSession,
    client: Client,
    SmallBody(body): SmallBody,
) -> Result<Json<Session>, HttpError> {
    let mut fields = Fields::optional(&body)?;
    let checkpoint = fields.as_mut().and_then(|fields| fields.optional_text("checkpoint"));
    let request = start_request(fields)?;
    start_copy(&context, &caller, client, request, session, checkpoint).await
}

/// Starts a copy of a session or of one of its checkpoints. The copy takes the original's project
/// name unless it has one of its own.
pub(super) async fn start_copy(
    context: &Shared,
    caller: &Caller,
    client: Client,
    mut request: StartRequest,
    original: SessionView,
    checkpoint: Option<String>,
) -> Result<Json<Session>, HttpError> {
    request.project_name = request.project_name.or(original.project_name);
    request.copy_of = Some(CopyOf { session: original.session_id, checkpoint });
    start_session(context, caller, client, request).await
}
