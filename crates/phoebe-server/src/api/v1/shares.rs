//! Checkpoints that others may look at and copy, by a link.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::checkpoints::Named;
use super::clones::begin_copy;
use super::token::ShareToken;
use crate::api::body::Small;
use crate::api::caller::{Caller, OwnedSession};
use crate::api::json::Fields;
use crate::api::sessions::{Client, Done, StartMetadata, start_request};
use crate::api::state::Shared;
use crate::api::view::{self, Session};
use crate::error::{ErrorBody, HttpError, ValidationBody};
use crate::session::{SessionError, SessionView};
use crate::store::snapshots::Header;
use crate::web::PublicAddress;

/// A link to a checkpoint: whoever may use the server and has it can look at the checkpoint and copy it.
#[derive(Serialize, ToSchema)]
pub(super) struct Share {
    /// Told now and never again.
    token: String,
    /// Where it leads, as clients reach this server: with scheme, host and the path of a proxy.
    #[schema(example = "https://phoebe.example.org/v1/shared/phoebe_share_…")]
    url: String,
}

/// A checkpoint that somebody shares.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SharedCheckpoint {
    #[schema(example = "before the fit")]
    name: String,
    note: Option<String>,
    /// Whose session it is of; null where that is not known.
    #[schema(example = "Ada Lovelace")]
    owner: Option<String>,
    /// The name of their project.
    #[schema(example = "Algol")]
    project_name: Option<String>,
    /// Unix seconds.
    created_at: f64,
}

/// The token that a path names.
#[derive(Deserialize)]
pub(super) struct Linked {
    token: String,
}

/// Share a checkpoint
///
/// Makes a link with which everybody whom the server lets in can look at the checkpoint and begin a session as a copy of it.
/// Nobody can change it. A link that was made before leads nowhere any more.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/checkpoints/{checkpoint_id}/share", tag = "history",
    security((), ("token" = []), ("api_key" = [])),
    params(
        ("session_id" = String, Path, description = "The session's id"),
        ("checkpoint_id" = String, Path, description = "The checkpoint's id"),
    ),
    responses(
        (status = 200, description = "The link", body = Share),
        (status = 403, description = "The session belongs to somebody else", body = ErrorBody),
        (status = 404, description = "There is no such session or checkpoint", body = ErrorBody),
        (status = 409, description = "Nothing is kept of sessions, or the checkpoint is damaged", body = ErrorBody),
    )
)]
pub(super) async fn share_checkpoint(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    Path(Named { checkpoint_id }): Path<Named>,
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

/// Take a checkpoint's link back
///
/// It leads nowhere any more. Sessions that were copied with it stay.
#[utoipa::path(
    delete, path = "/v1/sessions/{session_id}/checkpoints/{checkpoint_id}/share", tag = "history",
    security((), ("token" = []), ("api_key" = [])),
    params(
        ("session_id" = String, Path, description = "The session's id"),
        ("checkpoint_id" = String, Path, description = "The checkpoint's id"),
    ),
    responses(
        (status = 200, description = "There is no link", body = Done),
        (status = 403, description = "The session belongs to somebody else", body = ErrorBody),
        (status = 404, description = "There is no such session, or no link to this checkpoint", body = ErrorBody),
        (status = 409, description = "Nothing is kept of sessions, or not now", body = ErrorBody),
    )
)]
pub(super) async fn unshare_checkpoint(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    Path(Named { checkpoint_id }): Path<Named>,
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

/// Look at a shared checkpoint
#[utoipa::path(
    get, path = "/v1/shared/{token}", tag = "history", security((), ("token" = []), ("api_key" = [])),
    params(("token" = String, Path, description = "The link's token")),
    responses(
        (status = 200, description = "What its owner says of it", body = SharedCheckpoint),
        (status = 404, description = "The link leads nowhere", body = ErrorBody),
    )
)]
pub(super) async fn shared_checkpoint(
    State(context): State<Shared>,
    Path(Linked { token }): Path<Linked>,
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
/// Starts a session of yours that begins as the checkpoint. The original is as it was. The body may be missing.
#[utoipa::path(
    post, path = "/v1/shared/{token}/clone", tag = "history", security((), ("token" = []), ("api_key" = [])),
    params(("token" = String, Path, description = "The link's token")),
    request_body = Option<StartMetadata>,
    responses(
        (status = 200, description = "The new session", body = Session),
        (status = 404, description = "The link leads nowhere", body = ErrorBody),
        (status = 422, description = "The body is no JSON object", body = ValidationBody),
        (status = 429, description = "You have as many sessions as allowed", body = ErrorBody),
        (status = 503, description = "No port is free, or the worker could not be started", body = ErrorBody),
        (status = 507, description = "There is no room on disk for it within what you may take", body = ErrorBody),
    )
)]
pub(super) async fn clone_shared_checkpoint(
    State(context): State<Shared>,
    caller: Caller,
    Path(Linked { token }): Path<Linked>,
    client: Client,
    Small(body): Small,
) -> Result<Json<Session>, HttpError> {
    let (session, _, checkpoint) = find(&context, &token).await?;
    let request = start_request(Fields::optional(&body)?)?;
    begin_copy(&context, &caller, client, request, session, Some(checkpoint)).await
}

/// The session and the checkpoint that a token opens.
async fn find(context: &Shared, token: &str) -> Result<(SessionView, Header, String), HttpError> {
    let nowhere = || HttpError::not_found("This link leads nowhere: it was taken back, or is cut");
    let token = ShareToken::parse(token).ok_or_else(nowhere)?;
    let session = context.app.sessions.get(&token.session()).ok_or_else(nowhere)?;
    let (checkpoint, hash) = (token.checkpoint(), token.hash());
    let shared =
        context.with_files(&session.session_id, move |folder| folder.shared(&checkpoint, &hash));
    let header = shared.await?.ok_or_else(nowhere)?;
    Ok((session, header, token.checkpoint()))
}
