//! Submits, finds, waits for and cancels jobs. What is under way is read from what the session's
//! driver publishes, the rest from the database. It changes no job itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::error::SessionError;
use super::events::EventReader;
use super::job::{Board, Job, JobState, NewJob};
use super::manager::SessionManager;
use super::request::{Accepted, JobSubmission, Request};
use crate::store::JobFilter;

/// Which jobs a list has, newest first.
#[derive(Debug, Clone, Default)]
pub struct JobQuery {
    /// Of this session.
    pub session_id: Option<String>,
    /// Of this user's sessions.
    pub user_id: Option<String>,
    /// In this state.
    pub state: Option<JobState>,
    /// Older than this job.
    pub before: Option<String>,
    /// So many at the most.
    pub limit: usize,
}

/// What is new in a [`SessionFeed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedChange {
    /// There are events.
    Happened,
    /// The state or progress of a job changed.
    Jobs,
    /// The session has ended; there may be last events.
    Ended,
    /// The server stops.
    ServerStops,
}

/// What a session publishes as it happens.
#[derive(Debug, Clone)]
pub struct SessionFeed {
    /// Its events.
    pub events: EventReader,
    jobs: watch::Receiver<Board>,
    closing: CancellationToken,
}

impl SessionFeed {
    /// The jobs that are not done.
    #[must_use]
    pub fn jobs(&self) -> Vec<Arc<Job>> {
        let board = self.jobs.borrow();
        board.values().filter(|job| !job.state.is_done()).cloned().collect()
    }

    /// Waits until there is something new. Cancel-safe.
    pub async fn next(&mut self) -> FeedChange {
        tokio::select! {
            () = self.closing.cancelled() => FeedChange::ServerStops,
            is_alive = self.events.changed() => match is_alive {
                true => FeedChange::Happened,
                false => FeedChange::Ended,
            },
            Ok(()) = self.jobs.changed() => FeedChange::Jobs,
        }
    }
}

impl SessionManager {
    /// What a session publishes from now on.
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    pub fn feed(&self, id: &str) -> Result<SessionFeed, SessionError> {
        let session = self.shared().find(id)?;
        let closing = self.shared().closing.clone();
        Ok(SessionFeed { events: session.events, jobs: session.jobs, closing })
    }

    /// Stores a long command as a job, which runs in its turn. With a `key` that the session knows,
    /// the job that it belongs to is returned instead.
    ///
    /// # Errors
    /// Unknown session, full queue, the key of another command, a database that cannot be written.
    pub async fn submit_job(
        &self,
        id: &str,
        name: &str,
        body: Bytes,
        new: NewJob,
        key: Option<String>,
    ) -> Result<Accepted, SessionError> {
        let name = name.to_owned();
        let submission = |done| JobSubmission { name, body, new, key, done };
        self.ask(id, |done| Request::Job(submission(done))).await?
    }

    /// Asks to cancel one job of a session, or all. Jobs that are done stay as they are.
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    pub async fn cancel_jobs(
        &self,
        id: &str,
        job: Option<&str>,
        reason: &str,
    ) -> Result<(), SessionError> {
        let (job, reason) = (job.map(str::to_owned), reason.to_owned());
        self.ask(id, |done| Request::CancelJobs { job, reason, done }).await
    }

    /// A job of a session; `None` if it has no such job.
    ///
    /// # Errors
    /// Unknown session, or a database that cannot be read.
    pub async fn job(&self, id: &str, job: &str) -> Result<Option<Job>, SessionError> {
        let published = self.shared().find(id)?.jobs.borrow().get(job).cloned();
        match published {
            Some(published) => Ok(Some(Job::clone(&published))),
            None => self.stored_job(id, job).await,
        }
    }

