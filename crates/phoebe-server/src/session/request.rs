//! What a driver can be asked, and how those who ask are answered.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Answer, EndReason, SessionError, UserInfo};

/// What a driver can be asked.
pub(super) enum Request {
    /// Run a command.
    Command(Command),
    /// End the session.
    End { reason: EndReason, done: oneshot::Sender<()> },
    /// End the session if nothing happened in it for so long.
    EndIfIdle { timeout: Duration },
    /// Measure the memory now.
    Measure { done: oneshot::Sender<f64> },
    /// Replace the fields of the user's information that are given.
    UserInfo { info: UserInfo, done: oneshot::Sender<()> },
}

/// One command and who waits for its answer.
pub(super) struct Command {
    pub(super) name: String,
    pub(super) body: Bytes,
    pub(super) answer: oneshot::Sender<Result<Answer, SessionError>>,
}

impl Command {
    pub(super) fn answer(self, body: Bytes) {
        // Whoever asked may have left; the command counts all the same.
        let _gone = self.answer.send(Ok(Answer { body }));
    }

    pub(super) fn refuse(self, error: SessionError) {
        let _gone = self.answer.send(Err(error));
    }
}

/// The answer to a command that failed outside its worker.
pub(super) fn failure(message: &str) -> Bytes {
    Bytes::from(serde_json::json!({ "success": false, "error": message }).to_string())
}
