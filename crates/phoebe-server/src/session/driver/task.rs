//! One piece of work of a session: what was asked, what the worker answered, who waits.

use bytes::Bytes;
use phoebe_protocol::command::{Header, Message, SnapshotFormat};
use phoebe_protocol::kinds::CommandKind;
use tokio::time::Instant;

use crate::session::cores::CoreGrant;
use crate::session::error::SessionError;
use crate::session::file_queue::FileQueue;
use crate::session::reply::take_base;
use crate::session::request::{Source, Work, failure, not_saved};
use crate::session::start::wire_format;
use crate::session::state::Reply;
use crate::store::snapshots::{SnapshotError, Versions};

/// Work from its submission to its answer.
pub(super) struct Task {
    pub(super) work: Work,
    pub(super) kind: CommandKind,
    /// When it came.
    pub(super) submitted: Instant,
    /// When it began.
    pub(super) began: Option<Instant>,
    /// The cores that it computes on, until it is answered.
    #[allow(dead_code, reason = "held, not read")]
    pub(super) cores: Option<CoreGrant>,
    /// What a load brings back.
    pub(super) found: Option<Found>,
    pub(super) reply: Option<Given>,
}

/// What the worker answered.
pub(super) struct Given {
    pub(super) header: Header,
    pub(super) body: Bytes,
    /// The Bundle, where it was asked for.
    pub(super) bundle: Option<Bytes>,
    /// What a script can begin with, or why there is nothing.
    pub(super) base: Option<Result<Bytes, String>>,
}

/// The Bundle that a load brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) place: Place,
    /// Whether another version of PHOEBE made it, so that this one migrates it.
    pub(super) migrates: bool,
}

/// Where it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// An earlier or reverted step, which counts again.
    Step(u64),
    /// A checkpoint made at this step.
    Checkpoint(u64),
    /// A file of the user's.
    File,
}

impl Task {
    pub(super) fn new(work: Work) -> Self {
        let kind = work.kind();
        let submitted = Instant::now();
        Self { work, kind, submitted, began: None, cores: None, found: None, reply: None }
    }

    /// The command's bytes, if it is a command.
    pub(super) fn command(&self) -> Option<&Bytes> {
        match &self.work {
            Work::Command(command) => Some(&command.body),
            Work::Load { .. } | Work::Export { .. } => None,
        }
    }

    /// Whether the journal is told of its begin and end.
    pub(super) fn is_journaled(&self) -> bool {
        self.kind != CommandKind::Read && matches!(self.work, Work::Command(_))
    }

    /// Whether the worker answered that it changed the Bundle.
    pub(super) fn changed(&self) -> bool {
        let is_export = matches!(self.work, Work::Export { .. });
        let changed = |given: &Given| given.header.changed.unwrap_or(false);
        !is_export && self.reply.as_ref().is_some_and(changed)
    }

    /// Takes the worker's answer and returns what it means for the Bundle.
    pub(super) fn receive(&mut self, mut message: Message) -> Reply {
        let is_export = matches!(self.work, Work::Export { .. });
        let changed = message.header.changed.unwrap_or(false) && !is_export;
        let base = if changed { take_base(&mut message) } else { None };
        let Message { header, body, attachments } = message;
        let given = Given { header, body, bundle: attachments.into_iter().next(), base };
        let is_step = matches!(self.found, Some(Found { place: Place::Step(_), .. }));
        let reply = match &given {
            _ if !changed => Reply::Unchanged,
            _ if is_step => Reply::ChangedToStep,
            Given { bundle: Some(bundle), .. } => Reply::ChangedWithSnapshot(bundle.len()),
            Given { header, .. } => Reply::Changed { problem: header.snapshot_error.clone() },
        };
        self.reply = Some(given);
        reply
    }

    /// Answers as the worker did; `unsaved` is why the change is not on disk.
    pub(super) fn answer(self, unsaved: Option<&str>) {
        let Some(Given { header, body, bundle, .. }) = self.reply else { return };
        let success = header.success.unwrap_or(false);
        let problem = |default: &str| header.error.clone().unwrap_or_else(|| default.to_owned());
        match self.work {
            Work::Command(command) => {
                let body = if body.starts_with(b"{") && body.ends_with(b"}") {
                    body
                } else {
                    failure("The worker's answer was not a JSON object")
                };
                command.answer(match unsaved {
                    Some(problem) => not_saved(&body, problem),
                    None => body,
                });
            }
            Work::Load { answer, .. } => {
                let result = match success {
                    true => Ok(()),
                    false => Err(SessionError::BadBundle(problem("it gives no reason"))),
                };
                // The client may have gone.
                let _ = answer.send(result);
            }
            Work::Export { answer, .. } => {
                let given = bundle
                    .filter(|_| success)
                    .ok_or_else(|| SessionError::Conflict(problem("The worker gave no Bundle")));
                let _ = answer.send(given);
            }
        }
    }
}

/// Reads the Bundle that a load brings back: its form, its bytes, where it was found.
pub(super) async fn find(
    source: Source,
    files: Option<&FileQueue>,
    versions: &Versions,
) -> Result<(SnapshotFormat, Bytes, Found), SessionError> {
    if let Source::File(file) = source {
        let found = Found { place: Place::File, migrates: false };
        return Ok((SnapshotFormat::File, file, found));
    }
    let files = files.ok_or_else(SessionError::nothing_is_kept)?;
    let is_checkpoint = matches!(source, Source::Checkpoint(_));
    let missing = match &source {
        Source::Undo => SessionError::Conflict("There is nothing to undo".to_owned()),
        Source::Redo => SessionError::Conflict("There is nothing to redo".to_owned()),
        Source::Checkpoint(_) | Source::File(_) => SessionError::NoCheckpoint,
    };
    let ours = versions.clone();
    let read = files.submit(move |folder| match source {
        Source::Undo => folder.before(),
        Source::Redo => folder.after(),
        Source::Checkpoint(id) => folder.checkpoint(&id, &ours),
        Source::File(_) => Ok(None),
    });
    let snapshot = read.await.map_err(SnapshotError::Io).and_then(|snapshot| snapshot);
    let snapshot = snapshot
        .map_err(|error| SessionError::Conflict(format!("It cannot be brought back: {error}")))?
        .ok_or(missing)?;
    let step = snapshot.header.step;
    let place = if is_checkpoint { Place::Checkpoint(step) } else { Place::Step(step) };
    let found = Found { place, migrates: snapshot.header.is_migrated_by(versions) };
    Ok((wire_format(snapshot.header.format), snapshot.payload, found))
}
