//! A session's worker and the connection to it: which request each reply belongs to, whose turn it
//! is on the machine's cores, when its memory is measured. It decides nothing about the session.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use phoebe_protocol::command::{Kind, Message};
use tokio::time::{Instant, timeout_at};

use super::at;
use crate::session::cores::{CoreGrant, CoreWait};
use crate::session::memory::MemoryWatch;
use crate::session::metrics;
use crate::session::ports::PortLease;
use crate::session::start::{Started, versions_of};
use crate::session::state::TaskId;
use crate::store::snapshots::{Format, Payload, Versions};
use crate::worker::connection::{Connection, ConnectionError};
use crate::worker::{Exit, Worker};

/// After its connection broke, a worker gets this long to show how it ended.
const EXIT_PATIENCE: Duration = Duration::from_millis(500);

/// What a reply answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Task(TaskId),
    /// The Bundle, for the server itself.
    Bundle,
}

/// What the worker did.
#[expect(clippy::large_enum_variant, reason = "it is moved once and not stored")]
pub(super) enum LinkEvent {
    Replied(Asked, Message),
    StrayReply(u64),
    /// A report on a task that runs.
    Progress(TaskId, Bytes),
    Nothing,
    Measured(Option<f64>),
    CoresGranted(CoreGrant),
    /// Nothing more comes from it: it will be lost.
    Broken,
    /// It is of no more use, for this reason; and the reason's kind, for counting.
    Lost(String, &'static str),
}

/// A worker that has its Bundle.
pub(super) struct WorkerLink {
    pub(super) worker: Worker,
    connection: Connection,
    pub(super) cores: CoreWait,
    pub(super) memory: MemoryWatch,
    port: PortLease,
    /// What it runs, and writes snapshots with.
    versions: Versions,
    /// The requests that are not answered, by their number on the wire.
    asked: HashMap<u64, Asked>,
    /// Why the connection is of no more use, and since when.
    broken: Option<(ConnectionError, Instant)>,
    /// Nothing more can be read from it.
    is_read: bool,
}

impl WorkerLink {
    pub(super) fn new(started: Started) -> Self {
        let Started { worker, connection, port, .. } = started;
        let versions = versions_of(worker.info());
        Self {
            worker,
            connection,
            cores: CoreWait::default(),
            memory: MemoryWatch::new(),
            port,
            versions,
            asked: HashMap::new(),
            broken: None,
            is_read: false,
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port.port()
    }

    pub(super) fn versions(&self) -> &Versions {
        &self.versions
    }

    /// A Bundle that the worker gave, as it is kept.
    pub(super) fn payload(&self, format: Format, bytes: Bytes) -> Payload {
        Payload { format, versions: self.versions.clone(), bytes }
    }

    /// Sends a request and returns whether it went out. Where it did not, [`Self::next`] will
    /// report the worker as lost.
    pub(super) fn ask(
        &mut self,
        what: Asked,
        send: impl FnOnce(&mut Connection) -> Result<u64, ConnectionError>,
    ) -> bool {
        let sent = send(&mut self.connection).map(|number| self.asked.insert(number, what));
        sent.map_err(|error| self.note_broken(error)).is_ok()
    }

    /// Ends the runner of a task.
    pub(super) fn cancel(&mut self, task: TaskId, reason: &str) {
        let number = self.asked.iter().find(|(_, asked)| **asked == Asked::Task(task));
        if let Some((number, _)) = number
            && let Err(error) = self.connection.cancel(*number, reason)
        {
            self.note_broken(error);
        }
    }

    /// The first error counts: further ones do not give the worker more time.
    fn note_broken(&mut self, error: ConnectionError) {
        self.broken.get_or_insert((error, Instant::now()));
    }

    /// The next thing that happens. With `listens` false nothing of the worker's is read any more.
    /// Cancel-safe.
    pub(super) async fn next(&mut self, listens: bool) -> LinkEvent {
        let measure = self.memory.due();
        tokio::select! {
            // What was answered before a request could not be sent is still read.
            message = self.connection.next(), if listens && !self.is_read => match message {
                Ok(message) => self.receive(message),
                Err(error) => {
                    self.is_read = true;
                    self.note_broken(error);
                    LinkEvent::Broken
                }
            },
            (why, cause) = lost(&self.worker, self.broken.as_ref()), if listens => {
                LinkEvent::Lost(why, cause)
            }
            measured = self.memory.measured() => LinkEvent::Measured(measured),
            grant = self.cores.turn() => LinkEvent::CoresGranted(grant),
            () = at(measure) => {
                self.memory.start(self.worker.memory());
                LinkEvent::Nothing
            }
        }
    }

    fn receive(&mut self, message: Message) -> LinkEvent {
        let number = message.header.seq;
        if message.header.kind != Kind::Reply {
            return match self.asked.get(&number) {
                Some(Asked::Task(task)) => LinkEvent::Progress(*task, message.body),
                _ => LinkEvent::Nothing,
            };
        }
        match self.asked.remove(&number) {
            Some(asked) => LinkEvent::Replied(asked, message),
            None => LinkEvent::StrayReply(number),
        }
    }

    /// What the worker sent before it ended and nobody has read yet.
    pub(super) fn rest(&mut self) -> Option<LinkEvent> {
        if self.is_read {
            return None;
        }
        let message = self.connection.next().now_or_never()?.ok()?;
        Some(self.receive(message))
    }

    /// Ends the worker, and then frees its port.
    pub(super) async fn stop(self, grace: Duration) -> Exit {
        // It waits for no cores any more: others have its place.
        drop(self.cores);
        let exit = self.worker.stop(grace).await;
        drop(self.port);
        exit
    }
}

/// Waits until the worker cannot be used, and returns why. A connection breaks when its worker
/// dies; how that happened says more.
async fn lost(
    worker: &Worker,
    broken: Option<&(ConnectionError, Instant)>,
) -> (String, &'static str) {
    let exited = |exit: Exit| (format!("its process ended ({exit})"), exit.class());
    match broken {
        None => exited(worker.ended().await),
        Some((error, since)) => match timeout_at(*since + EXIT_PATIENCE, worker.ended()).await {
            Ok(exit) => exited(exit),
            Err(_) => (error.to_string(), metrics::CONNECTION),
        },
    }
}
