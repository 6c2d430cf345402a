//! Workers that are forked before anybody asks for them, so that no start waits for its fork. A
//! spare knows no session, key or port and runs nothing of a user's. This keeps so many ready as
//! are wanted and gives them away.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::child::Child;
use super::readiness::Readiness;
use super::registry::Registry;
use super::zygote::Zygote;

/// Nobody has started for so long: there is time to fork.
const QUIET_TIME: Duration = Duration::from_millis(25);
/// After a fork that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The spare workers of a launcher.
pub(super) struct Spares {
    shared: Arc<Shared>,
    task: TaskTracker,
}

struct Shared {
    count: usize,
    ready: Mutex<Vec<Child>>,
    wanted: Notify,
}

impl Spares {
    /// Keeps `count` of them until `closing`.
    pub(super) fn start(
        count: usize,
        zygote: Zygote,
        registry: Registry,
        closing: CancellationToken,
    ) -> Self {
        let shared = Arc::new(Shared { count, ready: Mutex::default(), wanted: Notify::new() });
        let task = TaskTracker::new();
        let work = fill(Arc::clone(&shared), zygote, registry);
        task.spawn(async move { closing.run_until_cancelled(work).await });
        task.close();
        Self { shared, task }
    }

    /// One that is ready. It may have ended since.
    pub(super) fn take(&self) -> Option<Child> {
        self.shared.ready().pop()
    }

    /// Makes up for those that were taken. To be called when that takes nothing from whoever took
    /// them.
    pub(super) fn refill(&self) {
        self.shared.wanted.notify_one();
    }

    /// Ends them all, and waits until they are gone. No more are made: it must be closing.
    pub(super) async fn end(&self) {
        self.task.wait().await;
        let spares = std::mem::take(&mut *self.shared.ready());
        futures::future::join_all(spares.into_iter().map(Child::end)).await;
    }
}

impl Shared {
    fn ready(&self) -> MutexGuard<'_, Vec<Child>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn fill(shared: Arc<Shared>, zygote: Zygote, registry: Registry) {
    let mut readiness = zygote.readiness();
    loop {
        if readiness.wait_for(|now| matches!(now, Readiness::Ready(_))).await.is_err() {
            return;
        }
        while shared.ready().len() < shared.count {
            match Child::fork(&zygote, &registry).await {
                Ok(child) => shared.ready().push(child),
                Err(error) => {
                    debug!(%error, "no spare worker");
                    sleep(RETRY_PAUSE).await;
                    break;
                }
            }
        }
        shared.wanted.notified().await;
        // A fork beside a start would only slow that.
        while timeout(QUIET_TIME, shared.wanted.notified()).await.is_ok() {}
    }
}
