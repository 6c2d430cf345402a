//! `/v1/api-keys`: API keys of users.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::body::SmallBody;
use super::caller::Caller;
use super::json::Fields;
use super::sessions::Done;
use super::state::Shared;
use crate::auth::{AuthError, KeyRequest};
use crate::error::{ErrorBody, HttpError, ValidationBody};
use crate::store::ApiKey;

/// An API key, without its secret. Times are Unix seconds.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Key {
    #[schema(example = 1)]
    id: i64,
    /// The name that you gave the key.
    #[schema(example = "notebook")]
    name: String,
    /// The public prefix of the key.
    #[schema(example = "phk_3f9a1c2b7d4e")]
    prefix: String,
    created_at: f64,
    /// Null if it does not expire.
    expires_at: Option<f64>,
    /// Accurate to a minute; null if the key was never used.
    last_used_at: Option<f64>,
}

/// A new key.
#[derive(Serialize, ToSchema)]
pub(super) struct NewKey {
    #[serde(flatten)]
    key: Key,
    /// The whole key. It is shown only once.
    api_key: String,
}

/// Your keys.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Keys {
    /// Oldest first.
    api_keys: Vec<Key>,
}

/// The data of a new key.
#[derive(ToSchema)]
#[allow(
    dead_code,
    reason = "describes the request in the OpenAPI document; the body is parsed by `Fields`"
)]
pub(super) struct KeyBody {
    /// Tells the key from others; not blank, without control characters.
    #[schema(
        example = "notebook",
        min_length = 1,
        max_length = 100,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f]\
                   [^\\u0000-\\u001f\\u007f-\\u009f]*$"
    )]
    name: String,
    /// Days until the key expires. Without it the key does not expire; in mode `external` it
    /// expires after 90 days, which is also the maximum.
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

/// Create an API key
///
/// A program with the key acts as you. It sends the key as `X-API-Key` or as `Authorization:
/// Bearer`. The key is shown only once. Needs a token.
#[utoipa::path(
    post, path = "/v1/api-keys", tag = "accounts", security(("token" = [])), request_body = KeyBody,
    responses(
        (status = 200, description = "The key", body = NewKey),
        (status = 400, description = "The name or the lifetime is not valid", body = ErrorBody),
        (status = 403, body = ErrorBody,
         description = "The request was authenticated by an API key"),
        (status = 404, description = "This mode has no users", body = ErrorBody),
        (status = 409, description = "You have reached the limit of keys", body = ErrorBody),
        (status = 422, body = ValidationBody,
         description = "A field is missing or has the wrong type"),
    )
)]
pub(super) async fn create(
    State(context): State<Shared>,
    caller: Caller,
    SmallBody(body): SmallBody,
) -> Result<Json<NewKey>, HttpError> {
    let mut fields = Fields::required(&body)?;
    let name = fields.text("name");
    let days = fields.optional_number("expires_in_days");
    fields.rest()?;
    let request = KeyRequest { name, days };
    let (key, api_key) = context.app.authenticator.create_key(caller.0.as_ref(), request).await?;
    Ok(Json(NewKey { key: key.into(), api_key }))
}

/// List your API keys
///
/// Returns the keys without their secrets. Needs a token.
#[utoipa::path(
    get, path = "/v1/api-keys", operation_id = "list_api_keys", tag = "accounts",
    security(("token" = [])),
    responses(
        (status = 200, description = "Your keys", body = Keys),
        (status = 403, body = ErrorBody,
         description = "The request was authenticated by an API key"),
        (status = 404, description = "This mode has no users", body = ErrorBody),
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
/// Requests with the key are refused from now on. Needs a token.
#[utoipa::path(
    delete, path = "/v1/api-keys/{key_id}", tag = "accounts", security(("token" = [])),
    params(("key_id" = i64, Path, description = "The key's id")),
    responses(
        (status = 200, description = "The key is revoked", body = Done),
        (status = 403, body = ErrorBody,
         description = "The request was authenticated by an API key"),
        (status = 404, body = ErrorBody,
         description = "You have no such key, or this mode has no users"),
    )
)]
pub(super) async fn revoke(
    State(context): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Done>, HttpError> {
    // An id that is not a number belongs to no key.
    let id = id.parse().map_err(|_| AuthError::UnknownKey)?;
    context.app.authenticator.revoke_key(caller.0.as_ref(), id).await?;
    Ok(Json(Done::new()))
}
