//! The requests that a driver takes, and how they are answered.

use std::time::Duration;

use bytes::Bytes;
use phoebe_protocol::command::SnapshotFormat;
use phoebe_protocol::kinds::CommandKind;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::error::SessionError;
use super::file_queue::FileQueue;
use super::job::{Job, NewJob};
use super::view::{Answer, EndReason, UserInfo};

/// A request to a session's driver.
pub(super) enum Request {
    /// Do work on the Bundle, in its turn.
    Work(Work),
    /// End the session.
    End { reason: EndReason, done: oneshot::Sender<()> },
    /// Check whether the session is idle or expired.
    Look { idle_timeout: Option<Duration> },
    /// Go to sleep, if it is awake and has nothing to do. The answer says whether it did.
    Sleep { done: oneshot::Sender<bool> },
    /// Store a long command, then do it in its turn.
    Job(JobSubmission),
    /// Cancel a job by its id, or all of the session.
    CancelJobs { job: Option<String>, reason: String, done: oneshot::Sender<()> },
    /// Measure the memory now.
    Measure { done: oneshot::Sender<f64> },
    /// Replace the fields of the user's information that are given.
    UserInfo { info: UserInfo, done: oneshot::Sender<()> },
    /// Write every change to disk, with `all_forms` also the portable copy, and hand out the files.
    Files { all_forms: bool, files: oneshot::Sender<Result<FileQueue, SessionError>> },
    /// The server stops.
    ShutDown { done: oneshot::Sender<()> },
}

/// Work on the Bundle, done in the order of the session's queue.
pub(super) enum Work {
    /// Run a command.
    Command(Command),
    /// Replace the Bundle by a kept or uploaded one.
    Load { source: Source, answer: oneshot::Sender<Result<(), SessionError>> },
    /// Return the Bundle in some form, or the script that makes it.
    Export {
        format: SnapshotFormat,
        answer: oneshot::Sender<Result<Bytes, SessionError>>,
        /// Held until it is done, where it takes much memory.
        #[allow(dead_code, reason = "held, not read")]
        turn: Option<OwnedSemaphorePermit>,
    },
}

/// Where another Bundle comes from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// The state before the last change.
    Undo,
    /// The state before the last undo.
    Redo,
    /// A checkpoint, by its id.
    Checkpoint(String),
    /// An uploaded file.
    File(Bytes),
}

/// A long command that is stored before it is accepted.
pub(super) struct JobSubmission {
    pub(super) name: String,
    pub(super) body: Bytes,
    pub(super) new: NewJob,
    /// The client's name for the request.
    pub(super) key: Option<String>,
    pub(super) done: oneshot::Sender<Result<Accepted, SessionError>>,
}

/// A job that was accepted.
#[derive(Debug)]
pub enum Accepted {
    /// Now.
    New(Job),
    /// Before, with the same idempotency key.
    Known(Job),
}

/// One command and the receiver of its answer.
pub(super) struct Command {
    pub(super) name: String,
    /// `None`: workers do not know it.
    pub(super) kind: Option<CommandKind>,
    pub(super) body: Bytes,
    /// The job that a long command becomes, until it is one.
    pub(super) job: Option<NewJob>,
    pub(super) answer: oneshot::Sender<Result<Answer, SessionError>>,
}

impl Work {
    /// How it touches the Bundle.
    pub(super) fn kind(&self) -> CommandKind {
        match self {
            // A worker answers a command that it does not know with an error and leaves the Bundle
            // as it is.
            Self::Command(command) => command.kind.unwrap_or(CommandKind::Read),
            Self::Load { .. } => CommandKind::Change,
            Self::Export { .. } => CommandKind::Read,
        }
    }

    /// Its name in the log.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Command(command) => &command.name,
            Self::Load { source: Source::Undo, .. } => "undo",
            Self::Load { source: Source::Redo, .. } => "redo",
            Self::Load { source: Source::Checkpoint(_), .. } => "restore_checkpoint",
            Self::Load { source: Source::File(_), .. } => "upload_bundle",
            Self::Export { .. } => "export",
        }
    }

    /// Answers that it has not begun. The client may have left.
    pub(super) fn refuse(self, error: SessionError) {
        match self {
            Self::Command(command) => drop(command.answer.send(Err(error))),
            Self::Load { answer, .. } => drop(answer.send(Err(error))),
            Self::Export { answer, .. } => drop(answer.send(Err(error))),
        }
    }

    /// Answers that it began and failed.
    pub(super) fn fail(self, message: &str) {
        match self {
            Self::Command(command) => command.answer(failure(message)),
            other => other.refuse(SessionError::Conflict(message.to_owned())),
        }
    }
}

impl Command {
    /// Answers the command. Its client may have left.
    pub(super) fn answer(self, body: Bytes) {
        let _ = self.answer.send(Ok(Answer { body }));
    }
}

/// The answer to a command that failed outside its worker.
pub(super) fn failure(message: &str) -> Bytes {
    Bytes::from(serde_json::json!({ "success": false, "error": message }).to_string())
}

/// The answer, with the warning that the change is not on disk yet, and why.
pub(super) fn not_saved(answer: &Bytes, problem: &str) -> Bytes {
    let open = answer.strip_suffix(b"}").unwrap_or(answer);
    let warning = serde_json::Value::from(format!(
        "This change is not saved yet ({problem}); it is saved as soon as that is possible"
    ));
    let mut body = open.to_vec();
    body.extend(format!(",\"saved\":false,\"warning\":{warning}}}").into_bytes());
    Bytes::from(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_that_it_is_not_saved() {
        let body = Bytes::from_static(br#"{"success":true,"result":{"a":null}}"#);
        let marked: serde_json::Value =
            serde_json::from_slice(&not_saved(&body, "disk \"full\"")).unwrap();
        assert_eq!(marked["saved"], false);
        assert_eq!(marked["result"], serde_json::json!({ "a": null }));
        assert!(marked["warning"].as_str().unwrap().contains("disk \"full\""));
    }
}
