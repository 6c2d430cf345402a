//! `/auth`: accounts and login.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::SmallBody;
use super::caller::Caller;
use super::json::Fields;
use super::state::Shared;
use crate::auth::{AuthError, Identity, LoggedIn, Registration};
use crate::error::{ErrorBody, HttpError, ValidationBody};
use crate::web::ClientAddress;

/// How users authenticate.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuthConfig {
    /// `none`, `password`, `jwt` or `external`.
    #[schema(example = "jwt")]
    mode: &'static str,
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct User {
    #[schema(example = "1")]
    user_id: String,
    email: String,
    /// First and last name; may be empty.
    #[schema(example = "Ada Lovelace")]
    full_name: String,
    /// `student`, `instructor` or `admin`.
    #[schema(example = "student")]
    role: &'static str,
}

/// A token, to be sent as `Authorization: Bearer <token>`.
#[derive(Serialize, ToSchema)]
pub(super) struct Token {
    access_token: String,
    /// Always `bearer`.
    token_type: &'static str,
    /// The token's user; missing in mode `password`.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User>,
}

/// The data of a new account.
#[derive(ToSchema)]
#[allow(
    dead_code,
    reason = "describes the request in the OpenAPI document; the body is parsed by `Fields`"
)]
pub(super) struct RegistrationBody {
    #[schema(example = "ada@example.org", min_length = 1, max_length = 320)]
    email: String,
    /// At least as long as the settings require, at most 1024 bytes.
    #[schema(min_length = 1, max_length = 1024)]
    password: String,
    first_name: Option<String>,
    last_name: Option<String>,
}

/// Credentials.
#[derive(ToSchema)]
#[allow(
    dead_code,
    reason = "describes the request in the OpenAPI document; the body is parsed by `Fields`"
)]
pub(super) struct LoginBody {
    /// Optional in mode `password`.
    #[schema(example = "ada@example.org")]
    email: String,
    password: String,
}

impl From<Identity> for User {
    fn from(identity: Identity) -> Self {
        Self {
            user_id: identity.user_id,
            email: identity.email,
            full_name: identity.full_name,
            role: identity.role.as_str(),
        }
    }
}

impl From<LoggedIn> for Token {
    fn from(logged_in: LoggedIn) -> Self {
        Self {
            access_token: logged_in.token,
            token_type: "bearer",
            user: logged_in.identity.map(User::from),
        }
    }
}

/// How to authenticate
#[utoipa::path(
    get, path = "/auth/config", tag = "accounts",
    responses((status = 200, description = "The server's mode", body = AuthConfig))
)]
pub(super) async fn config(State(context): State<Shared>) -> Json<AuthConfig> {
    Json(AuthConfig { mode: context.app.authenticator.mode_name() })
}

/// Create an account
///
/// Works in mode `jwt` only.
#[utoipa::path(
    post, path = "/auth/register", tag = "accounts", request_body = RegistrationBody,
    responses(
        (status = 200, description = "A token for the new account", body = Token),
        (status = 400, description = "The credentials are not acceptable", body = ErrorBody),
        (status = 403, body = ErrorBody,
         description = "Registration is closed, or restricted to other addresses"),
        (status = 404, description = "This mode has no accounts", body = ErrorBody),
        (status = 409, description = "The address already has an account", body = ErrorBody),
        (status = 422, description = "A field is missing or not a string", body = ValidationBody),
        (status = 429, description = "Too many registrations from your address", body = ErrorBody),
    )
)]
pub(super) async fn register(
    State(context): State<Shared>,
    ClientAddress(address): ClientAddress,
    SmallBody(body): SmallBody,
) -> Result<Json<Token>, HttpError> {
    let mut fields = Fields::required(&body)?;
    let registration = Registration {
        email: fields.text("email"),
        password: fields.text("password"),
        first_name: fields.optional_text("first_name").unwrap_or_default(),
        last_name: fields.optional_text("last_name").unwrap_or_default(),
    };
    fields.rest()?;
    Ok(Json(context.app.authenticator.register(registration, address).await?.into()))
}

/// Log in
///
/// Mode `jwt` needs an account's e-mail and password. Mode `password` needs the server's password
/// only.
#[utoipa::path(
    post, path = "/auth/login", tag = "accounts", request_body = LoginBody,
    responses(
        (status = 200, description = "A token", body = Token),
        (status = 401, description = "Wrong credentials", body = ErrorBody),
        (status = 403, description = "The account is disabled", body = ErrorBody),
        (status = 404, description = "This mode has no login", body = ErrorBody),
        (status = 422, description = "A field is missing or not a string", body = ValidationBody),
        (status = 429, description = "Too many wrong passwords", body = ErrorBody),
    )
)]
pub(super) async fn login(
    State(context): State<Shared>,
    ClientAddress(address): ClientAddress,
    SmallBody(body): SmallBody,
) -> Result<Json<Token>, HttpError> {
    let authenticator = &context.app.authenticator;
    let mut fields = Fields::required(&body)?;
    let email = if authenticator.has_gate() {
        fields.optional_text("email").unwrap_or_default()
    } else {
        fields.text("email")
    };
    let password = fields.text("password");
    fields.rest()?;
    let logged_in = authenticator.login(&email, password, address).await;
    let logged_in = logged_in.inspect_err(|reason| {
        let address = address.map(tracing::field::display);
        tracing::info!(address, %reason, "login refused");
    })?;
    Ok(Json(logged_in.into()))
}

/// Show the current user
#[utoipa::path(
    get, path = "/auth/me", tag = "accounts",
    responses(
        (status = 200, description = "The current user", body = User),
        (status = 401, description = "The token is missing or not valid", body = ErrorBody),
        (status = 404, description = "This mode has no users", body = ErrorBody),
    )
)]
pub(super) async fn me(caller: Caller) -> Result<Json<User>, HttpError> {
    let identity = caller.0.ok_or(AuthError::NoIdentity)?;
    Ok(Json(identity.into()))
}
