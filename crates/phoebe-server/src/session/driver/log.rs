//! What a driver tells the log, and what it publishes of its session.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Driver;
use super::task::Task;
use crate::metrics::CommandOutcome;
use crate::session::events::Happened;
use crate::session::request::Work;
use crate::session::state::{Ending, Outcome, Report};
use crate::session::view::{Status, UserInfo, now};
use crate::store::LogRecord;
use crate::store::snapshots::SessionRecord;

impl Driver {
    /// Publishes what the state machine and the worker say.
    pub(super) fn publish(&mut self) {
        let status = self.machine.status();
        let port = self.link.as_ref().map(|link| link.port());
        let unsaved = self.machine.unsaved();
        let retention = self.shared.settings.session.retention_seconds;
        let is_new = self.view.send_if_modified(|view| {
            let is_new =
                view.status != status || view.port != port || view.unsaved.as_deref() != unsaved;
            let is_asleep = status == Status::Asleep;
            view.expires_at =
                (is_asleep && retention > 0.0).then_some(view.last_activity + retention);
            if is_asleep {
                view.mem_used = 0.0;
            }
            view.status = status;
            view.port = port;
            if view.unsaved.as_deref() != unsaved {
                view.unsaved = unsaved.map(str::to_owned);
            }
            is_new
        });
        if is_new {
            self.tell_session();
        }
    }

    /// Tells who follows the session's events what it looks like now.
    pub(super) fn tell_session(&self) {
        let view = self.view.borrow().clone();
        self.happened.append(Happened::Session(Box::new(view)));
    }

    pub(super) fn log_start(&self, client_ip: Option<String>, user_agent: Option<String>) {
        let view = self.view.borrow();
        self.shared.store.log(LogRecord::SessionStarted {
            session_id: view.session_id.clone(),
            created_at: view.created_at,
            port: view.port.unwrap_or(0),
            client_ip,
            user_agent,
            user_id: view.owner.as_ref().map(|owner| owner.user_id.clone()),
            full_name: view.owner.as_ref().map(|owner| owner.full_name.clone()),
            project_name: view.project_name.clone(),
        });
        if view.user_info != UserInfo::default() {
            self.log_user_info(&view.user_info);
        }
    }

    pub(super) fn log_user_info(&self, info: &UserInfo) {
        let UserInfo { first_name, last_name, email } = info.clone();
        self.shared.store.log(LogRecord::UserInfo {
            session_id: self.session.clone(),
            at: now(),
            first_name,
            last_name,
            email,
        });
    }

    /// Records that the session is used now.
    pub(super) fn touch(&mut self) {
        if self.has_ended() {
            return;
        }
        let at = now();
        self.used = Instant::now();
        self.view.send_modify(|view| view.last_activity = at);
        self.publish();
        self.shared.store.log(LogRecord::SessionActivity { session_id: self.session.clone(), at });
    }

    /// Publishes what the worker says of the Bundle that it has read. Another Bundle replaces what
    /// was said of the one before.
    pub(super) fn publish_notice(&self, work: &Work, notice: Option<&str>) {
        if notice.is_some() || matches!(work, Work::Load { .. }) {
            self.view.send_modify(|view| view.notice = notice.map(str::to_owned));
            self.tell_session();
        }
    }

    pub(super) fn log_work(&self, task: &Task, success: bool, error: Option<String>) {
        let elapsed = task.began.map_or(Duration::ZERO, |began| began.elapsed());
        self.shared.store.log(LogRecord::Command {
            session_id: self.session.clone(),
            at: now(),
            name: logged_name(&task.work).to_owned(),
            success,
            execution_time_ms: elapsed.as_secs_f64() * 1000.0,
            error,
        });
    }

    /// Records for the metrics what became of work.
    pub(super) fn record_outcome(&self, task: &Task, outcome: &Outcome) {
        let metrics = &self.shared.metrics;
        let success = task.reply.as_ref().is_some_and(|given| given.header.success == Some(true));
        let outcome = match outcome {
            Outcome::Refused(_) => return metrics.record_refusal(),
            Outcome::Failed { .. } | Outcome::Cancelled { .. } | Outcome::Interrupted => {
                CommandOutcome::Failed
            }
            Outcome::WorkerLost { .. } => CommandOutcome::WorkerLost,
            Outcome::Reply { .. } if success => CommandOutcome::Success,
            Outcome::Reply { .. } => CommandOutcome::Error,
        };
        let elapsed = task.began.map_or(Duration::ZERO, |began| began.elapsed());
        metrics.record_command(logged_name(&task.work), outcome, elapsed);
    }

    pub(super) fn log_memory(&self, measured: Option<f64>) {
        let Some(mib) = measured else { return };
        self.view.send_modify(|view| view.mem_used = mib);
        self.shared.store.log(LogRecord::Memory {
            session_id: self.session.clone(),
            at: now(),
            memory_used_mb: mib,
        });
    }

    pub(super) fn log_end(&self, Ending { reason, message, .. }: &Ending) {
        let reason = reason.as_str();
        let session_id = self.session.clone();
        self.shared.store.log(LogRecord::SessionEnded { session_id, at: now(), reason });
        info!(session = self.session, reason, why = message, "session ended");
    }

    pub(super) fn log_report(&self, report: &Report) {
        let session = &self.session;
        match report {
            Report::Awake => {
                let port = self.view.borrow().port;
                self.log_start(None, None);
                info!(session, port, "session awake");
            }
            Report::Asleep => {
                self.happened.fall_asleep();
                info!(session, "session asleep");
            }
            Report::NotWoken(reason) => warn!(session, reason, "session not woken"),
            Report::WorkerLost { why, unsaved } => warn!(session, why, unsaved, "worker lost"),
            Report::NotSaved(problem) => error!(session, problem, "a change is not saved"),
            Report::NoPortableCopy(problem) => {
                warn!(session, problem, "the portable copy is not saved");
            }
            Report::SavedAgain => info!(session, "everything is saved"),
            Report::StaysAwake => {
                warn!(session, "the session stays awake: it cannot be saved");
            }
            Report::ChangesLost => error!(session, "changes that could not be saved are lost"),
        }
    }

    /// What is kept of the session beside its Bundle.
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
}

/// The name in the log. A command that workers do not know has a name that its user made up.
fn logged_name(work: &Work) -> &str {
    match work {
        Work::Command(command) if command.kind.is_none() => "(unknown)",
        work => work.name(),
    }
}
