//! The one task that owns a session: its worker, its queue, its state.
//!
//! Everybody else sends it a [`Request`] and reads what it publishes. It ends when the session has ended, and by then the worker is
//! gone, the port is free and the end is logged.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use phoebe_protocol::command::{Kind, Message};
use phoebe_protocol::packet::CommandKind;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::cores::{CoreGrant, CoreWait, Cores};
use super::manager::Shared;
use super::memory::MemoryWatch;
use super::ports::PortLease;
use super::queue::CommandQueue;
use super::request::{Command, Request, failure};
use super::start::{self, Started};
use super::{EndReason, SessionError, SessionView, StartRequest, Status, UserInfo, now};
use crate::store::LogRecord;
use crate::worker::connection::{Commands, ConnectionError, Replies};
use crate::worker::{Exit, Worker};

/// A worker that is asked to end has so long before it is made to.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// A command that has run out of time, and its runner ended, has so long to answer that.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// A command in the queue.
struct Queued {
    command: Command,
    /// When it went to the worker.
    sent: Option<Instant>,
    /// Whether its time was over and it was asked to end.
    overdue: bool,
    /// The cores it computes on.
    cores: Option<CoreGrant>,
}

/// A session that is being started or lives.
pub(super) struct Driver {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    view: watch::Sender<SessionView>,
    session: String,
    /// When it was used last, by a clock that nobody sets.
    used: Instant,
}

/// What a living session has besides.
struct Awake {
    worker: Worker,
    commands: Commands,
    replies: Replies,
    queue: CommandQueue<Queued>,
    cores: CoreWait,
    memory: MemoryWatch,
    port: PortLease,
}

