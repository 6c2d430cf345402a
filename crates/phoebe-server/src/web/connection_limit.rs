//! Limits the open connections, in total and per address. At the limit, the connection that has
//! been idle longest is closed for the new one.
//!
//! A connection is idle before its first byte and between its requests. Therefore silent clients,
//! however many, cannot lock out a client that sends a request.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How often to look for an idle connection while all connections are busy.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Limits on open connections.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// In total.
    pub total: usize,
    /// Per address; 0 for no limit per address.
    pub per_address: usize,
    /// Addresses that many clients share, such as proxies. They have no limit per address.
    pub shared_addresses: Vec<IpNet>,
}

/// Admits connections within the limits.
pub(super) struct ConnectionLimiter {
    limits: ConnectionLimits,
    permits: Arc<Semaphore>,
    open: Mutex<OpenConnections>,
}

/// The open connections.
#[derive(Default)]
struct OpenConnections {
    /// Connections per address, for addresses that have a limit.
    of_address: HashMap<IpAddr, usize>,
    next: u64,
    /// Idle connections, by the order in which they became idle.
    idle: BTreeMap<u64, (Option<IpAddr>, Arc<Notify>)>,
}

/// The slot of one open connection.
pub(super) struct ConnectionSlot {
    limiter: Arc<ConnectionLimiter>,
    /// The address whose limit the connection counts for.
    address: Option<IpAddr>,
    exceeds_limit: bool,
    close: Arc<Notify>,
    idle_since: Mutex<Option<u64>>,
    had_request: AtomicBool,
    _permit: OwnedSemaphorePermit,
}

/// A request in flight. Its connection is not idle while this exists.
pub(super) struct RequestGuard {
    slot: Arc<ConnectionSlot>,
}

