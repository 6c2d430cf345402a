//! What the driver writes to a session's files and reads from them. Each write reports to the state
//! machine when it has ended.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use phoebe_protocol::command::{Message, SnapshotFormat};
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::link::WorkerLink;
use super::task::{Found, Given, Place};
use super::{Driver, Happening};
use crate::session::error::SessionError;
use crate::session::file_queue::FileQueue;
use crate::session::reply::{logged_reason, no_base};
use crate::session::request::Work;
use crate::session::shared::Shared;
use crate::session::start::BroughtUp;
use crate::session::state::{Beginning, Event, TaskId};
use crate::session::view::{CopyOf, UserInfo, now};
use crate::store::LogRecord;
use crate::store::snapshots::{
    Change, ChangeKind, Format, Imported, Origin, SessionFolder, SessionRecord,
};
use crate::worker::connection::Wanted;

/// What the log says of a command that a stop or crash of the server interrupted.
pub(super) const INTERRUPTED: &str = "interrupted: the server stopped while it ran";

impl Found {
    /// What the reply to the load is to bring.
    pub(super) fn wanted(self, is_kept: bool) -> Wanted {
        let Self { place, migrates } = self;
        Wanted {
            snapshot: migrates || !matches!(place, Place::Step(_)),
            base: is_kept && (migrates || place == Place::File),
        }
    }
}

impl Driver {
    /// Records in the log that a command was interrupted when an earlier server ended.
    pub(super) async fn log_interrupted(&mut self) {
        let Some(files) = &self.files else { return };
        let head = Arc::clone(&self.head);
        let interrupted = files.submit(move |folder| {
            folder.measure();
            head.store(folder.head().unwrap_or(0), Ordering::Relaxed);
            let interrupted = folder.interrupted().ok().flatten();
            if let Some(interrupted) = &interrupted {
                // Where this cannot be written, the next server logs it again.
                let _ = folder.end(&interrupted.command, interrupted.at);
            }
            interrupted
        });
        let Ok(Some(interrupted)) = interrupted.await else { return };
        let command = interrupted.command;
        warn!(session = self.session, command, "a command was interrupted");
        self.shared.store.log(LogRecord::Command {
            session_id: self.session.clone(),
            at: interrupted.at,
            name: command,
            success: false,
            execution_time_ms: 0.0,
            error: Some(INTERRUPTED.to_owned()),
        });
    }

    /// Writes what a task changed.
    pub(super) fn write_change(&mut self, id: TaskId) {
        let job = self.job_of(id);
        let (Some(task), Some(files)) = (self.tasks.get_mut(&id), &self.files) else { return };
        let (Some(link), Some(Given { header, bundle, base, .. })) = (&self.link, &mut task.reply)
        else {
            return;
        };
        let payload = bundle.take().map(|bytes| link.payload(Format::Pickle, bytes));
        let (at, phoebe) = (now(), link.versions().phoebe.clone());
        let base = base.take();
        let is_replaced = base.is_some();
        let import = |origin| Imported { origin, phoebe, bytes: base.unwrap_or_else(no_base) };
        let success = header.success.unwrap_or(false);
        let (changed, parent) = match (task.found, &task.work) {
            (Some(Found { place: Place::Step(step), migrates }), _) => {
                let imported = migrates.then(|| import(Origin::Migrated));
                let head = Arc::clone(&self.head);
                let written = files.submit(move |folder| {
                    folder.set_head(step)?;
                    head.store(step, Ordering::Relaxed);
                    imported.map_or(Ok(()), |imported| folder.write_base_step(imported, at))
                });
                return self.report_change(id, written);
            }
            (Some(Found { place: Place::Checkpoint(step), migrates: false }), _) => {
                (ChangeKind::Returned, Some(step))
            }
            (Some(Found { migrates: true, .. }), _) => {
                (ChangeKind::Replaced(import(Origin::Migrated)), None)
            }
            (None, Work::Command(command)) if !is_replaced => {
                let (command, parameter) = (command.body.clone(), header.parameter.take());
                (ChangeKind::Command { command, parameter }, None)
            }
            (None, Work::Command(_)) => (ChangeKind::Replaced(import(Origin::Loaded)), None),
            _ => (ChangeKind::Replaced(import(Origin::Uploaded)), None),
        };
        let entry = Change { at, success, changed, parent, job };
        let head = Arc::clone(&self.head);
        let written = files.submit(move |folder| {
            head.store(folder.commit(entry, payload.as_ref())?, Ordering::Relaxed);
            Ok(())
        });
        self.report_change(id, written);
    }

