//! Jobs: long commands that can be followed, cancelled and found again.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use phoebe_protocol::kinds::{self, CommandKind};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::body::{LargeBody, SmallBody};
use crate::api::caller::{Access, Caller, OwnedSession};
use crate::api::json::{self, Fields};
use crate::api::send::{CommandAnswer, CommandBody};
use crate::api::sessions::Client;
use crate::api::state::Shared;
use crate::error::{ErrorBody, HttpError, ValidationBody};
use crate::session::{Accepted, Job, JobError, JobQuery, JobState, NewJob, Progress, Reason};
use crate::session::{Requester, SessionView, WaitingFor};
use crate::store::AuditEntry;

/// The header that names a request, so that it is done once however often it is sent.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The most characters of such a name.
const MAX_KEY: usize = 128;
/// The longest wait for a change, in seconds.
const MAX_WAIT: f64 = 60.0;
/// The most jobs in one list, and how many there are without a limit.
const MAX_LIMIT: usize = 200;
const DEFAULT_LIMIT: usize = 50;

/// A job. Times are Unix seconds.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct JobBody {
    /// UUID v7.
    #[schema(example = "019aa1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b")]
    job_id: String,
    session_id: String,
    /// The command's name.
    #[schema(example = "run_solver")]
    command: String,
    /// The command's other fields; null if they are larger than 16 KiB.
    #[schema(value_type = Option<Object>)]
    arguments: Option<serde_json::Map<String, serde_json::Value>>,
    /// `queued`, `running`, `cancelling`, `succeeded`, `failed`, `cancelled` or `interrupted`.
    #[schema(value_type = String, example = "running")]
    state: JobState,
    /// Whether nothing more happens to it.
    done: bool,
    /// What a queued job waits for: `session` (earlier work), `cores` or `wake`.
    #[schema(value_type = Option<String>)]
    waiting_for: Option<WaitingFor>,
    /// How many wait for cores before it.
    position: Option<usize>,
    /// Its progress: `fraction` (null where the end is not known), `stage`, `done`, `total`,
    /// `best`, `elapsed_seconds`, `remaining_seconds`.
    #[schema(value_type = Option<Object>)]
    progress: Option<Progress>,
    created_at: f64,
    /// Time of its last begin.
    started_at: Option<f64>,
    ended_at: Option<f64>,
    /// Time at which it and its result are removed; null before its end.
    expires_at: Option<f64>,
    /// Who submitted it: `user_id` and `client`.
    #[schema(value_type = Object)]
    by: Requester,
    /// The cores that it may use.
    cores: Option<usize>,
    /// How often it has begun.
    attempt: u32,
    /// The revision of the Bundle before it.
    revision_before: Option<u64>,
    /// The revision of the Bundle that it made; only of a job that succeeded.
    revision_after: Option<u64>,
    /// Why it failed: `kind` is `phoebe`, `killed`, `memory`, `timeout`, `refused` or `not_saved`.
    /// With `not_saved` the job has succeeded, and its change is not on disk yet.
    #[schema(value_type = Option<Object>)]
    error: Option<JobError>,
    /// Why it changed its state, in order: `at`, `state`, `reason`.
    #[schema(value_type = Vec<Object>)]
    reasons: Vec<Reason>,
    /// The address of its result.
    result: String,
}

impl JobBody {
    pub(in crate::api) fn of(context: &Shared, job: Job) -> Self {
        let kept = context.app.settings.jobs.retention_seconds;
        Self {
            result: format!("{}/result", address(&job)),
            done: job.state.is_done(),
            expires_at: job.ended_at.map(|ended| ended + kept),
            job_id: job.job_id,
            session_id: job.session_id,
            command: job.command,
            arguments: job.arguments,
            state: job.state,
            waiting_for: job.waiting_for,
            position: job.position,
            progress: job.progress,
            created_at: job.created_at,
            started_at: job.started_at,
            ended_at: job.ended_at,
            by: job.by,
            cores: job.cores,
            attempt: job.attempt,
            revision_before: job.revision_before,
            revision_after: job.revision_after,
            error: job.error,
            reasons: job.reasons,
        }
    }
}

