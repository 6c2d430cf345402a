//! All sessions by id. It creates drivers, finds them, and ends them all at shutdown; it changes no session's state itself.

use std::collections::HashMap;
use std::io;
use std::num::NonZero;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use phoebe_protocol::command::SnapshotFormat;
use phoebe_protocol::packet::Info;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::cores::Cores;
use super::driver::Driver;
use super::keeper::Keeper;
use super::ports::PortPool;
use super::request::{Command, Request, Source, Work};
use super::{
    Answer, DiskView, EndReason, Owner, PortStatus, SessionError, SessionView, StartRequest,
    Status, UserInfo, now,
};
use crate::config::Settings;
use crate::store::Store;
use crate::store::snapshots::{DiskLimits, DiskUsage, SessionFolder, SessionRecord, SnapshotStore};
use crate::worker::Launcher;
use crate::worker::connection::Memory;

/// Requests that may wait for a driver. It takes them at once; commands wait in its own bounded queue.
const MAILBOX: usize = 64;
/// Sessions with so many bytes to be read at once are read one after the other.
const LARGE: u64 = 4 << 20;
/// Who waits for that turn is told after this time to come back.
const TURN: Duration = Duration::from_secs(60);

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
    /// Where sessions are kept; `None` where nothing is kept of them.
    pub(super) snapshots: Option<SnapshotStore>,
    pub(super) ports: PortPool,
    pub(super) cores: Cores,
    /// What answers occupy while they are received.
    pub(super) answers: Memory,
    /// One permit: for work on files that takes much memory.
    large: Arc<Semaphore>,
    sessions: Mutex<Sessions>,
    pub(super) drivers: TaskTracker,
    /// Cancelled when the manager shuts down: what is being started need not get ready any more.
    pub(super) closing: CancellationToken,
    /// When sessions were last asked to make room for others.
    pub(super) looked_for_room: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Sessions {
    known: HashMap<String, Session>,
    /// What the sessions of each user take on disk.
    users: HashMap<String, Arc<AtomicU64>>,
    closed: bool,
}

impl Sessions {
    /// What the sessions of a user take on disk.
    fn of_user(&mut self, id: &str) -> Arc<AtomicU64> {
        Arc::clone(self.users.entry(id.to_owned()).or_default())
    }
}

/// What others need of a session: where to send requests, where to look.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) view: watch::Receiver<SessionView>,
    /// One permit: for whoever asks it to make room.
    pub(super) asking: Arc<Semaphore>,
    /// What it takes on disk.
    disk: Arc<DiskUsage>,
}

