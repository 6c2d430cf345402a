//! The driver's jobs: it stores each change of a job and publishes it. Whether a job's command may
//! begin or end is the state machine's decision.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use phoebe_protocol::command::Header;
use phoebe_protocol::kinds;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use super::task::Task;
use super::{Driver, Happening};
use crate::session::error::SessionError;
use crate::session::events::{EventWriter, Happened};
use crate::session::job::{
    Board, Job, JobEnd, JobErrorKind, JobState, NewJob, Progress, WaitingFor,
};
use crate::session::request::{Accepted, Command, JobSubmission, Work, failure};
use crate::session::state::{Event, Outcome, TaskId};
use crate::session::view::now;
use crate::store::{JobRetention, StoreError, StoredJob};

/// Progress is published at most so often.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);
/// A job is kept for so many seconds, however many there are.
const SHORTEST_RETENTION_SECONDS: f64 = 600.0;
const INTERRUPTED_TOO_OFTEN: &str = "it was interrupted too often";

/// The jobs of one session that are not done.
pub(super) struct Jobs {
    active: HashMap<TaskId, Job>,
    board: watch::Sender<Board>,
    events: Arc<EventWriter>,
    reported: Option<Instant>,
}

impl Jobs {
    pub(super) fn new(board: watch::Sender<Board>, events: Arc<EventWriter>) -> Self {
        Self { active: HashMap::new(), board, events, reported: None }
    }

    fn publish(&self, job: &Job) {
        let job = Arc::new(job.clone());
        let mut before = None;
        self.board.send_modify(|board| before = board.insert(job.job_id.clone(), Arc::clone(&job)));
        let is_same =
            |before: &Arc<Job>| (before.state, before.waiting_for) == (job.state, job.waiting_for);
        if !before.as_ref().is_some_and(is_same) {
            self.events.append(Happened::Job(job));
        }
    }
}

impl Driver {
    /// Makes a job of a long command whose client waits for the answer.
    pub(super) fn open_job(&mut self, id: TaskId, task: &mut Task) {
        let Work::Command(command) = &mut task.work else { return };
        let Some(new) = command.job.take() else { return };
        let job = self.new_job(&command.name, &command.body, new);
        // Nobody was promised anything yet, so nobody waits for the disk, and it does not begin
        // again.
        drop(self.shared.store.insert_job(self.stored(&job, None, None)));
        self.jobs_of_session.publish(&job);
        self.jobs_of_session.active.insert(id, job);
    }

    fn new_job(&self, name: &str, body: &[u8], new: NewJob) -> Job {
        Job::new(Uuid::now_v7().to_string(), &self.session, name, body, new, now())
    }

    fn stored(&self, job: &Job, command: Option<&[u8]>, key: Option<String>) -> StoredJob {
        let owner = self.view.borrow().owner.as_ref().map(|owner| owner.user_id.clone());
        StoredJob {
            job_id: job.job_id.clone(),
            session_id: job.session_id.clone(),
            user_id: owner,
            state: job.state.as_str().to_owned(),
            ended_at: job.ended_at,
            idempotency_key: key,
            command: command.map(<[u8]>::to_vec),
            record: serde_json::to_string(job).unwrap_or_default(),
        }
    }

    /// Stores a job and then accepts it.
    pub(super) fn submit_job(&mut self, submission: JobSubmission) {
        self.touch();
        if let Some(error) = self.job_refusal(&submission) {
            // The client may have gone.
            return drop(submission.done.send(Err(error)));
        }
        let job = self.new_job(&submission.name, &submission.body, submission.new.clone());
        let row = self.stored(&job, Some(&submission.body), submission.key.clone());
        let stored = self.shared.store.insert_job(row);
        self.storing.push_back(Box::pin(async move {
            Happening::JobStored(Box::new((submission, job)), stored.await)
        }));
    }

    fn job_refusal(&self, submission: &JobSubmission) -> Option<SessionError> {
        let crashed = self.crashes.refusal(&submission.body).map(SessionError::Conflict);
        let refused = crashed.or_else(|| self.machine.submission_refusal(self.storing.len()));
        refused.or_else(|| {
            let kind = kinds::kind_of(&submission.name)?;
            let (name, body) = (&submission.name, &submission.body);
            self.admission.as_ref()?.check_command(name, body, kind).err()
        })
    }

