//! `/dash`: start, list, measure and end sessions.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::Json;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::HeaderMap;
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::body::SmallBody;
use super::caller::{Access, Caller, OwnedSession};
use super::json::Fields;
use super::state::Shared;
use super::view::{METADATA_KIB, Session};
use crate::auth::Identity;
use crate::error::{ErrorBody, HttpError, ValidationBody};
use crate::session::{EndReason, Owner, Requester, SessionView, StartRequest, UserInfo};
use crate::store::AuditEntry;
use crate::web::ClientAddress;

/// The most characters of a name.
const MAX_NAME: usize = 1000;

/// A success without a result.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done {
    /// Always true.
    success: bool,
}

impl Done {
    pub(super) fn new() -> Self {
        Self { success: true }
    }
}

/// The memory of one session.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Memory {
    /// MiB, measured for this request.
    mem_used: f64,
}

/// The worker ports.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PortStatus {
    /// Ports in the pool.
    total_ports: usize,
    /// Ports in use by sessions.
    reserved_ports: usize,
    /// Free ports. 0 is not an error: an idle session gives its port to a session that needs one.
    available_ports: usize,
    /// The ports in use by sessions.
    reserved_port_list: Vec<u16>,
    /// First and last port of the pool.
    #[schema(example = "6560-7559")]
    port_range: String,
}

/// Optional data about a new session. Other fields are stored and returned as `metadata`.
#[derive(ToSchema)]
#[allow(
    dead_code,
    reason = "describes the request in the OpenAPI document; the body is parsed by `Fields`"
)]
pub(super) struct StartMetadata {
    #[schema(example = "Algol")]
    project_name: Option<String>,
    #[schema(example = "Ada")]
    first_name: Option<String>,
    #[schema(example = "Lovelace")]
    last_name: Option<String>,
    email: Option<String>,
}

/// Start a session
///
/// The answer comes when the session's worker is ready. The body is optional.
#[utoipa::path(
    post, path = "/dash/start-session", tag = "sessions",
    request_body = Option<StartMetadata>,
    responses(
        (status = 200, description = "The new session", body = Session),
        (status = 422, body = ValidationBody,
         description = "The body is not a JSON object, or is too large to store"),
        (status = 429, description = "You have reached your limit of sessions", body = ErrorBody),
        (status = 503, body = ErrorBody,
         description = "No port is free, or the worker failed to start"),
        (status = 507, description = "The disk quota is exceeded", body = ErrorBody),
    )
)]
pub(super) async fn start(
    State(context): State<Shared>,
    caller: Caller,
    client: Client,
    SmallBody(body): SmallBody,
) -> Result<Json<Session>, HttpError> {
    let request = start_request(Fields::optional(&body)?)?;
    start_session(&context, &caller, client, request).await
}

/// The client that asks for a session, for the log.
pub(super) struct Client {
    ip: Option<String>,
    user_agent: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let ClientAddress(ip) = ClientAddress::from_request_parts(parts, state).await?;
        let user_agent = user_agent(&parts.headers);
        Ok(Self { ip: ip.map(|ip| ip.to_string()), user_agent })
    }
}

impl Client {
    /// The most characters of a client's name in a job.
    const NAME_CHARACTERS_MAX: usize = 60;

    /// Returns who submits a job.
    pub(super) fn requester(self, caller: &Caller) -> Requester {
        let user_id = caller.0.as_ref().map(|identity| identity.user_id.clone());
        let cut = |name: String| name.chars().take(Self::NAME_CHARACTERS_MAX).collect();
        Requester { user_id, client: self.user_agent.map(cut) }
    }
}

/// Starts a session that belongs to its caller.
pub(super) async fn start_session(
    context: &Shared,
    caller: &Caller,
    client: Client,
    mut request: StartRequest,
) -> Result<Json<Session>, HttpError> {
    if let Some(identity) = &caller.0 {
        request.owner = Some(owner(identity));
        let email = Some(&identity.email).filter(|email| !email.is_empty()).cloned();
        request.user_info.email = request.user_info.email.or(email);
    }
    (request.client_ip, request.user_agent) = (client.ip, client.user_agent);
    let view = context.app.sessions.start(request).await?;
    Ok(Json(Session::seen_by(caller, view, &context.app.settings.session)))
}

