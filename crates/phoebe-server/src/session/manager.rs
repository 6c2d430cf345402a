//! All sessions by id. It creates drivers, finds them, and ends them all at shutdown. It changes no
//! session's state itself.

use std::collections::HashMap;
use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use phoebe_protocol::command::SnapshotFormat;
use phoebe_protocol::kinds::{self, CommandKind};
use phoebe_protocol::packet::Info;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use uuid::Uuid;

use super::cores::Cores;
use super::driver::{Driver, Published};
use super::error::SessionError;
use super::events::events;
use super::job::{Board, NewJob, Requester};
use super::ports::PortPool;
use super::request::{Command, Request, Source, Work};
use super::shared::{Session, Sessions, Shared};
use super::view::{
    Answer, DiskView, EndReason, Owner, PortStatus, SessionView, StartRequest, Status, UserInfo,
    now,
};
use crate::config::Settings;
use crate::metrics::Start;
use crate::store::snapshots::{DiskUsage, SessionFolder, SessionRecord, SnapshotStore};
use crate::store::{Store, StoredJob};
use crate::worker::Launcher;
use crate::worker::connection::Memory;

/// Requests that may wait for a driver. It takes them at once; commands wait in its own queue.
const MAILBOX: usize = 64;
/// Bounds of how often idle sessions are looked for.
const SHORTEST_LOOK: Duration = Duration::from_millis(100);
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// Handle to all sessions; cheap to clone.
#[derive(Clone)]
pub struct SessionManager {
    shared: Arc<Shared>,
}

