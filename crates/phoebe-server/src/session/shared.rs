//! What the manager and all drivers share: settings, pools, the list of sessions. It changes no
//! session's state.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use phoebe_protocol::packet::Info;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cores::Cores;
use super::error::SessionError;
use super::events::EventReader;
use super::file_queue::FileQueue;
use super::job::Board;
use super::ports::PortPool;
use super::request::Request;
use super::view::SessionView;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::store::snapshots::{DiskLimits, DiskUsage, SnapshotStore};
use crate::worker::Launcher;
use crate::worker::connection::Memory;

/// Sessions with more bytes than this to be read at once are read one after the other.
const LARGE: u64 = 4 << 20;
/// Who waits longer than this for that turn is told to come back.
const TURN: Duration = Duration::from_secs(60);

/// What the manager and all drivers have in common.
pub(super) struct Shared {
    pub(super) settings: Arc<Settings>,
    pub(super) store: Store,
    pub(super) launcher: Launcher,
    /// Where sessions are kept; `None` where nothing is kept.
    pub(super) snapshots: Option<SnapshotStore>,
    pub(super) ports: PortPool,
    pub(super) cores: Cores,
    pub(super) metrics: Metrics,
    /// The memory for answers while they are received.
    pub(super) answers: Memory,
    /// One permit: for work on files that takes much memory.
    large: Arc<Semaphore>,
    sessions: Mutex<Sessions>,
    pub(super) drivers: TaskTracker,
    /// Cancelled when the manager shuts down; sessions that are starting are given up then.
    pub(super) closing: CancellationToken,
    /// When sessions were last evicted for want of ports.
    pub(super) last_eviction: Mutex<Option<Instant>>,
}

/// The sessions that there are.
#[derive(Default)]
pub(super) struct Sessions {
    pub(super) known: HashMap<String, Session>,
    /// Bytes on disk of all sessions of each user.
    users: HashMap<String, Arc<AtomicU64>>,
    /// No session is started any more.
    pub(super) closed: bool,
}

impl Sessions {
    /// Bytes on disk of all sessions of a user.
    pub(super) fn of_user(&mut self, id: &str) -> Arc<AtomicU64> {
        Arc::clone(self.users.entry(id.to_owned()).or_default())
    }
}

/// A session as others reach it: its mailbox and its published view.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) view: watch::Receiver<SessionView>,
    /// Its jobs.
    pub(super) jobs: watch::Receiver<Board>,
    /// What happens in it.
    pub(super) events: EventReader,
    /// One permit: held while the session is asked to sleep for others.
    pub(super) eviction: Arc<Semaphore>,
    /// Its disk use.
    pub(super) disk: Arc<DiskUsage>,
}

impl Shared {
    pub(super) fn new(
        settings: Arc<Settings>,
        store: Store,
        launcher: Launcher,
        snapshots: Option<SnapshotStore>,
        ports: PortPool,
        cores: Cores,
        answers: Memory,
    ) -> Self {
        Self {
            settings,
            store,
            launcher,
            snapshots,
            ports,
            cores,
            metrics: super::metrics::new(),
            answers,
            large: Arc::new(Semaphore::new(1)),
            sessions: Mutex::default(),
            drivers: TaskTracker::new(),
            closing: CancellationToken::new(),
            last_eviction: Mutex::default(),
        }
    }

    /// The disk bounds of a session and a user.
    pub(super) fn disk_bounds(&self) -> DiskLimits {
        let resources = &self.settings.resources;
        let bytes = |mebibytes: u64| mebibytes.saturating_mul(1 << 20);
        DiskLimits {
            session: bytes(resources.max_disk_mb_per_session),
            user: bytes(resources.max_disk_mb_per_user),
        }
    }

    /// The turn of work that holds a session's journal and the Bundle that it begins with in
    /// memory. `None` where both are small.
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

    /// A session's files, with all acknowledged changes on them.
    pub(super) async fn files(&self, id: &str, all_forms: bool) -> Result<FileQueue, SessionError> {
        let session = self.find(id)?;
        let (files, given) = oneshot::channel();
        let request = Request::Files { all_forms, files };
        session.requests.send(request).await.map_err(|_| SessionError::NotFound)?;
        given.await.unwrap_or(Err(SessionError::NotFound))
    }

    pub(super) fn sessions(&self) -> Vec<Session> {
        self.lock().known.values().cloned().collect()
    }

    /// Versions and passbands of the Python side. Waits until PHOEBE is imported.
    pub(super) async fn python_info(&self) -> Result<Arc<Info>, SessionError> {
        let info = self.launcher.info().await;
        info.map_err(|error| SessionError::StartFailed(error.to_string()))
    }

    pub(super) fn find(&self, id: &str) -> Result<Session, SessionError> {
        self.lock().known.get(id).cloned().ok_or(SessionError::NotFound)
    }

    /// Removes a session from the list: no request reaches it from now on.
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

    pub(super) fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
