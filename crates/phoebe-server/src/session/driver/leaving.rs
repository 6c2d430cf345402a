//! How the driver lets go: the session falls asleep, its worker is lost, the server stops, the session ends. Whoever waits is
//! answered, and by the end the worker is gone and its port free.

use std::time::Duration;

use phoebe_protocol::command::SnapshotFormat;
use phoebe_protocol::kinds::CommandKind;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::{Driver, INTERRUPTED, Over};
use crate::session::awake::Awake;
use crate::session::request::Request;
use crate::session::{EndReason, SessionError, Status, now};
use crate::store::LogRecord;

/// A worker that is asked to end has so long before it is made to.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// When the server stops, short commands under way have so long to finish.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);

impl Driver {
    /// Lets the worker go, once everything is on disk. Gives it back where that cannot be.
    pub(super) async fn fall_asleep(&mut self, mut awake: Awake) -> Option<Awake> {
        if self.saved.problem().is_some() && !self.save(&mut awake, SnapshotFormat::Pickle).await {
            warn!(session = self.session, "the session stays awake: it cannot be saved");
            return Some(awake);
        }
        if self.saved.wants_portable() && !self.save(&mut awake, SnapshotFormat::Portable).await {
            warn!(session = self.session, "the session sleeps without a portable copy");
        }
        let exit = awake.stop(STOP_GRACE).await;
        self.note_asleep();
        self.write_record().await;
        info!(session = self.session, %exit, "session asleep");
        None
    }

    pub(super) fn note_asleep(&self) {
        let retention = self.shared.settings.session.retention_seconds;
        self.view.send_modify(|view| {
            view.status = Status::Asleep;
            view.port = None;
            view.mem_used = 0.0;
            view.expires_at = (retention > 0.0).then_some(view.last_activity + retention);
        });
    }

    /// The worker is gone: what ran is answered, what waits goes on with the next worker.
    pub(super) async fn lose(&mut self, mut awake: Awake, why: &str) {
        self.note_commits(&mut awake).await;
        let state = match self.saved.problem() {
            None => "The session is as it was before this command, and goes on with the next one.",
            Some(_) => {
                "The session goes on with the next command, as it was when it was saved last."
            }
        };
        let message = format!("The session's worker is gone: {why}. {state}");
        let unsaved = self.saved.problem().is_some();
        warn!(session = self.session, why, unsaved, "worker lost");
        for queued in self.queue.drain_running() {
            if let Some(command) = queued.command() {
                self.strikes.note(command, &format!("The worker is gone: {why}."));
            }
            self.note_over(&queued);
            self.log_work(&queued, false, Some(message.clone()));
            queued.work.fail(&message);
        }
        awake.stop(Duration::ZERO).await;
        if self.saved.problem().is_some() {
            let text = "The session's worker was lost with changes that were not saved yet";
            self.view.send_modify(|view| view.notice = Some(text.to_owned()));
        }
        self.saved.begin_anew();
        self.publish_saved();
        self.note_asleep();
    }

    /// The server stops: the session is left so that the next server finds it.
    pub(super) async fn shut_down(mut self, awake: Option<Awake>, done: oneshot::Sender<()>) {
        let Some(mut awake) = awake else {
            return self.leave(done).await;
        };
        if self.keeper.is_none() {
            let message = "The session was ended (server_shutdown)".to_owned();
            let over = Over { reason: EndReason::ServerShutdown, message, done: Some(done) };
            return self.end(Some(awake), over).await;
        }
        for queued in self.queue.drain_waiting() {
            queued.work.refuse(SessionError::ShuttingDown);
        }
        // Short commands under way are done in a moment.
        let settled = timeout(SETTLE_LIMIT, async {
            while self.queue.running().any(|(_, kind, _)| kind == CommandKind::Change) {
                let event = awake.next().await;
                if self.note(event, &mut awake).is_some() {
                    return;
                }
            }
        });
        let settled = settled.await.is_ok();
        for queued in self.queue.drain_running() {
            self.note_over(&queued);
            self.log_work(&queued, false, Some(INTERRUPTED.to_owned()));
            queued
                .work
                .fail("The server is stopping. The session is kept as it was before this command");
        }
        // A Bundle that a command may be changing at this moment is not written down.
        if settled {
            if let Some(stuck) = self.fall_asleep(awake).await {
                error!(session = self.session, "changes that could not be saved are lost");
                stuck.stop(STOP_GRACE).await;
            }
        } else {
            awake.stop(Duration::ZERO).await;
        }
        self.leave(done).await;
    }

    async fn leave(mut self, done: oneshot::Sender<()>) {
        self.shared.forget(&self.session);
        self.write_record().await;
        self.requests.close();
        while let Some(request) = self.requests.recv().await {
            if let Request::Work(work) = request {
                work.refuse(SessionError::ShuttingDown);
            }
        }
        let _gone = done.send(());
    }

    /// Ends the session: nobody finds it any more, the worker goes, the port and the files are freed, the end is logged, and
    /// everybody who waits gets an answer.
    pub(super) async fn end(mut self, awake: Option<Awake>, over: Over) {
        let Over { reason, message, done } = over;
        self.shared.forget(&self.session);
        self.requests.close();
        self.view.send_modify(|view| view.status = Status::Ended);
        for queued in self.queue.drain() {
            self.log_work(&queued, false, Some(message.clone()));
            queued.work.fail(&message);
        }
        if let Some(mut awake) = awake {
            self.note_commits(&mut awake).await;
            if awake.memory.due().is_some() && reason != EndReason::ServerShutdown {
                // The last commands' memory is still to be logged.
                self.note_memory(awake.worker.memory().await);
            }
            awake.stop(STOP_GRACE).await;
        }
        self.forget().await;
        self.shared.store.log(LogRecord::SessionEnded {
            session_id: self.session.clone(),
            at: now(),
            reason: reason.as_str(),
        });
        info!(session = self.session, reason = reason.as_str(), why = message, "session ended");
        let mut waiting: Vec<_> = done.into_iter().collect();
        while let Some(request) = self.requests.recv().await {
            match request {
                Request::Work(work) => work.refuse(SessionError::NotFound),
                Request::End { done, .. } | Request::ShutDown { done } => waiting.push(done),
                // Their answer's end closes, which says the same.
                Request::Look { .. }
                | Request::Sleep { .. }
                | Request::Measure { .. }
                | Request::Files { .. }
                | Request::UserInfo { .. } => {}
            }
        }
        for done in waiting {
            let _gone = done.send(());
        }
    }
}