impl JobBody {
    /// Returns the job as shown to `caller`: to whom may not use the session without what its user
    /// sent and PHOEBE answered.
    pub(in crate::api) fn seen_by(
        context: &Shared,
        caller: &Caller,
        session: &SessionView,
        mut job: Job,
    ) -> Self {
        if !caller.may(Access::Use, session) {
            (job.arguments, job.error) = (None, None);
            job.progress = job.progress.map(|progress| Progress { best: None, ..progress });
        }
        Self::of(context, job)
    }
}

/// A list of jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobList {
    /// Newest first.
    jobs: Vec<JobBody>,
    /// The value of `before` for the next part of the list; null at its end.
    next: Option<String>,
}

/// How a job is submitted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct SubmitParameters {
    /// What happens if the server ends while the job runs: it begins again (`resume`, the default)
    /// or it does not (`fail`).
    #[param(value_type = Option<String>)]
    #[serde(default)]
    on_interrupt: OnInterrupt,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnInterrupt {
    #[default]
    Resume,
    Fail,
}

/// Which jobs a list has.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParameters {
    /// Only jobs in this state.
    #[param(value_type = Option<String>)]
    state: Option<JobState>,
    /// At most so many, up to 200; 50 if it is missing.
    limit: Option<usize>,
    /// Only jobs older than the one with this id.
    before: Option<String>,
    /// Only jobs of this user's sessions; for administrators, and only in `/v1/jobs`.
    user: Option<String>,
}

/// A job in a path.
#[derive(Debug, Deserialize)]
pub(super) struct JobPath {
    job_id: String,
}

/// How long a request waits.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitParameters {
    /// Seconds to wait for a change, up to 60.
    wait: Option<f64>,
}

impl WaitParameters {
    fn limit(&self) -> Result<Duration, HttpError> {
        match self.wait.unwrap_or(0.0) {
            wait if (0.0..=MAX_WAIT).contains(&wait) => Ok(Duration::from_secs_f64(wait)),
            wait => Err(unusable(format!("wait is {wait}; it must be between 0 and {MAX_WAIT}"))),
        }
    }
}

/// Submit a job
///
/// Stores a long command and runs it in its turn, also if the client leaves or the server ends
/// meanwhile. With a header `Idempotency-Key` (at most 128 characters) a request that is sent again
/// returns the job that the first one made.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/jobs", tag = "jobs",
    params(("session_id" = String, Path, description = "The session's id"), SubmitParameters),
    request_body = CommandBody,
    responses(
        (status = 200, description = "The job of an earlier request with the key", body = JobBody),
        (status = 201, description = "The job; its address is in `Location`", body = JobBody),
        (status = 409, description = "The key was used for another command", body = ErrorBody),
        (status = 413, description = "The command is too large", body = ErrorBody),
        (status = 422, body = ValidationBody,
         description = "The body is not a JSON object, or not a long command"),
        (status = 429, description = "Too many commands wait in this session", body = ErrorBody),
    )
)]
pub(super) async fn submit_job(
    State(context): State<Shared>,
    caller: Caller,
    client: Client,
    OwnedSession(session): OwnedSession,
    parameters: Result<Query<SubmitParameters>, QueryRejection>,
    headers: HeaderMap,
    LargeBody(body, _permit): LargeBody,
) -> Result<Response, HttpError> {
    let Query(SubmitParameters { on_interrupt }) = parameters.map_err(bad_query)?;
    let key = idempotency_key(&headers)?;
    let name = json::command_name(&body)?;
    if kinds::kind_of(&name) != Some(CommandKind::Long) {
        let text = format!(
            "{name:?} is not a long command, so it is not a job: send it to /send/{{session_id}}"
        );
        return Err(unusable(text));
    }
    let by = client.requester(&caller);
    let new = NewJob { by, resumes: on_interrupt == OnInterrupt::Resume };
    let sessions = &context.app.sessions;
    let accepted = sessions.submit_job(&session.session_id, &name, body, new, key).await?;
    let (status, job) = match accepted {
        Accepted::New(job) => (StatusCode::CREATED, job),
        Accepted::Known(job) => (StatusCode::OK, job),
    };
    Ok((status, [(LOCATION, address(&job))], Json(JobBody::of(&context, job))).into_response())
}

