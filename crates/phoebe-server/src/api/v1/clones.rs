//! A session that begins as a copy of another.

use axum::Json;
use axum::extract::State;
use utoipa::ToSchema;

use crate::api::body::Small;
use crate::api::caller::{Caller, OwnedSession};
use crate::api::json::Fields;
use crate::api::sessions::{Client, begin, start_request};
use crate::api::state::Shared;
use crate::api::view::Session;
use crate::error::{ErrorBody, HttpError, ValidationBody};
use crate::session::{CopyOf, SessionView, StartRequest};

/// What a copy is told; all of it optional, other fields are kept and given back as `metadata`.
#[derive(ToSchema)]
#[allow(
    dead_code,
    reason = "describes the request in the OpenAPI document; the body is read field by field"
)]
pub(super) struct CloneBody {
    /// The id of the checkpoint that it begins as; the Bundle as it is now where none is named.
    checkpoint: Option<String>,
    /// The original's where none is given.
    #[schema(example = "Algol with a spot")]
    project_name: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    email: Option<String>,
}

/// Copy a session
///
/// The copy is yours and has unique ids, datasets, models and undo's journal of the original, but not its checkpoints. The body
/// may be missing. The original is as it was.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/clone", tag = "sessions", security((), ("token" = []), ("api_key" = [])),
    params(("session_id" = String, Path, description = "The session's id")),
    request_body = Option<CloneBody>,
    responses(
        (status = 200, description = "The new session", body = Session),
        (status = 403, description = "The session belongs to somebody else", body = ErrorBody),
        (status = 404, description = "There is no such session or checkpoint", body = ErrorBody),
        (status = 409, description = "It cannot be copied, or nothing is kept of sessions", body = ErrorBody),
        (status = 422, description = "The body is no JSON object", body = ValidationBody),
        (status = 429, description = "You have as many sessions as allowed", body = ErrorBody),
        (status = 503, description = "No port is free, or the worker could not be started", body = ErrorBody),
        (status = 507, description = "There is no room on disk for it within what you may take", body = ErrorBody),
    )
)]
pub(super) async fn clone_session(
    State(context): State<Shared>,
    caller: Caller,
    OwnedSession(session): OwnedSession,
    client: Client,
    Small(body): Small,
) -> Result<Json<Session>, HttpError> {
    let mut fields = Fields::optional(&body)?;
    let checkpoint = fields.as_mut().and_then(|fields| fields.optional_text("checkpoint"));
    let request = start_request(fields)?;
    begin_copy(&context, &caller, client, request, session, checkpoint).await
}

/// Starts a session that begins as another, or as one of its checkpoints, and is called like it where it gets no name of its own.
pub(super) async fn begin_copy(
    context: &Shared,
    caller: &Caller,
    client: Client,
    mut request: StartRequest,
    original: SessionView,
    checkpoint: Option<String>,
) -> Result<Json<Session>, HttpError> {
    request.project_name = request.project_name.or(original.project_name);
    request.copy_of = Some(CopyOf { session: original.session_id, checkpoint });
    begin(context, caller, client, request).await
}
