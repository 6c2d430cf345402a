//! Domain errors as HTTP answers: the one place that knows both.
//!
//! What a user may see becomes `{"detail": …}`; the cause goes to the log and nowhere else.

use std::io;

use axum::http::header::{HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::auth::AuthError;
use crate::session::SessionError;
use crate::store::StoreError;
use crate::store::snapshots::SnapshotError;

/// Seconds after which a client may try again when the server is at a bound.
const RETRY_AFTER_SECONDS: u64 = 2;

/// An answer that says what went wrong.
#[derive(Debug)]
pub struct HttpError {
    status: StatusCode,
    detail: Detail,
    code: Option<&'static str>,
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Detail {
    Text(String),
    Validation(Vec<Problem>),
}

/// The body of an error answer.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, reason = "describes the body of `HttpError` in the OpenAPI document")]
pub(crate) struct ErrorBody {
    /// What went wrong and the way out.
    #[schema(example = "Session not found")]
    detail: String,
    /// The error's name, where programs may want to tell it from others of its status:
    /// `command_too_large`, `journal_full` or `disk_quota`.
    #[schema(example = "disk_quota")]
    code: Option<String>,
}

/// The body of a 422 answer.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, reason = "describes the body of `HttpError` in the OpenAPI document")]
pub(crate) struct ValidationBody {
    /// Everything that is wrong.
    detail: Vec<Problem>,
}

/// One thing that is wrong with a request's input.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// What kind of problem, e.g. `missing`, `string_type`, `json_invalid`.
    #[serde(rename = "type")]
    #[schema(example = "missing")]
    pub kind: &'static str,
    /// Where: `body` or `query`, then field names or positions.
    pub loc: Vec<Place>,
    /// The problem in words.
    #[schema(example = "Field required")]
    pub msg: String,
    /// What was sent there.
    #[schema(value_type = Value)]
    pub input: Option<Box<RawValue>>,
    /// More on the problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctx: Option<Context>,
}

/// More on a [`Problem`].
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Context {
    /// What the parser says.
    #[schema(example = "Expecting value")]
    pub error: String,
}

/// One step on the way to a wrong input.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Place {
    /// A field.
    Name(String),
    /// A position in a list or a text.
    Position(usize),
}

impl From<&str> for Place {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<usize> for Place {
    fn from(position: usize) -> Self {
        Self::Position(position)
    }
}

impl HttpError {
    /// An answer with this status and text.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: Detail::Text(detail.into()), code: None, header: None }
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 422 with everything that is wrong.
    #[must_use]
    pub fn validation(problems: Vec<Problem>) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            detail: Detail::Validation(problems),
            code: None,
            header: None,
        }
    }

    /// 503: not now; the client may try again.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_later()
    }

    /// 500 whose cause is in the log only.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Internal server error; its cause is in the server's log",
        )
    }

    /// Tells the client when to try again.
    #[must_use]
    pub fn retry_later(self) -> Self {
        self.retry_after(RETRY_AFTER_SECONDS)
    }

    fn retry_after(self, seconds: u64) -> Self {
        Self { header: Some(Box::new((RETRY_AFTER, HeaderValue::from(seconds)))), ..self }
    }

    /// Names the error for programs.
    fn named(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    fn challenge(self, scheme: &'static str) -> Self {
        Self {
            header: Some(Box::new((WWW_AUTHENTICATE, HeaderValue::from_static(scheme)))),
            ..self
        }
    }

    /// `detail` as it is sent.
    #[cfg(test)]
    pub(crate) fn detail_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.detail).unwrap()
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