/// List a session's jobs
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/jobs", tag = "jobs",
    params(("session_id" = String, Path, description = "The session's id"), ListParameters),
    responses(
        (status = 200, description = "The jobs, newest first", body = JobList),
        (status = 422, description = "A parameter is wrong", body = ValidationBody),
    )
)]
pub(super) async fn list_jobs(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    parameters: Result<Query<ListParameters>, QueryRejection>,
) -> Result<Json<JobList>, HttpError> {
    let Query(parameters) = parameters.map_err(bad_query)?;
    if parameters.user.is_some() {
        return Err(unusable("user is a parameter of /v1/jobs only".to_owned()));
    }
    let query = JobQuery { session_id: Some(session.session_id), ..parameters.query()? };
    list(&context, query).await
}

/// List all jobs
///
/// The jobs of the caller's sessions; an administrator's list has those of all sessions.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "jobs",
    params(ListParameters),
    responses(
        (status = 200, description = "The jobs, newest first", body = JobList),
        (status = 403, description = "The jobs of others are for administrators", body = ErrorBody),
        (status = 422, description = "A parameter is wrong", body = ValidationBody),
    )
)]
pub(super) async fn list_all_jobs(
    State(context): State<Shared>,
    Caller(identity): Caller,
    parameters: Result<Query<ListParameters>, QueryRejection>,
) -> Result<Json<JobList>, HttpError> {
    let Query(parameters) = parameters.map_err(bad_query)?;
    let user_id = match (identity, parameters.user.clone()) {
        (Some(identity), Some(user)) if !identity.is_admin() && user != identity.user_id => {
            let text = "The jobs of other users are for administrators";
            return Err(HttpError::new(StatusCode::FORBIDDEN, text));
        }
        (Some(identity), None) if !identity.is_admin() => Some(identity.user_id),
        (_, user) => user,
    };
    list(&context, JobQuery { user_id, ..parameters.query()? }).await
}

impl ListParameters {
    fn query(self) -> Result<JobQuery, HttpError> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            let text = format!("limit is {limit}; it must be between 1 and {MAX_LIMIT}");
            return Err(unusable(text));
        }
        Ok(JobQuery { state: self.state, before: self.before, limit, ..JobQuery::default() })
    }
}

async fn list(context: &Shared, query: JobQuery) -> Result<Json<JobList>, HttpError> {
    let limit = query.limit;
    let jobs = context.app.sessions.jobs(query).await?;
    let next = jobs.last().filter(|_| jobs.len() == limit).map(|job| job.job_id.clone());
    let jobs = jobs.into_iter().map(|job| JobBody::of(context, job)).collect();
    Ok(Json(JobList { jobs, next }))
}

/// Show a job
///
/// With `wait` the answer comes at the next change of the job's state, or after so many seconds.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/jobs/{job_id}", tag = "jobs",
    params(
        ("session_id" = String, Path, description = "The session's id"),
        ("job_id" = String, Path, description = "The job's id"),
        WaitParameters,
    ),
    responses(
        (status = 200, description = "The job", body = JobBody),
        (status = 422, description = "`wait` is not usable", body = ValidationBody),
    )
)]
pub(super) async fn show_job(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    Path(path): Path<JobPath>,
    parameters: Result<Query<WaitParameters>, QueryRejection>,
) -> Result<Json<JobBody>, HttpError> {
    let Query(parameters) = parameters.map_err(bad_query)?;
    let (limit, id) = (parameters.limit()?, &session.session_id);
    let has_changed = |before: &Job, now: &Job| before.state != now.state || now.state.is_done();
    let job = context.app.sessions.job_after(id, &path.job_id, limit, has_changed).await?;
    Ok(Json(JobBody::of(&context, job.ok_or_else(not_found)?)))
}

