//! All sessions by id. It creates drivers, finds them, and ends them all at shutdown; it changes no session's state itself.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use phoebe_protocol::packet::{CommandKind, Info};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::cores::Cores;
use super::driver::Driver;
use super::ports::PortPool;
use super::request::{Command, Request};
use super::{
    Answer, EndReason, PortStatus, SessionError, SessionView, StartRequest, Status, UserInfo, now,
};
use crate::config::Settings;
use crate::store::Store;
use crate::worker::Launcher;

/// Requests that may wait for a driver. It takes them at once; commands wait in its own bounded queue.
const MAILBOX: usize = 64;

/// Handle to all sessions; cheap to clone.
#[derive(Clone)]
pub struct SessionManager {
    shared: Arc<Shared>,
}

/// What the manager and all drivers have in common.
pub(super) struct Shared {
    pub(super) settings: Arc<Settings>,
    pub(super) store: Store,
    pub(super) launcher: Launcher,
    pub(super) ports: PortPool,
    pub(super) cores: Cores,
    info: OnceLock<Arc<Info>>,
    sessions: Mutex<Sessions>,
    drivers: TaskTracker,
    /// Cancelled when the manager shuts down: what is being started need not get ready any more.
    pub(super) closing: CancellationToken,
}

#[derive(Default)]
struct Sessions {
    known: HashMap<String, Session>,
    closed: bool,
}

/// What others need of a session: where to send requests, where to look.
#[derive(Clone)]
struct Session {
    requests: mpsc::Sender<Request>,
    view: watch::Receiver<SessionView>,
}

impl SessionManager {
    /// A manager without sessions, whose workers come from `launcher`.
    #[must_use]
    pub fn new(settings: Arc<Settings>, store: Store, launcher: Launcher) -> Self {
        let pool = &settings.port_pool;
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let computes = match settings.resources.max_concurrent_computes {
            0 => cores,
            bound => bound,
        };
        let shared = Shared {
            ports: PortPool::new(pool.start..pool.end),
            cores: Cores::new(cores, computes),
            settings,
            store,
            launcher,
            info: OnceLock::new(),
            sessions: Mutex::default(),
            drivers: TaskTracker::new(),
            closing: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Starts a session and waits until its worker answered a ping. A caller who does not wait for the end gets no session.
    ///
    /// # Errors
    /// Limits, ports, or the worker; everything is undone then.
    pub async fn start(&self, request: StartRequest) -> Result<SessionView, SessionError> {
        let (answer, started) = oneshot::channel();
        let driver = self.shared.admit(&request)?;
        self.shared.drivers.spawn(driver.run(request, answer));
        started.await.unwrap_or(Err(SessionError::ShuttingDown))
    }

    /// Ends a session and waits until its worker is gone and its port free.
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    pub async fn end(&self, id: &str, reason: EndReason) -> Result<(), SessionError> {
        self.ask(id, |done| Request::End { reason, done }).await
    }

    /// One session as it is now.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<SessionView> {
        Some(self.shared.find(id).ok()?.view.borrow().clone())
    }

    /// All sessions as they are now, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<SessionView> {
        let known: Vec<Session> = self.shared.lock().known.values().cloned().collect();
        let mut views: Vec<_> = known.iter().map(|session| session.view.borrow().clone()).collect();
        views.retain(|view| view.status != Status::Starting);
        views.sort_by(|left, right| left.created_at.total_cmp(&right.created_at));
        views
    }

    /// Measures a session's memory now, in MiB.
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    pub async fn measure_memory(&self, id: &str) -> Result<f64, SessionError> {
        self.ask(id, |done| Request::Measure { done }).await
    }

    /// Sends one command, `name` being its `command` field, and waits for the answer.
    ///
    /// # Errors
    /// Unknown session, full queue. A command that fails is an `Ok` answer that says so.
    pub async fn send(&self, id: &str, name: &str, body: Bytes) -> Result<Answer, SessionError> {
        let name = name.to_owned();
        self.ask(id, |answer| Request::Command(Command { name, body, answer })).await?
    }

    /// Replaces the fields of the user's information that are given.
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    pub async fn update_user_info(&self, id: &str, info: UserInfo) -> Result<(), SessionError> {
        self.ask(id, |done| Request::UserInfo { info, done }).await
    }

    /// The port pool as it is now.
    #[must_use]
    pub fn port_status(&self) -> PortStatus {
        self.shared.ports.status()
    }

    /// What the Python side says of itself: versions, passbands, commands. Waits until PHOEBE is imported.
    ///
    /// # Errors
    /// [`SessionError::StartFailed`] if it cannot be imported.
    pub async fn python_info(&self) -> Result<Arc<Info>, SessionError> {
        self.shared.python_info().await
    }

