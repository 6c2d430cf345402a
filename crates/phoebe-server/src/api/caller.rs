//! The caller of a request: found once, before the handler, and what they may do with a session.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Shared;
use crate::auth::Identity;
use crate::error::HttpError;
use crate::session::{SessionManager, SessionView};
use crate::web::{ClientAddress, Counted};

/// Who sent the request; nobody in particular in the modes that know no users.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Option<Identity>);

/// The user's id, left on a response for the request log.
#[derive(Debug, Clone)]
pub(crate) struct CallerId(pub(crate) String);

/// Refuses a request that does not say who sent it, and tells the handler who did.
pub(super) async fn authenticate(
    State(context): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    let identity = match context.app.authenticator.authenticate(request.headers()).await {
        Ok(identity) => identity,
        Err(error) => return HttpError::from(error).into_response(),
    };
    let id = identity.as_ref().map(|identity| CallerId(identity.user_id.clone()));
    request.extensions_mut().insert(Caller(identity));
    let mut response = next.run(request).await;
    if let Some(id) = id {
        response.extensions_mut().insert(id);
    }
    response
}

/// Refuses a request of somebody who has too many in flight.
pub(super) async fn bound(
    State(context): State<Shared>,
    caller: Caller,
    ClientAddress(address): ClientAddress,
    request: Request,
    next: Next,
) -> Response {
    let user = caller.0.map(|identity| Counted::User(identity.user_id));
    match user.or(address.map(Counted::Address)) {
        Some(counted) => context.per_caller.bound(counted, request, next).await,
        None => next.run(request).await,
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, HttpError> {
        // Without the extension the route is not behind `authenticate`: refuse rather than serve it to everybody.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            tracing::error!(
                path = parts.uri.path(),
                "a route needs a caller but authenticates nobody"
            );
            HttpError::internal()
        })
    }
}

impl Caller {
    /// Whether this caller may see and use a session.
    pub(super) fn may_use(&self, session: &SessionView) -> bool {
        self.0.as_ref().is_none_or(|identity| {
            let owns =
                session.owner.as_ref().is_some_and(|owner| owner.user_id == identity.user_id);
            owns || identity.is_admin()
        })
    }

    /// The session, if it exists and this caller may use it; `unknown` is the text for one that does not exist.
    pub(super) fn session(
        &self,
        sessions: &SessionManager,
        id: &str,
        unknown: &str,
    ) -> Result<SessionView, HttpError> {
        let session = sessions.get(id).ok_or_else(|| HttpError::not_found(unknown))?;
        if self.may_use(&session) {
            return Ok(session);
        }
        Err(HttpError::new(StatusCode::FORBIDDEN, "You are not the owner of this session"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Owner, Status};

    fn caller(user_id: &str, role: &str) -> Caller {
        Caller(Some(Identity {
            user_id: user_id.to_owned(),
            email: String::new(),
            full_name: String::new(),
            role: role.to_owned(),
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
        }
    }

    #[test]
    fn users_use_their_own_sessions_and_admins_all() {
        let sessions = [session_of(Some("1")), session_of(Some("2")), session_of(None)];
        let may = |caller: Caller| sessions.each_ref().map(|session| caller.may_use(session));
        assert_eq!(may(caller("1", "student")), [true, false, false]);
        assert_eq!(may(caller("2", "instructor")), [false, true, false]);
        assert_eq!(may(caller("9", "admin")), [true; 3]);
        assert_eq!(may(Caller(None)), [true; 3]);
    }
}
