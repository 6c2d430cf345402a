//! The writer's queue: log records in order, within a memory limit, and calls that overtake them.
//! No I/O.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::bounds::Bounds;
use super::{LogRecord, StoreError};

/// Receives an answer.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// Is answered after all records that were queued before it.
pub(super) enum Barrier {
    /// Reports that the records are committed or dropped.
    Flush { reply: oneshot::Sender<()> },
    /// Closes sessions that no server has.
    CloseStale { reason: &'static str, reply: Reply<usize> },
}

/// A change that a caller waits for. It runs before the queued records. It gets the connection or
/// the reason why there is none, and sends its own answer.
pub(super) type Call = Box<dyn FnOnce(Result<&mut Connection, StoreError>) + Send>;

/// The result of queueing a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Queued,
    Full,
    Closed,
}

/// The writer's next task.
pub(super) enum Work {
    Calls(Vec<Call>),
    Batch { records: Vec<LogRecord>, barrier: Option<Barrier> },
    End,
}

enum Entry {
    Record { record: LogRecord, size: usize },
    Barrier(Barrier),
}

pub(super) struct Queue {
    bounds: Bounds,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    calls: Vec<Call>,
    /// Bytes of the queued records.
    bytes: usize,
    barriers: usize,
    /// When the oldest entry was queued.
    oldest: Option<Instant>,
    /// A client may query the database for one of the records now.
    is_urgent: bool,
    /// No more entries are accepted.
    is_closed: bool,
}

impl State {
    /// Returns whether a caller waits for the entries.
    fn is_awaited(&self) -> bool {
        self.barriers > 0 || self.is_closed
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        match &entry {
            Entry::Record { size, .. } => self.bytes -= size,
            Entry::Barrier(_) => self.barriers -= 1,
        }
        Some(entry)
    }
}

impl Queue {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, state: Mutex::default(), wake: Condvar::new() }
    }

    pub(super) fn push_record(&self, mut record: LogRecord) -> Pushed {
        let size = record.size();
        let mut state = self.lock();
        if state.is_closed {
            return Pushed::Closed;
        }
        if state.bytes + size > self.bounds.queue_bytes {
            return Pushed::Full;
        }
        state.bytes += size;
        // A client that is told of a session's end must find it in the database.
        if matches!(record, LogRecord::SessionEnded { .. }) {
            state.is_urgent = true;
            self.wake.notify_one();
        }
        self.push(state, Entry::Record { record, size });
        Pushed::Queued
    }

    /// Queues a barrier. After `close` it is dropped, which the caller notices.
    pub(super) fn push_barrier(&self, barrier: Barrier) {
        let mut state = self.lock();
        if !state.is_closed {
            state.barriers += 1;
            self.push(state, Entry::Barrier(barrier));
        }
    }

    /// Queues a call. After `close` it is dropped, which the caller notices.
    pub(super) fn push_call(&self, call: Call) {
        let mut state = self.lock();
        if !state.is_closed {
            state.calls.push(call);
            self.wake.notify_one();
        }
    }

    /// Accepts no more entries. Queued ones are still handed out.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.wake.notify_one();
    }

    /// Closes the queue and drops its entries, because the writer has ended.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        *state = State { is_closed: true, ..State::default() };
    }

    /// Waits for work. Records gather for a moment, unless a caller waits or may query them.
    pub(super) fn take(&self) -> Work {
        let mut state = self.lock();
        loop {
            if !state.calls.is_empty() {
                return Work::Calls(std::mem::take(&mut state.calls));
            }
            if state.entries.is_empty() && state.is_closed {
                return Work::End;
            }
            let rest = match state.oldest {
                Some(oldest) => self.bounds.gather.saturating_sub(oldest.elapsed()),
                None => Duration::MAX,
            };
            let is_full = state.entries.len() >= self.bounds.batch_records;
            if rest.is_zero() || is_full || state.is_urgent || state.is_awaited() {
                state.is_urgent = false;
                return self.pop_batch(&mut state);
            }
            state = match state.oldest {
                Some(_) => self.wait_at_most(state, rest),
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Waits for `pause`, or until a call arrives. Returns the calls.
    pub(super) fn pause(&self, pause: Duration) -> Vec<Call> {
        let end = Instant::now() + pause;
        let mut state = self.lock();
        loop {
            let rest = end.saturating_duration_since(Instant::now());
            if !state.calls.is_empty() || rest.is_zero() {
                return std::mem::take(&mut state.calls);
            }
            state = self.wait_at_most(state, rest);
        }
    }

    /// Returns whether a caller waits for the records.
    pub(super) fn is_awaited(&self) -> bool {
        self.lock().is_awaited()
    }

    /// Returns the number of queued records.
    pub(super) fn records(&self) -> usize {
        let state = self.lock();
        state.entries.len() - state.barriers
    }

    /// Returns whether less than half of the memory limit is used.
    pub(super) fn has_room(&self) -> bool {
        self.lock().bytes < self.bounds.queue_bytes / 2
    }

    /// Drops the records before the next barrier. Returns their number and the barrier.
    pub(super) fn drop_records(&self) -> (usize, Option<Barrier>) {
        let mut state = self.lock();
        let mut dropped = 0;
        while let Some(entry) = state.pop() {
            match entry {
                Entry::Record { .. } => dropped += 1,
                Entry::Barrier(barrier) => return (dropped, Some(barrier)),
            }
        }
        (dropped, None)
    }

    fn push(&self, mut state: MutexGuard<'_, State>, entry: Entry) {
        let is_barrier = matches!(entry, Entry::Barrier(_));
        state.entries.push_back(entry);
        if state.entries.len() == 1 {
            state.oldest = Some(Instant::now());
        }
        // While a batch gathers, the writer waits with a timeout. Waking it for each record would
        // cost more than the record.
        let count = state.entries.len();
        if is_barrier || count == 1 || count == self.bounds.batch_records {
            self.wake.notify_one();
        }
    }

    fn pop_batch(&self, state: &mut State) -> Work {
        let mut records = Vec::new();
        let mut barrier = None;
        while records.len() < self.bounds.batch_records && barrier.is_none() {
            match state.pop() {
                Some(Entry::Record { record, .. }) => records.push(record),
                Some(Entry::Barrier(found)) => barrier = Some(found),
                None => break,
            }
        }
        state.oldest = (!state.entries.is_empty()).then(Instant::now);
        Work::Batch { records, barrier }
    }

    fn wait_at_most<'a>(
        &self,
        state: MutexGuard<'a, State>,
        rest: Duration,
    ) -> MutexGuard<'a, State> {
        self.wake.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