    pub(super) fn job_stored(
        &mut self,
        submission: JobSubmission,
        job: Job,
        stored: Result<Option<StoredJob>, StoreError>,
    ) {
        let JobSubmission { name, body, done, .. } = submission;
        let answer = match stored {
            Err(error) => {
                warn!(session = self.session, %error, "a job is not stored");
                let text = "The job cannot be stored now".to_owned();
                Err(SessionError::Overloaded(text))
            }
            Ok(Some(known)) => self.known_job(&known, &job),
            Ok(None) => {
                info!(session = self.session, job = job.job_id, command = name, "job submitted");
                self.queue_job(job.clone(), name, body);
                Ok(Accepted::New(job))
            }
        };
        // The client may have gone.
        let _ = done.send(answer);
    }

    /// The job that the same idempotency key has made before.
    fn known_job(&self, known: &StoredJob, job: &Job) -> Result<Accepted, SessionError> {
        let published = self.jobs_of_session.board.borrow().get(&known.job_id).cloned();
        let known = match published {
            Some(published) => Some(Job::clone(&published)),
            None => Job::from_record(&known.record),
        };
        match known {
            Some(known) if known.digest == job.digest => Ok(Accepted::Known(known)),
            _ => Err(SessionError::Conflict(
                "This Idempotency-Key was used for another command of this session".to_owned(),
            )),
        }
    }

    fn queue_job(&mut self, job: Job, name: String, body: Bytes) {
        let kind = kinds::kind_of(&name);
        let (answer, _) = oneshot::channel();
        let command = Command { name, kind, body, job: None, answer };
        self.last_task += 1;
        let task = Task::new(Work::Command(command));
        let (id, kind) = (self.last_task, task.kind);
        self.events.push_back(Event::Submitted { task: id, kind, patient: true });
        self.tasks.insert(self.last_task, task);
        self.jobs_of_session.publish(&job);
        self.jobs_of_session.active.insert(self.last_task, job);
    }

    /// Goes on with the jobs that an earlier server did not finish.
    pub(super) async fn resume_jobs(&mut self, left: Vec<StoredJob>) {
        for stored in left {
            let Some(mut job) = Job::from_record(&stored.record) else { continue };
            let body = stored.command.unwrap_or_default();
            let committed = match (&self.files, job.state) {
                (Some(files), JobState::Running | JobState::Cancelling) => {
                    let id = job.job_id.clone();
                    files.submit(move |folder| folder.step_of_job(&id)).await.flatten()
                }
                _ => Ok(None),
            };
            let attempts = self.shared.settings.jobs.attempts;
            let end = match (committed, job.state) {
                // Its change was on disk before the server ended.
                (Ok(Some(revision)), _) => JobEnd::Succeeded { revision, unsaved: None },
                (Err(error), _) => {
                    warn!(session = self.session, job = job.job_id, %error, "a job is not resumed");
                    JobEnd::Interrupted
                }
                (Ok(None), _) if job.cancel_wanted => {
                    JobEnd::Cancelled("the server ended meanwhile".to_owned())
                }
                (Ok(None), JobState::Queued) if job.resumes => {
                    self.queue_job(job, stored_name(&body), body.into());
                    continue;
                }
                (Ok(None), _) if job.resumes && u64::from(job.attempt) < attempts => {
                    job.queue(now(), "the server ended; it begins again");
                    self.queue_job(job, stored_name(&body), body.into());
                    continue;
                }
                (Ok(None), _) if job.resumes => {
                    JobEnd::Failed(JobErrorKind::Killed, INTERRUPTED_TOO_OFTEN.to_owned())
                }
                (Ok(None), _) => JobEnd::Interrupted,
            };
            job.end(now(), end);
            self.save_ended(job);
        }
    }

    /// Cancels one job of the session, or all.
    pub(super) fn cancel_jobs(&mut self, wanted: Option<&str>, reason: &str) {
        let mut active: Vec<_> = self.jobs_of_session.active.iter_mut().collect();
        active.sort_by_key(|(task, _)| **task);
        let mut changed = Vec::new();
        for (task, job) in active {
            if wanted.is_none_or(|wanted| job.job_id == wanted) && !job.cancel_wanted {
                job.want_cancel(now(), reason);
                let (task, reason) = (*task, reason.to_owned());
                self.events.push_back(Event::CancelWanted { task, reason });
                changed.push(job.clone());
            }
        }
        for job in changed {
            self.save(&job);
        }
    }