/// Return a job's result
///
/// What `/send` would have answered. With `wait` the answer comes when the job is done.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/jobs/{job_id}/result", tag = "jobs",
    params(
        ("session_id" = String, Path, description = "The session's id"),
        ("job_id" = String, Path, description = "The job's id"),
        WaitParameters,
    ),
    responses(
        (status = 200, description = "The command's answer", body = CommandAnswer),
        (status = 410, description = "The result is not kept", body = ErrorBody),
        (status = 422, description = "`wait` is not usable", body = ValidationBody),
    )
)]
pub(super) async fn job_result(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    Path(path): Path<JobPath>,
    parameters: Result<Query<WaitParameters>, QueryRejection>,
) -> Result<Response, HttpError> {
    let Query(parameters) = parameters.map_err(bad_query)?;
    let (limit, id) = (parameters.limit()?, &session.session_id);
    let sessions = &context.app.sessions;
    let job = sessions.job_after(id, &path.job_id, limit, |_, now| now.state.is_done()).await?;
    let job = job.ok_or_else(not_found)?;
    if !job.state.is_done() {
        let text = format!("The job is {}; it has no result yet", job.state.as_str());
        return Err(HttpError::not_found(text));
    }
    match sessions.job_result(id, &job.job_id).await? {
        Some(result) => {
            Ok(([(CONTENT_TYPE, "application/json")], Body::from(result)).into_response())
        }
        None => Err(HttpError::new(
            StatusCode::GONE,
            "The result is not kept: it is larger than 16 MiB, or newer ones took its place. The \
             session's Bundle has what the job computed (get_value of the model's arrays)",
        )),
    }
}

/// Cancel a job
///
/// The Bundle is as it was before the job. A job that is done stays as it is. The body is optional:
/// `{"reason": "…"}`.
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/jobs/{job_id}/cancel", tag = "jobs",
    params(
        ("session_id" = String, Path, description = "The session's id"),
        ("job_id" = String, Path, description = "The job's id"),
    ),
    request_body = Option<CancelBody>,
    responses(
        (status = 200, description = "The job is done already", body = JobBody),
        (status = 202, description = "The job is being cancelled", body = JobBody),
        (status = 422, description = "The body is not usable", body = ValidationBody),
    )
)]
pub(super) async fn cancel_job(
    State(context): State<Shared>,
    caller: Caller,
    OwnedSession(session): OwnedSession,
    Path(path): Path<JobPath>,
    SmallBody(body): SmallBody,
) -> Result<(StatusCode, Json<JobBody>), HttpError> {
    let reason = reason(&body)?;
    let (sessions, id) = (&context.app.sessions, &session.session_id);
    let before = sessions.job(id, &path.job_id).await?.ok_or_else(not_found)?;
    if before.state.is_done() {
        let body = JobBody::seen_by(&context, &caller, &session, before);
        return Ok((StatusCode::OK, Json(body)));
    }
    audit_cancel(&context, &caller, &session, &path.job_id);
    sessions.cancel_jobs(id, Some(&path.job_id), &reason).await?;
    let now = sessions.job(id, &path.job_id).await?.unwrap_or(before);
    Ok((StatusCode::ACCEPTED, Json(JobBody::seen_by(&context, &caller, &session, now))))
}

