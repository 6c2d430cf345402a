//! The state of all handlers.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::auth::{Authenticator, MetricsToken};
use crate::config::Settings;
use crate::error::HttpError;
use crate::session::SessionManager;
use crate::store::snapshots::{SessionFolder, SnapshotError};
use crate::store::{DataDirectoryProbe, Store};
use crate::web::CallerLimit;

/// The parts of the server that requests need.
#[derive(Clone)]
pub struct App {
    /// The settings.
    pub settings: Arc<Settings>,
    /// All sessions.
    pub sessions: SessionManager,
    /// The database.
    pub store: Store,
    /// The data directory.
    pub data: DataDirectoryProbe,
    /// Identifies callers.
    pub authenticator: Authenticator,
}

/// The state of the router.
pub(super) struct Context {
    /// The parts of the server.
    pub(super) app: App,
    /// When the server began to serve.
    pub(super) started: Instant,
    /// Limits the requests in flight of each caller.
    pub(super) caller_limit: CallerLimit,
    /// Limits the streams of events of each caller.
    pub(super) stream_limit: CallerLimit,
    /// Differs for each start of the server.
    pub(super) epoch: String,
    /// Limits the memory of all request bodies.
    pub(super) body_memory: Arc<Semaphore>,
    /// The token that may read the metrics.
    pub(super) metrics_token: MetricsToken,
}

pub(super) type Shared = Arc<Context>;

impl Context {
    /// Runs `job` on a session's files.
    pub(super) async fn with_files<T: Send + 'static>(
        &self,
        session: &str,
        job: impl FnOnce(&mut SessionFolder) -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, HttpError> {
        Ok(self.app.sessions.with_files(session, job).await??)
    }
}
