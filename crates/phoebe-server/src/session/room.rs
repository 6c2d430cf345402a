//! Who has to sleep so that others can be awake: for ports, for memory, for what one user may have. It chooses and asks; a session's
//! own driver decides.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::manager::{Session, Shared};
use super::request::Request;
use super::{Owner, SessionView, Status};

/// So many sessions are put to sleep in one go where memory is short; the next look may see more free by then.
const SLEEPERS_AT_ONCE: usize = 8;

impl Session {
    /// Asks it to sleep; tells whether it does because of that. Who asks meanwhile is told that it does not.
    async fn sleep(self) -> bool {
        let Ok(_asking) = self.asking.try_acquire() else { return false };
        let (done, slept) = oneshot::channel();
        // A driver whose mailbox is full is busy.
        self.requests.try_send(Request::Sleep { done }).is_ok() && slept.await == Ok(true)
    }

    fn is_asked(&self) -> bool {
        self.asking.available_permits() == 0
    }
}

impl Shared {
    /// Lets so many sessions sleep as wait for a port, unless that was done a moment ago.
    pub(super) fn look_for_room(self: &Arc<Self>, moment: Duration) {
        let mut looked = self.looked_for_room.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.is_some_and(|looked| looked.elapsed() < moment) {
            return;
        }
        *looked = Some(Instant::now());
        let shared = Arc::clone(self);
        self.drivers.spawn(async move {
            let (waiting, _) = shared.ports.demand();
            let on_their_way = shared.all().iter().filter(|session| session.is_asked()).count();
            shared.make_room(waiting.saturating_sub(on_their_way), |_| true).await;
        });
    }

    /// Lets `count` sessions sleep, those first that were idle for the longest time, among those that `may`. Tells how many do.
    async fn make_room(&self, count: usize, may: impl Fn(&SessionView) -> bool) -> usize {
        let mut candidates: Vec<(f64, Session)> = Vec::new();
        for session in self.all() {
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
        let (mut made, mut asked) = (0, FuturesUnordered::new());
        loop {
            let missing = count.saturating_sub(made + asked.len());
            asked.extend(candidates.by_ref().take(missing).map(|(_, session)| session.sleep()));
            match asked.next().await {
                Some(slept) => made += usize::from(slept),
                None => return made,
            }
        }
    }

    /// Before one more session of this owner wakes: others of theirs sleep where they would be too many, and anybody's where
    /// memory is short.
    pub(super) async fn make_room_for(&self, owner: Option<&Owner>) {
        self.relieve_memory().await;
        let limit = self.settings.resources.max_workers_per_user;
        let Some(owner) = owner.filter(|_| limit > 0) else { return };
        let owned = |view: &SessionView| view.owner.as_ref() == Some(owner);
        let awake = |session: &Session| {
            let view = session.view.borrow();
            owned(&view) && view.status == Status::Awake
        };
        while self.all().iter().filter(|session| awake(session)).count() >= limit {
            if self.make_room(1, owned).await == 0 {
                return;
            }
        }
    }

    /// Lets idle sessions sleep where little memory is free.
    pub(super) async fn relieve_memory(&self) {
        let reserve = self.settings.resources.memory_reserve_mb;
        for _ in 0..SLEEPERS_AT_ONCE {
            let short = reserve > 0 && available_memory_mb().is_some_and(|free| free < reserve);
            if !short || self.make_room(1, |_| true).await == 0 {
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