    /// A runner is told to end: because somebody cancelled its job, or because it takes too long.
    pub(super) fn note_runner_ended(&mut self, id: TaskId) {
        if let Some(job) = self.jobs_of_session.active.get_mut(&id) {
            job.is_overdue = !job.cancel_wanted;
        }
    }

    pub(super) fn job_begun(&mut self, id: TaskId, cores: Option<usize>) {
        let revision = self.revision();
        let Some(job) = self.jobs_of_session.active.get_mut(&id) else { return };
        job.begin(now(), cores, revision);
        let job = job.clone();
        self.save(&job);
    }

    /// Takes over what the worker reports.
    pub(super) fn note_progress(&mut self, id: TaskId, body: &[u8]) {
        let Some(job) = self.jobs_of_session.active.get_mut(&id) else { return };
        let now_at = Instant::now();
        let is_early = self
            .jobs_of_session
            .reported
            .is_some_and(|reported| now_at < reported + REPORT_INTERVAL);
        if is_early {
            return;
        }
        let Some(progress) = Progress::read(body) else { return };
        job.report(now(), progress);
        let job = job.clone();
        self.jobs_of_session.reported = Some(now_at);
        self.jobs_of_session.publish(&job);
    }

    /// Publishes what queued jobs wait for.
    pub(super) fn publish_waits(&mut self) {
        let mut changed = Vec::new();
        let position = self.link.as_ref().and_then(|link| link.cores.place());
        for (task, job) in &mut self.jobs_of_session.active {
            let waiting_for = self.machine.waiting_for(*task);
            let position = position.filter(|_| waiting_for == Some(WaitingFor::Cores));
            let waits = (waiting_for, position);
            if job.state == JobState::Queued && (job.waiting_for, job.position) != waits {
                (job.waiting_for, job.position) = waits;
                changed.push(job.clone());
            }
        }
        for job in changed {
            self.jobs_of_session.publish(&job);
        }
    }

    /// The job of a task is answered so.
    pub(super) fn end_job(&mut self, id: TaskId, task: &Task, outcome: &Outcome) {
        let Some(mut job) = self.jobs_of_session.active.remove(&id) else { return };
        let stops =
            matches!(outcome, Outcome::Interrupted | Outcome::Refused(SessionError::ShuttingDown));
        if stops && job.resumes && !job.cancel_wanted {
            // As it is stored, so the next server goes on with it.
            return;
        }
        let end = match outcome {
            _ if stops => JobEnd::Interrupted,
            Outcome::Interrupted => JobEnd::Interrupted,
            Outcome::Refused(error) => JobEnd::Failed(JobErrorKind::Refused, error.to_string()),
            Outcome::Cancelled { reason } => JobEnd::Cancelled(reason.clone()),
            Outcome::WorkerLost { message, .. } | Outcome::Failed { message, .. } => {
                let kind = match job.is_overdue {
                    true => JobErrorKind::Timeout,
                    false => JobErrorKind::Killed,
                };
                JobEnd::Failed(kind, message.clone())
            }
            Outcome::Reply { unsaved } => {
                let Some(header) = task.reply.as_ref().map(|given| &given.header) else { return };
                let revision = self.revision();
                end_of_reply(header, &job, revision, unsaved.clone())
            }
        };
        match outcome {
            Outcome::WorkerLost { message, .. } | Outcome::Failed { message, .. } => {
                self.write_result(&job.job_id, failure(message));
            }
            Outcome::Refused(error) => {
                self.write_result(&job.job_id, failure(&error.to_string()));
            }
            Outcome::Cancelled { reason } => {
                self.write_result(&job.job_id, failure(&format!("Cancelled: {reason}")));
            }
            Outcome::Reply { .. } | Outcome::Interrupted => {}
        }
        job.end(now(), end);
        let state = job.state.as_str();
        info!(session = self.session, job = job.job_id, state, "job done");
        self.save_ended(job);
    }

    /// Keeps the answer of a job's command. It is in the queue of files before the change is.
    pub(super) fn keep_answer(&mut self, id: TaskId) {
        let Some(job) = self.jobs_of_session.active.get(&id) else { return };
        let body =
            self.tasks.get(&id).and_then(|task| task.reply.as_ref()).map(|it| it.body.clone());
        if let Some(body) = body {
            let job = job.job_id.clone();
            self.write_result(&job, body);
        }
    }

