//! The pool of loopback ports for workers. A lease frees its port when it is dropped, whatever the
//! reason. Ports are given in the order of the requests.
//!
//! The kernel is asked each time whether another program holds a port. The pool remembers the
//! answer only to log it once.

use std::collections::{BTreeSet, VecDeque};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tracing::{info, warn};

use super::view::PortStatus;

/// All ports that workers may bind. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct PortPool {
    range: Range<u16>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    leased: BTreeSet<u16>,
    foreign: BTreeSet<u16>,
    waiting: VecDeque<oneshot::Sender<PortLease>>,
    /// Number of leases given since the start.
    given: u64,
}

/// A port, reserved until the lease is dropped.
#[derive(Debug)]
pub(crate) struct PortLease {
    port: u16,
    pool: PortPool,
}

impl PortPool {
    pub(crate) fn new(range: Range<u16>) -> Self {
        Self { range, taken: Arc::default() }
    }

    /// Number of ports in the pool.
    pub(crate) fn total(&self) -> usize {
        self.range.len()
    }

    /// Requests a port: the lowest that is free and that no other program holds. Earlier requests
    /// are served first.
    pub(crate) fn ask(&self) -> oneshot::Receiver<PortLease> {
        let (give, given) = oneshot::channel();
        self.lock().waiting.push_back(give);
        self.hand_out(is_free);
        given
    }

    /// Gives free ports to waiting requests.
    fn hand_out(&self, is_free: impl Fn(u16) -> bool) {
        loop {
            let mut taken = self.lock();
            taken.waiting.retain(|waiting| !waiting.is_closed());
            if taken.waiting.is_empty() {
                return;
            }
            let Some(port) = taken.take_lowest(&self.range, &is_free) else { return };
            let first = taken.waiting.pop_front();
            taken.given += 1;
            // Dropping a lease locks the pool.
            drop(taken);
            let lease = PortLease { port, pool: self.clone() };
            // Where the request was given up meanwhile, the lease is dropped, and the next one gets
            // the port.
            drop(first.map(|first| first.send(lease)));
        }
    }

    /// Number of waiting requests, and number of leases given since the start.
    pub(crate) fn demand(&self) -> (usize, u64) {
        let taken = self.lock();
        (taken.waiting.iter().filter(|waiting| !waiting.is_closed()).count(), taken.given)
    }

    /// The current state of the pool.
    pub(crate) fn status(&self) -> PortStatus {
        let taken = self.lock();
        PortStatus {
            start: self.range.start,
            end: self.range.end,
            reserved: taken.leased.iter().copied().collect(),
            foreign: taken.foreign.iter().copied().collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn take_lowest(&mut self, range: &Range<u16>, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        for port in range.clone() {
            if self.leased.contains(&port) {
                continue;
            }
            if !is_free(port) {
                self.note_foreign(port);
                continue;
            }
            if self.foreign.remove(&port) {
                info!(port, "a port of the pool is free again");
            }
            self.leased.insert(port);
            return Some(port);
        }
        None
    }

    fn note_foreign(&mut self, port: u16) {
        if self.foreign.insert(port) {
            warn!(port, "another program holds a port of the pool; it is left out");
        }
    }
}

impl PortLease {
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Records that another program holds the port.
    pub(crate) fn record_foreign(&self) {
        self.pool.lock().note_foreign(self.port);
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        self.pool.lock().leased.remove(&self.port);
        self.pool.hand_out(is_free);
    }
}

/// Whether a worker could bind `port` now.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn lease_if(pool: &PortPool, is_free: impl Fn(u16) -> bool) -> Option<PortLease> {
        let (give, mut given) = oneshot::channel();
        pool.lock().waiting.push_back(give);
        pool.hand_out(is_free);
        given.try_recv().ok()
    }

    #[test]
    fn a_port_of_another_program_is_skipped_until_it_is_free() {
        let other_program = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = other_program.local_addr().unwrap().port();
        let pool = PortPool::new(port..port + 1);
        assert!(pool.ask().try_recv().is_err());
        assert_eq!(pool.status().foreign, [port]);
        drop(other_program);
        assert_eq!(pool.ask().try_recv().unwrap().port(), port);
        assert!(pool.status().foreign.is_empty());
    }

    #[test]
    fn the_first_request_gets_the_next_free_port() {
        // A free port that the kernel chooses.
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let pool = PortPool::new(port..port + 1);
        let held = pool.ask().try_recv().unwrap();
        let [mut first, gone, mut second] = [(); 3].map(|()| pool.ask());
        drop(gone);
        assert!(first.try_recv().is_err() && second.try_recv().is_err());
        drop(held);
        assert!(second.try_recv().is_err());
        // A request that was given up passes the port to the next one.
        drop(first);
        assert_eq!(second.try_recv().unwrap().port(), port);
        assert!(pool.status().reserved.is_empty());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Lease,
        Free(usize),
        StrangerComes(u16),
        StrangerGoes(u16),
        LoseToStranger(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Lease),
            2 => any::<usize>().prop_map(Step::Free),
            1 => (0u16..8).prop_map(|port| Step::StrangerComes(100 + port)),
            1 => (0u16..8).prop_map(|port| Step::StrangerGoes(100 + port)),
            1 => any::<usize>().prop_map(Step::LoseToStranger),
        ]
    }

    proptest! {
        /// No port is leased twice or while another program holds it, and every port that is given
        /// back can be leased again.
        #[test]
        fn leases_are_exclusive_and_always_come_back(
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let pool = PortPool::new(100..108);
            let mut held: Vec<PortLease> = Vec::new();
            let mut strangers: BTreeMap<u16, ()> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Lease => match lease_if(&pool, |port| !strangers.contains_key(&port)) {
                        Some(lease) => {
                            prop_assert!(!strangers.contains_key(&lease.port()));
                            prop_assert!(held.iter().all(|other| other.port() != lease.port()));
                            held.push(lease);
                        }
                        None => {
                            let ours = held.iter().map(PortLease::port);
                            let busy = ours.chain(strangers.keys().copied());
                            let busy: BTreeSet<u16> = busy.collect();
                            prop_assert_eq!(busy.len(), pool.total());
                        }
                    },
                    Step::Free(index) if !held.is_empty() => {
                        held.swap_remove(index % held.len());
                    }
                    Step::LoseToStranger(index) if !held.is_empty() => {
                        let lease = held.swap_remove(index % held.len());
                        strangers.insert(lease.port(), ());
                        lease.record_foreign();
                    }
                    Step::Free(_) | Step::LoseToStranger(_) => {}
                    Step::StrangerComes(port) => {
                        if held.iter().all(|lease| lease.port() != port) {
                            strangers.insert(port, ());
                        }
                    }
                    Step::StrangerGoes(port) => {
                        strangers.remove(&port);
                    }
                }
                let mut ours: Vec<u16> = held.iter().map(PortLease::port).collect();
                ours.sort_unstable();
                prop_assert_eq!(pool.status().reserved, ours);
            }
            held.clear();
            let all: Vec<_> = std::iter::from_fn(|| lease_if(&pool, |_| true)).collect();
            prop_assert_eq!(all.len(), pool.total());
        }
    }
}
