//! Shares the machine's cores between all long commands. Who comes next is decided by
//! [`Turns`](super::turns); this hands the turns out and takes them back. It knows no sessions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::turns::{Lane, Ticket, Turns};

/// All cores. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Cores {
    started: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    turns: Turns,
    waiting: HashMap<Ticket, oneshot::Sender<usize>>,
}

/// A place among those who wait or compute, until it is dropped.
#[derive(Debug)]
struct Place {
    ticket: Ticket,
    cores: Cores,
}

/// The right to compute on some cores, until it is dropped.
#[derive(Debug)]
pub(super) struct CoreGrant {
    cores: usize,
    is_background: bool,
    _place: Place,
}

impl Cores {
    /// `total` cores, and at most `computes` long commands at once in each lane.
    pub(super) fn new(total: usize, computes: usize) -> Self {
        let state = State { turns: Turns::new(total, computes), waiting: HashMap::new() };
        Self { started: Instant::now(), state: Arc::new(Mutex::new(state)) }
    }

    /// How many long commands compute, and how many wait for a turn.
    pub(super) fn demand(&self) -> (usize, usize) {
        let state = self.lock();
        (state.turns.computing(), state.waiting.len())
    }

    fn now(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn join(&self, user: &str, lane: Lane) -> (Place, oneshot::Receiver<usize>) {
        let (grant, granted) = oneshot::channel();
        let mut state = self.lock();
        let ticket = state.turns.join(user, lane);
        state.waiting.insert(ticket, grant);
        state.hand_out(self.now());
        (Place { ticket, cores: self.clone() }, granted)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn hand_out(&mut self, now: f64) {
        while let Some((ticket, cores)) = self.turns.next(now) {
            if let Some(waiting) = self.waiting.remove(&ticket) {
                // Whoever does not wait any more leaves its place, and so takes the turn back.
                let _ = waiting.send(cores);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = self.cores.now();
        let mut state = self.cores.lock();
        state.waiting.remove(&self.ticket);
        state.turns.leave(now, self.ticket);
        state.hand_out(now);
    }
}

impl CoreGrant {
    /// Number of cores that the command may use.
    pub(super) fn cores(&self) -> usize {
        self.cores
    }

    /// Whether the command gives way to all interactive work.
    pub(super) fn is_background(&self) -> bool {
        self.is_background
    }
}

/// The wait for a turn on the machine's cores.
#[derive(Debug, Default)]
pub(super) struct CoreWait {
    wait: Option<(Place, Lane, oneshot::Receiver<usize>)>,
}

impl CoreWait {
    /// Begins to wait.
    pub(super) fn ask(&mut self, cores: &Cores, user: &str, lane: Lane) {
        let (place, granted) = cores.join(user, lane);
        self.wait = Some((place, lane, granted));
    }

    /// How many wait before this one, if it waits.
    pub(super) fn place(&self) -> Option<usize> {
        let (place, ..) = self.wait.as_ref()?;
        let now = place.cores.now();
        place.cores.lock().turns.place(now, place.ticket)
    }

    /// Waits until the turn has come; for ever if none is waited for. Cancel-safe.
    pub(super) async fn turn(&mut self) -> CoreGrant {
        let Some((_, _, granted)) = &mut self.wait else { return std::future::pending().await };
        let granted = granted.await;
        let (Some((place, lane, _)), Ok(cores)) = (self.wait.take(), granted) else {
            return std::future::pending().await;
        };
        CoreGrant { cores, is_background: lane == Lane::Batch, _place: place }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn turns_come_back_however_they_end() {
        let cores = Cores::new(4, 1);
        let wait = |lane| {
            let mut wait = CoreWait::default();
            wait.ask(&cores, "ada", lane);
            wait
        };
        let first = wait(Lane::Interactive).turn().await;
        assert_eq!((first.cores(), first.is_background()), (4, false));
        let mut second = wait(Lane::Interactive);
        let third = wait(Lane::Interactive);
        assert!(second.turn().now_or_never().is_none() && second.place() == Some(0));
        assert_eq!(third.place(), Some(1));
        let beside = wait(Lane::Batch).turn().await;
        assert_eq!((beside.cores(), beside.is_background()), (1, true));
        drop((first, beside));
        // It was given a turn, and never takes it.
        drop(second);
        let mut third = third;
        assert_eq!(third.turn().await.cores(), 4);
        assert_eq!(wait(Lane::Interactive).turn().await.cores(), 4);
        assert!(cores.lock().waiting.is_empty());
    }
}
