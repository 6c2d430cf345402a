//! Changes taken back and made again.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::caller::OwnedSession;
use crate::api::state::Shared;
use crate::error::{ErrorBody, HttpError};

/// How far a session can go back and forth.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct History {
    /// Changes that can be taken back.
    #[schema(example = 3)]
    undo: usize,
    /// Changes that were taken back and can be made again.
    #[schema(example = 1)]
    redo: usize,
    /// What its user must know of the Bundle that was just read, as values of another version of
    /// PHOEBE that this one refuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<String>,
}

impl History {
    /// The history of a session as it is on disk.
    pub(super) async fn of(context: &Shared, session: &str) -> Result<Json<Self>, HttpError> {
        let (undo, redo) =
            context.with_files(session, |folder| folder.history().map_err(Into::into)).await?;
        Ok(Json(Self { undo, redo, notice: None }))
    }

    /// The history after a change. Where it cannot be told, as where nothing is kept of sessions,
    /// nothing can be undone; the change is made all the same.
    pub(super) async fn after_change(context: &Shared, session: &str) -> Self {
        let history = Self::of(context, session).await;
        history.map_or(Self { undo: 0, redo: 0, notice: None }, |Json(history)| history)
    }

    /// The same, with what is to be said of the Bundle that was just read.
    pub(super) fn with_notice(self, notice: Option<String>) -> Self {
        Self { notice, ..self }
    }
}

/// How far a session can go back and forth
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/history", tag = "history", security((), ("token" = []), ("api_key" = [])),
    params(("session_id" = String, Path, description = "The session's id")),
    responses(
        (status = 200, description = "How many changes can be undone and made again", body = History),
        (status = 403, description = "The session belongs to somebody else", body = ErrorBody),
        (status = 404, description = "There is no such session", body = ErrorBody),
        (status = 409, description = "Nothing is kept of sessions, or not now", body = ErrorBody),
    )
)]
pub(super) async fn history(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
) -> Result<Json<History>, HttpError> {
    History::of(&context, &session.session_id).await
}

/// Take the last change back
///
/// It waits for the commands that were sent before. After the next change, what was undone cannot be
/// made again.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/undo", tag = "history", security((), ("token" = []), ("api_key" = [])),
    params(("session_id" = String, Path, description = "The session's id")),
    responses(
        (status = 200, description = "What can be undone and made again now", body = History),
        (status = 403, description = "The session belongs to somebody else", body = ErrorBody),
        (status = 404, description = "There is no such session", body = ErrorBody),
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

/// Make a change again that was taken back
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/redo", tag = "history", security((), ("token" = []), ("api_key" = [])),
    params(("session_id" = String, Path, description = "The session's id")),
    responses(
        (status = 200, description = "What can be undone and made again now", body = History),
        (status = 403, description = "The session belongs to somebody else", body = ErrorBody),
        (status = 404, description = "There is no such session", body = ErrorBody),
        (status = 409, description = "There is nothing to make again", body = ErrorBody),
    )
)]
pub(super) async fn redo(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
) -> Result<Json<History>, HttpError> {
    context.app.sessions.redo(&session.session_id).await?;
    History::of(&context, &session.session_id).await
}