    /// Ends sessions that nobody uses, as long as the manager lives. To be run as a task.
    pub async fn end_idle_sessions(self) {
        let timeout = Duration::from_secs_f64(self.shared.settings.session.idle_timeout_seconds);
        if timeout.is_zero() {
            return;
        }
        let mut look = tokio::time::interval((timeout / 10).clamp(SHORTEST_LOOK, LONGEST_LOOK));
        loop {
            look.tick().await;
            let sessions: Vec<Session> = self.shared.lock().known.values().cloned().collect();
            for session in sessions {
                // A driver whose mailbox is full is not idle.
                let _busy = session.requests.try_send(Request::EndIfIdle { timeout });
            }
        }
    }

    /// Ends all sessions, starts no more, and waits until every process is gone.
    pub async fn shut_down(&self) {
        let sessions: Vec<Session> = {
            let mut sessions = self.shared.lock();
            sessions.closed = true;
            sessions.known.values().cloned().collect()
        };
        self.shared.closing.cancel();
        let ends = sessions.into_iter().map(|session| async move {
            let (done, ended) = oneshot::channel();
            let end = Request::End { reason: EndReason::ServerShutdown, done };
            if session.requests.send(end).await.is_ok() {
                let _gone = ended.await;
            }
        });
        futures::future::join_all(ends).await;
        self.shared.drivers.close();
        self.shared.drivers.wait().await;
        self.shared.launcher.shut_down().await;
    }

    async fn ask<T>(
        &self,
        id: &str,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, SessionError> {
        let session = self.shared.find(id)?;
        let (answer, answered) = oneshot::channel();
        let request = request(answer);
        session.requests.send(request).await.map_err(|_| SessionError::NotFound)?;
        answered.await.map_err(|_| SessionError::NotFound)
    }
}

/// Bounds of how often idle sessions are looked for.
const SHORTEST_LOOK: Duration = Duration::from_millis(100);
const LONGEST_LOOK: Duration = Duration::from_secs(30);

impl Shared {
    /// Makes a session known, in the state `starting`, if the limits allow it.
    fn admit(self: &Arc<Self>, request: &StartRequest) -> Result<Driver, SessionError> {
        let limit = self.settings.resources.max_workers_per_user;
        let mut sessions = self.lock();
        if sessions.closed {
            return Err(SessionError::ShuttingDown);
        }
        let owned = |session: &&Session| session.view.borrow().owner == request.owner;
        let limited = limit > 0 && request.owner.is_some();
        if limited && sessions.known.values().filter(owned).count() >= limit {
            return Err(SessionError::UserLimit { limit });
        }
        let at = now();
        let (publish, view) = watch::channel(SessionView {
            session_id: Uuid::new_v4().to_string(),
            created_at: at,
            last_activity: at,
            mem_used: 0.0,
            port: None,
            owner: request.owner.clone(),
            project_name: request.project_name.clone(),
            user_info: request.user_info.clone(),
            metadata: request.metadata.clone(),
            status: Status::Starting,
        });
        let (requests, mailbox) = mpsc::channel(MAILBOX);
        let id = view.borrow().session_id.clone();
        sessions.known.insert(id, Session { requests, view });
        Ok(Driver::new(Arc::clone(self), mailbox, publish))
    }

    /// See [`SessionManager::python_info`].
    pub(super) async fn python_info(&self) -> Result<Arc<Info>, SessionError> {
        let info = self.launcher.info().await;
        let info = info.map_err(|error| SessionError::StartFailed(error.to_string()))?;
        // Kept for the kinds of commands: also while a zygote is being replaced.
        Ok(Arc::clone(self.info.get_or_init(|| info)))
    }

    fn find(&self, id: &str) -> Result<Session, SessionError> {
        self.lock().known.get(id).cloned().ok_or(SessionError::NotFound)
    }

    /// Makes a session unknown: nobody can send it anything from now on.
    pub(super) fn forget(&self, id: &str) {
        self.lock().known.remove(id);
    }

    /// How a command touches the Bundle. An unknown one is run by itself, in its place.
    pub(super) fn kind_of(&self, command: &str) -> CommandKind {
        let kind = self.info.get().and_then(|info| info.commands.get(command));
        kind.copied().unwrap_or(CommandKind::Change)
    }

    /// How long a command may take, if there is a limit.
    pub(super) fn command_timeout(&self) -> Option<Duration> {
        let seconds = self.settings.resources.command_timeout_seconds;
        (seconds > 0.0).then(|| Duration::from_secs_f64(seconds))
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
