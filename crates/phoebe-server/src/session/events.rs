//! What happened in a session, in one numbered sequence, of which the last part is kept: clients
//! that lost their connection go on where they were. Only the session's driver writes it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::job::Job;
use super::view::SessionView;

/// So many events are kept.
const EVENTS_MAX: usize = 1000;
/// So many are kept of a session that sleeps: there may be thousands of those.
const SLEEPING_EVENTS_MAX: usize = 50;
/// So many bytes of events are kept, as JSON.
const BYTES_MAX: usize = 1 << 20;
/// Roughly the bytes of an event without a job.
const SMALL_EVENT_BYTES: usize = 500;

/// One event of a session.
#[derive(Debug, Clone)]
pub struct SessionEvent {
    /// Counts from 1.
    pub number: u64,
    /// What happened.
    pub happened: Happened,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Happened {
    /// A job changed its state.
    Job(Arc<Job>),
    /// The Bundle changed.
    Bundle {
        /// Its step now.
        revision: u64,
        /// The command that changed it.
        command: String,
    },
    /// The session's state, its names or a message for its user changed.
    Session(Box<SessionView>),
}

/// Events that a reader asked for are not kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventsLost;

/// The events of one session, for its driver.
pub(super) struct EventWriter {
    log: Arc<Mutex<Log>>,
    last: watch::Sender<u64>,
}

/// The events of one session, for others. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventReader {
    log: Arc<Mutex<Log>>,
    last: watch::Receiver<u64>,
}

#[derive(Debug, Default)]
struct Log {
    events: VecDeque<(SessionEvent, usize)>,
    bytes: usize,
    last: u64,
}

impl Log {
    /// Drops the oldest events beyond the bounds.
    fn keep(&mut self, most: usize) {
        while self.events.len() > most || self.bytes > BYTES_MAX && self.events.len() > 1 {
            self.bytes -= self.events.pop_front().map_or(0, |(_, bytes)| bytes);
        }
    }
}

/// An empty log of events.
pub(super) fn events() -> (EventWriter, EventReader) {
    let log = Arc::new(Mutex::new(Log::default()));
    let (last, receiver) = watch::channel(0);
    (EventWriter { log: Arc::clone(&log), last }, EventReader { log, last: receiver })
}

impl EventWriter {
    /// Appends an event. The oldest ones are dropped beyond the bounds.
    pub(super) fn append(&self, happened: Happened) {
        let bytes = match &happened {
            Happened::Job(job) => serde_json::to_vec(&**job).map_or(0, |json| json.len()),
            Happened::Bundle { .. } => SMALL_EVENT_BYTES,
            Happened::Session(view) => {
                let metadata = serde_json::to_vec(&view.metadata).map_or(0, |json| json.len());
                SMALL_EVENT_BYTES + metadata
            }
        };
        let mut log = lock(&self.log);
        log.last += 1;
        let number = log.last;
        log.events.push_back((SessionEvent { number, happened }, bytes));
        log.bytes += bytes;
        log.keep(EVENTS_MAX);
        drop(log);
        self.last.send_replace(number);
    }

    /// Drops all but the last events of a session that falls asleep.
    pub(super) fn fall_asleep(&self) {
        let mut log = lock(&self.log);
        log.keep(SLEEPING_EVENTS_MAX);
        log.events.shrink_to_fit();
    }
}

impl EventReader {
    /// The number of the last event.
    #[must_use]
    pub fn last(&self) -> u64 {
        lock(&self.log).last
    }

    /// The events after the one with this number.
    ///
    /// # Errors
    /// [`EventsLost`] where some of them are not kept, or there is no such event yet.
    pub fn after(&self, number: u64) -> Result<Vec<SessionEvent>, EventsLost> {
        let log = lock(&self.log);
        let first_kept = log.last + 1 - log.events.len() as u64;
        if number + 1 < first_kept || number > log.last {
            return Err(EventsLost);
        }
        let skipped = usize::try_from(number + 1 - first_kept).unwrap_or(usize::MAX);
        Ok(log.events.iter().skip(skipped).map(|(event, _)| event.clone()).collect())
    }

    /// Waits for an event that this reader has not been told of. Returns whether there may be one:
    /// false where the session has ended. Cancel-safe.
    pub async fn changed(&mut self) -> bool {
        self.last.changed().await.is_ok()
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(revision: u64) -> Happened {
        Happened::Bundle { revision, command: "set_value".to_owned() }
    }

    #[tokio::test]
    async fn readers_go_on_where_they_were_and_learn_what_they_lost() {
        let (writer, mut reader) = events();
        assert_eq!(reader.after(0).unwrap().len(), 0);
        assert_eq!(reader.after(1).unwrap_err(), EventsLost, "of another server");
        for revision in 1..=1500 {
            writer.append(bundle(revision));
        }
        assert!(reader.changed().await);
        assert_eq!(reader.last(), 1500);
        assert_eq!(reader.after(499).unwrap_err(), EventsLost);
        for number in [500, 1499, 1500] {
            let numbers: Vec<_> =
                reader.after(number).unwrap().iter().map(|event| event.number).collect();
            assert_eq!(numbers, (number + 1..=1500).collect::<Vec<_>>());
        }
        assert!(lock(&reader.log).bytes <= BYTES_MAX);
        writer.fall_asleep();
        assert_eq!(reader.after(1450).unwrap().len(), 50);
        assert_eq!(reader.after(1449).unwrap_err(), EventsLost);
        drop(writer);
        assert!(!reader.changed().await, "the session has ended");
    }
}
