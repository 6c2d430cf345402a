//! What the driver tells the log and everybody who looks: that the session is used, what was done, what it costs.

use std::time::Duration;

use phoebe_protocol::command::Header;
use phoebe_protocol::kinds;
use tokio::time::Instant;

use super::Driver;
use crate::session::awake::Queued;
use crate::session::request::Work;
use crate::session::{SessionError, UserInfo, now};
use crate::store::LogRecord;

impl Driver {
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

    /// Notes that the session is being used now.
    pub(super) fn touch(&mut self) {
        let at = now();
        self.used = Instant::now();
        self.view.send_modify(|view| view.last_activity = at);
        self.shared.store.log(LogRecord::SessionActivity { session_id: self.session.clone(), at });
    }

    /// Publishes what the worker says of the Bundle that it has read. Another Bundle makes what was
    /// said of the one before untrue.
    pub(super) fn publish_notice(&self, queued: &Queued, notice: Option<&str>) {
        if notice.is_some() || matches!(queued.work, Work::Load { .. }) {
            self.view.send_modify(|view| view.notice = notice.map(str::to_owned));
        }
    }

    pub(super) fn log_work(&self, queued: &Queued, success: bool, error: Option<String>) {
        let elapsed = queued.sent.map_or(Duration::ZERO, |sent| sent.elapsed());
        self.shared.store.log(LogRecord::Command {
            session_id: self.session.clone(),
            at: now(),
            name: logged_name(&queued.work).to_owned(),
            success,
            execution_time_ms: elapsed.as_secs_f64() * 1000.0,
            error,
        });
    }

    pub(super) fn note_memory(&self, measured: Option<f64>) {
        let Some(mib) = measured else { return };
        self.view.send_modify(|view| view.mem_used = mib);
        self.shared.store.log(LogRecord::Memory {
            session_id: self.session.clone(),
            at: now(),
            memory_used_mb: mib,
        });
    }
}

/// The log's bound on a worker's word on why a command failed.
const REASON_CHARACTERS_MAX: usize = 100;

/// Why a command failed, for the log: a class of exceptions or a fixed text. A worker may be made to send anything else, which is
/// not logged.
pub(in crate::session) fn reason(header: &Header) -> String {
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || " _.,()-".contains(character);
    match header.reason.as_deref() {
        Some(reason) if reason.len() <= REASON_CHARACTERS_MAX && reason.chars().all(is_plain) => {
            reason.to_owned()
        }
        Some(_) => "the worker gives no proper reason".to_owned(),
        None => "the worker gives no reason".to_owned(),
    }
}

/// What the log calls it. A command that workers do not know is called by a text of its user's.
fn logged_name(work: &Work) -> &str {
    match work {
        Work::Command(command) if kinds::kind_of(&command.name).is_none() => "(unknown)",
        work => work.name(),
    }
}

/// An error without what a worker said of a user's Bundle.
pub(super) fn without_workers_words(error: &SessionError) -> String {
    match error {
        SessionError::Unreadable(_) => "nothing that is kept of it can be read".to_owned(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_reasons_are_logged() {
        let said = |text: Option<&str>| {
            let header = Header::reply("s", 1, false, false);
            reason(&Header { reason: text.map(str::to_owned), ..header })
        };
        for text in ["ValueError", "unknown command", "The computation crashed (SIGSEGV)"] {
            assert_eq!(said(Some(text)), text);
        }
        for text in ["a\nline", "\u{1b}[31m", "'value'", &"x".repeat(101)] {
            assert_eq!(said(Some(text)), "the worker gives no proper reason");
        }
        assert_eq!(said(None), "the worker gives no reason");
    }
}
