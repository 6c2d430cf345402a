//! The caller of a request and the session it names: found and checked before the handler, so that no handler can forget it.

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

/// The name of the path parameter that holds a session's id.
pub(super) const SESSION: &str = "session_id";

/// Who sent the request; nobody in particular in the modes that know no users.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Option<Identity>);

/// The session that the path names, which this caller may use.
#[derive(Debug, Clone)]
pub(super) struct OwnedSession(pub(super) SessionView);

/// What a route does with the session it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Anything: for its owner and administrators.
    Use,
    /// Looks at it from outside, or ends it: for instructors of the owner's groups too.
    Supervise,
}

/// What a guard knows.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) context: Shared,
    pub(super) access: Access,
}

/// Refuses a request that does not say who sent it, or that names a session which its sender may not reach. Tells the
/// handler both.
pub(super) async fn guard(
    State(guard): State<Guard>,
    route: MatchedPath,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    let app = &guard.context.app;
    let address = request.extensions().get().and_then(|ClientAddress(address)| *address);
    let caller = match app.authenticator.authenticate(request.headers(), address).await {
        Ok(identity) => Caller(identity),
        Err(error) => return HttpError::from(error).into_response(),
    };
    let id = caller.0.as_ref().map(|identity| CallerId(identity.user_id.clone()));
    let mut response = match caller.named(&app.sessions, guard.access, &route, parameters) {
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

/// The answer where a session is unknown, in the words that clients know.
pub(super) fn unknown(route: &str) -> HttpError {
    let is_command = route.starts_with("/send/");
    HttpError::not_found(if is_command { "Invalid session ID" } else { "Session not found" })
}

/// Refuses a request of somebody who has too many in flight.
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
    /// Whether this caller may do so with a session.
    pub(super) fn may(&self, access: Access, session: &SessionView) -> bool {
        let Some(identity) = &self.0 else { return true };
        let owner = session.owner.as_ref().map(|owner| owner.user_id.as_str());
        identity.is_admin()
            || owner.is_some_and(|owner| {
                owner == identity.user_id
                    || access == Access::Supervise && identity.looks_after(owner)
            })
    }

    /// Whether the session is this caller's own, or nobody's where there are no users.
    pub(super) fn owns(&self, session: &SessionView) -> bool {
        self.0.as_ref().is_none_or(|identity| {
            session.owner.as_ref().is_some_and(|owner| owner.user_id == identity.user_id)
        })
    }

    /// The session that the path names, if it names one.
    fn named(
        &self,
        sessions: &SessionManager,
        access: Access,
        route: &MatchedPath,
        parameters: Result<RawPathParams, RawPathParamsRejection>,
    ) -> Result<Option<OwnedSession>, HttpError> {
        // An id that is no text is no session's.
        let parameters = parameters.map_err(|_| unknown(route.as_str()))?;
        let Some((_, id)) = parameters.iter().find(|(name, _)| *name == SESSION) else {
            return Ok(None);
        };
        let session = sessions.get(id).ok_or_else(|| unknown(route.as_str()))?;
        if self.may(access, &session) {
            return Ok(Some(OwnedSession(session)));
        }
        Err(HttpError::new(StatusCode::FORBIDDEN, "You are not the owner of this session"))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, HttpError> {
        guarded(parts)
    }
}

impl<S: Sync> FromRequestParts<S> for OwnedSession {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, HttpError> {
        guarded(parts)
    }
}

/// What the guard left. Without it the route is not behind [`guard`]: refuse rather than serve it to everybody.
fn guarded<T: Clone + Send + Sync + 'static>(parts: &Parts) -> Result<T, HttpError> {
    parts.extensions.get::<T>().cloned().ok_or_else(|| {
        tracing::error!(path = parts.uri.path(), "a route needs its guard and has none");
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
