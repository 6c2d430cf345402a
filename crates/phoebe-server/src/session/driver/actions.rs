//! Performs what the state machine decides: each action begins something or answers somebody, and
//! none waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use phoebe_protocol::command::SnapshotFormat;
use tokio::time::Instant;
use tracing::{info, warn};

use super::files::INTERRUPTED;
use super::link::Asked;
use super::task::{Task, find};
use super::{Driver, Happening, Prepared, Start};
use crate::metrics::Start::Wake;
use crate::session::cores::CoreGrant;
use crate::session::error::SessionError;
use crate::session::events::Happened;
use crate::session::reply::logged_reason;
use crate::session::request::Work;
use crate::session::script;
use crate::session::start::bring_up;
use crate::session::state::{Action, Beginning, Ending, Event, Outcome, TaskId};
use crate::session::turns::Lane;
use crate::session::view::{EndReason, Status};
use crate::worker::connection::{Turn, Wanted};

/// The command whose time is known from the last one.
const COMPUTE: &str = "run_compute";
/// A computation that is expected to take less is interactive.
const INTERACTIVE: Duration = Duration::from_secs(30);
const STOPPING: &str = "The server is stopping. The session is kept as it was before this command";

impl Driver {
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::StartWorker => self.start_worker(),
            Action::AbandonStart => self.starting = None,
            Action::AskForCores(task) => {
                let (user, lane) = (self.user(), self.lane(task));
                if let Some(link) = &mut self.link {
                    link.cores.ask(&self.shared.cores, &user, lane);
                }
            }
            Action::Begin { task, cores, snapshot } => self.begin(task, cores, snapshot),
            Action::CancelRunner { task, reason } => {
                self.note_runner_ended(task);
                if let Some(link) = &mut self.link {
                    link.cancel(task, &reason);
                }
            }
            Action::WriteChange(task) => self.write_change(task),
            Action::NoteEnded(task) => self.note_ended(task),
            Action::Answer { task, outcome } => self.answer(task, outcome),
            Action::AskForBundle(format) => {
                if let Some(link) = &mut self.link
                    && !link.ask(Asked::Bundle, |to| to.export(format, Bytes::new(), &[]))
                {
                    self.events.push_back(Event::WorkerFailing);
                }
            }
            Action::WriteBundle(format) => self.write_bundle(format),
            Action::WriteRecord => self.write_record(),
            Action::StopWorker { grace } => self.stop_worker(grace),
            Action::Forget => {
                self.shared.forget(&self.session);
                self.requests.close();
            }
            Action::RemoveFiles => self.remove_files(),
            Action::TellStarted(result) => self.tell_started(result),
            Action::TellSlept(slept) => {
                for waiting in self.waiting.sleep.drain(..) {
                    // Whoever needed the room may have found it elsewhere.
                    let _ = waiting.send(slept);
                }
            }
            Action::TellFiles(result) => {
                for waiting in self.waiting.files.drain(..) {
                    let files = self.files.clone().ok_or_else(SessionError::nothing_is_kept);
                    // The client may have gone.
                    let _ = waiting.send(result.clone().and(files));
                }
            }
            Action::Notice(text) => {
                self.view.send_modify(|view| view.notice = Some(text.to_owned()));
                self.tell_session();
            }
            Action::Report(report) => self.log_report(&report),
            Action::RecordEnd(ending) => {
                self.forget_jobs();
                self.log_end(&ending);
            }
        }
    }

    /// Whose core-seconds the session uses.
    fn user(&self) -> String {
        let view = self.view.borrow();
        view.owner.as_ref().map_or_else(|| view.session_id.clone(), |owner| owner.user_id.clone())
    }

    /// A computation is interactive, until one has taken long.
    fn lane(&self, id: TaskId) -> Lane {
        let name = self.tasks.get(&id).map_or("", |task| task.work.name());
        match name == COMPUTE && self.compute_time < INTERACTIVE {
            true => Lane::Interactive,
            false => Lane::Batch,
        }
    }

    /// Notes how long the session's computations take: the last one is expected again.
    fn note_compute_time(&mut self, task: &Task) {
        if let (COMPUTE, Some(began)) = (task.work.name(), task.began) {
            self.compute_time = began.elapsed();
        }
    }

    fn start_worker(&mut self) {
        let (shared, session) = (Arc::clone(&self.shared), self.session.clone());
        let files = self.files.clone();
        let Some(request) = self.beginning.clone() else {
            let owner = self.view.borrow().owner.clone();
            self.starting = Some(Box::pin(async move {
                shared.evict_before_waking(owner.as_ref()).await;
                let up = bring_up(&shared, &session, files.as_ref());
                let metrics = &shared.metrics;
                let up = metrics.time_start(Wake, up, SessionError::start_outcome).await?;
                Ok(Start { up, beginning: Beginning::Kept, memory: None })
            }));
            return;
        };
        let record = self.record();
        self.starting = Some(Box::pin(async move {
            let Some(files) = files else {
                if request.copy_of.is_some() {
                    return Err(SessionError::nothing_is_kept());
                }
                let up = bring_up(&shared, &session, None).await?;
                let memory = up.started.worker.memory().await;
                return Ok(Start { up, beginning: Beginning::Kept, memory });
            };
            if let Some(copy_of) = &request.copy_of {
                super::files::copy(&shared, &session, &files, record, copy_of).await?;
                let up = bring_up(&shared, &session, Some(&files)).await?;
                let memory = up.started.worker.memory().await;
                return Ok(Start { up, beginning: Beginning::Kept, memory });
            }
            let up = bring_up(&shared, &session, None).await?;
            let (memory, beginning) = tokio::join!(
                up.started.worker.memory(),
                super::files::write_beginning(&shared, &files, record, &up),
            );
            Ok(Start { up, beginning, memory })
        }));
    }

    fn stop_worker(&mut self, grace: Duration) {
        self.granted = None;
        self.given = None;
        let Some(link) = self.link.take() else {
            return self.events.push_back(Event::WorkerStopped);
        };
        // The last commands' memory is still to be logged.
        let is_measured = link.memory.due().is_some()
            && self.machine.status() == Status::Ended
            && !self.shared.closing.is_cancelled();
        self.jobs.push(Box::pin(async move {
            let memory = if is_measured { link.worker.memory().await } else { None };
            Happening::Stopped { exit: link.stop(grace).await, memory }
        }));
    }

    fn tell_started(&mut self, result: Result<(), SessionError>) {
        self.template = None;
        let view = self.view.borrow().clone();
        if result.is_ok() {
            info!(session = self.session, port = view.port, "session started");
        }
        if let Err(error) = &result {
            let reason = error.without_workers_words();
            warn!(session = self.session, reason, "session not started");
        }
        let is_started = result.is_ok();
        let Some(waiting) = self.waiting.start.take() else { return };
        let has_left = waiting.send(result.map(|()| view)).is_err();
        if has_left && is_started {
            // The client never learned the id, so nobody can use the session.
            let message = "The session ended: its client left before it was ready".to_owned();
            let ending = Ending::new(EndReason::Manual, message);
            self.events.push_back(Event::EndWanted(ending));
        }
    }

    fn begin(&mut self, id: TaskId, cores: Option<usize>, snapshot: bool) {
        // A turn on the cores is this task's or nobody's, whatever becomes of the task.
        let grant = cores.and_then(|_| self.granted.take());
        let (Some(task), Some(link)) = (self.tasks.get_mut(&id), &mut self.link) else { return };
        let admission = self.admission.as_ref();
        let admitted = admission.map_or(Ok(()), |admission| admission.check(&task.work, task.kind));
        if let Err(error) = admitted {
            return self.events.push_back(Event::NotBegun { task: id, error });
        }
        task.began = Some(Instant::now());
        let background = grant.as_ref().is_some_and(CoreGrant::is_background);
        self.shared.metrics.record_wait(task.kind, task.submitted.elapsed());
        task.cores = grant;
        let (files, versions) = (self.files.clone(), link.versions().clone());
        match &task.work {
            Work::Command(command) => {
                let noted = task.is_journaled() && files.is_some();
                let wanted = Wanted { snapshot, base: files.is_some() };
                let turn = cores.map(|cores| Turn { cores, background });
                let (body, name) = (command.body.clone(), command.name.clone());
                if !link.ask(Asked::Task(id), |to| to.request(body, turn, wanted)) {
                    return self.events.push_back(Event::NotSent { task: id });
                }
                self.job_begun(id, cores);
                if noted {
                    self.note_begun(name);
                }
                self.events.push_back(Event::Begun { task: id, noted });
            }
            Work::Export { format: SnapshotFormat::Script, .. } => {
                self.jobs.push(Box::pin(async move {
                    let source = script::source(files.as_ref(), &versions).await;
                    let prepared = source.map(|(journal, base)| Prepared::Script { journal, base });
                    Happening::Prepared(id, prepared)
                }));
            }
            Work::Export { format, .. } => {
                let format = *format;
                if !link.ask(Asked::Task(id), |to| to.export(format, Bytes::new(), &[])) {
                    self.events.push_back(Event::NotSent { task: id });
                }
            }
            Work::Load { source, .. } => {
                let source = source.clone();
                self.jobs.push(Box::pin(async move {
                    let found = find(source, files.as_ref(), &versions).await;
                    let prepared = found.map(|(format, bundle, found)| Prepared::Load {
                        format,
                        bundle,
                        found,
                    });
                    Happening::Prepared(id, prepared)
                }));
            }
        }
    }

    /// Sends what was read for a task to the worker, unless both have ended meanwhile.
    pub(super) fn note_prepared(&mut self, id: TaskId, prepared: Result<Prepared, SessionError>) {
        let (Some(task), Some(link)) = (self.tasks.get_mut(&id), &mut self.link) else { return };
        let is_sent = match prepared {
            Err(error) => return self.events.push_back(Event::NotBegun { task: id, error }),
            Ok(Prepared::Script { journal, base }) => {
                let format = SnapshotFormat::Script;
                link.ask(Asked::Task(id), |to| to.export(format, journal, &base))
            }
            Ok(Prepared::Load { format, bundle, found }) => {
                task.found = Some(found);
                let wanted = found.wanted(self.files.is_some());
                link.ask(Asked::Task(id), |to| to.restore(format, bundle, wanted))
            }
        };
        if !is_sent {
            self.events.push_back(Event::NotSent { task: id });
        }
    }

    fn answer(&mut self, id: TaskId, outcome: Outcome) {
        let Some(task) = self.tasks.remove(&id) else { return };
        self.note_compute_time(&task);
        self.end_job(id, &task, &outcome);
        self.record_outcome(&task, &outcome);
        match outcome {
            Outcome::Refused(error) => task.work.refuse(error),
            Outcome::Cancelled { reason } => task.work.fail(&format!("Cancelled: {reason}")),
            Outcome::Interrupted => {
                self.log_work(&task, false, Some(INTERRUPTED.to_owned()));
                task.work.fail(STOPPING);
            }
            Outcome::Failed { message, logged } => {
                self.log_work(&task, false, Some(logged));
                task.work.fail(&message);
            }
            Outcome::WorkerLost { why, message } => {
                if let Some(command) = task.command() {
                    self.crashes.record(command, &format!("The worker is gone: {why}."));
                }
                self.log_work(&task, false, Some(message.clone()));
                task.work.fail(&message);
            }
            Outcome::Reply { unsaved } => {
                if !matches!(task.work, Work::Export { .. }) {
                    self.log_reply(&task);
                }
                if task.changed() {
                    let (revision, command) = (self.revision(), task.work.name().to_owned());
                    self.happened.append(Happened::Bundle { revision, command });
                }
                task.answer(unsaved.as_deref());
                self.touch();
            }
        }
    }

    fn log_reply(&mut self, task: &Task) {
        let Some(given) = &task.reply else { return };
        let success = given.header.success.unwrap_or(false);
        self.log_work(task, success, (!success).then(|| logged_reason(&given.header)));
        if let Some(link) = &mut self.link
            && self.shared.store.logs_command(task.work.name())
        {
            link.memory.ask();
        }
    }
}