/// Why the driver's loop is over.
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
    ) -> Self {
        let session = view.borrow().session_id.clone();
        Self { shared, requests, view, session, used: Instant::now() }
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
                warn!(session = self.session, %error, "session not started");
                self.forget();
                let _gone = started.send(Err(error));
                return;
            }
        };
        let view = self.view.borrow().clone();
        info!(session = self.session, port = view.port, "session started");
        // Whoever gave up waiting never learned the id: nobody can use the session, so it ends.
        let over = if started.send(Ok(view)).is_ok() {
            None
        } else {
            Some(Over::manual("its client left before it was ready"))
        };
        self.live(awake, over).await;
    }

    async fn start(&mut self, request: &StartRequest) -> Result<Awake, SessionError> {
        let Started { worker, commands, replies, port } =
            start::start(&self.shared, &self.session).await?;
        let memory = worker.memory().await.unwrap_or_default();
        let number = port.port();
        self.view.send_modify(|view| {
            view.status = Status::Awake;
            view.port = Some(number);
            view.last_activity = now();
        });
        self.used = Instant::now();
        self.log_start(request, number);
        self.note_memory(Some(memory));
        Ok(Awake {
            worker,
            commands,
            replies,
            queue: CommandQueue::new(self.shared.settings.resources.queue_depth),
            cores: CoreWait::default(),
            memory: MemoryWatch::default(),
            port,
        })
    }

    fn log_start(&self, request: &StartRequest, port: u16) {
        let view = self.view.borrow();
        let store = &self.shared.store;
        store.log(LogRecord::SessionStarted {
            session_id: view.session_id.clone(),
            created_at: view.created_at,
            port,
            client_ip: request.client_ip.clone(),
            user_agent: request.user_agent.clone(),
            user_id: view.owner.as_ref().map(|owner| owner.user_id.clone()),
            full_name: view.owner.as_ref().map(|owner| owner.full_name.clone()),
            project_name: view.project_name.clone(),
        });
        if view.user_info != UserInfo::default() {
            self.log_user_info(&view.user_info);
        }
    }

    fn log_user_info(&self, info: &UserInfo) {
        let UserInfo { first_name, last_name, email } = info.clone();
        self.shared.store.log(LogRecord::UserInfo {
            session_id: self.session.clone(),
            at: now(),
            first_name,
            last_name,
            email,
        });
    }

    async fn live(mut self, mut awake: Awake, over: Option<Over>) {
        let over = match over {
            Some(over) => over,
            None => self.serve(&mut awake).await,
        };
        self.end(awake, over).await;
    }

    /// Serves until the session is over.
    async fn serve(&mut self, awake: &mut Awake) -> Over {
        loop {
            if let Err(error) = awake.send_what_may_go(&self.shared.cores).await {
                return Over::died(&error.to_string());
            }
            let deadline = awake.next_deadline(&self.shared);
            let Awake { worker, replies, memory, cores, .. } = &mut *awake;
            let measure = memory.due();
            tokio::select! {
                reply = replies.next() => match reply {
                    Ok(message) => self.note(message, awake),
                    Err(error) => return connection_lost(error, worker).await,
                },
                request = self.requests.recv() => match request {
                    // The manager holds the other end as long as the session is known.
                    None => return Over::manual("it was forgotten"),
                    Some(request) => {
                        if let Some(over) = self.serve_request(request, awake) {
                            return over;
                        }
                    }
                },
                exit = worker.ended() => {
                    // What it answered before it died still counts.
                    while let Some(Ok(message)) = awake.replies.next().now_or_never() {
                        self.note(message, awake);
                    }
                    return Over::exited(exit);
                }
                measured = memory.measured() => {
                    self.note_memory(measured);
                    awake.memory.finish(measured);
                }
                () = cores.turn() => {}
                () = at(measure) => awake.memory.start(awake.worker.memory()),
                () = at(deadline) => {
                    if let Some(over) = self.end_overdue(awake).await {
                        return over;
                    }
                }
            }
        }
    }

    fn serve_request(&mut self, request: Request, awake: &mut Awake) -> Option<Over> {
        match request {
            Request::Command(command) => {
                self.touch();
                let kind = self.shared.kind_of(&command.name);
                let queued = Queued { command, sent: None, overdue: false, cores: None };
                if let Err(refused) = awake.queue.push(kind, queued) {
                    let depth = self.shared.settings.resources.queue_depth;
                    refused.command.refuse(SessionError::QueueFull { depth });
                }
            }
            Request::End { reason, done } => {
                let message = format!("The session was ended ({})", reason.as_str());
                return Some(Over { reason, message, done: Some(done) });
            }
            Request::EndIfIdle { timeout } => {
                if awake.queue.is_idle() && self.used.elapsed() >= timeout {
                    return Some(Over {
                        reason: EndReason::IdleTimeout,
                        message: "The session was idle for too long".to_owned(),
                        done: None,
                    });
                }
            }
            Request::Measure { done } => {
                self.touch();
                awake.memory.tell(done);
                awake.memory.start(awake.worker.memory());
            }
            Request::UserInfo { info, done } => {
                self.touch();
                self.view.send_modify(|view| view.user_info.update(info));
                self.log_user_info(&self.view.borrow().user_info);
                let _gone = done.send(());
            }
        }
        None
    }

    /// Notes that the session is being used now.
    fn touch(&mut self) {
        let at = now();
        self.used = Instant::now();
        self.view.send_modify(|view| view.last_activity = at);
        self.shared.store.log(LogRecord::SessionActivity { session_id: self.session.clone(), at });
    }

    fn note(&mut self, message: Message, awake: &mut Awake) {
        let header = message.header;
        if header.kind != Kind::Reply {
            return;
        }
        let Some(queued) = awake.queue.finished(header.seq) else {
            warn!(session = self.session, number = header.seq, "an answer to nothing asked");
            return;
        };
        let success = header.success.unwrap_or(false);
        self.log_command(&queued, success, header.error);
        if self.shared.store.logs_command(&queued.command.name) {
            awake.memory.ask();
        }
        let answer = if message.body.starts_with(b"{") && message.body.ends_with(b"}") {
            message.body
        } else {
            failure("The worker's answer was not a JSON object")
        };
        queued.command.answer(answer);
        self.touch();
    }

    fn log_command(&self, queued: &Queued, success: bool, error: Option<String>) {
        let elapsed = queued.sent.map_or(Duration::ZERO, |sent| sent.elapsed());
        self.shared.store.log(LogRecord::Command {
            session_id: self.session.clone(),
            at: now(),
            name: queued.command.name.clone(),
            success,
            execution_time_ms: elapsed.as_secs_f64() * 1000.0,
            error,
        });
    }

    fn note_memory(&self, measured: Option<f64>) {
        let Some(mib) = measured else { return };
        self.view.send_modify(|view| view.mem_used = mib);
        self.shared.store.log(LogRecord::Memory {
            session_id: self.session.clone(),
            at: now(),
            memory_used_mb: mib,
        });
    }

    /// Ends runners whose command took too long; a worker that cannot be helped that way is given up.
    async fn end_overdue(&self, awake: &mut Awake) -> Option<Over> {
        let limit = self.shared.command_timeout()?;
        let now = Instant::now();
        let mut cancel = Vec::new();
        for (number, kind, queued) in awake.queue.running_mut() {
            let Some(sent) = queued.sent else { continue };
            let seconds = limit.as_secs_f64();
            if now >= sent + limit + CANCEL_GRACE {
                return Some(Over::died(&format!(
                    "a command took longer than {seconds} s and could not be stopped"
                )));
            }
            if now >= sent + limit && !queued.overdue {
                queued.overdue = true;
                if kind == CommandKind::Long {
                    cancel.push((number, format!("it took longer than {seconds} s")));
                }
            }
        }
        for (number, reason) in cancel {
            if let Err(error) = awake.commands.cancel(number, &reason).await {
                return Some(Over::died(&error.to_string()));
            }
        }
        None
    }

    /// Ends the session: nobody finds it any more, the worker goes, the port is freed, the end is logged, and everybody who
    /// waits gets an answer.
    async fn end(mut self, mut awake: Awake, over: Over) {
        let Over { reason, message, done } = over;
        self.forget();
        self.requests.close();
        self.view.send_modify(|view| view.status = Status::Ended);
        for queued in awake.queue.drain() {
            self.log_command(&queued, false, Some(message.clone()));
            queued.command.answer(failure(&message));
        }
        if awake.memory.due().is_some() && reason != EndReason::ServerShutdown {
            // The last commands' memory is still to be logged.
            self.note_memory(awake.worker.memory().await);
        }
        let exit = awake.worker.stop(STOP_GRACE).await;
        drop(awake.port);
        self.shared.store.log(LogRecord::SessionEnded {
            session_id: self.session.clone(),
            at: now(),
            reason: reason.as_str(),
        });
        info!(session = self.session, reason = reason.as_str(), %exit, why = message, "session ended");
        let mut waiting: Vec<_> = done.into_iter().collect();
        while let Some(request) = self.requests.recv().await {
            match request {
                Request::Command(command) => command.refuse(SessionError::NotFound),
                Request::End { done, .. } => waiting.push(done),
                // Their answer's end closes, which says the same.
                Request::EndIfIdle { .. } | Request::Measure { .. } | Request::UserInfo { .. } => {}
            }
        }
        for done in waiting {
            let _gone = done.send(());
        }
    }

    fn forget(&self) {
        self.shared.forget(&self.session);
    }
}

