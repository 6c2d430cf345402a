//! The one task that owns a session: its worker, its files, what it publishes.
//!
//! It decides nothing about the session's life: it reports what happens to the state machine, and
//! performs the actions that this returns. Others send it a [`Request`] and read what it publishes.
//! When the task ends, the worker is gone, the port is free, and everybody who waited has an
//! answer.

mod actions;
mod files;
mod jobs;
mod link;
mod log;
mod task;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, FuturesUnordered};
use phoebe_protocol::command::{Message, SnapshotFormat};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use self::jobs::{Jobs, Storing};
use self::link::{Asked, LinkEvent, WorkerLink};
use self::task::{Found, Task};
use super::admission::Admission;
use super::cores::CoreGrant;
use super::crash_counter::CrashCounter;
use super::error::SessionError;
use super::events::EventWriter;
use super::file_queue::FileQueue;
use super::job::{Board, Job};
use super::request::{JobSubmission, Request, Work};
use super::shared::Shared;
use super::start::BroughtUp;
use super::state::{Beginning, Ending, Event, Machine, Reply, Rules, TaskId};
use super::view::{EndReason, SessionView, StartRequest, Status, now};
use crate::store::snapshots::{DiskUsage, SnapshotStore};
use crate::store::{StoreError, StoredJob};
use crate::worker::Exit;

/// A session's task before it runs.
pub(super) struct Driver {
    shared: Arc<Shared>,
    session: String,
    machine: Machine,
    requests: mpsc::Receiver<Request>,
    /// No request comes any more.
    requests_ended: bool,
    view: watch::Sender<SessionView>,
    /// When the session was used last, by a clock that nobody sets.
    used: Instant,
    tasks: HashMap<TaskId, Task>,
    last_task: TaskId,
    crashes: CrashCounter,
    /// The session's files; `None` where nothing is kept.
    files: Option<FileQueue>,
    /// The step of the Bundle, as far as it is on disk.
    head: Arc<AtomicU64>,
    admission: Option<Admission>,
    link: Option<WorkerLink>,
    /// A turn on the machine's cores for the next long command.
    granted: Option<CoreGrant>,
    /// How long the last computation took.
    compute_time: Duration,
    /// The Bundle that the worker gave, until it is written.
    given: Option<Bytes>,
    /// Where the Bundle that fresh sessions begin with is to be shared, until it is.
    template: Option<(SnapshotStore, String)>,
    /// The request that started the session, until it is started.
    beginning: Option<StartRequest>,
    starting: Option<BoxFuture<'static, Result<Start, SessionError>>>,
    /// What is on its way to the disk, in order.
    writes: FuturesOrdered<BoxFuture<'static, Event>>,
    jobs: FuturesUnordered<BoxFuture<'static, Happening>>,
    jobs_of_session: Jobs,
    happened: Arc<EventWriter>,
    /// Jobs that are being stored, in order.
    storing: Storing,
    waiting: Waiting,
    /// Events that follow from actions at once.
    events: VecDeque<Event>,
}

/// What a driver publishes.
pub(super) struct Published {
    pub(super) view: watch::Sender<SessionView>,
    pub(super) jobs: watch::Sender<Board>,
    pub(super) events: EventWriter,
}

/// Who waits for what.
#[derive(Default)]
struct Waiting {
    start: Option<oneshot::Sender<Result<SessionView, SessionError>>>,
    sleep: Vec<oneshot::Sender<bool>>,
    files: Vec<oneshot::Sender<Result<FileQueue, SessionError>>>,
    /// User information that is being written, and what came meanwhile.
    user_info: Vec<oneshot::Sender<()>>,
    newer_user_info: Vec<oneshot::Sender<()>>,
    end: Vec<oneshot::Sender<()>>,
}

/// A worker that is ready, and what is known with it.
struct Start {
    up: BroughtUp,
    beginning: Beginning,
    /// The session's memory in MiB, where it was measured.
    memory: Option<f64>,
}