impl SessionManager {
    /// A manager without sessions. Its workers come from `launcher` and its files go to
    /// `snapshots`, if anything is to be kept.
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
        let ports = PortPool::new(pool.start..pool.end);
        let cores = Cores::new(cores, computes);
        let answers = Memory::new(mebibytes(settings.resources.max_answer_mb));
        let shared = Shared::new(settings, store, launcher, snapshots, ports, cores, answers);
        Self { shared: Arc::new(shared) }
    }

    /// Takes over the sessions that an earlier server left, asleep. `last_activity` is what the log
    /// has of each, `jobs` what was not done.
    ///
    /// # Errors
    /// When the folder of sessions cannot be read.
    pub fn take_over(
        &self,
        last_activity: &HashMap<String, f64>,
        jobs: Vec<StoredJob>,
    ) -> io::Result<usize> {
        let mut jobs_of: HashMap<String, Vec<StoredJob>> = HashMap::new();
        for job in jobs {
            jobs_of.entry(job.session_id.clone()).or_default().push(job);
        }
        let snapshots = self.shared.snapshots.as_ref();
        let records = snapshots.map_or(Ok(Vec::new()), SnapshotStore::sessions)?;
        let count = records.len();
        for record in records {
            let jobs = jobs_of.remove(&record.session_id).unwrap_or_default();
            let changed =
                snapshots.and_then(|snapshots| snapshots.session(&record.session_id).last_change());
            let logged = last_activity.get(&record.session_id).copied();
            // A clock that was set back makes no session older than it is.
            let latest =
                [changed, logged].into_iter().flatten().fold(record.last_activity, f64::max);
            let driver = self.insert(view_of(record, latest.min(now())));
            self.shared.drivers.spawn(driver.run_kept(jobs));
        }
        for session in jobs_of.into_keys() {
            // Their sessions were not kept.
            tokio::spawn(self.shared.store.remove_jobs_of(&session));
        }
        Ok(count)
    }

    /// Starts a session and waits until its worker answered a ping. Where the caller stops waiting,
    /// the session is not started.
    ///
    /// # Errors
    /// Limits, ports, or the worker; everything is undone then.
    pub async fn start(&self, request: StartRequest) -> Result<SessionView, SessionError> {
        let start = async {
            let (answer, started) = oneshot::channel();
            let driver = self.admit(&request)?;
            self.shared.drivers.spawn(driver.run(request, answer));
            started.await.unwrap_or(Err(SessionError::ShuttingDown))
        };
        self.shared.metrics.time_start(Start::Fresh, start, SessionError::start_outcome).await
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
        let known = self.shared.sessions();
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

    /// Sends one command, `name` being its `command` field, and waits for the answer. A long one is
    /// a job meanwhile, submitted by `by`.
    ///
    /// # Errors
    /// Unknown session, full queue. A command that fails is an `Ok` answer that says so.
    pub async fn send(
        &self,
        id: &str,
        name: &str,
        body: Bytes,
        by: Requester,
    ) -> Result<Answer, SessionError> {
        let (name, kind) = (name.to_owned(), kinds::kind_of(name));
        let job = (kind == Some(CommandKind::Long)).then_some(NewJob { by, resumes: false });
        let command = |answer| Work::Command(Command { name, kind, body, job, answer });
        self.ask(id, |answer| Request::Work(command(answer))).await?
    }

    /// Reverts the last change.
    ///
    /// # Errors
    /// [`SessionError::Conflict`] where there is nothing to revert.
    pub async fn undo(&self, id: &str) -> Result<(), SessionError> {
        self.load(id, Source::Undo).await
    }

    /// Makes the last reverted change again.
    ///
    /// # Errors
    /// [`SessionError::Conflict`] where nothing was reverted.
    pub async fn redo(&self, id: &str) -> Result<(), SessionError> {
        self.load(id, Source::Redo).await
    }

    /// Brings a checkpoint's state back, as a change like others.
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

    /// Works on a session's files, in turn with everything else that does. All acknowledged changes
    /// are on disk then.
    ///
    /// # Errors
    /// [`SessionError::Conflict`] where nothing is kept, or not now.
    pub async fn with_files<T: Send + 'static>(
        &self,
        id: &str,
        job: impl FnOnce(&mut SessionFolder) -> T + Send + 'static,
    ) -> Result<T, SessionError> {
        self.on_files(id, false, job).await
    }

    /// Like [`Self::with_files`]. The portable copy is on disk too, if PHOEBE can write it.
    ///
    /// # Errors
    /// [`SessionError::Conflict`] where nothing is kept, or not now.
    pub async fn with_all_forms<T: Send + 'static>(
        &self,
        id: &str,
        job: impl FnOnce(&mut SessionFolder) -> T + Send + 'static,
    ) -> Result<T, SessionError> {
        self.on_files(id, true, job).await
    }

    async fn on_files<T: Send + 'static>(
        &self,
        id: &str,
        all_forms: bool,
        job: impl FnOnce(&mut SessionFolder) -> T + Send + 'static,
    ) -> Result<T, SessionError> {
        let files = self.shared.files(id, all_forms).await?;
        files.run(job).await.map_err(|error| SessionError::Conflict(error.to_string()))
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

    /// What a monitoring system is told, in Prometheus' text format.
    pub async fn metrics(&self) -> String {
        self.shared.metrics_text().await
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

    /// Lets unused sessions sleep or end, as long as the manager lives. To be run as a task.
    pub async fn retire_idle_sessions(self) {
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
            self.shared.evict_for_memory().await;
            for session in self.shared.sessions() {
                // A driver whose mailbox is full is not idle.
                let _ = session.requests.try_send(Request::Look { idle_timeout });
            }
        }
    }

    /// Starts no more sessions, keeps or ends those that there are, and waits until every process
    /// is gone.
    pub async fn shut_down(&self) {
        self.shared.lock().closed = true;
        self.shared.closing.cancel();
        let ends = self.shared.sessions().into_iter().map(|session| async move {
            let (done, ended) = oneshot::channel();
            if session.requests.send(Request::ShutDown { done }).await.is_ok() {
                // A driver that drops the sender has ended too.
                let _ = ended.await;
            }
        });
        futures::future::join_all(ends).await;
        self.shared.drivers.close();
        self.shared.drivers.wait().await;
        self.shared.launcher.shut_down().await;
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) async fn ask<T>(
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

impl SessionManager {
    /// Creates a session in the state `starting`, if the limits allow it.
    fn admit(&self, request: &StartRequest) -> Result<Driver, SessionError> {
        let limit = self.shared.settings.resources.max_workers_per_user;
        let mut sessions = self.shared.lock();
        if sessions.closed {
            return Err(SessionError::ShuttingDown);
        }
        let owned = |session: &&Session| {
            let view = session.view.borrow();
            view.owner == request.owner && view.status != Status::Asleep
        };
        let all = self.shared.settings.resources.max_sessions_per_user;
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
        Ok(self.insert_among(&mut sessions, view))
    }

    /// Creates the driver of a session that begins as `view` says.
    fn insert(&self, view: SessionView) -> Driver {
        self.insert_among(&mut self.shared.lock(), view)
    }

    fn insert_among(&self, sessions: &mut Sessions, view: SessionView) -> Driver {
        let id = view.session_id.clone();
        let (publish, view) = watch::channel(view);
        let (requests, mailbox) = mpsc::channel(MAILBOX);
        let eviction = Arc::new(Semaphore::new(1));
        let user = view.borrow().owner.as_ref().map(|owner| sessions.of_user(&owner.user_id));
        let disk = Arc::new(DiskUsage::new(user));
        let (publish_jobs, jobs) = watch::channel(Board::new());
        let (writer, events) = events();
        let session = Session { requests, view, jobs, events, eviction, disk: Arc::clone(&disk) };
        sessions.known.insert(id, session);
        let published = Published { view: publish, jobs: publish_jobs, events: writer };
        Driver::new(Arc::clone(&self.shared), mailbox, published, disk)
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
        fresh.admit(need.max(1), self.shared.disk_bounds()).map_err(SessionError::DiskFull)
    }
}