impl Awake {
    async fn send_what_may_go(&mut self, cores: &Cores) -> Result<(), ConnectionError> {
        loop {
            let wants_cores = self.queue.ready(true) == Some(CommandKind::Long);
            let grant = if wants_cores { self.cores.take_or_ask(cores) } else { None };
            let Some((kind, mut queued)) = self.queue.next(grant.is_some()) else {
                return Ok(());
            };
            queued.sent = Some(Instant::now());
            let cores = grant.as_ref().map(CoreGrant::cores);
            queued.cores = grant;
            match self.commands.request(queued.command.body.clone(), cores).await {
                Ok(number) => self.queue.started(number, kind, queued),
                Err(error) => {
                    // It is still to be answered, with all others.
                    self.queue.started(u64::MAX, kind, queued);
                    return Err(error);
                }
            }
        }
    }

    /// When the next command will have run out of time.
    fn next_deadline(&self, shared: &Shared) -> Option<Instant> {
        let limit = shared.command_timeout()?;
        let deadlines = self.queue.running().filter_map(|(_, _, queued)| {
            let grace = if queued.overdue { CANCEL_GRACE } else { Duration::ZERO };
            Some(queued.sent? + limit + grace)
        });
        deadlines.min()
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

    fn exited(exit: Exit) -> Self {
        Self::died(&format!("its process ended ({exit})"))
    }
}

/// Waits until a moment; for ever if there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// A connection breaks when its worker dies; then how it died is the better word.
async fn connection_lost(error: ConnectionError, worker: &Worker) -> Over {
    match timeout(Duration::from_millis(500), worker.ended()).await {
        Ok(exit) => Over::exited(exit),
        Err(_) => Over::died(&error.to_string()),
    }
}