impl ConnectionLimiter {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(limits.total));
        Arc::new(Self { limits, permits, open: Mutex::default() })
    }

    /// Waits for a slot for a new connection. Closes the connection that has been idle longest if
    /// there is none.
    pub(super) async fn admit(self: &Arc<Self>, peer: IpAddr) -> Arc<ConnectionSlot> {
        let permit = loop {
            if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
                break permit;
            }
            self.close_longest_idle();
            if let Ok(Ok(permit)) =
                timeout(RETRY_INTERVAL, Arc::clone(&self.permits).acquire_owned()).await
            {
                break permit;
            }
        };
        let address = self.limited_address(peer);
        let exceeds_limit = address.is_some_and(|address| !self.add(address));
        let slot = ConnectionSlot {
            limiter: Arc::clone(self),
            address,
            exceeds_limit,
            close: Arc::new(Notify::new()),
            idle_since: Mutex::new(None),
            had_request: AtomicBool::new(false),
            _permit: permit,
        };
        slot.become_idle();
        Arc::new(slot)
    }

    /// Closes the connection that has been idle longest, if any is idle.
    pub(super) fn close_longest_idle(&self) {
        if let Some((_, (_, close))) = self.open().idle.pop_first() {
            close.notify_one();
        }
    }

    /// Returns the address whose limit a connection counts for. An IPv6 client counts with its /64
    /// network.
    fn limited_address(&self, peer: IpAddr) -> Option<IpAddr> {
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

    /// Counts a connection. Above the address's limit, closes the address's connection that has
    /// been idle longest; returns `false` if none is idle.
    fn add(&self, address: IpAddr) -> bool {
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
            Some((_, close)) => {
                close.notify_one();
                true
            }
            None => false,
        }
    }

    fn open(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionSlot {
    /// Waits until the slot is needed for another connection.
    pub(super) async fn close_requested(&self) {
        self.close.notified().await;
    }

    /// Returns whether the address is above its limit and all its connections are busy.
    pub(super) fn exceeds_limit(&self) -> bool {
        self.exceeds_limit
    }

    /// Marks a request in flight.
    pub(super) fn begin_request(self: &Arc<Self>) -> RequestGuard {
        self.had_request.store(true, Ordering::Relaxed);
        self.become_busy();
        RequestGuard { slot: Arc::clone(self) }
    }

    /// Returns whether a request is in flight.
    pub(super) fn is_busy(&self) -> bool {
        self.idle_since().is_none()
    }

    /// Returns whether there has been a request. If so, an answer may still be in the socket's
    /// buffer.
    pub(super) fn had_request(&self) -> bool {
        self.had_request.load(Ordering::Relaxed)
    }

    fn become_idle(&self) {
        let mut open = self.limiter.open();
        let turn = open.next;
        open.next += 1;
        open.idle.insert(turn, (self.address, Arc::clone(&self.close)));
        *self.idle_since() = Some(turn);
    }

    fn become_busy(&self) {
        if let Some(turn) = self.idle_since().take() {
            self.limiter.open().idle.remove(&turn);
        }
    }

    fn idle_since(&self) -> MutexGuard<'_, Option<u64>> {
        self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.become_busy();
        let Some(address) = self.address else { return };
        let mut open = self.limiter.open();
        if let Some(count) = open.of_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.of_address.remove(&address);
            }
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.slot.become_idle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn limiter(total: usize, per_address: usize) -> Arc<ConnectionLimiter> {
        ConnectionLimiter::new(ConnectionLimits {
            total,
            per_address,
            shared_addresses: vec![HERE.into()],
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn an_address_at_its_limit_closes_its_idle_connection() {
        let limiter = limiter(100, 2);
        let ada = address("10.0.0.1");
        let first = limiter.admit(ada).await;
        let request = first.begin_request();
        let second = limiter.admit(ada).await;
        let bob = limiter.admit(address("10.0.0.2")).await;
        let third = limiter.admit(ada).await;
        assert!(!third.exceeds_limit());
        assert!(second.close_requested().now_or_never().is_some(), "its idle one leaves");
        assert!(bob.close_requested().now_or_never().is_none(), "and nobody else's");
        drop(second);
        let another = third.begin_request();
        assert!(limiter.admit(ada).await.exceeds_limit(), "all of its connections are busy");
        assert!(!limiter.admit(address("10.0.0.3")).await.exceeds_limit());
        drop((request, another, first, third, bob));
        assert!(limiter.open().of_address.is_empty());
    }

    #[tokio::test]
    async fn an_ipv6_network_counts_as_one_address_and_a_proxy_has_no_limit() {
        let limiter = limiter(100, 1);
        let one = limiter.admit(address("2001:db8:1:2::3")).await;
        let _request = one.begin_request();
        assert!(limiter.admit(address("2001:db8:1:2:ffff::4")).await.exceeds_limit());
        assert!(!limiter.admit(address("2001:db8:1:3::3")).await.exceeds_limit());
        let proxied = [limiter.admit(HERE).await, limiter.admit(address("::ffff:127.0.0.1")).await];
        let _requests = proxied.each_ref().map(|slot| slot.begin_request());
        assert!(!limiter.admit(HERE).await.exceeds_limit());
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connection_is_closed_first() {
        let limiter = limiter(3, 0);
        let (first, second, third) =
            (limiter.admit(HERE).await, limiter.admit(HERE).await, limiter.admit(HERE).await);
        let request = first.begin_request();
        assert!(limiter.admit(HERE).now_or_never().is_none(), "no room yet");
        assert!(second.close_requested().now_or_never().is_some());
        drop(second);
        let _fourth = limiter.admit(HERE).await;
        drop(request);
        // `third` has been idle for longer than `first`, whose request just ended.
        assert!(limiter.admit(HERE).now_or_never().is_none());
        assert!(third.close_requested().now_or_never().is_some());
        assert!(first.close_requested().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn busy_connections_are_waited_for() {
        let limiter = limiter(1, 0);
        let slot = limiter.admit(HERE).await;
        let request = slot.begin_request();
        assert!(timeout(Duration::from_secs(60), limiter.admit(HERE)).await.is_err());
        assert!(slot.is_busy());
        drop(request);
        let leaves = async {
            slot.close_requested().await;
            drop(slot);
        };
        tokio::join!(limiter.admit(HERE), leaves);
        assert!(limiter.open().idle.is_empty());
    }
}
