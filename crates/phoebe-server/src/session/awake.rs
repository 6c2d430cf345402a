//! A session's worker, and what is under way with it: what goes out in its turn, and what has taken too long.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use phoebe_protocol::command::{Message, SnapshotFormat};
use phoebe_protocol::kinds::CommandKind;
use tokio::time::{Instant, timeout};

use super::SessionError;
use super::admission::Admission;
use super::cores::{CoreGrant, CoreWait, Cores};
use super::keeper::{Keeper, Pending};
use super::memory::MemoryWatch;
use super::ports::PortLease;
use super::queue::CommandQueue;
use super::request::{Source, Work};
use super::script;
use super::start::{Started, versions_of, wire_format};
use crate::store::snapshots::{Format, Payload, SnapshotError, Versions};
use crate::worker::connection::{Connection, ConnectionError, Wanted};
use crate::worker::{Exit, Worker};

/// A command that has run out of time, and its runner ended, has so long to answer that.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// So many replies to nothing asked are only reported.
const STRAY_REPLIES: u32 = 3;
/// After its connection broke, a worker has so long to show how it ended.
const EXIT_PATIENCE: Duration = Duration::from_millis(500);

/// Work in the queue.
pub(super) struct Queued {
    pub(super) work: Work,
    /// How it touches the Bundle, as it was decided when it was accepted.
    pub(super) kind: CommandKind,
    /// When it went to the worker.
    pub(super) sent: Option<Instant>,
    /// Whether its time was over and it was asked to end.
    overdue: bool,
    /// The cores it computes on.
    cores: Option<CoreGrant>,
    /// What a load brings back.
    pub(super) found: Option<Found>,
}

/// What is brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) place: Place,
    /// Whether another version of PHOEBE made it, so that this one migrates it.
    pub(super) migrates: bool,
}

/// Where it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// An earlier or undone step, which counts again.
    Step(u64),
    /// A checkpoint made at this step.
    Checkpoint(u64),
    /// A file of the user's.
    File,
}

/// Why a worker cannot be used any more.
pub(super) struct Lost {
    /// In words for the user.
    pub(super) why: String,
}

/// A worker and what is under way with it.
pub(super) struct Awake {
    pub(super) worker: Worker,
    connection: Connection,
    cores: CoreWait,
    pub(super) memory: MemoryWatch,
    port: PortLease,
    /// What it runs, and writes snapshots with.
    versions: Versions,
    /// What the server itself asked for, to keep it.
    pub(super) exports: HashMap<u64, (SnapshotFormat, u64)>,
    /// Replies to nothing that was asked.
    stray_replies: u32,
    /// Answers that wait for the disk.
    pub(super) commits: Pending<super::driver::Committed>,
}

impl Queued {
    pub(super) fn new(work: Work) -> Self {
        let kind = work.kind();
        Self { work, kind, sent: None, overdue: false, cores: None, found: None }
    }

    /// The command's bytes, if it is a command.
    pub(super) fn command(&self) -> Option<&Bytes> {
        match &self.work {
            Work::Command(command) => Some(&command.body),
            Work::Load { .. } | Work::Export { .. } => None,
        }
    }
}

