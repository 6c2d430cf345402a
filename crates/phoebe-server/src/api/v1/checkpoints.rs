//! States of a Bundle that get a name, to go back to.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::history::History;
use crate::api::body::Small;
use crate::api::caller::OwnedSession;
use crate::api::json::Fields;
use crate::api::sessions::Done;
use crate::api::state::Shared;
use crate::error::{ErrorBody, HttpError, ValidationBody};
use crate::session::SessionError;
use crate::store::snapshots;

/// Characters in a checkpoint's name.
const NAME: usize = 200;
/// Characters in its note.
const NOTE: usize = 10_000;

/// A state of a session's Bundle.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Checkpoint {
    #[schema(example = "0f6a4b5e9a553a4c7d5a1c117d0a3f0e")]
    id: String,
    #[schema(example = "before the fit")]
    name: String,
    note: Option<String>,
    /// Unix seconds.
    created_at: f64,
    /// After how many changes of the session it was made.
    step: u64,
    /// Whether a link lets others copy it.
    shared: bool,
}

/// A session's checkpoints.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Checkpoints {
    /// Oldest first.
    checkpoints: Vec<Checkpoint>,
}

/// A wish for a checkpoint.
#[derive(ToSchema)]
#[allow(
    dead_code,
    reason = "describes the request in the OpenAPI document; the body is read field by field"
)]
pub(super) struct CheckpointBody {
    /// Not blank.
    #[schema(example = "before the fit", min_length = 1, max_length = 200, pattern = r"\S")]
    name: String,
    #[schema(max_length = 10_000)]
    note: Option<String>,
}

/// The checkpoint that a path names.
#[derive(Debug, Deserialize)]
pub(super) struct Named {
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

/// Make a checkpoint
///
/// It is the Bundle as it is after the last command that was answered. It stays until it is removed or the session ends.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/checkpoints", tag = "history", security((), ("token" = []), ("api_key" = [])),
    params(("session_id" = String, Path, description = "The session's id")),
    request_body = CheckpointBody,
    responses(
        (status = 200, description = "The new checkpoint", body = Checkpoint),
        (status = 403, description = "The session belongs to somebody else", body = ErrorBody),
        (status = 404, description = "There is no such session", body = ErrorBody),
        (status = 409, description = "The session has as many as allowed, or nothing is kept of sessions", body = ErrorBody),
        (status = 422, description = "The name is missing or too long, or the note is", body = ValidationBody),
        (status = 507, description = "There is no room on disk for it within what you may take", body = ErrorBody),
    )
)]
pub(super) async fn create_checkpoint(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    Small(body): Small,
) -> Result<Json<Checkpoint>, HttpError> {
    let mut fields = Fields::required(&body)?;
    let name = fields.text("name");
    fields.bound("name", &name, NAME);
    fields.not_blank("name", &name);
    let note = fields.optional_text("note");
    fields.bound("note", note.as_deref().unwrap_or_default(), NOTE);
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
    get, path = "/v1/sessions/{session_id}/checkpoints", tag = "history", security((), ("token" = []), ("api_key" = [])),
    params(("session_id" = String, Path, description = "The session's id")),
    responses(
        (status = 200, description = "The session's checkpoints", body = Checkpoints),
        (status = 403, description = "The session belongs to somebody else", body = ErrorBody),
        (status = 404, description = "There is no such session", body = ErrorBody),
        (status = 409, description = "Nothing is kept of sessions, or not now", body = ErrorBody),
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

/// Go back to a checkpoint
///
/// A change like others: it can be undone.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/checkpoints/{checkpoint_id}/restore", tag = "history",
    security((), ("token" = []), ("api_key" = [])),
    params(
        ("session_id" = String, Path, description = "The session's id"),
        ("checkpoint_id" = String, Path, description = "The checkpoint's id"),
    ),
    responses(
        (status = 200, description = "What can be undone and made again now", body = History),
        (status = 403, description = "The session belongs to somebody else", body = ErrorBody),
        (status = 404, description = "There is no such session or checkpoint", body = ErrorBody),
        (status = 409, description = "Nothing is kept of sessions, or the checkpoint is damaged", body = ErrorBody),
        (status = 422, description = "PHOEBE cannot read it any more", body = ErrorBody),
        (status = 507, description = "There is no room on disk for it within what you may take", body = ErrorBody),
    )
)]
pub(super) async fn restore_checkpoint(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    Path(Named { checkpoint_id }): Path<Named>,
) -> Result<Json<History>, HttpError> {
    context.app.sessions.restore_checkpoint(&session.session_id, &checkpoint_id).await?;
    History::of(&context, &session.session_id).await
}

/// Remove a checkpoint
///
/// With its link, if it was shared. Sessions that were copied from it stay.
#[utoipa::path(
    delete, path = "/v1/sessions/{session_id}/checkpoints/{checkpoint_id}", tag = "history",
    security((), ("token" = []), ("api_key" = [])),
    params(
        ("session_id" = String, Path, description = "The session's id"),
        ("checkpoint_id" = String, Path, description = "The checkpoint's id"),
    ),
    responses(
        (status = 200, description = "It is gone", body = Done),
        (status = 403, description = "The session belongs to somebody else", body = ErrorBody),
        (status = 404, description = "There is no such session or checkpoint", body = ErrorBody),
        (status = 409, description = "Nothing is kept of sessions, or not now", body = ErrorBody),
    )
)]
pub(super) async fn remove_checkpoint(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    Path(Named { checkpoint_id }): Path<Named>,
) -> Result<Json<Done>, HttpError> {
    let removed = context.with_files(&session.session_id, move |folder| {
        folder.remove_checkpoint(&checkpoint_id).map_err(Into::into)
    });
    if removed.await? { Ok(Json(Done::new())) } else { Err(SessionError::NoCheckpoint.into()) }
}
