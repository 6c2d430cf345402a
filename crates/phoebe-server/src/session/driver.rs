//! The one task that owns a session: its worker, its queue, its files, its state.
//!
//! Everybody else sends it a [`Request`] and reads what it publishes. A session whose worker is gone, by its own will or not, sleeps;
//! work wakes it. The task ends when the session has ended or the server stops, and by then the worker is gone and the port is free.

mod keeping;
mod leaving;
mod telling;

pub(super) use keeping::Committed;
pub(super) use telling::reason;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use phoebe_protocol::command::{Header, Kind, Message};
use phoebe_protocol::kinds::CommandKind;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::admission::Admission;
use super::awake::{Awake, Event, Lost, Queued};
use super::keeper::Keeper;
use super::manager::Shared;
use super::queue::CommandQueue;
use super::request::{Request, Work, failure};
use super::saved::Saved;
use super::start::{BroughtUp, bring_up};
use super::strikes::Strikes;
use super::{EndReason, SessionError, SessionView, StartRequest, Status, now};
use crate::config::OnIdle;
use crate::store::LogRecord;
use crate::store::snapshots::DiskUsage;

/// Writing down what is not on disk yet may take so long.
const SAVE_LIMIT: Duration = Duration::from_secs(5);
/// What a command is told that was under way, and the log.
const INTERRUPTED: &str = "interrupted: the server stopped while it ran";

/// A session's task before it runs.
pub(super) struct Driver {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    view: watch::Sender<SessionView>,
    session: String,
    /// When it was used last, by a clock that nobody sets.
    used: Instant,
    queue: CommandQueue<Queued>,
    /// The session's files; `None` where nothing is kept.
    keeper: Option<Keeper>,
    admission: Option<Admission>,
    saved: Saved,
    strikes: Strikes,
}

/// Why the driver leaves what it is doing.
enum Leave {
    End(Over),
    Sleep(Option<oneshot::Sender<bool>>),
    ShutDown(oneshot::Sender<()>),
    Lost(Lost),
}