impl SessionManager {
    /// A manager without sessions, whose workers come from `launcher` and whose files go to `snapshots`, if anything is to be kept.
    #[must_use]
    pub fn new(
        settings: Arc<Settings>,
        store: Store,
        launcher: Launcher,
        snapshots: Option<SnapshotStore>,
    ) -> Self {
        let pool = &settings.port_pool;
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let computes = match settings.resources.max_concurrent_computes {
            0 => cores,
            bound => bound,
        };
        let shared = Shared {
            ports: PortPool::new(pool.start..pool.end),
            cores: Cores::new(cores, computes),
            answers: Memory::new(mebibytes(settings.resources.max_answer_mb)),
            settings,
            store,
            launcher,
            snapshots,
            large: Arc::new(Semaphore::new(1)),
            sessions: Mutex::default(),
            drivers: TaskTracker::new(),
            closing: CancellationToken::new(),
            looked_for_room: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes over the sessions that an earlier server left, asleep. `last_activity` is what the log knows of it.
    ///
    /// # Errors
    /// When the folder of sessions cannot be read.
    pub fn take_over(&self, last_activity: &HashMap<String, f64>) -> io::Result<usize> {
        let Some(snapshots) = &self.shared.snapshots else { return Ok(0) };
        let records = snapshots.sessions()?;
        let count = records.len();
        for record in records {
            let changed = snapshots.session(&record.session_id).last_change();
            let logged = last_activity.get(&record.session_id).copied();
            // A clock that was set back makes no session older than it is.
            let latest =
                [changed, logged].into_iter().flatten().fold(record.last_activity, f64::max);
            let driver = self.shared.know(view_of(record, latest.min(now())));
            self.shared.drivers.spawn(driver.run_kept());
        }
        Ok(count)
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
        let known = self.shared.all();
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
        self.ask(id, |answer| Request::Work(Work::Command(Command { name, body, answer }))).await?
    }

    /// Takes the last change back.
    ///
    /// # Errors
    /// [`SessionError::Conflict`] where there is nothing to take back.
    pub async fn undo(&self, id: &str) -> Result<(), SessionError> {
        self.load(id, Source::Undo).await
    }

    /// Makes the change again that was taken back last.
    ///
    /// # Errors
    /// [`SessionError::Conflict`] where nothing was taken back.
    pub async fn redo(&self, id: &str) -> Result<(), SessionError> {
        self.load(id, Source::Redo).await
    }

    /// Goes back to a checkpoint; that is a change like others.
    ///
    /// # Errors
    /// [`SessionError::NoCheckpoint`].
    pub async fn restore_checkpoint(&self, id: &str, checkpoint: &str) -> Result<(), SessionError> {
        self.load(id, Source::Checkpoint(checkpoint.to_owned())).await
    }

    /// Replaces the Bundle by one in a file of any kind that PHOEBE imports.
    ///
    /// # Errors
    /// [`SessionError::BadBundle`] with PHOEBE's reason.
    pub async fn upload(&self, id: &str, file: Bytes) -> Result<(), SessionError> {
        self.load(id, Source::File(file)).await
    }

    async fn load(&self, id: &str, source: Source) -> Result<(), SessionError> {
        self.ask(id, |answer| Request::Work(Work::Load { source, answer })).await?
    }

    /// The Bundle in some form, or the script that makes it.
    ///
    /// # Errors
    /// [`SessionError::Conflict`] with PHOEBE's reason, or why no script makes the Bundle.
    pub async fn export(&self, id: &str, format: SnapshotFormat) -> Result<Bytes, SessionError> {
        let turn = match format {
            SnapshotFormat::Script => self.shared.turn(id).await?,
            _ => None,
        };
        self.ask(id, |answer| Request::Work(Work::Export { format, answer, turn })).await?
    }

    /// What a session takes on disk; `None` where nothing is kept, or there is no such session.
    #[must_use]
    pub fn disk(&self, id: &str) -> Option<DiskView> {
        self.shared.snapshots.as_ref()?;
        let disk = self.shared.find(id).ok()?.disk;
        let (bytes, user_bytes) = (disk.bytes(), disk.user_bytes());
        Some(DiskView { bytes, user_bytes, bounds: self.shared.disk_bounds() })
    }

    /// Whether a session has room for another copy of its Bundle.
    ///
    /// # Errors
    /// [`SessionError::DiskFull`].
    pub fn admit_copy(&self, id: &str) -> Result<(), SessionError> {
        let disk = self.shared.find(id)?.disk;
        disk.admit(2 * disk.snapshot(), self.shared.disk_bounds()).map_err(SessionError::DiskFull)
    }

    /// Works on a session's files, in turn with everything else that does, and with all changes on them.
    ///
    /// # Errors
    /// [`SessionError::Conflict`] where nothing is kept, or not now.
    pub async fn with_files<T: Send + 'static>(
        &self,
        id: &str,
        job: impl FnOnce(&mut SessionFolder) -> T + Send + 'static,
    ) -> Result<T, SessionError> {
        on_files(self.shared.files(id, false).await?, job).await
    }

    /// Like [`Self::with_files`], where the Bundle is also on disk in the form that survives an upgrade, if PHOEBE can write it.
    ///
    /// # Errors
    /// [`SessionError::Conflict`] where nothing is kept, or not now.
    pub async fn with_all_forms<T: Send + 'static>(
        &self,
        id: &str,
        job: impl FnOnce(&mut SessionFolder) -> T + Send + 'static,
    ) -> Result<T, SessionError> {
        on_files(self.shared.files(id, true).await?, job).await
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

    /// What the Python side says of itself: versions, passbands. Waits until PHOEBE is imported.
    ///
    /// # Errors
    /// [`SessionError::StartFailed`] if it cannot be imported.
    pub async fn python_info(&self) -> Result<Arc<Info>, SessionError> {
        self.shared.python_info().await
    }

    /// The passbands that sessions can use now, sorted by name. Waits until PHOEBE is imported.
    ///
    /// # Errors
    /// [`SessionError::StartFailed`] if it cannot be imported.
    pub async fn passbands(&self) -> Result<Vec<String>, SessionError> {
        let passbands = self.shared.launcher.passbands().await;
        passbands.map_err(|error| SessionError::StartFailed(error.to_string()))
    }

    /// Looks after sessions that nobody uses, as long as the manager lives: they go to sleep or end. To be run as a task.
    pub async fn look_after_idle_sessions(self) {
        let settings = &self.shared.settings.session;
        let limit = |seconds: f64| (seconds > 0.0).then(|| Duration::from_secs_f64(seconds));
        let idle_timeout = limit(settings.idle_timeout_seconds);
        let shortest =
            [idle_timeout, limit(settings.retention_seconds)].into_iter().flatten().min();
        let every =
            shortest.map_or(LONGEST_LOOK, |limit| (limit / 10).clamp(SHORTEST_LOOK, LONGEST_LOOK));
        let mut look = tokio::time::interval(every);
        loop {
            look.tick().await;
            self.shared.relieve_memory().await;
            for session in self.shared.all() {
                // A driver whose mailbox is full is not idle.
                let _busy = session.requests.try_send(Request::Look { idle_timeout });
            }
        }
    }

    /// Leaves all sessions, kept or ended, starts no more, and waits until every process is gone.
    pub async fn shut_down(&self) {
        self.shared.lock().closed = true;
        self.shared.closing.cancel();
        let ends = self.shared.all().into_iter().map(|session| async move {
            let (done, ended) = oneshot::channel();
            if session.requests.send(Request::ShutDown { done }).await.is_ok() {
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

fn mebibytes(count: u64) -> usize {
    usize::try_from(count).map_or(usize::MAX, |count| count.saturating_mul(1024 * 1024))
}

async fn on_files<T: Send + 'static>(
    keeper: Keeper,
    job: impl FnOnce(&mut SessionFolder) -> T + Send + 'static,
) -> Result<T, SessionError> {
    keeper.run(job).await.map_err(|error| SessionError::Conflict(error.to_string()))
}

/// A session that an earlier server left, as it is before anybody uses it.
fn view_of(record: SessionRecord, last_activity: f64) -> SessionView {
    let full_name = record.full_name.unwrap_or_default();
    SessionView {
        session_id: record.session_id,
        created_at: record.created_at,
        last_activity,
        mem_used: 0.0,
        port: None,
        owner: record.user_id.map(|user_id| Owner { user_id, full_name }),
        project_name: record.project_name,
        user_info: UserInfo {
            first_name: record.first_name,
            last_name: record.last_name,
            email: record.email,
        },
        metadata: record.metadata,
        status: Status::Asleep,
        unsaved: None,
        notice: None,
        expires_at: None,
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
        let owned = |session: &&Session| {
            let view = session.view.borrow();
            view.owner == request.owner && view.status != Status::Asleep
        };
        let all = self.settings.resources.max_sessions_per_user;
        let owned_at_all = |session: &&Session| {
            request.owner.is_some() && session.view.borrow().owner == request.owner
        };
        if all > 0 && sessions.known.values().filter(owned_at_all).count() >= all {
            return Err(SessionError::UserLimit { limit: all });
        }
        let limited = limit > 0 && request.owner.is_some();
        if limited && sessions.known.values().filter(owned).count() >= limit {
            return Err(SessionError::UserLimit { limit });
        }
        self.admit_to_disk(&mut sessions, request)?;
        let at = now();
        let view = SessionView {
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
            unsaved: None,
            notice: None,
            expires_at: None,
        };
        Ok(self.know_among(&mut sessions, view))
    }

    /// Makes a session known that begins as `view` says.
    fn know(self: &Arc<Self>, view: SessionView) -> Driver {
        self.know_among(&mut self.lock(), view)
    }

    fn know_among(self: &Arc<Self>, sessions: &mut Sessions, view: SessionView) -> Driver {
        let id = view.session_id.clone();
        let (publish, view) = watch::channel(view);
        let (requests, mailbox) = mpsc::channel(MAILBOX);
        let asking = Arc::new(Semaphore::new(1));
        let user = view.borrow().owner.as_ref().map(|owner| sessions.of_user(&owner.user_id));
        let disk = Arc::new(DiskUsage::new(user));
        let session = Session { requests, view, asking, disk: Arc::clone(&disk) };
        sessions.known.insert(id, session);
        Driver::new(Arc::clone(self), mailbox, publish, disk)
    }

    /// Whether there is room on disk for what a new session begins with.
    fn admit_to_disk(
        &self,
        sessions: &mut Sessions,
        request: &StartRequest,
    ) -> Result<(), SessionError> {
        let original = request.copy_of.as_ref().and_then(|copy| sessions.known.get(&copy.session));
        let need = original
            .map_or(0, |session| session.disk.script_source() + 2 * session.disk.snapshot());
        let user = request.owner.as_ref().map(|owner| sessions.of_user(&owner.user_id));
        // A session takes something in any case.
        let fresh = DiskUsage::new(user);
        fresh.admit(need.max(1), self.disk_bounds()).map_err(SessionError::DiskFull)
    }

    /// What sessions may take on disk.
    pub(super) fn disk_bounds(&self) -> DiskLimits {
        let resources = &self.settings.resources;
        let bytes = |mebibytes: u64| mebibytes.saturating_mul(1 << 20);
        DiskLimits {
            session: bytes(resources.max_disk_mb_per_session),
            user: bytes(resources.max_disk_mb_per_user),
        }
    }

    /// The turn of work that has a session's journal and what it begins with in memory; `None` where
    /// that is little.
    pub(super) async fn turn(
        &self,
        id: &str,
    ) -> Result<Option<OwnedSemaphorePermit>, SessionError> {
        let disk = self.find(id)?.disk;
        if disk.script_source() + disk.snapshot() < LARGE {
            return Ok(None);
        }
        let turn = timeout(TURN, Arc::clone(&self.large).acquire_owned()).await;
        match turn {
            Ok(Ok(turn)) => Ok(Some(turn)),
            _ => Err(SessionError::Overloaded(
                "Other large sessions are being copied or written as scripts".to_owned(),
            )),
        }
    }

    /// A session's files, with everything on them that is acknowledged.
    pub(super) async fn files(&self, id: &str, in_all_forms: bool) -> Result<Keeper, SessionError> {
        let session = self.find(id)?;
        let (keeper, given) = oneshot::channel();
        let request = Request::Files { in_all_forms, keeper };
        session.requests.send(request).await.map_err(|_| SessionError::NotFound)?;
        given.await.unwrap_or(Err(SessionError::NotFound))
    }

    pub(super) fn all(&self) -> Vec<Session> {
        self.lock().known.values().cloned().collect()
    }

    /// See [`SessionManager::python_info`].
    pub(super) async fn python_info(&self) -> Result<Arc<Info>, SessionError> {
        let info = self.launcher.info().await;
        info.map_err(|error| SessionError::StartFailed(error.to_string()))
    }

    fn find(&self, id: &str) -> Result<Session, SessionError> {
        self.lock().known.get(id).cloned().ok_or(SessionError::NotFound)
    }

    /// Makes a session unknown: nobody can send it anything from now on.
    pub(super) fn forget(&self, id: &str) {
        let mut sessions = self.lock();
        sessions.known.remove(id);
        sessions.users.retain(|_, bytes| Arc::strong_count(bytes) > 1);
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