/// Reads the data about a new session. Without a body there is none.
pub(super) fn start_request(fields: Option<Fields>) -> Result<StartRequest, HttpError> {
    let Some(mut fields) = fields else { return Ok(StartRequest::default()) };
    let project_name = fields.optional_text("project_name");
    fields.limit_length("project_name", project_name.as_deref().unwrap_or_default(), MAX_NAME);
    let user_info = user_info(&mut fields, UserInfo::default());
    fields.limit_rest(METADATA_KIB);
    Ok(StartRequest {
        project_name,
        user_info,
        metadata: fields.rest()?.into_iter().collect::<BTreeMap<String, Value>>(),
        ..StartRequest::default()
    })
}

/// Reads names and e-mail from `fields`; missing ones are taken from `otherwise`.
fn user_info(fields: &mut Fields, otherwise: UserInfo) -> UserInfo {
    let mut take = |name, otherwise| {
        let text = fields.optional_text(name).or(otherwise);
        fields.limit_length(name, text.as_deref().unwrap_or_default(), MAX_NAME);
        text
    };
    UserInfo {
        first_name: take("first_name", otherwise.first_name),
        last_name: take("last_name", otherwise.last_name),
        email: take("email", otherwise.email),
    }
}

fn owner(identity: &Identity) -> Owner {
    Owner { user_id: identity.user_id.clone(), full_name: identity.full_name.clone() }
}

/// Returns the `User-Agent`, cut to the length of a log column.
fn user_agent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(USER_AGENT)?.to_str().ok()?;
    Some(text.chars().take(300).collect())
}

/// End a session
///
/// The answer comes when the session's worker has exited and its port is free.
#[utoipa::path(
    post, path = "/dash/end-session/{session_id}", tag = "sessions",
    params(("session_id" = String, Path, description = "The session's id")),
    responses(
        (status = 200, description = "The session has ended", body = Done),
    )
)]
pub(super) async fn end(
    State(context): State<Shared>,
    caller: Caller,
    OwnedSession(session): OwnedSession,
) -> Result<Json<Done>, HttpError> {
    let owns = caller.owns(&session);
    let reason = if owns { EndReason::Manual } else { EndReason::Admin };
    context.app.sessions.end(&session.session_id, reason).await?;
    if let (false, Some(identity)) = (owns, caller.0) {
        let owner = session.owner.map(|owner| owner.user_id).unwrap_or_default();
        context.app.store.log_audit(AuditEntry {
            actor: identity.user_id,
            action: "session.end",
            subject: session.session_id,
            detail: format!("owner {owner}"),
        });
    }
    Ok(Json(Done::new()))
}

/// List sessions
///
/// Returns your own sessions by id, oldest first. Instructors also see the sessions of their
/// students. Administrators see all sessions, as does everybody on a server without users.
#[utoipa::path(
    get, path = "/dash/sessions", tag = "sessions",
    responses((status = 200, description = "Sessions by id", body = BTreeMap<String, Session>))
)]
pub(super) async fn list(
    State(context): State<Shared>,
    caller: Caller,
) -> Json<serde_json::Map<String, Value>> {
    Json(
        visible(&context, &caller)
            .filter_map(|view| {
                let id = view.session_id.clone();
                let session = Session::seen_by(&caller, view, &context.app.settings.session);
                let session = session.in_a_list();
                serde_json::to_value(session).ok().map(|session| (id, session))
            })
            .collect(),
    )
}

/// Memory of all sessions
///
/// MiB by session id, from the last measurement. Measured every 5 s during a long command; 0 for a
/// sleeping session.
#[utoipa::path(
    get, path = "/dash/session-memory", tag = "sessions",
    responses((status = 200, description = "MiB by session id", body = BTreeMap<String, f64>))
)]
pub(super) async fn memory_of_all(
    State(context): State<Shared>,
    caller: Caller,
) -> Json<BTreeMap<String, f64>> {
    Json(visible(&context, &caller).map(|view| (view.session_id, view.mem_used)).collect())
}