/// The body of every error answer.
#[derive(Serialize)]
struct Body<'a> {
    detail: &'a Detail,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&Body { detail: &self.detail, code: self.code })
            .unwrap_or_else(|_| br#"{"detail":"Internal server error"}"#.to_vec());
        let json = HeaderValue::from_static("application/json");
        let mut response = (self.status, [(header::CONTENT_TYPE, json)], body).into_response();
        if let Some((name, value)) = self.header.map(|header| *header) {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<SessionError> for HttpError {
    fn from(error: SessionError) -> Self {
        let text = error.to_string();
        match error {
            SessionError::NotFound => Self::not_found(text),
            SessionError::UserLimit { .. } => Self::new(StatusCode::TOO_MANY_REQUESTS, text),
            SessionError::QueueFull { .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, text).retry_later()
            }
            SessionError::CommandTooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, text).named("command_too_large")
            }
            SessionError::JournalFull { .. } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, text).named("journal_full")
            }
            SessionError::DiskFull(_) => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, text).named("disk_quota")
            }
            SessionError::Conflict(_) => Self::new(StatusCode::CONFLICT, text),
            SessionError::BadBundle(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, text),
            SessionError::NoCheckpoint => Self::not_found(text),
            SessionError::NoPort { .. }
            | SessionError::Unreadable(_)
            | SessionError::Overloaded(_)
            | SessionError::ShuttingDown => Self::unavailable(text),
            SessionError::StartFailed(cause) => {
                tracing::error!(%cause, "a worker could not be started");
                Self::unavailable(
                    "The session's worker could not be started; the cause is in the \
                     server's log. Try again in a moment",
                )
            }
        }
    }
}

impl From<SnapshotError> for HttpError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::not_found("There is no such file of this session")
            }
            SnapshotError::Io(error) => {
                tracing::error!(%error, "a session's files did not serve a request");
                Self::unavailable(format!(
                    "The session's files cannot be read or written now ({error}); try again \
                     in a moment"
                ))
            }
            SnapshotError::Damaged(_) | SnapshotError::NoneWhole(_) => {
                Self::new(StatusCode::CONFLICT, format!("It cannot be read: {error}"))
            }
        }
    }
}

impl From<StoreError> for HttpError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::EmailTaken => Self::new(StatusCode::CONFLICT, error.to_string()),
            StoreError::NoUser(_) => Self::not_found(error.to_string()),
            StoreError::Database { .. } => {
                tracing::error!(%error, "the database did not answer a request");
                Self::unavailable("The database is not available; try again in a moment")
            }
        }
    }
}

impl From<AuthError> for HttpError {
    fn from(error: AuthError) -> Self {
        let text = error.to_string();
        match error {
            AuthError::MissingToken
            | AuthError::InvalidToken(_)
            | AuthError::ExpiredToken
            | AuthError::UnknownUser => {
                Self::new(StatusCode::UNAUTHORIZED, text).challenge("Bearer")
            }
            AuthError::MissingApiKey => {
                Self::new(StatusCode::UNAUTHORIZED, text).challenge("ApiKey")
            }
            AuthError::InvalidApiKey
            | AuthError::ExpiredApiKey
            | AuthError::NeedsLogin
            | AuthError::RegistrationClosed
            | AuthError::ForeignDomain(_)
            | AuthError::InactiveAccount => Self::new(StatusCode::FORBIDDEN, text),
            AuthError::Throttled { seconds } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, text).retry_after(seconds)
            }
            AuthError::TooManyKeys => Self::new(StatusCode::CONFLICT, text),
            AuthError::WrongCredentials | AuthError::WrongGatePassword => {
                Self::new(StatusCode::UNAUTHORIZED, text)
            }
            AuthError::NoKeys | AuthError::Busy => Self::unavailable(text),
            AuthError::BadCredentials(_) => Self::new(StatusCode::BAD_REQUEST, text),
            AuthError::NoRegistration
            | AuthError::NoLogin
            | AuthError::NoIdentity
            | AuthError::UnknownKey => Self::not_found(text),
            AuthError::Store(error) => error.into(),
            AuthError::Internal(cause) => {
                tracing::error!(%cause, "authentication failed for an internal reason");
                Self::internal()
            }
        }
    }
}