impl Awake {
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
            exports: HashMap::new(),
            stray_replies: 0,
            commits: Pending::default(),
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port.port()
    }

    /// A Bundle that it gave, as it is kept.
    pub(super) fn payload(&self, format: Format, bytes: Bytes) -> Payload {
        Payload { format, versions: self.versions.clone(), bytes }
    }

    /// The version of PHOEBE that its worker runs.
    pub(super) fn phoebe(&self) -> String {
        self.versions.phoebe.clone()
    }

    /// The next thing that its worker or the disk has to say.
    pub(super) async fn next(&mut self) -> Event {
        let measure = self.memory.due();
        tokio::select! {
            reply = self.connection.next() => match reply {
                Ok(message) => Event::Reply(message),
                Err(error) => Event::Broken(how_it_was_lost(&self.worker, error).await),
            },
            exit = self.worker.ended() => Event::Exited(Lost::exited(exit)),
            committed = self.commits.next() => Event::Committed(committed),
            measured = self.memory.measured() => Event::Measured(measured),
            () = self.cores.turn() => Event::Turn,
            () = super::driver::at(measure) => {
                self.memory.start(self.worker.memory());
                Event::Turn
            }
        }
    }

    /// A reply to nothing that was asked. A worker that goes on so is given up.
    pub(super) fn note_stray_reply(&mut self) -> Result<(), Lost> {
        self.stray_replies += 1;
        if self.stray_replies <= STRAY_REPLIES {
            return Ok(());
        }
        Err(Lost { why: "it broke the protocol: it answers what nobody asked".to_owned() })
    }

    /// What the worker said before it ended and nobody has read yet.
    pub(super) fn last_words(&mut self) -> Option<Message> {
        self.connection.next().now_or_never()?.ok()
    }

    /// Sends what may go. `keeper` writes down that a command begins; with `snapshots` changes bring their Bundle back.
    /// What has no room on disk is refused.
    pub(super) async fn send_what_may_go(
        &mut self,
        queue: &mut CommandQueue<Queued>,
        cores: &Cores,
        keeper: Option<&Keeper>,
        snapshots: bool,
        admission: Option<&Admission>,
    ) -> Result<(), Lost> {
        loop {
            let wants_cores = queue.ready(true) == Some(CommandKind::Long);
            let grant = if wants_cores { self.cores.take_or_ask(cores) } else { None };
            let Some((kind, mut queued)) = queue.next(grant.is_some()) else {
                return Ok(());
            };
            let admitted =
                admission.map_or(Ok(()), |admission| admission.check(&queued.work, kind));
            if let Err(error) = admitted {
                queued.work.refuse(error);
                continue;
            }
            queued.sent = Some(Instant::now());
            let cores = grant.as_ref().map(CoreGrant::cores);
            queued.cores = grant;
            let snapshot = snapshots && kind != CommandKind::Read;
            let sent = match &queued.work {
                Work::Command(command) => {
                    if let Some(keeper) = keeper.filter(|_| kind != CommandKind::Read) {
                        let (name, at) = (command.name.clone(), super::now());
                        // Where it cannot be written now it is with the next line.
                        drop(keeper.run(move |folder| folder.begin(&name, at)));
                    }
                    let wanted = Wanted { snapshot, base: keeper.is_some() };
                    self.connection.request(command.body.clone(), cores, wanted)
                }
                Work::Export { format: SnapshotFormat::Script, .. } => {
                    match script::source(keeper, &self.versions).await {
                        Ok((journal, base)) => {
                            self.connection.export(SnapshotFormat::Script, journal, &base)
                        }
                        Err(error) => {
                            queued.work.refuse(error);
                            continue;
                        }
                    }
                }
                Work::Export { format, .. } => self.connection.export(*format, Bytes::new(), &[]),
                Work::Load { source, .. } => {
                    match find(source.clone(), keeper, &self.versions).await {
                        Ok((format, bundle, found)) => {
                            queued.found = Some(found);
                            let Found { place, migrates } = found;
                            let snapshot = migrates || !matches!(place, Place::Step(_));
                            let base = keeper.is_some() && (migrates || place == Place::File);
                            let wanted = Wanted { snapshot, base };
                            self.connection.restore(format, bundle, wanted)
                        }
                        Err(error) => {
                            queued.work.refuse(error);
                            continue;
                        }
                    }
                }
            };
            match sent {
                Ok(number) => queue.started(number, kind, queued),
                Err(error) => {
                    // It is still to be answered, with all others.
                    queue.started(u64::MAX, kind, queued);
                    return Err(how_it_was_lost(&self.worker, error).await);
                }
            }
        }
    }

    /// Asks for the Bundle as it is after `change`, to keep it.
    pub(super) async fn ask_for_bundle(
        &mut self,
        format: SnapshotFormat,
        change: u64,
    ) -> Result<(), Lost> {
        match self.connection.export(format, Bytes::new(), &[]) {
            Ok(number) => {
                self.exports.insert(number, (format, change));
                Ok(())
            }
            Err(error) => Err(how_it_was_lost(&self.worker, error).await),
        }
    }

    /// When the next command will have run out of time.
    pub(super) fn next_deadline(
        queue: &CommandQueue<Queued>,
        limit: Option<Duration>,
    ) -> Option<Instant> {
        let limit = limit?;
        let deadlines = queue.running().filter_map(|(_, _, queued)| {
            let grace = if queued.overdue { CANCEL_GRACE } else { Duration::ZERO };
            Some(queued.sent? + limit + grace)
        });
        deadlines.min()
    }

    /// Ends runners whose command took longer than `limit`; a worker that cannot be helped that way is given up.
    pub(super) async fn end_overdue(
        &mut self,
        queue: &mut CommandQueue<Queued>,
        limit: Duration,
    ) -> Result<(), Lost> {
        let now = Instant::now();
        let seconds = limit.as_secs_f64();
        let mut cancel = Vec::new();
        for (number, kind, queued) in queue.running_mut() {
            let Some(sent) = queued.sent else { continue };
            if now >= sent + limit + CANCEL_GRACE {
                let why =
                    format!("a command took longer than {seconds} s and could not be stopped");
                return Err(Lost { why });
            }
            if now >= sent + limit && !queued.overdue {
                queued.overdue = true;
                if kind == CommandKind::Long {
                    cancel.push((number, format!("it took longer than {seconds} s")));
                }
            }
        }
        for (number, reason) in cancel {
            if let Err(error) = self.connection.cancel(number, &reason) {
                return Err(Lost::broken(&error));
            }
        }
        Ok(())
    }

    /// Ends the worker and frees its port.
    pub(super) async fn stop(self, grace: Duration) -> Exit {
        self.worker.stop(grace).await
    }
}