/// Returns the sessions that this caller may see.
fn visible(context: &Shared, caller: &Caller) -> impl Iterator<Item = SessionView> {
    let sessions = context.app.sessions.list().into_iter();
    sessions.filter(|view| caller.may(Access::Supervise, view))
}

/// Measure a session's memory
#[utoipa::path(
    post, path = "/dash/session-memory/{session_id}", tag = "sessions",
    params(("session_id" = String, Path, description = "The session's id")),
    responses(
        (status = 200, description = "The memory", body = Memory),
    )
)]
pub(super) async fn memory(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
) -> Result<Json<Memory>, HttpError> {
    let mem_used = context.app.sessions.measure_memory(&session.session_id).await?;
    Ok(Json(Memory { mem_used }))
}

/// Worker ports
#[utoipa::path(
    get, path = "/dash/port-status", tag = "sessions",
    responses((status = 200, description = "The port pool", body = PortStatus))
)]
pub(super) async fn port_status(
    State(context): State<Shared>,
    _caller: Caller,
) -> Json<PortStatus> {
    Json(context.app.sessions.port_status().into())
}

impl From<crate::session::PortStatus> for PortStatus {
    fn from(ports: crate::session::PortStatus) -> Self {
        let total = usize::from(ports.end.saturating_sub(ports.start));
        Self {
            total_ports: total,
            reserved_ports: ports.reserved.len(),
            available_ports: total.saturating_sub(ports.reserved.len() + ports.foreign.len()),
            reserved_port_list: ports.reserved,
            port_range: format!("{}-{}", ports.start, ports.end.saturating_sub(1)),
        }
    }
}

/// Names and e-mail of a session's user. Missing fields stay unchanged.
#[derive(Debug, Default, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
pub(super) struct UserInfoFields {
    #[param(example = "Ada")]
    first_name: Option<String>,
    #[param(example = "Lovelace")]
    last_name: Option<String>,
    email: Option<String>,
}

/// Set the user's name and e-mail
///
/// The fields are query parameters or a JSON object. The object wins over the query.
#[utoipa::path(
    post, path = "/dash/update-user-info/{session_id}", tag = "sessions",
    params(("session_id" = String, Path, description = "The session's id"), UserInfoFields),
    request_body = Option<UserInfoFields>,
    responses(
        (status = 200, description = "The data is stored", body = Done),
        (status = 422, description = "A field is not a string", body = ValidationBody),
    )
)]
pub(super) async fn update_user_info(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    query: Result<Query<UserInfoFields>, axum::extract::rejection::QueryRejection>,
    SmallBody(body): SmallBody,
) -> Result<Json<Done>, HttpError> {
    let Query(query) = query.map_err(|rejection| super::json::bad_query(&rejection.body_text()))?;
    let mut fields = Fields::optional(&body)?.unwrap_or_default();
    let UserInfoFields { first_name, last_name, email } = query;
    let info = user_info(&mut fields, UserInfo { first_name, last_name, email });
    fields.rest()?;
    context.app.sessions.update_user_info(&session.session_id, info).await?;
    Ok(Json(Done::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_pool_has_the_recorded_form() {
        let ports = crate::session::PortStatus {
            start: 6560,
            end: 6590,
            reserved: vec![6560],
            foreign: vec![6570],
        };
        assert_eq!(
            serde_json::to_value(PortStatus::from(ports)).unwrap(),
            serde_json::json!({
                "total_ports": 30, "reserved_ports": 1, "available_ports": 28,
                "reserved_port_list": [6560], "port_range": "6560-6589",
            })
        );
    }

    #[test]
    fn unknown_start_fields_become_metadata() {
        let body = br#"{"project_name": "Algol", "first_name": "Ada", "email": null, "course": 7}"#;
        let fields = Fields::required(&body.as_slice().into()).unwrap();
        let request = start_request(Some(fields)).unwrap();
        assert_eq!(request.project_name.as_deref(), Some("Algol"));
        assert_eq!(request.user_info.first_name.as_deref(), Some("Ada"));
        assert_eq!(request.user_info.email, None);
        assert_eq!(request.metadata, BTreeMap::from([("course".to_owned(), 7.into())]));
    }
}
