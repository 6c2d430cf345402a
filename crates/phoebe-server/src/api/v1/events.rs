//! Server-Sent Events: what happens in a session, as it happens.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Interval, MissedTickBehavior, interval};
use utoipa::IntoParams;

use super::jobs::JobBody;
use crate::api::caller::{Caller, OwnedSession};
use crate::api::json;
use crate::api::state::Shared;
use crate::api::view::Session;
use crate::error::{ErrorBody, HttpError, ValidationBody};
use crate::session::{FeedChange, Happened, Progress, SessionEvent, SessionFeed};
use crate::web::{CallerPermit, ClientAddress, LimitedCaller};

/// A sign of life is sent after so long at the most.
const HEARTBEAT: Duration = Duration::from_secs(15);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx to pass each event on at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Where a stream of events begins.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct EventParameters {
    /// The id of the last event that the client has seen. The header `Last-Event-ID`, which
    /// browsers send, says the same and comes first.
    since: Option<String>,
}

/// Follow a session
///
/// A stream of Server-Sent Events. `hello` comes first. `job`, `bundle` and `session` have ids and
/// are sent again after a lost connection; `progress`, `reset` and `ping` have none. The stream
/// ends when the session does or the server stops.
#[utoipa::path(
    get, path = "/v1/sessions/{session_id}/events", tag = "jobs",
    params(("session_id" = String, Path, description = "The session's id"), EventParameters),
    responses(
        (status = 200, description = "The events", content_type = "text/event-stream",
         body = String),
        (status = 422, description = "A parameter is wrong", body = ValidationBody),
        (status = 429, description = "You follow too many streams", body = ErrorBody),
    )
)]
pub(super) async fn session_events(
    State(context): State<Shared>,
    caller: Caller,
    ClientAddress(address): ClientAddress,
    OwnedSession(session): OwnedSession,
    parameters: Result<Query<EventParameters>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let Query(parameters) =
        parameters.map_err(|rejection| json::bad_query(&rejection.body_text()))?;
    let user = caller.0.as_ref().map(|identity| LimitedCaller::User(identity.user_id.clone()));
    let permit = match user.or(address.map(LimitedCaller::Address)) {
        Some(limited) => Some(context.stream_limit.acquire(limited).ok_or_else(too_many)?),
        None => None,
    };
    let feed = context.app.sessions.feed(&session.session_id)?;
    let seen = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok().map(str::to_owned));
    let mut events = Events::new(context, caller, session.session_id, feed, permit);
    events.begin(seen.or(parameters.since).as_deref());
    let pieces = stream::unfold(events, async |mut events| {
        let piece = events.next().await?;
        Some((Ok::<_, Infallible>(piece), events))
    });
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
        (X_ACCEL_BUFFERING, "no"),
    ];
    Ok((headers, Body::from_stream(Box::pin(pieces))).into_response())
}

/// One client's stream of a session's events.
struct Events {
    context: Shared,
    caller: Caller,
    session: String,
    feed: SessionFeed,
    /// The number of the last event that was sent.
    sent: u64,
    /// What was sent of the progress of each job.
    progress: BTreeMap<String, Progress>,
    pieces: VecDeque<Bytes>,
    heartbeat: Interval,
    has_ended: bool,
    _permit: Option<CallerPermit>,
}

impl Events {
    fn new(
        context: Shared,
        caller: Caller,
        session: String,
        feed: SessionFeed,
        permit: Option<CallerPermit>,
    ) -> Self {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        Self {
            context,
            caller,
            session,
            feed,
            sent: 0,
            progress: BTreeMap::new(),
            pieces: VecDeque::new(),
            heartbeat,
            has_ended: false,
            _permit: permit,
        }
    }

    /// Begins after the event that the client has seen, or with the next one.
    fn begin(&mut self, seen: Option<&str>) {
        self.sent = self.feed.events.last();
        let jobs: Vec<_> = self.feed.jobs();
        let jobs: Vec<_> = jobs.iter().map(|job| self.job(job)).collect();
        let hello = json!({
            "epoch": self.context.epoch,
            "session_id": self.session,
            "session": self.context.app.sessions.get(&self.session).map(|view| self.view(view)),
            "jobs": jobs,
            "last_event_id": self.id(self.sent),
            "heartbeat_seconds": HEARTBEAT.as_secs(),
        });
        self.push("hello", None, &hello);
        let Some(seen) = seen else { return };
        let number = seen.rsplit_once('-').and_then(|(epoch, number)| {
            (epoch == self.context.epoch).then(|| number.parse().ok()).flatten()
        });
        match number.map(|number| self.feed.events.after(number)) {
            Some(Ok(events)) => self.push_events(events),
            _ => self.push("reset", None, &json!({"last_event_id": self.id(self.sent)})),
        }
    }

    /// The next piece of the stream; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                self.heartbeat.reset();
                return Some(piece);
            }
            if self.has_ended {
                return None;
            }
            tokio::select! {
                change = self.feed.next() => match change {
                    FeedChange::ServerStops => return None,
                    FeedChange::Happened => self.push_new(),
                    FeedChange::Jobs => self.push_progress(),
                    FeedChange::Ended => {
                        self.has_ended = true;
                        self.push_new();
                    }
                },
                _ = self.heartbeat.tick() => self.push("ping", None, &json!({})),
            }
        }
    }

    fn push_new(&mut self) {
        match self.feed.events.after(self.sent) {
            Ok(events) => self.push_events(events),
            Err(_) => {
                self.sent = self.feed.events.last();
                self.push("reset", None, &json!({"last_event_id": self.id(self.sent)}));
            }
        }
    }

    fn push_events(&mut self, events: Vec<SessionEvent>) {
        for SessionEvent { number, happened } in events {
            self.sent = self.sent.max(number);
            match happened {
                Happened::Job(job) => {
                    let data = self.job(&job);
                    self.push("job", Some(number), &data);
                }
                Happened::Bundle { revision, command } => {
                    let data = json!({"revision": revision, "command": command});
                    self.push("bundle", Some(number), &data);
                }
                Happened::Session(view) => {
                    let data = self.view(*view);
                    self.push("session", Some(number), &data);
                }
            }
        }
    }

    /// Sends what has changed of the progress of jobs that run.
    fn push_progress(&mut self) {
        let jobs = self.feed.jobs();
        self.progress.retain(|id, _| jobs.iter().any(|job| job.job_id == *id));
        for job in jobs {
            let Some(progress) = &job.progress else { continue };
            if self.progress.get(&job.job_id) != Some(progress) {
                self.progress.insert(job.job_id.clone(), progress.clone());
                let data = json!({"job_id": job.job_id, "progress": progress});
                self.push("progress", None, &data);
            }
        }
    }

    fn job(&self, job: &crate::session::Job) -> Value {
        json!(JobBody::of(&self.context, job.clone()))
    }

    fn view(&self, view: crate::session::SessionView) -> Value {
        json!(Session::seen_by(&self.caller, view, &self.context.app.settings.session).in_a_list())
    }

    fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.context.epoch)
    }

    fn push(&mut self, event: &str, number: Option<u64>, data: &impl Serialize) {
        // JSON has no line ends of its own.
        let data = serde_json::to_string(data).unwrap_or_default();
        let id = number.map(|number| format!("id: {}\n", self.id(number))).unwrap_or_default();
        self.pieces.push_back(format!("event: {event}\n{id}data: {data}\n\n").into());
    }
}

fn too_many() -> HttpError {
    let text = "You follow as many streams of events as are allowed; close one first";
    HttpError::new(StatusCode::TOO_MANY_REQUESTS, text).retry_later()
}
