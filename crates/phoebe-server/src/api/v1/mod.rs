//! `/v1/sessions/…`: the stored state of sessions.

mod checkpoints;
mod clones;
mod events;
mod files;
mod history;
pub(super) mod jobs;
mod shares;
mod token;

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::{Caller, OwnedSession};
use super::state::Shared;
use super::view::Session;
use crate::config::SessionSettings;

/// Routes for callers who may use the session in the path, or who have the share token in it.
pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(history::history))
        .routes(routes!(history::undo))
        .routes(routes!(history::redo))
        .routes(routes!(jobs::submit_job, jobs::list_jobs))
        .routes(routes!(jobs::show_job, jobs::remove_job))
        .routes(routes!(jobs::job_result))
        .routes(routes!(jobs::list_all_jobs))
        .routes(routes!(events::session_events))
        .routes(routes!(checkpoints::list_checkpoints, checkpoints::create_checkpoint))
        .routes(routes!(checkpoints::remove_checkpoint))
        .routes(routes!(checkpoints::restore_checkpoint))
        .routes(routes!(shares::share_checkpoint, shares::unshare_checkpoint))
        .routes(routes!(shares::shared_checkpoint))
        .routes(routes!(shares::clone_shared_checkpoint))
        .routes(routes!(clones::clone_session))
        .routes(routes!(files::download_bundle, files::upload_bundle))
        .routes(routes!(files::download_script))
        .routes(routes!(files::download_snapshot))
}

/// Routes for instructors of the session's owner, too.
pub(super) fn supervised_routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(session))
        .routes(routes!(jobs::cancel_job))
        .routes(routes!(jobs::cancel_all_jobs))
}

/// Show a session
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}", tag = "sessions",
    params(("session_id" = String, Path, description = "The session's id")),
    responses(
        (status = 200, description = "The session", body = Session),
    )
)]
async fn session(
    State(context): State<Shared>,
    caller: Caller,
    OwnedSession(session): OwnedSession,
) -> Json<Session> {
    let settings: &SessionSettings = &context.app.settings.session;
    let disk = context.app.sessions.disk(&session.session_id);
    let job = context.app.sessions.current_job(&session.session_id);
    let job = job.map(|job| jobs::JobBody::seen_by(&context, &caller, &session, job));
    Json(Session::seen_by(&caller, session, settings).with_disk(disk).with_job(job))
}
