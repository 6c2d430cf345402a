//! How many connections may be open, and which of them goes first when there is no room: the one that has been idle longest.
//!
//! A connection is idle before its first byte and between its requests. So however many clients connect and say nothing, one
//! that asks something is served.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// While all connections are busy: how often to look for one that has become idle.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The bound on open connections.
pub(super) struct Gate {
    slots: Arc<Semaphore>,
    idle: Mutex<Idle>,
}

/// Idle connections in the order in which they became so.
#[derive(Default)]
struct Idle {
    next: u64,
    connections: BTreeMap<u64, Arc<Notify>>,
}

/// One open connection's place.
pub(super) struct Place {
    gate: Arc<Gate>,
    leave: Arc<Notify>,
    idle_since: Mutex<Option<u64>>,
    has_asked: AtomicBool,
    _slot: OwnedSemaphorePermit,
}

/// A request in flight: its connection is not idle while this exists.
pub(super) struct Busy {
    place: Arc<Place>,
}

impl Gate {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { slots: Arc::new(Semaphore::new(limit)), idle: Mutex::default() })
    }

    /// A place for a new connection, which is idle; the longest-idle one has to leave where there is no other.
    pub(super) async fn admit(self: &Arc<Self>) -> Arc<Place> {
        let slot = loop {
            if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
                break slot;
            }
            self.close_longest_idle();
            if let Ok(Ok(slot)) = timeout(LOOK_AGAIN, Arc::clone(&self.slots).acquire_owned()).await
            {
                break slot;
            }
        };
        let place = Place {
            gate: Arc::clone(self),
            leave: Arc::new(Notify::new()),
            idle_since: Mutex::new(None),
            has_asked: AtomicBool::new(false),
            _slot: slot,
        };
        place.become_idle();
        Arc::new(place)
    }

    /// Tells the connection that has been idle longest, if there is one, to close.
    pub(super) fn close_longest_idle(&self) {
        if let Some((_, leave)) = self.idle().connections.pop_first() {
            leave.notify_one();
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until the place is needed for somebody else.
    pub(super) async fn told_to_leave(&self) {
        self.leave.notified().await;
    }

    /// Marks a request in flight.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.has_asked.store(true, Ordering::Relaxed);
        self.become_busy();
        Busy { place: Arc::clone(self) }
    }

    /// Whether a request is in flight.
    pub(super) fn is_busy(&self) -> bool {
        self.idle_since().is_none()
    }

    /// Whether there has been a request, so that an answer may still be on its way.
    pub(super) fn has_asked(&self) -> bool {
        self.has_asked.load(Ordering::Relaxed)
    }

    fn become_idle(&self) {
        let mut idle = self.gate.idle();
        let turn = idle.next;
        idle.next += 1;
        idle.connections.insert(turn, Arc::clone(&self.leave));
        *self.idle_since() = Some(turn);
    }

    fn become_busy(&self) {
        if let Some(turn) = self.idle_since().take() {
            self.gate.idle().connections.remove(&turn);
        }
    }

    fn idle_since(&self) -> MutexGuard<'_, Option<u64>> {
        self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.become_busy();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.place.become_idle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connection_makes_room() {
        let gate = Gate::new(3);
        let (first, second, third) = (gate.admit().await, gate.admit().await, gate.admit().await);
        let request = first.busy();
        assert!(gate.admit().now_or_never().is_none(), "no room yet");
        assert!(second.told_to_leave().now_or_never().is_some());
        drop(second);
        let _fourth = gate.admit().await;
        drop(request);
        // `third` has been idle for longer than `first`, whose request just ended.
        assert!(gate.admit().now_or_never().is_none());
        assert!(third.told_to_leave().now_or_never().is_some());
        assert!(first.told_to_leave().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn busy_connections_are_waited_for() {
        let gate = Gate::new(1);
        let place = gate.admit().await;
        let request = place.busy();
        assert!(timeout(Duration::from_secs(60), gate.admit()).await.is_err());
        assert!(place.is_busy());
        drop(request);
        let leaves = async {
            place.told_to_leave().await;
            drop(place);
        };
        tokio::join!(gate.admit(), leaves);
        assert!(gate.idle().connections.is_empty());
    }
}