/// What the driver waits for.
#[expect(clippy::large_enum_variant, reason = "it is moved once and not stored")]
enum Happening {
    Event(Event),
    Started(Result<Start, SessionError>),
    Link(LinkEvent),
    Request(Option<Request>),
    Prepared(TaskId, Result<Prepared, SessionError>),
    UserInfoWritten,
    JobStored(Box<(JobSubmission, Job)>, Result<Option<StoredJob>, StoreError>),
    JobEnded { job: String, stored: Result<(), StoreError>, expired: Vec<String> },
    Stopped { exit: Exit, memory: Option<f64> },
}

/// What was read from the session's files for the worker.
enum Prepared {
    Load { format: SnapshotFormat, bundle: Bytes, found: Found },
    Script { journal: Bytes, base: Vec<Bytes> },
}

impl Driver {
    /// A session that begins with `view`. It does nothing before [`Self::run`] or
    /// [`Self::run_kept`].
    pub(super) fn new(
        shared: Arc<Shared>,
        requests: mpsc::Receiver<Request>,
        published: Published,
        disk: Arc<DiskUsage>,
    ) -> Self {
        let Published { view, jobs, events } = published;
        let events = Arc::new(events);
        let session = view.borrow().session_id.clone();
        let (files, admission) = shared
            .snapshots
            .as_ref()
            .map(|store| {
                let folder = store.session(&session).counted_in(Arc::clone(&disk));
                let admission = Admission::new(&folder, disk, shared.disk_bounds());
                (FileQueue::new(folder), admission)
            })
            .unzip();
        let rules = Rules {
            durability: shared.settings.session.durability,
            on_idle: shared.settings.session.on_idle,
            queue_depth: shared.settings.resources.queue_depth,
            command_limit: shared.command_timeout(),
        };
        Self {
            machine: Machine::new(rules),
            shared,
            session,
            requests,
            requests_ended: false,
            view,
            used: Instant::now(),
            tasks: HashMap::new(),
            last_task: 0,
            crashes: CrashCounter::default(),
            files,
            head: Arc::default(),
            admission,
            link: None,
            granted: None,
            compute_time: Duration::ZERO,
            given: None,
            template: None,
            beginning: None,
            starting: None,
            writes: FuturesOrdered::new(),
            jobs: FuturesUnordered::new(),
            jobs_of_session: Jobs::new(jobs, Arc::clone(&events)),
            happened: events,
            storing: Storing::new(),
            waiting: Waiting::default(),
            events: VecDeque::new(),
        }
    }

    /// Starts the session, tells whoever asked for it, and drives it to its end.
    pub(super) async fn run(
        mut self,
        request: StartRequest,
        started: oneshot::Sender<Result<SessionView, SessionError>>,
    ) {
        self.waiting.start = Some(started);
        self.beginning = Some(request);
        let action = self.machine.start();
        self.perform(action);
        self.drive().await;
    }

    /// Drives a session of which an earlier server left the files, and goes on with its jobs.
    pub(super) async fn run_kept(mut self, jobs: Vec<StoredJob>) {
        self.log_interrupted().await;
        self.log_start(None, None);
        self.resume_jobs(jobs).await;
        self.drive().await;
    }

    async fn drive(mut self) {
        self.publish();
        self.handle_events();
        while !(self.machine.is_over()
            && self.requests_ended
            && self.writes.is_empty()
            && self.storing.is_empty())
        {
            let happening = self.next().await;
            self.note(happening);
            self.handle_events();
        }
        for done in self.waiting.end.drain(..) {
            // Whoever asked for the end may have left.
            let _ = done.send(());
        }
    }

    async fn next(&mut self) -> Happening {
        let deadline = self.machine.deadline();
        let listens = self.machine.has_worker();
        let is_starting = self.machine.is_starting();
        if let Some(link) = self.link.as_mut().filter(|_| self.machine.computes()) {
            link.memory.ask_while_computing();
        }
        tokio::select! {
            Some(event) = self.writes.next() => Happening::Event(event),
            Some(happening) = self.jobs.next() => happening,
            Some(happening) = self.storing.next() => happening,
            started = optional(self.starting.as_mut()) => Happening::Started(started),
            event = next_of(&mut self.link, listens) => Happening::Link(event),
            request = self.requests.recv(), if !is_starting && !self.requests_ended => {
                Happening::Request(request)
            }
            () = self.shared.closing.cancelled(), if is_starting => {
                Happening::Event(Event::ShutDown)
            }
            () = at(deadline) => Happening::Event(Event::Tick),
        }
    }

