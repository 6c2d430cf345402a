//! Undo and redo.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::caller::OwnedSession;
use crate::api::state::Shared;
use crate::error::{ErrorBody, HttpError};

/// The changes that can be undone and redone.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct History {
    /// Changes that can be undone.
    #[schema(example = 3)]
    undo: usize,
    /// Undone changes that can be redone.
    #[schema(example = 1)]
    redo: usize,
    /// A message about the Bundle that was just loaded, such as values of another version of
    /// PHOEBE that this version refuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<String>,
}

impl History {
    /// Reads the history of a session from disk.
    pub(super) async fn of(context: &Shared, session: &str) -> Result<Json<Self>, HttpError> {
        let (undo, redo) =
            context.with_files(session, |folder| folder.history().map_err(Into::into)).await?;
        Ok(Json(Self { undo, redo, notice: None }))
    }

    /// Returns the history after a change. If it cannot be read, for example because sessions are
    /// not stored, both counts are 0; the change has succeeded anyway.
    pub(super) async fn after_change(context: &Shared, session: &str) -> Self {
        let history = Self::of(context, session).await;
        history.map_or(Self { undo: 0, redo: 0, notice: None }, |Json(history)| history)
    }

    /// Adds a notice about the Bundle that was just loaded.
    pub(super) fn with_notice(self, notice: Option<String>) -> Self {
        Self { notice, ..self }
    }
}

/// Show undo and redo
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/history", tag = "history",
    params(("session_id" = String, Path, description = "The session's id")),
    responses(
        (status = 200, description = "The changes that can be undone and redone", body = History),
        (status = 409, body = ErrorBody,
         description = "Sessions are not stored, or the session is not available now"),
    )
)]
pub(super) async fn history(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
) -> Result<Json<History>, HttpError> {
    History::of(&context, &session.session_id).await
}

/// Undo the last change
///
/// Runs after the commands that were sent before. The next change discards the undone ones.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/undo", tag = "history",
    params(("session_id" = String, Path, description = "The session's id")),
    responses(
        (status = 200, description = "The changes that can be undone and redone", body = History),
        (status = 409, description = "There is nothing to undo", body = ErrorBody),
    )
)]
pub(super) async fn undo(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
) -> Result<Json<History>, HttpError> {
    context.app.sessions.undo(&session.session_id).await?;
    History::of(&context, &session.session_id).await
}

/// Redo an undone change
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/redo", tag = "history",
    params(("session_id" = String, Path, description = "The session's id")),
    responses(
        (status = 200, description = "The changes that can be undone and redone", body = History),
        (status = 409, description = "There is nothing to redo", body = ErrorBody),
    )
)]
pub(super) async fn redo(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
) -> Result<Json<History>, HttpError> {
    context.app.sessions.redo(&session.session_id).await?;
    History::of(&context, &session.session_id).await
}