/// Cancel all jobs of a session
#[utoipa::path(
    post, path = "/v1/sessions/{session_id}/jobs/cancel", tag = "jobs",
    params(("session_id" = String, Path, description = "The session's id")),
    request_body = Option<CancelBody>,
    responses(
        (status = 200, description = "The jobs that are being cancelled", body = JobList),
        (status = 422, description = "The body is not usable", body = ValidationBody),
    )
)]
pub(super) async fn cancel_all_jobs(
    State(context): State<Shared>,
    caller: Caller,
    OwnedSession(session): OwnedSession,
    SmallBody(body): SmallBody,
) -> Result<Json<JobList>, HttpError> {
    let reason = reason(&body)?;
    let (sessions, id) = (&context.app.sessions, session.session_id.clone());
    audit_cancel(&context, &caller, &session, "all");
    let query = JobQuery { session_id: Some(id.clone()), limit: MAX_LIMIT, ..JobQuery::default() };
    let open = sessions.jobs(query).await?.into_iter().filter(|job| !job.state.is_done());
    let open: Vec<_> = open.map(|job| job.job_id).collect();
    sessions.cancel_jobs(&id, None, &reason).await?;
    let mut jobs = Vec::new();
    for job in open {
        let job = sessions.job(&id, &job).await?;
        jobs.extend(job.map(|job| JobBody::seen_by(&context, &caller, &session, job)));
    }
    Ok(Json(JobList { jobs, next: None }))
}

/// Remove a job
///
/// Only a job that is done, with its result.
#[utoipa::path(
    delete, path = "/v1/sessions/{session_id}/jobs/{job_id}", tag = "jobs",
    params(
        ("session_id" = String, Path, description = "The session's id"),
        ("job_id" = String, Path, description = "The job's id"),
    ),
    responses(
        (status = 204, description = "The job is removed"),
        (status = 409, description = "The job is not done", body = ErrorBody),
    )
)]
pub(super) async fn remove_job(
    State(context): State<Shared>,
    OwnedSession(session): OwnedSession,
    Path(path): Path<JobPath>,
) -> Result<StatusCode, HttpError> {
    let (sessions, id) = (&context.app.sessions, &session.session_id);
    let found = sessions.job(id, &path.job_id).await?.ok_or_else(not_found)?;
    if !found.state.is_done() {
        let text = "The job is not done; cancel it first";
        return Err(HttpError::new(StatusCode::CONFLICT, text));
    }
    sessions.remove_job(id, &path.job_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Records that jobs in a session of somebody else are cancelled.
fn audit_cancel(context: &Shared, caller: &Caller, session: &SessionView, job: &str) {
    if let Some(identity) = &caller.0
        && !caller.owns(session)
    {
        context.app.store.log_audit(AuditEntry {
            actor: identity.user_id.clone(),
            action: "job.cancel",
            subject: session.session_id.clone(),
            detail: job.to_owned(),
        });
    }
}

/// Why jobs are cancelled.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the request in the OpenAPI document")]
pub(super) struct CancelBody {
    /// The reason, which the job shows.
    reason: Option<String>,
}

fn reason(body: &Bytes) -> Result<String, HttpError> {
    let mut fields = Fields::optional(body)?.unwrap_or_default();
    let reason = fields.optional_text("reason");
    fields.rest()?;
    Ok(reason.unwrap_or_else(|| "by its user".to_owned()))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, HttpError> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match key.to_str() {
        Ok(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(unusable(format!("Idempotency-Key must have 1 to {MAX_KEY} ASCII characters"))),
    }
}

/// The path of a job.
pub(in crate::api) fn address(job: &Job) -> String {
    format!("/v1/sessions/{}/jobs/{}", job.session_id, job.job_id)
}

fn not_found() -> HttpError {
    HttpError::not_found("Job not found")
}

fn bad_query(rejection: QueryRejection) -> HttpError {
    json::bad_query(&rejection.body_text())
}

fn unusable(text: String) -> HttpError {
    HttpError::new(StatusCode::UNPROCESSABLE_ENTITY, text)
}
