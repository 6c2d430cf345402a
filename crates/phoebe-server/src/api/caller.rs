//! The guard: authenticates the caller and checks access to the session in the path before the
//! handler runs.

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::state::Shared;
use crate::auth::Identity;
use crate::error::HttpError;
use crate::session::{SessionManager, SessionView};
use crate::web::{CallerId, ClientAddress, LimitedCaller};

/// The path parameter that holds a session's id.
pub(super) const SESSION: &str = "session_id";

const NOT_FOR_MONITORING: &str =
    "The metrics are for administrators and for the bearer of [metrics] token";

/// The caller; `None` in modes without users.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Option<Identity>);

/// The session in the path. The caller may use it.
#[derive(Debug, Clone)]
pub(super) struct OwnedSession(pub(super) SessionView);

/// The access that a route needs to its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Full access: for the owner and administrators.
    Use,
    /// Look at the session or end it: also for instructors of the owner's groups.
    Supervise,
    /// Read the metrics: for administrators and the bearer of the token for it.
    Monitor,
}

/// The guard's state.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) context: Shared,
    pub(super) access: Access,
}

/// Middleware: refuses a request without valid credentials, or for a session that the caller may
/// not access. Adds the caller and the session to the request.
pub(super) async fn guard(
    State(guard): State<Guard>,
    route: MatchedPath,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    let app = &guard.context.app;
    let address = request.extensions().get().and_then(|ClientAddress(address)| *address);
    let has_token =
        guard.access == Access::Monitor && guard.context.metrics_token.is_in(request.headers());
    let caller = if has_token {
        Caller(None)
    } else {
        match app.authenticator.authenticate(request.headers(), address).await {
            Ok(identity) => Caller(identity),
            Err(error) => return HttpError::from(error).into_response(),
        }
    };
    let id = caller.0.as_ref().map(|identity| CallerId(identity.user_id.clone()));
    let mut response = match caller.session_in_path(&app.sessions, guard.access, &route, parameters)
    {
        Ok(session) => {
            request.extensions_mut().insert(caller);
            session.map(|session| request.extensions_mut().insert(session));
            next.run(request).await
        }
        Err(error) => error.into_response(),
    };
    if let Some(id) = id {
        response.extensions_mut().insert(id);
    }
    response
}

/// Returns the 404 for an unknown session, with the text that clients know.
pub(super) fn session_not_found(route: &str) -> HttpError {
    let is_command = route.starts_with("/send/");
    HttpError::not_found(if is_command { "Invalid session ID" } else { "Session not found" })
}

/// Middleware: refuses a request of a caller who has too many in flight.
pub(super) async fn limit(
    State(context): State<Shared>,
    caller: Caller,
    ClientAddress(address): ClientAddress,
    request: Request,
    next: Next,
) -> Response {
    let user = caller.0.map(|identity| LimitedCaller::User(identity.user_id));
    match user.or(address.map(LimitedCaller::Address)) {
        Some(caller) => context.caller_limit.limit(caller, request, next).await,
        None => next.run(request).await,
    }
}

impl Caller {
    /// Returns whether this caller has this access to a session.
    pub(super) fn may(&self, access: Access, session: &SessionView) -> bool {
        let Some(identity) = &self.0 else { return true };
        let owner = session.owner.as_ref().map(|owner| owner.user_id.as_str());
        identity.is_admin()
            || owner.is_some_and(|owner| {
                owner == identity.user_id
                    || access == Access::Supervise && identity.looks_after(owner)
            })
    }

    /// Returns whether the caller is an administrator. True in modes without users.
    fn is_admin(&self) -> bool {
        self.0.as_ref().is_none_or(Identity::is_admin)
    }

    /// Returns whether the session is the caller's own. True in modes without users.
    pub(super) fn owns(&self, session: &SessionView) -> bool {
        self.0.as_ref().is_none_or(|identity| {
            session.owner.as_ref().is_some_and(|owner| owner.user_id == identity.user_id)
        })
    }

    /// Returns the session in the path, if the route has one. Refuses a caller without `access`.
    fn session_in_path(
        &self,
        sessions: &SessionManager,
        access: Access,
        route: &MatchedPath,
        parameters: Result<RawPathParams, RawPathParamsRejection>,
    ) -> Result<Option<OwnedSession>, HttpError> {
        if access == Access::Monitor && !self.is_admin() {
            return Err(HttpError::new(StatusCode::FORBIDDEN, NOT_FOR_MONITORING));
        }
        // An id that is not UTF-8 belongs to no session.
        let parameters = parameters.map_err(|_| session_not_found(route.as_str()))?;
        let Some((_, id)) = parameters.iter().find(|(name, _)| *name == SESSION) else {
            return Ok(None);
        };
        let session = sessions.get(id).ok_or_else(|| session_not_found(route.as_str()))?;
        if self.may(access, &session) {
            return Ok(Some(OwnedSession(session)));
        }
        Err(HttpError::new(StatusCode::FORBIDDEN, "You are not the owner of this session"))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, HttpError> {
        extension(parts)
    }
}

impl<S: Sync> FromRequestParts<S> for OwnedSession {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, HttpError> {
        extension(parts)
    }
}

/// Returns what the guard added. If it is missing, the route has no guard, and the request is
/// refused.
fn extension<T: Clone + Send + Sync + 'static>(parts: &Parts) -> Result<T, HttpError> {
    parts.extensions.get::<T>().cloned().ok_or_else(|| {
        tracing::error!(path = parts.uri.path(), "a route has no guard");
        HttpError::internal()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::Role;
    use crate::session::{Owner, Status};

    fn caller(user_id: &str, role: Role, students: &[&str]) -> Caller {
        let students = Arc::new(students.iter().map(|id| (*id).to_owned()).collect());
        Caller(Some(Identity {
            user_id: user_id.to_owned(),
            role,
            students,
            ..Identity::default()
        }))
    }

    fn session_of(owner: Option<&str>) -> SessionView {
        SessionView {
            session_id: "s".to_owned(),
            created_at: 0.0,
            last_activity: 0.0,
            mem_used: 0.0,
            port: None,
            owner: owner.map(|id| Owner { user_id: id.to_owned(), full_name: String::new() }),
            project_name: None,
            user_info: Default::default(),
            metadata: Default::default(),
            status: Status::Awake,
            unsaved: None,
            notice: None,
            expires_at: None,
        }
    }

    #[test]
    fn users_use_their_own_sessions_and_admins_all() {
        let sessions = [session_of(Some("1")), session_of(Some("2")), session_of(None)];
        let may = |caller: &Caller, access| {
            sessions.each_ref().map(|session| caller.may(access, session))
        };
        for (caller, uses, supervises) in [
            (caller("1", Role::Student, &[]), [true, false, false], [true, false, false]),
            (caller("2", Role::Instructor, &[]), [false, true, false], [false, true, false]),
            (caller("2", Role::Instructor, &["1"]), [false, true, false], [true, true, false]),
            (caller("2", Role::Student, &["1"]), [false, true, false], [false, true, false]),
            (caller("9", Role::Admin, &[]), [true; 3], [true; 3]),
            (Caller(None), [true; 3], [true; 3]),
        ] {
            assert_eq!(may(&caller, Access::Use), uses, "{caller:?}");
            assert_eq!(may(&caller, Access::Supervise), supervises, "{caller:?}");
        }
    }
}