/// The end of a session.
struct Over {
    reason: EndReason,
    /// What the commands that were under way are told.
    message: String,
    done: Option<oneshot::Sender<()>>,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        requests: mpsc::Receiver<Request>,
        view: watch::Sender<SessionView>,
        disk: Arc<DiskUsage>,
    ) -> Self {
        let session = view.borrow().session_id.clone();
        let (keeper, admission) = shared
            .snapshots
            .as_ref()
            .map(|store| {
                let folder = store.session(&session).counted_in(Arc::clone(&disk));
                let admission = Admission::new(&folder, disk, shared.disk_bounds());
                (Keeper::new(folder), admission)
            })
            .unzip();
        Self {
            queue: CommandQueue::new(shared.settings.resources.queue_depth),
            saved: Saved::new(shared.settings.session.durability),
            shared,
            requests,
            view,
            session,
            used: Instant::now(),
            keeper,
            admission,
            strikes: Strikes::default(),
        }
    }

    /// Starts the session, tells whoever asked for it, and drives it to its end.
    pub(super) async fn run(
        mut self,
        request: StartRequest,
        started: oneshot::Sender<Result<SessionView, SessionError>>,
    ) {
        let closing = self.shared.closing.clone();
        let awake = tokio::select! {
            awake = self.start(&request) => awake,
            () = closing.cancelled() => Err(SessionError::ShuttingDown),
        };
        let awake = match awake {
            Ok(awake) => awake,
            Err(error) => {
                let reason = telling::without_workers_words(&error);
                warn!(session = self.session, reason, "session not started");
                self.forget().await;
                let _gone = started.send(Err(error));
                return;
            }
        };
        let view = self.view.borrow().clone();
        info!(session = self.session, port = view.port, "session started");
        // Whoever gave up waiting never learned the id: nobody can use the session, so it ends.
        if started.send(Ok(view)).is_ok() {
            self.live(Some(awake)).await;
        } else {
            self.end(Some(awake), Over::manual("its client left before it was ready")).await;
        }
    }

    /// Drives a session of which an earlier server left the files.
    pub(super) async fn run_kept(self) {
        if let Some(keeper) = &self.keeper {
            let interrupted = keeper.run(|folder| {
                folder.measure();
                let interrupted = folder.interrupted().ok().flatten();
                if let Some(interrupted) = &interrupted {
                    // It is told once. If that cannot be noted it is told again.
                    let _again = folder.end(&interrupted.command, interrupted.at);
                }
                interrupted
            });
            if let Ok(Some(interrupted)) = interrupted.await {
                warn!(
                    session = self.session,
                    command = interrupted.command,
                    "a command was interrupted"
                );
                self.shared.store.log(LogRecord::Command {
                    session_id: self.session.clone(),
                    at: interrupted.at,
                    name: interrupted.command,
                    success: false,
                    execution_time_ms: 0.0,
                    error: Some(INTERRUPTED.to_owned()),
                });
            }
        }
        self.log_start(None, None);
        self.note_asleep();
        self.live(None).await;
    }

    async fn start(&mut self, request: &StartRequest) -> Result<Awake, SessionError> {
        if let Some(copy_of) = &request.copy_of {
            self.copy(copy_of).await?;
        }
        let seeded = if request.copy_of.is_some() { self.keeper.clone() } else { None };
        let up = bring_up(&self.shared, &self.session, seeded.as_ref()).await?;
        let mut awake = self.waken(up);
        self.log_start(request.client_ip.clone(), request.user_agent.clone());
        let measured = awake.worker.memory();
        let kept = async {
            if request.copy_of.is_none() {
                self.keep_beginning(&mut awake).await;
            }
        };
        let (measured, ()) = tokio::join!(measured, kept);
        self.note_memory(measured);
        Ok(awake)
    }

    fn waken(&mut self, BroughtUp { mut started, notice, portable }: BroughtUp) -> Awake {
        let migrated = started.migrated.take();
        let awake = Awake::new(started);
        self.note_migrated(migrated, &awake);
        let port = awake.port();
        let at = now();
        self.view.send_modify(|view| {
            view.status = Status::Awake;
            view.port = Some(port);
            view.last_activity = at;
            view.expires_at = None;
            view.notice = notice.or(view.notice.take());
        });
        self.used = Instant::now();
        if !portable {
            self.saved.want_portable();
        }
        awake
    }

    /// From awake to asleep and back, until the end.
    async fn live(mut self, mut awake: Option<Awake>) {
        loop {
            let leave = match &mut awake {
                Some(awake) => self.serve(awake).await,
                None => match self.sleep().await {
                    Ok(woken) => {
                        awake = Some(woken);
                        continue;
                    }
                    Err(leave) => leave,
                },
            };
            match leave {
                Leave::End(over) => return self.end(awake, over).await,
                Leave::ShutDown(done) => return self.shut_down(awake, done).await,
                Leave::Lost(lost) => {
                    let Some(gone) = awake.take() else { continue };
                    if self.keeper.is_none() {
                        return self.end(Some(gone), Over::died(&lost.why)).await;
                    }
                    self.lose(gone, &lost.why).await;
                }
                Leave::Sleep(done) => {
                    let Some(tired) = awake.take() else { continue };
                    awake = self.fall_asleep(tired).await;
                    done.map(|done| done.send(awake.is_none()));
                }
            }
        }
    }

    /// Serves with a worker.
    async fn serve(&mut self, awake: &mut Awake) -> Leave {
        let limit = self.shared.command_timeout();
        loop {
            let snapshots = self.keeper.is_some() && self.saved.with_every_change();
            let (queue, keeper) = (&mut self.queue, self.keeper.as_ref());
            let (cores, admission) = (&self.shared.cores, self.admission.as_ref());
            let sent = awake.send_what_may_go(queue, cores, keeper, snapshots, admission);
            if let Err(lost) = sent.await {
                return Leave::Lost(lost);
            }
            if self.queue.running().any(|(_, kind, _)| kind == CommandKind::Long) {
                awake.memory.ask_while_computing();
            }
            let deadline = Awake::next_deadline(&self.queue, limit);
            let save = self.saved.next();
            let leave = tokio::select! {
                event = awake.next() => self.note(event, awake),
                request = self.requests.recv() => self.serve_request(request, Some(awake)).await,
                () = at(deadline) => {
                    let limit = limit.unwrap_or(Duration::MAX);
                    awake.end_overdue(&mut self.queue, limit).await.err().map(Leave::Lost)
                }
                () = at(save.map(|(due, _)| due)) => match save {
                    Some((_, format)) => self.ask_for_bundle(awake, format).await,
                    None => None,
                }
            };
            if let Some(leave) = leave {
                return leave;
            }
        }
    }

    /// Waits until there is work, and then for a worker. Whatever cannot be done without one is done meanwhile.
    async fn sleep(&mut self) -> Result<Awake, Leave> {
        loop {
            if self.queue.is_idle() {
                let request = self.requests.recv().await;
                if let Some(leave) = self.serve_request(request, None).await {
                    return Err(leave);
                }
                continue;
            }
            let (shared, session) = (Arc::clone(&self.shared), self.session.clone());
            let keeper = self.keeper.clone();
            let owner = self.view.borrow().owner.clone();
            let mut bring_up = pin!(async move {
                shared.make_room_for(owner.as_ref()).await;
                bring_up(&shared, &session, keeper.as_ref()).await
            });
            loop {
                tokio::select! {
                    up = &mut bring_up => match up {
                        Ok(up) => {
                            let mut awake = self.waken(up);
                            // A command that the log leaves out asks for no measurement.
                            awake.memory.ask();
                            self.saved.begin_anew();
                            self.publish_saved();
                            self.log_start(None, None);
                            info!(session = self.session, port = awake.port(), "session awake");
                            return Ok(awake);
                        }
                        Err(error) => {
                            let reason = telling::without_workers_words(&error);
                            warn!(session = self.session, reason, "session not woken");
                            for queued in self.queue.drain() {
                                queued.work.refuse(error.clone());
                            }
                            break;
                        }
                    },
                    request = self.requests.recv() => {
                        if let Some(leave) = self.serve_request(request, None).await {
                            return Err(leave);
                        }
                    }
                }
            }
        }
    }

    async fn serve_request(
        &mut self,
        request: Option<Request>,
        awake: Option<&mut Awake>,
    ) -> Option<Leave> {
        // The manager holds the other end as long as the session is known.
        let Some(request) = request else {
            return Some(Leave::End(Over::manual("it was forgotten")));
        };
        match request {
            Request::Work(work) => self.queue_up(work),
            Request::End { reason, done } => {
                let message = format!("The session was ended ({})", reason.as_str());
                return Some(Leave::End(Over { reason, message, done: Some(done) }));
            }
            Request::ShutDown { done } => return Some(Leave::ShutDown(done)),
            Request::Look { idle_timeout } => return self.look(idle_timeout, awake.as_deref()),
            Request::Sleep { done } => match awake {
                Some(awake) if self.is_idle(awake) && self.keeper.is_some() => {
                    return Some(Leave::Sleep(Some(done)));
                }
                _ => drop(done.send(false)),
            },
            Request::Measure { done } => {
                self.touch();
                match awake {
                    Some(awake) => {
                        awake.memory.tell(done);
                        awake.memory.start(awake.worker.memory());
                    }
                    None => drop(done.send(0.0)),
                }
            }
            Request::UserInfo { info, done } => {
                self.touch();
                self.view.send_modify(|view| view.user_info.update(info));
                self.log_user_info(&self.view.borrow().user_info);
                let written = self.write_record();
                tokio::spawn(async move {
                    written.await;
                    let _gone = done.send(());
                });
            }
            Request::Files { in_all_forms, keeper } => {
                let answer = self.files(awake, in_all_forms).await;
                let _gone = keeper.send(answer);
            }
        }
        None
    }

    fn queue_up(&mut self, work: Work) {
        self.touch();
        if let Work::Command(command) = &work
            && let Some(reason) = self.strikes.refusal(&command.body)
        {
            return work.fail(&reason);
        }
        let queued = Queued::new(work);
        if let Err(refused) = self.queue.push(queued.kind, queued) {
            let depth = self.shared.settings.resources.queue_depth;
            refused.work.refuse(SessionError::QueueFull { depth });
        }
    }

    /// Whether the session is idle for so long, or asleep for as long as it is kept.
    fn look(&self, idle_timeout: Option<Duration>, awake: Option<&Awake>) -> Option<Leave> {
        let Some(awake) = awake else {
            let expired = self.view.borrow().expires_at.is_some_and(|at| now() >= at);
            return (expired && self.queue.is_idle()).then(|| {
                let message = "The session was kept as long as sessions are".to_owned();
                Leave::End(Over { reason: EndReason::Expired, message, done: None })
            });
        };
        let idle =
            self.is_idle(awake) && idle_timeout.is_some_and(|limit| self.used.elapsed() >= limit);
        let hibernate = self.shared.settings.session.on_idle == OnIdle::Hibernate;
        match (idle, hibernate && self.keeper.is_some()) {
            (false, _) => None,
            (true, true) => Some(Leave::Sleep(None)),
            (true, false) => Some(Leave::End(Over {
                reason: EndReason::IdleTimeout,
                message: "The session was idle for too long".to_owned(),
                done: None,
            })),
        }
    }

    fn is_idle(&self, awake: &Awake) -> bool {
        self.queue.is_idle() && awake.commits.is_empty()
    }

    fn note(&mut self, event: Event, awake: &mut Awake) -> Option<Leave> {
        match event {
            Event::Reply(message) => return self.note_reply(message, awake).err().map(Leave::Lost),
            Event::Committed(committed) => self.note_committed(committed, awake),
            Event::Measured(measured) => {
                self.note_memory(measured);
                awake.memory.finish(measured);
            }
            Event::Turn => {}
            Event::Broken(lost) => return Some(Leave::Lost(lost)),
            Event::Exited(lost) => {
                // What it answered before it died still counts.
                while let Some(message) = awake.last_words() {
                    if self.note_reply(message, awake).is_err() {
                        break;
                    }
                }
                return Some(Leave::Lost(lost));
            }
        }
        None
    }

    fn note_reply(&mut self, message: Message, awake: &mut Awake) -> Result<(), Lost> {
        if message.header.kind != Kind::Reply {
            return Ok(());
        }
        let number = message.header.seq;
        if let Some((format, change)) = awake.exports.remove(&number) {
            self.keep_bundle(message, format, change, awake);
            return Ok(());
        }
        let Some(queued) = self.queue.finished(number) else {
            warn!(session = self.session, number, "an answer to nothing asked");
            return awake.note_stray_reply();
        };
        if let Some(command) = queued.command() {
            self.strikes.clear(command);
        }
        let is_export = matches!(queued.work, Work::Export { .. });
        if message.header.changed.unwrap_or(false) && !is_export {
            self.publish_notice(&queued, message.header.notice.as_deref());
            self.keep_change(message, queued, awake);
            return Ok(());
        }
        self.note_over(&queued);
        self.answer(queued, message, awake);
        Ok(())
    }

    /// Answers what changed nothing.
    fn answer(&mut self, queued: Queued, message: Message, awake: &mut Awake) {
        let Message { header, body, attachments } = message;
        let success = header.success.unwrap_or(false);
        if let Work::Export { answer, .. } = queued.work {
            let given = match attachments.into_iter().next() {
                Some(given) if success => Ok(given),
                _ => Err(SessionError::Conflict(
                    header.error.unwrap_or_else(|| "The worker gave no Bundle".to_owned()),
                )),
            };
            let _gone = answer.send(given);
            return self.touch();
        }
        self.finish(queued, body, header, awake);
    }

    fn finish(&mut self, queued: Queued, body: Bytes, header: Header, awake: &mut Awake) {
        let success = header.success.unwrap_or(false);
        let reason = (!success).then(|| reason(&header));
        self.log_work(&queued, success, reason);
        if self.shared.store.logs_command(queued.work.name()) {
            awake.memory.ask();
        }
        match queued.work {
            Work::Command(command) => {
                command.answer(if body.starts_with(b"{") && body.ends_with(b"}") {
                    body
                } else {
                    failure("The worker's answer was not a JSON object")
                })
            }
            Work::Load { answer, .. } => {
                let problem = header.error.unwrap_or_else(|| "it gives no reason".to_owned());
                let _gone = answer.send(if success {
                    Ok(())
                } else {
                    Err(SessionError::BadBundle(problem))
                });
            }
            Work::Export { .. } => {}
        }
        self.touch();
    }
}

impl Over {
    fn manual(why: &str) -> Self {
        Self { reason: EndReason::Manual, message: format!("The session ended: {why}"), done: None }
    }

    fn died(why: &str) -> Self {
        let message = format!("The session's worker is gone: {why}");
        Self { reason: EndReason::ProcessDied, message, done: None }
    }
}

/// Waits until a moment; for ever if there is none.
pub(super) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
