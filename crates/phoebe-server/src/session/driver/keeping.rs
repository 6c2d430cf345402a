//! What the driver has on disk: which answers wait for it, what is told where it cannot be, and when the rest goes there.

use std::io;

use bytes::Bytes;
use phoebe_protocol::command::{Header, Message, SnapshotFormat};
use phoebe_protocol::kinds::CommandKind;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::{Driver, Leave, SAVE_LIMIT, reason};
use crate::session::awake::{Awake, Found, Place, Queued, disk_problem};
use crate::session::keeper::Keeper;
use crate::session::request::{Work, not_saved};
use crate::session::start::{no_base, take_base};
use crate::session::{CopyOf, SessionError, now};
use crate::store::snapshots::{Change, ChangeKind, Format, Imported, Origin, SessionRecord};

/// What has gone to the disk, or could not.
pub(in crate::session) struct Committed {
    change: u64,
    bytes: usize,
    outcome: io::Result<()>,
    what: What,
}

enum What {
    /// An answer that waited for it.
    Answer { queued: Queued, body: Bytes, header: Box<Header> },
    /// The Bundle in a form that was asked for.
    Bundle(SnapshotFormat),
}

impl Driver {
    /// Fills the session's folder from another session's.
    pub(super) async fn copy(&self, copy_of: &CopyOf) -> Result<(), SessionError> {
        let unsupported =
            || SessionError::Conflict("Nothing is kept of sessions on this server".to_owned());
        let (Some(store), Some(keeper)) = (&self.shared.snapshots, &self.keeper) else {
            return Err(unsupported());
        };
        let record = self.record();
        let written = keeper.run(move |folder| folder.write_record(&record)).await;
        let mut other = store.session(&self.session);
        let checkpoint = copy_of.checkpoint.clone();
        let original = self.shared.files(&copy_of.session, true).await?;
        let _turn = self.shared.turn(&copy_of.session).await?;
        let copied =
            original.run(move |folder| folder.copy_to(&mut other, checkpoint.as_deref())).await;
        keeper.run(|folder| folder.measure()).await.map_err(copy_failed)?;
        match written.and_then(|written| written).and_then(|()| copied?) {
            Ok(true) => Ok(()),
            Ok(false) => Err(SessionError::NoCheckpoint),
            Err(error) => Err(copy_failed(error)),
        }
    }

