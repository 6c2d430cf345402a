//! Checkpoints: named states of a session's Bundle.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::history::History;
use crate::api::body::SmallBody;
use crate::api::caller::OwnedSession;
use crate::api::json::Fields;
use crate::api::sessions::Done;
use crate::api::state::Shared;
use crate::error::{ErrorBody, HttpError, ValidationBody};
use crate::session::SessionError;
use crate::store::snapshots;

/// The most characters of a checkpoint's name.
const MAX_NAME: usize = 200;
/// The most characters of its note.
const MAX_NOTE: usize = 10_000;

/// A checkpoint of a session.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Checkpoint {
    #[schema(example = "0f6a4b5e9a553a4c7d5a1c117d0a3f0e")]
    id: String,
    #[schema(example = "before the fit")]
    name: String,
    note: Option<String>,
    /// Unix seconds.
    created_at: f64,
    /// The number of changes of the session before the checkpoint.
    step: u64,
    /// Whether a share link exists.
    shared: bool,
}

/// A session's checkpoints.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Checkpoints {
    /// Oldest first.
    checkpoints: Vec<Checkpoint>,
}

/// The data of a new checkpoint.
#[derive(ToSchema)]
#[allow(
    dead_code,
    reason = "describes the request in the OpenAPI document; the body is parsed by `Fields`"
)]
pub(super) struct CheckpointBody {
    /// Not blank.
    #[schema(example = "before the fit", min_length = 1, max_length = 200, pattern = r"\S")]
    name: String,
    #[schema(max_length = 10_000)]
    note: Option<String>,
}

/// The path parameter of a checkpoint's routes.
#[derive(Debug, Deserialize)]
pub(super) struct CheckpointPath {
    pub(super) checkpoint_id: String,
}

impl Checkpoint {
    fn new(kept: snapshots::Checkpoint, shared: bool) -> Self {
        Self {
            id: kept.id,
            name: kept.header.name.unwrap_or_default(),
            note: kept.header.note,
            created_at: kept.header.taken_at,
            step: kept.header.step,
            shared,
        }
    }
}

/// Create a checkpoint
///
/// The checkpoint holds the Bundle after the last answered command. It exists until it is removed
/// or the session ends.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/checkpoints", tag = "history",
    params(("session_id" = String, Path, description = "The session's id")),
    request_body = CheckpointBody,
    responses(
        (status = 200, description = "The new checkpoint", body = Checkpoint),
        (status = 409, body = ErrorBody,
         description = "The session has too many checkpoints, or sessions are not stored"),
        (status = 422, body = ValidationBody,
         description = "The name is missing or too long, or the note is too long"),
        (status = 507, description = "The disk quota is exceeded", body = ErrorBody),
    )
)]
pub(super) async fn create_checkpoint(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    SmallBody(body): SmallBody,
) -> Result<Json<Checkpoint>, HttpError> {
    let mut fields = Fields::required(&body)?;
    let name = fields.text("name");
    fields.limit_length("name", &name, MAX_NAME);
    fields.require_text("name", &name);
    let note = fields.optional_text("note");
    fields.limit_length("note", note.as_deref().unwrap_or_default(), MAX_NOTE);
    fields.rest()?;
    let limit = context.app.settings.session.max_checkpoints;
    context.app.sessions.admit_copy(&session.session_id)?;
    let made = context.app.sessions.with_all_forms(&session.session_id, move |folder| {
        if folder.checkpoints()?.len() >= limit {
            return Ok(None);
        }
        folder.write_checkpoint(crate::api::view::now(), name, note).map(Some)
    });
    match made.await?? {
        Some(made) => Ok(Json(Checkpoint::new(made, false))),
        None => Err(HttpError::new(
            StatusCode::CONFLICT,
            format!("The session has {limit} checkpoints, which is the limit; remove one first"),
        )),
    }
}

/// List checkpoints
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/checkpoints", tag = "history",
    params(("session_id" = String, Path, description = "The session's id")),
    responses(
        (status = 200, description = "The session's checkpoints", body = Checkpoints),
        (status = 409, body = ErrorBody,
         description = "Sessions are not stored, or the session is not available now"),
    )
)]
pub(super) async fn list_checkpoints(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
) -> Result<Json<Checkpoints>, HttpError> {
    let checkpoints = context.with_files(&session.session_id, |folder| {
        let kept = folder.checkpoints()?.into_iter();
        Ok(kept
            .map(|checkpoint| {
                let shared = folder.is_shared(&checkpoint.id);
                Checkpoint::new(checkpoint, shared)
            })
            .collect())
    });
    Ok(Json(Checkpoints { checkpoints: checkpoints.await? }))
}

/// Restore a checkpoint
///
/// Undo reverts the restore.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/checkpoints/{checkpoint_id}/restore", tag = "history",
    params(
        ("session_id" = String, Path, description = "The session's id"),
        ("checkpoint_id" = String, Path, description = "The checkpoint's id"),
    ),
    responses(
        (status = 200, description = "The changes that can be undone and redone", body = History),
        (status = 404, description = "The session or checkpoint does not exist", body = ErrorBody),
        (status = 409, body = ErrorBody,
         description = "Sessions are not stored, or the checkpoint is damaged"),
        (status = 422, description = "PHOEBE cannot read the checkpoint", body = ErrorBody),
        (status = 507, description = "The disk quota is exceeded", body = ErrorBody),
    )
)]
pub(super) async fn restore_checkpoint(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    Path(CheckpointPath { checkpoint_id }): Path<CheckpointPath>,
) -> Result<Json<History>, HttpError> {
    context.app.sessions.restore_checkpoint(&session.session_id, &checkpoint_id).await?;
    History::of(&context, &session.session_id).await
}

/// Remove a checkpoint
///
/// Also removes its share link. Sessions that were copied from it stay.
#[utoipa::path(
    delete, path = "/v1/sessions/{session_id}/checkpoints/{checkpoint_id}", tag = "history",
    params(
        ("session_id" = String, Path, description = "The session's id"),
        ("checkpoint_id" = String, Path, description = "The checkpoint's id"),
    ),
    responses(
        (status = 200, description = "The checkpoint is removed", body = Done),
        (status = 404, description = "The session or checkpoint does not exist", body = ErrorBody),
        (status = 409, body = ErrorBody,
         description = "Sessions are not stored, or the session is not available now"),
    )
)]
pub(super) async fn remove_checkpoint(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    Path(CheckpointPath { checkpoint_id }): Path<CheckpointPath>,
) -> Result<Json<Done>, HttpError> {
    let removed = context.with_files(&session.session_id, move |folder| {
        folder.remove_checkpoint(&checkpoint_id).map_err(Into::into)
    });
    if removed.await? { Ok(Json(Done::new())) } else { Err(SessionError::NoCheckpoint.into()) }
}