/// A connection breaks when its worker dies; then how it died is the better word.
async fn how_it_was_lost(worker: &Worker, error: ConnectionError) -> Lost {
    match timeout(EXIT_PATIENCE, worker.ended()).await {
        Ok(exit) => Lost::exited(exit),
        Err(_) => Lost::broken(&error),
    }
}

/// What happened with a worker.
pub(super) enum Event {
    /// It sent something.
    Reply(Message),
    /// What it answered is on disk, or cannot be.
    Committed(super::driver::Committed),
    /// Its memory was measured.
    Measured(Option<f64>),
    /// Something may go on.
    Turn,
    /// It is gone.
    Exited(Lost),
    /// It is of no more use, whether it lives or not.
    Broken(Lost),
}

impl Lost {
    fn exited(exit: Exit) -> Self {
        Self { why: format!("its process ended ({exit})") }
    }

    fn broken(error: &ConnectionError) -> Self {
        Self { why: error.to_string() }
    }
}

/// The Bundle that a load brings back.
async fn find(
    source: Source,
    keeper: Option<&Keeper>,
    versions: &Versions,
) -> Result<(SnapshotFormat, Bytes, Found), SessionError> {
    if let Source::File(file) = source {
        let found = Found { place: Place::File, migrates: false };
        return Ok((SnapshotFormat::File, file, found));
    }
    let keeper = keeper.ok_or_else(nothing_is_kept)?;
    let nothing = match &source {
        Source::Undo => "There is nothing to undo",
        Source::Redo => "There is nothing to redo",
        Source::Checkpoint(_) | Source::File(_) => "There is no such checkpoint",
    };
    let is_checkpoint = matches!(source, Source::Checkpoint(_));
    let ours = versions.clone();
    let read = keeper.run(move |folder| match source {
        Source::Undo => folder.before(),
        Source::Redo => folder.after(),
        Source::Checkpoint(id) => folder.checkpoint(&id, &ours),
        Source::File(_) => Ok(None),
    });
    let snapshot = read.await.map_err(SnapshotError::Io).and_then(|snapshot| snapshot);
    let snapshot = snapshot
        .map_err(|error| SessionError::Conflict(format!("It cannot be brought back: {error}")))?;
    let missing = if is_checkpoint {
        SessionError::NoCheckpoint
    } else {
        SessionError::Conflict(nothing.to_owned())
    };
    let snapshot = snapshot.ok_or(missing)?;
    let step = snapshot.header.step;
    let place = if is_checkpoint { Place::Checkpoint(step) } else { Place::Step(step) };
    let found = Found { place, migrates: snapshot.header.is_migrated_by(versions) };
    let format: Format = snapshot.header.format;
    Ok((wire_format(format), snapshot.payload, found))
}

pub(super) fn nothing_is_kept() -> SessionError {
    let text = "Nothing is kept of sessions on this server ([session] durability = \"off\")";
    SessionError::Conflict(text.to_owned())
}

/// What an unusable disk is to a session.
pub(super) fn disk_problem(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the disk is full".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "the disk is read-only".to_owned(),
        _ => format!("it cannot be written: {error}"),
    }
}