    /// Turns what happened into events for the state machine.
    fn note(&mut self, happening: Happening) {
        match happening {
            Happening::Event(event) => self.events.push_back(event),
            Happening::Started(started) => {
                self.starting = None;
                self.note_start(started);
            }
            Happening::Link(event) => self.note_link(event),
            Happening::Request(Some(request)) => self.note_request(request),
            Happening::Request(None) => {
                // A session is forgotten when it has ended, or when its manager is gone.
                self.requests_ended = true;
                let message = "The session ended: it was forgotten".to_owned();
                let ending = Ending::new(EndReason::Manual, message);
                self.events.push_back(Event::EndWanted(ending));
            }
            Happening::Prepared(task, prepared) => self.note_prepared(task, prepared),
            Happening::UserInfoWritten => self.user_info_written(),
            Happening::JobStored(submitted, stored) => {
                let (submission, job) = *submitted;
                self.job_stored(submission, job, stored);
            }
            Happening::JobEnded { job, stored, expired } => self.job_ended(&job, stored, expired),
            Happening::Stopped { exit, memory } => {
                self.log_memory(memory);
                debug!(session = self.session, %exit, "worker stopped");
                self.events.push_back(Event::WorkerStopped);
            }
        }
    }

    fn note_request(&mut self, request: Request) {
        let event = match request {
            Request::Work(work) => return self.submit(work),
            // Whoever comes after the end is told so: nobody answers.
            Request::Job(_) | Request::CancelJobs { .. } if self.has_ended() => return,
            Request::Job(submission) => return self.submit_job(submission),
            Request::CancelJobs { job, reason, done } => {
                self.cancel_jobs(job.as_deref(), &reason);
                // The client may have gone.
                let _ = done.send(());
                return;
            }
            Request::End { reason, done } => {
                self.waiting.end.push(done);
                let message = format!("The session was ended ({})", reason.as_str());
                Event::EndWanted(Ending::new(reason, message))
            }
            Request::ShutDown { done } => {
                self.waiting.end.push(done);
                Event::ShutDown
            }
            Request::Look { idle_timeout } => {
                let expires_at = self.view.borrow().expires_at;
                Event::Looked {
                    idle: idle_timeout.is_some_and(|limit| self.used.elapsed() >= limit),
                    expired: expires_at.is_some_and(|at| now() >= at),
                }
            }
            Request::Sleep { done } => {
                self.waiting.sleep.push(done);
                Event::SleepWanted
            }
            Request::Files { all_forms, files } => {
                self.waiting.files.push(files);
                Event::FilesWanted { all_forms }
            }
            // Whoever comes after the end is told so: nobody answers.
            Request::Measure { .. } | Request::UserInfo { .. } if self.has_ended() => return,
            Request::Measure { done } => {
                self.touch();
                match &mut self.link {
                    Some(link) => {
                        link.memory.tell(done);
                        link.memory.start(link.worker.memory());
                    }
                    // The client may have gone.
                    None => drop(done.send(0.0)),
                }
                return;
            }
            Request::UserInfo { info, done } => return self.update_user_info(info, done),
        };
        self.events.push_back(event);
    }

    fn submit(&mut self, work: Work) {
        self.touch();
        if let Work::Command(command) = &work
            && let Some(reason) = self.crashes.refusal(&command.body)
        {
            self.shared.metrics.record_refusal();
            return work.fail(&reason);
        }
        let mut task = Task::new(work);
        let kind = task.kind;
        self.last_task += 1;
        self.open_job(self.last_task, &mut task);
        self.tasks.insert(self.last_task, task);
        self.events.push_back(Event::Submitted { task: self.last_task, kind, patient: false });
    }

