//! Chooses idle sessions to evict when ports or memory run out, or when a user has too many awake.
//! It asks them to sleep; each session's driver decides.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::request::Request;
use super::shared::{Session, Shared};
use super::view::{Owner, SessionView, Status};

/// This many sessions at most are evicted in one go where memory is short. The next look may find
/// more memory free.
const EVICTIONS_AT_ONCE: usize = 8;

impl Session {
    /// Asks it to sleep. Returns whether it went to sleep; `false` where another request to do so
    /// is under way.
    async fn evict(self) -> bool {
        let Ok(_eviction) = self.eviction.try_acquire() else { return false };
        let (done, slept) = oneshot::channel();
        // A driver whose mailbox is full is busy.
        self.requests.try_send(Request::Sleep { done }).is_ok() && slept.await == Ok(true)
    }

    fn is_being_evicted(&self) -> bool {
        self.eviction.available_permits() == 0
    }
}

impl Shared {
    /// Evicts as many sessions as starts wait for a port, unless that was done within `pause`.
    pub(super) fn evict_for_ports(self: &Arc<Self>, pause: Duration) {
        let mut last = self.last_eviction.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        *last = Some(Instant::now());
        let shared = Arc::clone(self);
        self.drivers.spawn(async move {
            let (waiting, _) = shared.ports.demand();
            let sessions = shared.sessions();
            let on_their_way = sessions.iter().filter(|session| session.is_being_evicted()).count();
            shared.evict(waiting.saturating_sub(on_their_way), |_| true).await;
        });
    }

    /// Evicts `count` of the sessions that `may` sleep, the longest idle first. Returns how many
    /// went to sleep.
    async fn evict(&self, count: usize, may: impl Fn(&SessionView) -> bool) -> usize {
        let mut candidates: Vec<(f64, Session)> = Vec::new();
        for session in self.sessions() {
            let view = session.view.borrow();
            let candidate = view.status == Status::Awake && may(&view);
            let last_activity = view.last_activity;
            drop(view);
            if candidate {
                candidates.push((last_activity, session));
            }
        }
        candidates.sort_by(|left, right| left.0.total_cmp(&right.0));
        let mut candidates = candidates.into_iter();
        let (mut evicted, mut asked) = (0, FuturesUnordered::new());
        loop {
            let missing = count.saturating_sub(evicted + asked.len());
            asked.extend(candidates.by_ref().take(missing).map(|(_, session)| session.evict()));
            match asked.next().await {
                Some(slept) => evicted += usize::from(slept),
                None => return evicted,
            }
        }
    }

    /// Evicts what must sleep before one more session of this owner wakes: sessions of anybody
    /// where memory is short, sessions of the owner where too many are awake.
    pub(super) async fn evict_before_waking(&self, owner: Option<&Owner>) {
        self.evict_for_memory().await;
        let limit = self.settings.resources.max_workers_per_user;
        let Some(owner) = owner.filter(|_| limit > 0) else { return };
        let owned = |view: &SessionView| view.owner.as_ref() == Some(owner);
        let awake = |session: &Session| {
            let view = session.view.borrow();
            owned(&view) && view.status == Status::Awake
        };
        while self.sessions().iter().filter(|session| awake(session)).count() >= limit {
            if self.evict(1, owned).await == 0 {
                return;
            }
        }
    }

    /// Evicts idle sessions where little memory is free.
    pub(super) async fn evict_for_memory(&self) {
        let reserve = self.settings.resources.memory_reserve_mb;
        for _ in 0..EVICTIONS_AT_ONCE {
            let short = reserve > 0 && available_memory_mb().is_some_and(|free| free < reserve);
            if !short || self.evict(1, |_| true).await == 0 {
                return;
            }
        }
    }
}

/// Memory in MiB that programs can still get (`proc_meminfo(5)`, `MemAvailable`).
fn available_memory_mb() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}
