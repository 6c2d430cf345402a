//! `/v1/api-keys`: keys that let a user's programs in.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::body::Small;
use super::caller::Caller;
use super::json::Fields;
use super::sessions::Done;
use super::{ErrorBody, Shared, ValidationBody};
use crate::auth::{AuthError, KeyRequest};
use crate::error::HttpError;
use crate::store::ApiKey;

/// An API key, without its secret. Times are Unix seconds.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Key {
    #[schema(example = 1)]
    id: i64,
    /// What you call it.
    #[schema(example = "notebook")]
    name: String,
    /// The beginning of the key, which is no secret.
    #[schema(example = "phk_3f9a1c2b7d4e")]
    prefix: String,
    created_at: f64,
    /// Null if it does not expire.
    expires_at: Option<f64>,
    /// Within a minute; null if it was never used.
    last_used_at: Option<f64>,
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
pub(super) struct NewKey {
    #[serde(flatten)]
    key: Key,
    /// The whole key: told now and never again.
    api_key: String,
}

/// Your keys.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Keys {
    /// Oldest first.
    api_keys: Vec<Key>,
}

/// A wish for a key.
#[derive(ToSchema)]
#[allow(
    dead_code,
    reason = "describes the request in the OpenAPI document; the body is read field by field"
)]
pub(super) struct KeyBody {
    /// To tell it from others; not blank, no control characters.
    #[schema(
        example = "notebook",
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"
    )]
    name: String,
    /// Days until it expires; it does not where none are given, except in mode `external`, where 90
    /// are most.
    #[schema(example = 120, minimum = 1, maximum = 3650)]
    expires_in_days: Option<u32>,
}

impl From<ApiKey> for Key {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            name: key.name,
            prefix: key.prefix,
            created_at: key.created_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
        }
    }
}

/// Make an API key
///
/// The key lets a program in as you: as `X-API-Key`, or as `Authorization: Bearer`. It is told this
/// once. Needs a token.
#[utoipa::path(
    post, path = "/v1/api-keys", tag = "accounts", security(("token" = [])), request_body = KeyBody,
    responses(
        (status = 200, description = "The key", body = NewKey),
        (status = 400, description = "The name or the life cannot be a key's", body = ErrorBody),
        (status = 403, description = "You came by an API key", body = ErrorBody),
        (status = 404, description = "This mode knows no users", body = ErrorBody),
        (status = 409, description = "You have as many keys as allowed", body = ErrorBody),
        (status = 422, description = "A field is missing or of a wrong type", body = ValidationBody),
    )
)]
pub(super) async fn create(
    State(context): State<Shared>,
    caller: Caller,
    Small(body): Small,
) -> Result<Json<NewKey>, HttpError> {
    let mut fields = Fields::required(&body)?;
    let name = fields.text("name");
    let days = fields.optional_number("expires_in_days");
    fields.rest()?;
    let wish = KeyRequest { name, days };
    let (key, api_key) = context.app.authenticator.create_key(caller.0.as_ref(), wish).await?;
    Ok(Json(NewKey { key: key.into(), api_key }))
}

/// List your API keys
///
/// Without their secrets. Needs a token.
#[utoipa::path(
    get, path = "/v1/api-keys", operation_id = "list_api_keys", tag = "accounts", security(("token" = [])),
    responses(
        (status = 200, description = "Your keys", body = Keys),
        (status = 403, description = "You came by an API key", body = ErrorBody),
        (status = 404, description = "This mode knows no users", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(context): State<Shared>,
    caller: Caller,
) -> Result<Json<Keys>, HttpError> {
    let keys = context.app.authenticator.keys_of(caller.0.as_ref()).await?;
    Ok(Json(Keys { api_keys: keys.into_iter().map(Key::from).collect() }))
}

/// Revoke an API key
///
/// It lets nobody in any more. Needs a token.
#[utoipa::path(
    delete, path = "/v1/api-keys/{key_id}", tag = "accounts", security(("token" = [])),
    params(("key_id" = i64, Path, description = "The key's id")),
    responses(
        (status = 200, description = "It is over", body = Done),
        (status = 403, description = "You came by an API key", body = ErrorBody),
        (status = 404, description = "You have no such key, or this mode knows no users", body = ErrorBody),
    )
)]
pub(super) async fn revoke(
    State(context): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Done>, HttpError> {
    // What is no number is nobody's key.
    let id = id.parse().map_err(|_| AuthError::UnknownKey)?;
    context.app.authenticator.revoke_key(caller.0.as_ref(), id).await?;
    Ok(Json(Done::new()))
}