    /// Like [`Self::job`], at the next change of its state, or after `limit`.
    ///
    /// # Errors
    /// Unknown session, or a database that cannot be read.
    pub async fn job_after(
        &self,
        id: &str,
        job: &str,
        limit: Duration,
        is_awaited: impl Fn(&Job, &Job) -> bool,
    ) -> Result<Option<Job>, SessionError> {
        let mut published = self.shared().find(id)?.jobs;
        let first = published.borrow().get(job).cloned();
        if let Some(first) = first {
            let has_changed = |board: &BTreeMap<String, Arc<Job>>| {
                board.get(job).is_none_or(|now| is_awaited(&first, now))
            };
            // What the driver published last is read below, also where it has ended.
            let _ = timeout(limit, published.wait_for(has_changed)).await;
        }
        self.job(id, job).await
    }

    /// Jobs, newest first.
    ///
    /// # Errors
    /// A database that cannot be read.
    pub async fn jobs(&self, query: JobQuery) -> Result<Vec<Job>, SessionError> {
        let JobQuery { session_id, user_id, state, before, limit } = query;
        let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
        let is_wanted = |job: &Job| {
            state.is_none_or(|state| job.state == state)
                && before.as_ref().is_none_or(|before| job.job_id < *before)
        };
        // A state that is published may be newer than the stored one, so rows are chosen by it
        // only where none is.
        let filter = JobFilter {
            session_id: session_id.clone(),
            user_id: user_id.clone(),
            state: state.map(|state| state.as_str().to_owned()),
            before: before.clone(),
            limit,
        };
        for stored in self.shared().store.jobs(filter).await.map_err(not_readable)? {
            jobs.extend(Job::from_record(&stored.record).map(|job| (stored.job_id, job)));
        }
        for session in self.shared().sessions() {
            let is_of_user = {
                let view = session.view.borrow();
                session_id.as_ref().is_none_or(|id| *id == view.session_id)
                    && user_id.as_ref().is_none_or(|id| {
                        view.owner.as_ref().is_some_and(|owner| owner.user_id == *id)
                    })
            };
            if is_of_user {
                for (id, job) in session.jobs.borrow().iter() {
                    jobs.insert(id.clone(), Job::clone(job));
                }
            }
        }
        Ok(jobs.into_values().rev().filter(is_wanted).take(limit).collect())
    }

    /// The job that a session runs, or the first that waits.
    #[must_use]
    pub fn current_job(&self, id: &str) -> Option<Job> {
        let board = self.shared().find(id).ok()?.jobs.borrow().clone();
        let mut open = board.values().filter(|job| !job.state.is_done());
        let running = open.clone().find(|job| job.state != JobState::Queued);
        running.or_else(|| open.next()).map(|job| Job::clone(job))
    }

    /// What a job's command was answered; `None` if it is not kept.
    ///
    /// # Errors
    /// [`SessionError::Conflict`] where nothing is kept of sessions, or it cannot be read.
    pub async fn job_result(&self, id: &str, job: &str) -> Result<Option<Bytes>, SessionError> {
        let job = job.to_owned();
        let read = self.with_files(id, move |folder| folder.result(&job)).await?;
        read.map_err(|error| SessionError::Conflict(format!("It cannot be read: {error}")))
    }

    /// Removes a job that is done, and its result. Returns whether there was one.
    ///
    /// # Errors
    /// A database that cannot be written.
    pub async fn remove_job(&self, id: &str, job: &str) -> Result<bool, SessionError> {
        let removed = self.shared().store.remove_job(id, job).await.map_err(not_readable)?;
        if removed && self.shared().snapshots.is_some() {
            let job = job.to_owned();
            // What stays is removed with its session.
            let _ = self.with_files(id, move |folder| folder.remove_result(&job)).await;
        }
        Ok(removed)
    }

    async fn stored_job(&self, id: &str, job: &str) -> Result<Option<Job>, SessionError> {
        let stored = self.shared().store.job(id, job).await.map_err(not_readable)?;
        Ok(stored.and_then(|stored| Job::from_record(&stored.record)))
    }
}

fn not_readable(error: crate::store::StoreError) -> SessionError {
    tracing::error!(%error, "the database did not answer a request for jobs");
    SessionError::Overloaded("The jobs are not available now".to_owned())
}