    /// The step of the Bundle, as far as it is on disk.
    pub(super) fn revision(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    fn report_change(
        &mut self,
        task: TaskId,
        written: impl Future<Output = io::Result<io::Result<()>>> + Send + 'static,
    ) {
        self.writes.push_back(Box::pin(async move {
            Event::ChangeWritten { task, result: disk_result(written.await) }
        }));
    }

    /// Takes the Bundle that the worker gave for the server itself.
    pub(super) fn note_bundle(&mut self, message: Message) {
        let Message { header, attachments, .. } = message;
        let bundle = attachments.into_iter().next().filter(|_| header.success == Some(true));
        let given = bundle.as_ref().map(Bytes::len).ok_or_else(|| logged_reason(&header));
        self.given = bundle;
        self.events.push_back(Event::BundleGiven(given));
    }

    /// Writes the Bundle that the worker gave.
    pub(super) fn write_bundle(&mut self, format: SnapshotFormat) {
        let (Some(files), Some(link), Some(bytes)) = (&self.files, &self.link, self.given.take())
        else {
            return self.events.push_back(Event::BundleWritten(Err("it is missing".to_owned())));
        };
        let (record, taken_at, template) = (self.record(), now(), self.template.clone());
        let kind = kept_format(format);
        let payload = link.payload(kind, bytes);
        let written = files.submit(move |folder| {
            folder.write_record(&record)?;
            match kind {
                Format::Pickle => folder.save(&payload, taken_at)?,
                Format::Portable => folder.save_portable(&payload, taken_at)?,
            }
            let Some((store, digest)) = template else { return Ok(()) };
            // The first session of its kind: others link to what it has written.
            let snapshot = folder.raw(kind).map_err(io::Error::other)?;
            let taken_at = snapshot.header.taken_at;
            if let Err(error) = store.write_template(&digest, snapshot.into(), taken_at) {
                warn!(%error, "the Bundle that sessions begin with cannot be shared");
            }
            Ok(())
        });
        self.writes
            .push_back(Box::pin(async move { Event::BundleWritten(disk_result(written.await)) }));
    }

    /// Notes in the journal that a command begins.
    pub(super) fn note_begun(&mut self, name: String) {
        let at = now();
        self.write_note(move |folder| folder.begin(&name, at));
    }

    /// Notes in the journal that a command has ended and changed nothing.
    pub(super) fn note_ended(&mut self, task: TaskId) {
        let name = self.tasks.get(&task).map(|task| task.work.name().to_owned());
        let (name, at) = (name.unwrap_or_default(), now());
        self.write_note(move |folder| folder.end(&name, at));
    }

    /// Writes down what is known of the session beside its Bundle.
    pub(super) fn write_record(&mut self) {
        let (session, record) = (self.session.clone(), self.record());
        self.write_note(move |folder| {
            let written = folder.write_record(&record);
            if let Err(error) = &written {
                warn!(session, %error, "the session's record is not saved");
            }
            written
        });
    }

    fn write_note(
        &mut self,
        job: impl FnOnce(&mut SessionFolder) -> io::Result<()> + Send + 'static,
    ) {
        let written = self.files.as_ref().map(|files| files.submit(job));
        self.writes.push_back(Box::pin(async move {
            Event::NoteWritten(match written {
                // A line that could not be written is written with the next one.
                Some(written) => written.await.map(drop).map_err(|error| error.to_string()),
                None => Ok(()),
            })
        }));
    }

    /// Records that the Bundle was migrated: scripts begin with it.
    pub(super) fn write_migrated(&self, bytes: Option<Result<Bytes, String>>, link: &WorkerLink) {
        let (Some(bytes), Some(files)) = (bytes, &self.files) else { return };
        let phoebe = link.versions().phoebe.clone();
        let imported = Imported { origin: Origin::Migrated, phoebe, bytes };
        // A line that could not be written is written with the next one.
        drop(files.submit(move |folder| folder.write_base_step(imported, now())));
    }

    pub(super) fn update_user_info(&mut self, info: UserInfo, done: oneshot::Sender<()>) {
        self.touch();
        self.view.send_modify(|view| view.user_info.update(info));
        self.tell_session();
        self.log_user_info(&self.view.borrow().user_info);
        self.waiting.newer_user_info.push(done);
        if self.waiting.user_info.is_empty() {
            self.write_user_info();
        }
    }

    /// Writes what is known of the user, once for all who wait for that.
    fn write_user_info(&mut self) {
        self.waiting.user_info = std::mem::take(&mut self.waiting.newer_user_info);
        let (session, record) = (self.session.clone(), self.record());
        let written = self.files.as_ref().map(|files| {
            // In its place in the queue: no later record, and no removal, comes before it.
            files.submit(move |folder| folder.write_record(&record))
        });
        self.jobs.push(Box::pin(async move {
            if let Some(written) = written
                && let Err(error) = written.await.flatten()
            {
                warn!(session, %error, "the session's record is not saved");
            }
            Happening::UserInfoWritten
        }));
    }

    pub(super) fn user_info_written(&mut self) {
        for done in self.waiting.user_info.drain(..) {
            // The client may have gone.
            let _ = done.send(());
        }
        if self.has_ended() {
            self.waiting.newer_user_info.clear();
        } else if !self.waiting.newer_user_info.is_empty() {
            self.write_user_info();
        }
    }

    pub(super) fn remove_files(&mut self) {
        let removed = self.files.as_ref().map(|files| files.submit(|folder| folder.remove()));
        let session = self.session.clone();
        self.jobs.push(Box::pin(async move {
            if let Some(removed) = removed
                && let Err(error) = removed.await.flatten()
            {
                error!(session, %error, "the files of an ended session stay");
            }
            Happening::Event(Event::FilesRemoved)
        }));
    }
}

/// Fills a session's folder from another session's.
///
/// # Errors
/// The other session or its checkpoint does not exist, or its files cannot be copied.
pub(super) async fn copy(
    shared: &Shared,
    session: &str,
    files: &FileQueue,
    record: SessionRecord,
    copy_of: &CopyOf,
) -> Result<(), SessionError> {
    let failed = |error: io::Error| SessionError::Conflict(format!("It cannot be copied: {error}"));
    let store = shared.snapshots.as_ref().ok_or_else(SessionError::nothing_is_kept)?;
    let written = files.submit(move |folder| folder.write_record(&record)).await;
    let mut target = store.session(session);
    let checkpoint = copy_of.checkpoint.clone();
    let original = shared.files(&copy_of.session, true).await?;
    let _turn = shared.turn(&copy_of.session).await?;
    let copied = original.run(move |folder| folder.copy_to(&mut target, checkpoint.as_deref()));
    let copied = copied.await;
    files.submit(|folder| folder.measure()).await.map_err(failed)?;
    match written.flatten().and_then(|()| copied.flatten()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(SessionError::NoCheckpoint),
        Err(error) => Err(failed(error)),
    }
}

/// Writes a fresh session and the Bundle that it begins with, before anybody learns of it.
pub(super) async fn write_beginning(
    shared: &Shared,
    files: &FileQueue,
    record: SessionRecord,
    up: &BroughtUp,
) -> Beginning {
    let Some(store) = &shared.snapshots else { return Beginning::Kept };
    let digest = &up.started.worker.info().template;
    let exact = store.template(digest, Format::Pickle);
    let portable = store.template(digest, Format::Portable);
    let written = files.submit(move |folder| {
        folder.write_record(&record)?;
        folder.link_templates(&exact, &portable)
    });
    match written.await.flatten() {
        Ok(()) => Beginning::Kept,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Beginning::NotKept,
        Err(error) => Beginning::Failed(disk_problem(&error)),
    }
}

fn disk_result(written: io::Result<io::Result<()>>) -> Result<(), String> {
    written.flatten().map_err(|error| disk_problem(&error))
}

/// An unusable disk, in words for the user.
fn disk_problem(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the disk is full".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "the disk is read-only".to_owned(),
        _ => format!("it cannot be written: {error}"),
    }
}

/// The form on disk of what a worker gives.
fn kept_format(format: SnapshotFormat) -> Format {
    match format {
        SnapshotFormat::Pickle => Format::Pickle,
        SnapshotFormat::Portable | SnapshotFormat::File | SnapshotFormat::Script => {
            Format::Portable
        }
    }
}
