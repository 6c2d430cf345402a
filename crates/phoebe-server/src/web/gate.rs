//! How many connections may be open, in all and from one address, and which of them goes first when there is no room: the one that
//! has been idle longest.
//!
//! A connection is idle before its first byte and between its requests. So however many clients connect and say nothing, one
//! that asks something is served.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// While all connections are busy: how often to look for one that has become idle.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How many connections may be open.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// In all.
    pub total: usize,
    /// From one address; 0 for no limit of its own.
    pub per_address: usize,
    /// Addresses that speak for many, and have no limit of their own.
    pub shared_addresses: Vec<IpNet>,
}

/// The bound on open connections.
pub(super) struct Gate {
    limits: ConnectionLimits,
    slots: Arc<Semaphore>,
    open: Mutex<Open>,
}

/// The open connections.
#[derive(Default)]
struct Open {
    /// How many each address has; only those with a limit.
    of_address: HashMap<IpAddr, usize>,
    next: u64,
    /// Those that are idle, in the order in which they became so.
    idle: BTreeMap<u64, (Option<IpAddr>, Arc<Notify>)>,
}

/// One open connection's place.
pub(super) struct Place {
    gate: Arc<Gate>,
    /// Whose limit it counts for.
    address: Option<IpAddr>,
    is_one_too_many: bool,
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
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        let slots = Arc::new(Semaphore::new(limits.total));
        Arc::new(Self { limits, slots, open: Mutex::default() })
    }

    /// A place for a new connection, which is idle; the longest-idle one has to leave where there is no other.
    pub(super) async fn admit(self: &Arc<Self>, peer: IpAddr) -> Arc<Place> {
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
        let address = self.counted(peer);
        let is_one_too_many = address.is_some_and(|address| !self.count(address));
        let place = Place {
            gate: Arc::clone(self),
            address,
            is_one_too_many,
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
        if let Some((_, (_, leave))) = self.open().idle.pop_first() {
            leave.notify_one();
        }
    }

    /// The address whose limit a connection counts for. Who has one IPv6 address has all of its network's.
    fn counted(&self, peer: IpAddr) -> Option<IpAddr> {
        let peer = peer.to_canonical();
        if self.limits.per_address == 0
            || self.limits.shared_addresses.iter().any(|net| net.contains(&peer))
        {
            return None;
        }
        Some(match peer {
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
            v4 @ IpAddr::V4(_) => v4,
        })
    }

    /// Counts a connection. Above the address's limit its longest-idle one has to leave; `false` if it has none.
    fn count(&self, address: IpAddr) -> bool {
        let mut open = self.open();
        let count = open.of_address.entry(address).or_default();
        *count += 1;
        if *count <= self.limits.per_address {
            return true;
        }
        let of_address = |(turn, (of, _)): (&u64, &(Option<IpAddr>, Arc<Notify>))| {
            (*of == Some(address)).then_some(*turn)
        };
        match open.idle.iter().find_map(of_address).and_then(|turn| open.idle.remove(&turn)) {
            Some((_, leave)) => {
                leave.notify_one();
                true
            }
            None => false,
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until the place is needed for somebody else.
    pub(super) async fn told_to_leave(&self) {
        self.leave.notified().await;
    }

    /// Whether the address has as many connections as it may, all of them busy.
    pub(super) fn is_one_too_many(&self) -> bool {
        self.is_one_too_many
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
        let mut open = self.gate.open();
        let turn = open.next;
        open.next += 1;
        open.idle.insert(turn, (self.address, Arc::clone(&self.leave)));
        *self.idle_since() = Some(turn);
    }

    fn become_busy(&self) {
        if let Some(turn) = self.idle_since().take() {
            self.gate.open().idle.remove(&turn);
        }
    }

    fn idle_since(&self) -> MutexGuard<'_, Option<u64>> {
        self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.become_busy();
        let Some(address) = self.address else { return };
        let mut open = self.gate.open();
        if let Some(count) = open.of_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.of_address.remove(&address);
            }
        }
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

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn gate(total: usize, per_address: usize) -> Arc<Gate> {
        Gate::new(ConnectionLimits { total, per_address, shared_addresses: vec![HERE.into()] })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn an_address_makes_room_for_itself() {
        let gate = gate(100, 2);
        let ada = address("10.0.0.1");
        let first = gate.admit(ada).await;
        let request = first.busy();
        let second = gate.admit(ada).await;
        let bob = gate.admit(address("10.0.0.2")).await;
        let third = gate.admit(ada).await;
        assert!(!third.is_one_too_many());
        assert!(second.told_to_leave().now_or_never().is_some(), "its idle one leaves");
        assert!(bob.told_to_leave().now_or_never().is_none(), "and nobody else's");
        drop(second);
        let another = third.busy();
        assert!(gate.admit(ada).await.is_one_too_many(), "all of its connections are busy");
        assert!(!gate.admit(address("10.0.0.3")).await.is_one_too_many());
        drop((request, another, first, third, bob));
        assert!(gate.open().of_address.is_empty());
    }

    #[tokio::test]
    async fn a_network_is_one_address_and_a_proxy_is_many() {
        let gate = gate(100, 1);
        let one = gate.admit(address("2001:db8:1:2::3")).await;
        let _request = one.busy();
        assert!(gate.admit(address("2001:db8:1:2:ffff::4")).await.is_one_too_many());
        assert!(!gate.admit(address("2001:db8:1:3::3")).await.is_one_too_many());
        let proxied = [gate.admit(HERE).await, gate.admit(address("::ffff:127.0.0.1")).await];
        let _requests = proxied.each_ref().map(|place| place.busy());
        assert!(!gate.admit(HERE).await.is_one_too_many());
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connection_makes_room() {
        let gate = gate(3, 0);
        let (first, second, third) =
            (gate.admit(HERE).await, gate.admit(HERE).await, gate.admit(HERE).await);
        let request = first.busy();
        assert!(gate.admit(HERE).now_or_never().is_none(), "no room yet");
        assert!(second.told_to_leave().now_or_never().is_some());
        drop(second);
        let _fourth = gate.admit(HERE).await;
        drop(request);
        // `third` has been idle for longer than `first`, whose request just ended.
        assert!(gate.admit(HERE).now_or_never().is_none());
        assert!(third.told_to_leave().now_or_never().is_some());
        assert!(first.told_to_leave().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn busy_connections_are_waited_for() {
        let gate = gate(1, 0);
        let place = gate.admit(HERE).await;
        let request = place.busy();
        assert!(timeout(Duration::from_secs(60), gate.admit(HERE)).await.is_err());
        assert!(place.is_busy());
        drop(request);
        let leaves = async {
            place.told_to_leave().await;
            drop(place);
        };
        tokio::join!(gate.admit(HERE), leaves);
        assert!(gate.open().idle.is_empty());
    }
}