    /// Keeps the session and the Bundle that it begins with, before anybody learns of it.
    pub(super) async fn keep_beginning(&mut self, awake: &mut Awake) {
        let (Some(store), Some(keeper)) = (self.shared.snapshots.clone(), self.keeper.clone())
        else {
            return;
        };
        let digest = awake.worker.info().template.clone();
        let exact = store.template(&digest, Format::Pickle);
        let portable = store.template(&digest, Format::Portable);
        let record = self.record();
        let kept = keeper.run(move |folder| {
            folder.write_record(&record)?;
            folder.link_templates(&exact, &portable)
        });
        match kept.await.and_then(|kept| kept) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.saved.failed(0, disk_problem(&error));
                return self.publish_saved();
            }
        }
        // The first of its origin: all others link to what it gives.
        self.saved.failed(0, "it has just begun".to_owned());
        for format in [SnapshotFormat::Pickle, SnapshotFormat::Portable] {
            if !self.save(awake, format).await || digest.is_empty() {
                return;
            }
            let (store, digest) = (store.clone(), digest.clone());
            let shared = keeper.run(move |folder| {
                let snapshot = folder.raw(kept_format(format)).map_err(io::Error::other)?;
                let taken_at = snapshot.header.taken_at;
                store.write_template(&digest, snapshot.into(), taken_at)
            });
            if let Err(error) = shared.await.and_then(|shared| shared) {
                warn!(%error, "the Bundle that sessions begin with cannot be shared");
            }
        }
    }

    /// Notes that the Bundle is one that was migrated: scripts begin with it.
    pub(super) fn note_migrated(&self, bytes: Option<Result<Bytes, String>>, awake: &Awake) {
        let (Some(bytes), Some(keeper)) = (bytes, &self.keeper) else { return };
        let phoebe = awake.phoebe();
        let imported = Imported { origin: Origin::Migrated, phoebe, bytes };
        // Where it cannot be written now it is with the next line.
        drop(keeper.run(move |folder| folder.write_base_step(imported, now())));
    }

    pub(super) fn record(&self) -> SessionRecord {
        let view = self.view.borrow().clone();
        SessionRecord {
            session_id: view.session_id,
            created_at: view.created_at,
            last_activity: view.last_activity,
            user_id: view.owner.as_ref().map(|owner| owner.user_id.clone()),
            full_name: view.owner.map(|owner| owner.full_name),
            project_name: view.project_name,
            first_name: view.user_info.first_name,
            last_name: view.user_info.last_name,
            email: view.user_info.email,
            metadata: view.metadata,
        }
    }

    /// The files, with everything on them that is acknowledged.
    pub(super) async fn files(
        &mut self,
        awake: Option<&mut Awake>,
        in_all_forms: bool,
    ) -> Result<Keeper, SessionError> {
        let keeper = self.keeper.clone().ok_or_else(|| {
            SessionError::Conflict(
                "Nothing is kept of sessions on this server ([session] durability = \"off\")"
                    .to_owned(),
            )
        })?;
        let Some(awake) = awake else { return Ok(keeper) };
        if self.saved.problem().is_some() && !self.save(awake, SnapshotFormat::Pickle).await {
            let problem = self.saved.problem().unwrap_or_default();
            let text = format!("The session cannot be saved now: {problem}");
            return Err(SessionError::Conflict(text));
        }
        if in_all_forms
            && self.saved.wants_portable()
            && !self.save(awake, SnapshotFormat::Portable).await
        {
            warn!(session = self.session, "the session has no portable copy");
        }
        Ok(keeper)
    }

    /// Keeps what a command changed; where it must be on disk first, its answer waits for that.
    pub(super) fn keep_change(&mut self, mut message: Message, queued: Queued, awake: &mut Awake) {
        let change = self.saved.changed();
        let Some(keeper) = &self.keeper else { return self.answer(queued, message, awake) };
        let base = take_base(&mut message);
        let Message { mut header, body, attachments } = message;
        let success = header.success.unwrap_or(false);
        let payload = attachments.into_iter().next();
        let payload = payload.map(|bytes| awake.payload(Format::Pickle, bytes));
        let bytes = payload.as_ref().map_or(0, |payload| payload.bytes.len());
        let missing = payload.is_none();
        let found = queued.found;
        let is_step = matches!(found, Some(Found { place: Place::Step(_), .. }));
        let (at, phoebe) = (now(), awake.phoebe());
        let import =
            |origin| Imported { origin, phoebe, bytes: base.clone().unwrap_or_else(no_base) };
        let outcome = match found {
            Some(Found { place: Place::Step(step), migrates }) => {
                let imported = migrates.then(|| import(Origin::Migrated));
                keeper.run(move |folder| {
                    folder.set_head(step)?;
                    imported.map_or(Ok(()), |imported| folder.write_base_step(imported, at))
                })
            }
            _ => {
                let (changed, parent) = match (found, queued.command()) {
                    (Some(Found { place: Place::Checkpoint(step), migrates: false }), _) => {
                        (ChangeKind::Returned, Some(step))
                    }
                    (Some(Found { migrates: true, .. }), _) => {
                        (ChangeKind::Replaced(import(Origin::Migrated)), None)
                    }
                    (None, Some(command)) if base.is_none() => {
                        let (command, parameter) = (command.clone(), header.parameter.take());
                        (ChangeKind::Command { command, parameter }, None)
                    }
                    (None, Some(_)) => (ChangeKind::Replaced(import(Origin::Loaded)), None),
                    (Some(_), _) | (None, None) => {
                        (ChangeKind::Replaced(import(Origin::Uploaded)), None)
                    }
                };
                let entry = Change { at, success, changed, parent };
                keeper.run(move |folder| folder.commit(entry, payload.as_ref()).map(drop))
            }
        };
        let waits = !missing || is_step;
        if !waits {
            match header.snapshot_error.clone() {
                Some(problem) => {
                    if self.saved.problem().is_none() {
                        warn!(session = self.session, "the worker cannot give its Bundle");
                    }
                    self.saved.failed(change, problem);
                }
                None => self.saved.postpone(change),
            }
            self.publish_saved();
        }
        let what = What::Answer { queued, body, header: Box::new(header) };
        if waits || self.saved.with_every_change() {
            awake.commits.push(async move {
                let outcome = outcome.await.and_then(|outcome| outcome);
                Committed { change, bytes, outcome, what }
            });
        } else {
            self.note_committed(Committed { change: 0, bytes: 0, outcome: Ok(()), what }, awake);
        }
    }

    pub(super) fn note_committed(&mut self, committed: Committed, awake: &mut Awake) {
        let Committed { change, bytes, outcome, what } = committed;
        let problem = outcome.as_ref().err().map(disk_problem);
        match what {
            What::Bundle(format) => {
                self.saved.answered();
                match (format, problem) {
                    (SnapshotFormat::Pickle, None) => {
                        if self.saved.problem().is_some() {
                            info!(session = self.session, "everything is saved");
                        }
                        self.saved.saved(change, bytes);
                    }
                    (SnapshotFormat::Pickle, Some(problem)) => self.saved.failed(change, problem),
                    (_, problem) => {
                        if let Some(problem) = problem {
                            warn!(
                                session = self.session,
                                problem, "the portable copy is not saved"
                            );
                        }
                        self.saved.portable_done(change);
                    }
                }
            }
            What::Answer { queued, body, header } => {
                let unsaved = match problem {
                    None if bytes > 0 => {
                        self.saved.saved(change, bytes);
                        None
                    }
                    None => self.saved.problem().filter(|_| self.saved.with_every_change()),
                    Some(problem) => {
                        if self.saved.problem().is_none() {
                            error!(session = self.session, problem, "a change is not saved");
                        }
                        self.saved.failed(change, problem);
                        self.saved.problem()
                    }
                };
                let body = unsaved.map_or(body.clone(), |problem| not_saved(&body, problem));
                self.finish(queued, body, *header, awake);
            }
        }
        self.publish_saved();
    }

    /// Asks the worker for its Bundle, to keep it.
    pub(super) async fn ask_for_bundle(
        &mut self,
        awake: &mut Awake,
        format: SnapshotFormat,
    ) -> Option<Leave> {
        self.saved.asked();
        awake.ask_for_bundle(format, self.saved.last_change()).await.err().map(Leave::Lost)
    }

    pub(super) fn keep_bundle(
        &mut self,
        message: Message,
        format: SnapshotFormat,
        change: u64,
        awake: &mut Awake,
    ) {
        let bundle = message.attachments.first().filter(|_| message.header.success == Some(true));
        let (Some(bundle), Some(keeper)) = (bundle, &self.keeper) else {
            let outcome = Err(io::Error::other(reason(&message.header)));
            let what = What::Bundle(format);
            return self.note_committed(Committed { change, bytes: 0, outcome, what }, awake);
        };
        let (bytes, record, taken_at) = (bundle.len(), self.record(), now());
        let kind = kept_format(format);
        let payload = awake.payload(kind, bundle.clone());
        let outcome = keeper.run(move |folder| {
            folder.write_record(&record)?;
            match kind {
                Format::Pickle => folder.save(&payload, taken_at),
                Format::Portable => folder.save_portable(&payload, taken_at),
            }
        });
        awake.commits.push(async move {
            let outcome = outcome.await.and_then(|outcome| outcome);
            Committed { change, bytes, outcome, what: What::Bundle(format) }
        });
    }

    /// Writes the Bundle down now, and says whether it is on disk.
    pub(super) async fn save(&mut self, awake: &mut Awake, format: SnapshotFormat) -> bool {
        let written = timeout(SAVE_LIMIT, async {
            if self.ask_for_bundle(awake, format).await.is_some() {
                return;
            }
            while !awake.exports.is_empty() || !awake.commits.is_empty() {
                let event = awake.next().await;
                if self.note(event, awake).is_some() {
                    return;
                }
            }
        });
        let in_time = written.await.is_ok();
        in_time
            && match format {
                SnapshotFormat::Pickle => self.saved.problem().is_none(),
                _ => !self.saved.wants_portable(),
            }
    }

    pub(super) fn publish_saved(&self) {
        let problem = self.saved.problem();
        self.view.send_if_modified(|view| {
            let changed = view.unsaved.as_deref() != problem;
            if changed {
                view.unsaved = problem.map(str::to_owned);
            }
            changed
        });
    }

    /// Writes down what is known of the session; that begins now, whether its end is waited for or not.
    pub(super) fn write_record(&self) -> impl Future<Output = ()> + Send + 'static {
        let (session, record) = (self.session.clone(), self.record());
        let keeper = self.keeper.as_ref();
        let written = keeper.map(|keeper| keeper.run(move |folder| folder.write_record(&record)));
        async move {
            let Some(written) = written else { return };
            if let Err(error) = written.await.and_then(|written| written) {
                warn!(session, %error, "the session's record is not saved");
            }
        }
    }

    /// Notes in the journal that a command of which it says that it began is over, and changed nothing.
    pub(super) fn note_over(&self, queued: &Queued) {
        if let (Work::Command(command), Some(keeper)) = (&queued.work, &self.keeper)
            && queued.kind != CommandKind::Read
        {
            let (name, at) = (command.name.clone(), now());
            drop(keeper.run(move |folder| folder.end(&name, at)));
        }
    }

    /// Waits for everything that is on its way to the disk.
    pub(super) async fn note_commits(&mut self, awake: &mut Awake) {
        while !awake.commits.is_empty() {
            let committed = awake.commits.next().await;
            self.note_committed(committed, awake);
        }
    }

    /// Nobody finds the session any more, now and after a restart.
    pub(super) async fn forget(&self) {
        self.shared.forget(&self.session);
        let Some(keeper) = &self.keeper else { return };
        let removed = keeper.run(|folder| folder.remove()).await;
        if let Err(error) = removed.and_then(|removed| removed) {
            error!(session = self.session, %error, "the files of an ended session stay");
        }
    }
}

fn copy_failed(error: io::Error) -> SessionError {
    SessionError::Conflict(format!("It cannot be copied: {error}"))
}

/// How the disk calls what a worker gives.
fn kept_format(format: SnapshotFormat) -> Format {
    match format {
        SnapshotFormat::Pickle => Format::Pickle,
        SnapshotFormat::Portable | SnapshotFormat::File | SnapshotFormat::Script => {
            Format::Portable
        }
    }
}
