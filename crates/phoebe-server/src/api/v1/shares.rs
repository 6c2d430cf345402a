//! Share links: other users can see and copy a checkpoint.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::checkpoints::CheckpointPath;
use super::clones::start_copy;
use super::token::ShareToken;
use crate::api::body::SmallBody;
use crate::api::caller::{Caller, OwnedSession};
use crate::api::json::Fields;
use crate::api::sessions::{Client, Done, StartMetadata, start_request};
use crate::api::state::Shared;
use crate::api::view::{self, Session};
use crate::error::{ErrorBody, HttpError, ValidationBody};
use crate::session::{SessionError, SessionView};
use crate::store::snapshots::Header;
use crate::web::PublicAddress;

/// A share link. Every user of the server who has it can see and copy the checkpoint.
#[derive(Serialize, ToSchema)]
pub(super) struct Share {
    /// Shown only once.
    token: String,
    /// The link as clients reach the server: with scheme, host and the proxy's path prefix.
    #[schema(example = "https://phoebe.example.org/v1/shared/phoebe_share_…")]
    url: String,
}

/// A shared checkpoint.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SharedCheckpoint {
    #[schema(example = "before the fit")]
    name: String,
    note: Option<String>,
    /// The name of the session's owner; null if unknown.
    #[schema(example = "Ada Lovelace")]
    owner: Option<String>,
    /// The name of the owner's project.
    #[schema(example = "Algol")]
    project_name: Option<String>,
    /// Unix seconds.
    created_at: f64,
}

/// The path parameter of a share link.
#[derive(Deserialize)]
pub(super) struct SharePath {
    token: String,
}

/// Share a checkpoint
///
/// Creates a link. Every user of the server who has it can see the checkpoint and start a session
/// as a copy of it. Nobody can change the checkpoint. A new link replaces the earlier one.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/checkpoints/{checkpoint_id}/share", tag = "history",
    params(
        ("session_id" = String, Path, description = "The session's id"),
        ("checkpoint_id" = String, Path, description = "The checkpoint's id"),
    ),
    responses(
        (status = 200, description = "The link", body = Share),
        (status = 404, description = "The session or checkpoint does not exist", body = ErrorBody),
        (status = 409, body = ErrorBody,
         description = "Sessions are not stored, or the checkpoint is damaged"),
    )
)]
pub(super) async fn share_checkpoint(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    Path(CheckpointPath { checkpoint_id }): Path<CheckpointPath>,
    address: PublicAddress,
) -> Result<Json<Share>, HttpError> {
    let token = ShareToken::new(&session.session_id, &checkpoint_id);
    let token = token.ok_or(SessionError::NoCheckpoint)?;
    let (checkpoint, hash) = (token.checkpoint(), token.hash());
    let shared =
        context.with_files(&session.session_id, move |folder| folder.share(&checkpoint, &hash));
    if !shared.await? {
        return Err(SessionError::NoCheckpoint.into());
    }
    let token = token.text();
    Ok(Json(Share { url: address.link(&format!("/v1/shared/{token}")), token }))
}

/// Remove a share link
///
/// The link stops working. Sessions that were copied with it stay.
#[utoipa::path(
    delete, path = "/v1/sessions/{session_id}/checkpoints/{checkpoint_id}/share", tag = "history",
    params(
        ("session_id" = String, Path, description = "The session's id"),
        ("checkpoint_id" = String, Path, description = "The checkpoint's id"),
    ),
    responses(
        (status = 200, description = "The link is removed", body = Done),
        (status = 404, description = "The session or the link does not exist", body = ErrorBody),
        (status = 409, body = ErrorBody,
         description = "Sessions are not stored, or the session is not available now"),
    )
)]
pub(super) async fn unshare_checkpoint(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    Path(CheckpointPath { checkpoint_id }): Path<CheckpointPath>,
) -> Result<Json<Done>, HttpError> {
    let taken_back = context.with_files(&session.session_id, move |folder| {
        folder.unshare(&checkpoint_id).map_err(Into::into)
    });
    if taken_back.await? {
        Ok(Json(Done::new()))
    } else {
        Err(HttpError::not_found("There is no link to this checkpoint"))
    }
}

/// Show a shared checkpoint
#[utoipa::path(
    get, path = "/v1/shared/{token}", tag = "history",
    params(("token" = String, Path, description = "The link's token")),
    responses(
        (status = 200, description = "The checkpoint", body = SharedCheckpoint),
        (status = 404, description = "The link is not valid", body = ErrorBody),
    )
)]
pub(super) async fn shared_checkpoint(
    State(context): State<Shared>,
    Path(SharePath { token }): Path<SharePath>,
) -> Result<Json<SharedCheckpoint>, HttpError> {
    let (session, header, _) = find(&context, &token).await?;
    Ok(Json(SharedCheckpoint {
        name: header.name.unwrap_or_default(),
        note: header.note,
        owner: view::public_name(&session),
        project_name: session.project_name,
        created_at: header.taken_at,
    }))
}

/// Copy a shared checkpoint
///
/// Starts a session of yours as a copy of the checkpoint. The original is unchanged. The body is
/// optional.
#[utoipa::path(
    post, path = "/v1/shared/{token}/clone", tag = "history",
    params(("token" = String, Path, description = "The link's token")),
    request_body = Option<StartMetadata>,
    responses(
        (status = 200, description = "The new session", body = Session),
        (status = 404, description = "The link is not valid", body = ErrorBody),
        (status = 422, description = "The body is not a JSON object", body = ValidationBody),
        (status = 429, description = "You have reached your limit of sessions", body = ErrorBody),
        (status = 503, body = ErrorBody,
         description = "No port is free, or the worker failed to start"),
        (status = 507, description = "The disk quota is exceeded", body = ErrorBody),
    )
)]
pub(super) async fn clone_shared_checkpoint(
    State(context): State<Shared>,
    caller: Caller,
    Path(SharePath { token }): Path<SharePath>,
    client: Client,
    SmallBody(body): SmallBody,
) -> Result<Json<Session>, HttpError> {
    let (session, _, checkpoint) = find(&context, &token).await?;
    let request = start_request(Fields::optional(&body)?)?;
    start_copy(&context, &caller, client, request, session, Some(checkpoint)).await
}

/// Returns the session and the checkpoint of a share token.
async fn find(context: &Shared, token: &str) -> Result<(SessionView, Header, String), HttpError> {
    let nowhere =
        || HttpError::not_found("This share link is not valid: it was removed, or is incomplete");
    let token = ShareToken::parse(token).ok_or_else(nowhere)?;
    let session = context.app.sessions.get(&token.session()).ok_or_else(nowhere)?;
    let (checkpoint, hash) = (token.checkpoint(), token.hash());
    let shared =
        context.with_files(&session.session_id, move |folder| folder.shared(&checkpoint, &hash));
    let header = shared.await?.ok_or_else(nowhere)?;
    Ok((session, header, token.checkpoint()))
}