    fn note_start(&mut self, started: Result<Start, SessionError>) {
        let Start { up, beginning, memory } = match started {
            Ok(start) => start,
            Err(error) => return self.events.push_back(Event::StartFailed(error)),
        };
        let BroughtUp { mut started, notice, portable } = up;
        let migrated = started.migrated.take();
        let mut link = WorkerLink::new(started);
        if self.beginning.is_none() {
            // A command that the log leaves out asks for no measurement.
            link.memory.ask();
        }
        self.write_migrated(migrated, &link);
        if beginning == Beginning::NotKept
            && let Some(store) = &self.shared.snapshots
        {
            let digest = link.worker.info().template.clone();
            self.template = (!digest.is_empty()).then(|| (store.clone(), digest));
        }
        self.link = Some(link);
        self.used = Instant::now();
        self.view.send_modify(|view| {
            view.last_activity = now();
            view.notice = notice.or(view.notice.take());
        });
        self.publish();
        if let Some(request) = self.beginning.take() {
            self.log_start(request.client_ip, request.user_agent);
        }
        self.log_memory(memory);
        self.events.push_back(Event::WorkerReady { portable, beginning });
    }

    fn note_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Replied(asked, message) => self.note_reply(asked, message),
            LinkEvent::StrayReply(number) => {
                warn!(session = self.session, number, "an answer to nothing asked");
                self.events.push_back(Event::StrayReply);
            }
            LinkEvent::Progress(task, body) => self.note_progress(task, &body),
            LinkEvent::Nothing => {}
            LinkEvent::Measured(measured) => {
                self.log_memory(measured);
                if let Some(link) = &mut self.link {
                    link.memory.finish(measured);
                }
            }
            LinkEvent::CoresGranted(grant) => {
                self.events.push_back(Event::CoresGranted(grant.cores()));
                self.granted = Some(grant);
            }
            LinkEvent::Broken => self.events.push_back(Event::WorkerFailing),
            LinkEvent::Lost(why, cause) => {
                self.shared.metrics.record_worker_loss(cause);
                // What the worker answered before it died still counts; it gets no more work.
                self.events.push_back(Event::WorkerFailing);
                while let Some(event) = self.link.as_mut().and_then(WorkerLink::rest) {
                    if let LinkEvent::Replied(asked, message) = event {
                        self.note_reply(asked, message);
                    }
                }
                self.events.push_back(Event::WorkerLost(why));
            }
        }
    }

    fn note_reply(&mut self, asked: Asked, message: Message) {
        let Asked::Task(id) = asked else { return self.note_bundle(message) };
        // A task that was answered already has no more interest in its reply.
        let Some(task) = self.tasks.get_mut(&id) else { return };
        if let Some(command) = task.command() {
            self.crashes.clear(command);
        }
        let notice = message.header.notice.clone();
        let reply = task.receive(message);
        if reply != Reply::Unchanged {
            if self.files.is_none() {
                self.head.fetch_add(1, Ordering::Relaxed);
            }
            let task = &self.tasks[&id];
            self.publish_notice(&task.work, notice.as_deref());
        }
        self.keep_answer(id);
        self.events.push_back(Event::Replied { task: id, reply });
    }

    /// Whether the session is over for everybody but this driver.
    fn has_ended(&self) -> bool {
        self.machine.is_over() || self.machine.status() == Status::Ended
    }

    /// Tells the state machine everything that happened, and does what it asks for.
    fn handle_events(&mut self) {
        while let Some(event) = self.events.pop_front() {
            let actions = self.machine.handle(Instant::now(), event);
            self.publish();
            for action in actions {
                self.perform(action);
            }
        }
        self.publish_waits();
    }
}

/// Waits until a moment; for ever if there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// What the worker does next; waits for ever if there is none.
async fn next_of(link: &mut Option<WorkerLink>, listens: bool) -> LinkEvent {
    match link {
        Some(link) => link.next(listens).await,
        None => std::future::pending().await,
    }
}

/// The result of a future; waits for ever if there is none.
async fn optional<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