    /// The id of a task's job.
    pub(super) fn job_of(&self, id: TaskId) -> Option<String> {
        self.jobs_of_session.active.get(&id).map(|job| job.job_id.clone())
    }

    fn write_result(&self, job: &str, body: Bytes) {
        let Some(files) = &self.files else { return };
        let (job, session) = (job.to_owned(), self.session.clone());
        // The job's end does not depend on it; who asks for the result is told that it is missing.
        drop(files.submit(move |folder| {
            if let Err(error) = folder.write_result(&job, &body) {
                warn!(session, job, %error, "the result of a job is not kept");
            }
        }));
    }

    fn save(&self, job: &Job) {
        self.jobs_of_session.publish(job);
        let stored = self.shared.store.update_job(self.stored(job, None, None));
        let (session, job) = (self.session.clone(), job.job_id.clone());
        tokio::spawn(async move {
            if let Err(error) = stored.await {
                warn!(session, job, %error, "a job's state is not stored");
            }
        });
    }

    /// Stores a job that is done, and removes those that are not kept any more.
    fn save_ended(&mut self, job: Job) {
        self.jobs_of_session.publish(&job);
        let settings = &self.shared.settings.jobs;
        let retention = JobRetention {
            done_before: now() - settings.retention_seconds,
            count: settings.per_session,
            recent_after: now() - SHORTEST_RETENTION_SECONDS,
        };
        let stored = self.shared.store.update_job(self.stored(&job, None, None));
        let expired = self.shared.store.expire_jobs(&self.session, retention);
        self.jobs.push(Box::pin(async move {
            let stored = stored.await;
            let expired = expired.await.unwrap_or_default();
            Happening::JobEnded { job: job.job_id, stored, expired }
        }));
    }

    pub(super) fn job_ended(
        &mut self,
        job: &str,
        stored: Result<(), StoreError>,
        gone: Vec<String>,
    ) {
        match stored {
            // From now on it is read from the database.
            Ok(()) => self.jobs_of_session.board.send_modify(|board| drop(board.remove(job))),
            Err(error) => {
                warn!(session = self.session, job, %error, "a job's end is not stored");
                let most = self.shared.settings.jobs.per_session;
                self.jobs_of_session.board.send_modify(|board| forget_oldest(board, most));
            }
        }
        if let (false, Some(files)) = (gone.is_empty(), &self.files) {
            drop(files.submit(move |folder| {
                for job in gone {
                    // What stays is removed with its session.
                    let _ = folder.remove_result(&job);
                }
            }));
        }
    }

    /// Forgets all jobs of a session that has ended.
    pub(super) fn forget_jobs(&self) {
        let removed = self.shared.store.remove_jobs_of(&self.session);
        let session = self.session.clone();
        tokio::spawn(async move {
            if let Err(error) = removed.await {
                warn!(session, %error, "the jobs of an ended session stay in the database");
            }
        });
    }
}

/// Waits for the next job that is stored.
pub(super) type Storing = futures::stream::FuturesOrdered<BoxFuture<'static, Happening>>;

fn forget_oldest(board: &mut BTreeMap<String, Arc<Job>>, most: usize) {
    let done: Vec<_> =
        board.iter().filter(|(_, job)| job.state.is_done()).map(|(id, _)| id.clone()).collect();
    for id in done.iter().take(done.len().saturating_sub(most)) {
        board.remove(id);
    }
}

/// The name in the bytes of a stored command.
fn stored_name(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Named {
        command: String,
    }
    serde_json::from_slice(body).map_or_else(|_| String::new(), |named: Named| named.command)
}

/// What a reply makes of a job.
fn end_of_reply(header: &Header, job: &Job, revision: u64, unsaved: Option<String>) -> JobEnd {
    if header.success == Some(true) {
        return JobEnd::Succeeded { revision, unsaved };
    }
    let message = header.error.clone().unwrap_or_default();
    let reason = header.reason.as_deref().unwrap_or_default();
    let kind = match reason {
        _ if job.cancel_wanted => return JobEnd::Cancelled(message),
        _ if job.is_overdue => JobErrorKind::Timeout,
        "MemoryError" => JobErrorKind::Memory,
        crash if crash.contains("memory ran out") => JobErrorKind::Memory,
        crash if crash.starts_with("The computation") => JobErrorKind::Killed,
        _ => JobErrorKind::Phoebe,
    };
    JobEnd::Failed(kind, message)
}
