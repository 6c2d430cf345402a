//! Shares the machine's cores between all long commands: which may compute now, and on how many
//! cores.
//!
//! A long command gets all free cores, and at least one: where all are busy, commands share them,
//! up to a bound of commands. Further commands wait in their order. It knows no sessions.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All cores. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Cores {
    total: usize,
    granted: Arc<AtomicUsize>,
    computes: Arc<Semaphore>,
    /// Long commands that may compute at once.
    most: usize,
    /// Those that wait for a turn.
    waiting: Arc<AtomicUsize>,
}

/// The right to compute on some cores, until it is dropped.
#[derive(Debug)]
pub(crate) struct CoreGrant {
    cores: usize,
    granted: Arc<AtomicUsize>,
    _compute: OwnedSemaphorePermit,
}

impl Cores {
    /// `total` cores, and at most `computes` long commands at once.
    pub(crate) fn new(total: usize, computes: usize) -> Self {
        let most = computes.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            total: total.max(1),
            granted: Arc::default(),
            computes: Arc::new(Semaphore::new(most)),
            most,
            waiting: Arc::default(),
        }
    }

    /// How many long commands compute, and how many wait for a turn.
    pub(crate) fn demand(&self) -> (usize, usize) {
        let computing = self.most.saturating_sub(self.computes.available_permits());
        (computing, self.waiting.load(Ordering::Relaxed))
    }

    /// Waits for a turn, then takes the free cores. Cancel-safe.
    pub(crate) async fn grant(&self) -> CoreGrant {
        let waiting = Waiting::new(&self.waiting);
        let turn = Arc::clone(&self.computes).acquire_owned().await;
        drop(waiting);
        let compute = turn.expect("the semaphore is never closed");
        let take = |granted: usize| self.total.saturating_sub(granted).max(1);
        let update = |granted| Some(granted + take(granted));
        let before = self.granted.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
        let before = before.unwrap_or_else(|granted| granted);
        CoreGrant { cores: take(before), granted: Arc::clone(&self.granted), _compute: compute }
    }
}

/// Counts a command as waiting until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl CoreGrant {
    /// Number of cores that the command may use.
    pub(crate) fn cores(&self) -> usize {
        self.cores
    }
}

impl Drop for CoreGrant {
    fn drop(&mut self) {
        self.granted.fetch_sub(self.cores, Ordering::AcqRel);
    }
}

/// The wait for a turn on the machine's cores.
#[derive(Default)]
pub(super) struct CoreWait {
    wait: Option<Pin<Box<dyn Future<Output = CoreGrant> + Send>>>,
}

impl CoreWait {
    /// Begins to wait.
    pub(super) fn ask(&mut self, cores: &Cores) {
        let cores = cores.clone();
        self.wait = Some(Box::pin(async move { cores.grant().await }));
    }

    /// Waits until the turn has come; for ever if none is waited for. Cancel-safe.
    pub(super) async fn turn(&mut self) -> CoreGrant {
        let Some(wait) = &mut self.wait else { return std::future::pending().await };
        let grant = wait.await;
        self.wait = None;
        grant
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_first_command_gets_all_cores_later_ones_share_and_further_ones_wait() {
        let cores = Cores::new(4, 3);
        let first = cores.grant().await;
        let second = cores.grant().await;
        let third = cores.grant().await;
        assert_eq!([first.cores(), second.cores(), third.cores()], [4, 1, 1]);
        assert!(cores.grant().now_or_never().is_none(), "a fourth must wait");
        assert_eq!(cores.demand(), (3, 0), "it has given up");
        let mut next = Box::pin(cores.grant());
        assert!((&mut next).now_or_never().is_none());
        assert_eq!(cores.demand(), (3, 1));
        drop(next);
        drop(first);
        let fourth = cores.grant().await;
        assert_eq!(fourth.cores(), 2);
        drop((second, third, fourth));
        assert_eq!(cores.grant().await.cores(), 4);
    }
}
