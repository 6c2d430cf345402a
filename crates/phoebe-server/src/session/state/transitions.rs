//! All transitions between the states of a session.

use std::time::Duration;

use phoebe_protocol::command::SnapshotFormat;
use phoebe_protocol::kinds::CommandKind;
use tokio::time::Instant;

use super::event::{Action, Beginning, Ending, Outcome, Report};
use super::{Departure, Machine, Next, Purpose, Retry, Save, State, Why, Worker};
use crate::config::OnIdle;
use crate::session::error::SessionError;
use crate::session::view::EndReason;

/// Saving everything may take this long.
const SAVE_LIMIT: Duration = Duration::from_secs(5);
/// When the server stops, changes that run get this long to finish.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);
/// A worker that is asked to end gets this long before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// The first pause after a worker could not be started, for work that waits as long as it takes.
const WAKE_RETRY: Duration = Duration::from_secs(2);
const WAKE_RETRY_MAX: Duration = Duration::from_secs(60);

const LOST_CHANGES: &str = "The session's worker was lost with changes that were not saved yet";

impl Machine {
    pub(super) fn save(&mut self, now: Instant, purpose: Purpose) {
        match std::mem::replace(&mut self.state, State::Asleep) {
            State::Awake(worker) | State::Settling(worker, _) => {
                let save = Save {
                    until: now + SAVE_LIMIT,
                    all_forms: true,
                    files_wanted: false,
                    purpose,
                    tried: None,
                    tried_portable: false,
                };
                self.state = State::Saving(worker, save);
            }
            other => self.state = other,
        }
    }

    pub(super) fn files_wanted(&mut self, now: Instant, all_forms: bool) {
        if !self.saving.is_kept() {
            return self.actions.push(Action::TellFiles(Err(SessionError::nothing_is_kept())));
        }
        if let Some(error) = self.refusal() {
            return self.actions.push(Action::TellFiles(Err(error)));
        }
        let is_incomplete =
            self.saving.problem().is_some() || all_forms && self.saving.wants_portable();
        if matches!(self.state, State::Awake(_)) && is_incomplete {
            self.save(now, Purpose::Serve);
            if let State::Saving(_, save) = &mut self.state {
                save.all_forms = false;
            }
        }
        match &mut self.state {
            State::Saving(_, save) => {
                save.files_wanted = true;
                save.all_forms |= all_forms;
            }
            _ => self.actions.push(Action::TellFiles(Ok(()))),
        }
    }

    /// Asks for what is still to be saved; returns whether the save has ended.
    pub(super) fn has_saved(&mut self, now: Instant) -> bool {
        let State::Saving(worker, save) = &mut self.state else { return false };
        if now >= save.until {
            return true;
        }
        if worker.is_failing || self.saving.asked().is_some() || self.writes_pending > 0 {
            return false;
        }
        let format = match self.saving.unsaved_change() {
            Some(change) if save.tried.is_none_or(|tried| tried < change) => {
                save.tried = Some(self.saving.last_change());
                SnapshotFormat::Pickle
            }
            None if save.all_forms && self.saving.wants_portable() && !save.tried_portable => {
                save.tried_portable = true;
                SnapshotFormat::Portable
            }
            _ => return true,
        };
        self.ask_for_bundle(format);
        false
    }

    pub(super) fn finish_save(&mut self, now: Instant) {
        let state = std::mem::replace(&mut self.state, State::Asleep);
        let State::Saving(worker, save) = state else { return self.state = state };
        let problem = self.saving.problem().map(str::to_owned);
        if now >= save.until && save.all_forms && self.saving.wants_portable() {
            self.report(Report::NoPortableCopy("it took too long".to_owned()));
        }
        if save.files_wanted {
            let told = problem.as_ref().map_or(Ok(()), |problem| {
                let text = format!("The session cannot be saved now: {problem}");
                Err(SessionError::Conflict(text))
            });
            self.actions.push(Action::TellFiles(told));
        }
        self.state = match save.purpose {
            Purpose::Begin => {
                self.actions.push(Action::TellStarted(Ok(())));
                State::Awake(worker)
            }
            Purpose::Serve => State::Awake(worker),
            Purpose::Sleep if problem.is_some() => {
                self.report(Report::StaysAwake);
                self.actions.push(Action::TellSlept(false));
                State::Awake(worker)
            }
            Purpose::Sleep => State::Draining(Departure { why: Why::AtRest, next: Next::Sleep }),
            Purpose::Leave => State::Draining(Departure { why: Why::AtRest, next: Next::Leave }),
        };
    }

    /// Tells those who wait for a save that it does not take place.
    pub(super) fn break_save(&mut self, save: &Save, error: SessionError) {
        if save.files_wanted {
            self.actions.push(Action::TellFiles(Err(error)));
        }
        if save.purpose == Purpose::Sleep {
            self.actions.push(Action::TellSlept(false));
        }
    }

    pub(super) fn worker_ready(&mut self, now: Instant, portable: bool, beginning: Beginning) {
        let is_first = match self.state {
            State::Starting => true,
            State::Waking => false,
            _ => return,
        };
        if !portable {
            self.saving.want_portable(now);
        }
        self.state = State::Awake(Worker::default());
        self.retry = None;
        if !is_first {
            return self.report(Report::Awake);
        }
        match beginning {
            Beginning::Kept => {}
            Beginning::Failed(problem) => self.not_saved(now, 0, problem),
            Beginning::NotKept => {
                self.saving.record_failure(now, 0, "it has just begun".to_owned());
                self.saving.want_portable(now);
                return self.save(now, Purpose::Begin);
            }
        }
        self.actions.push(Action::TellStarted(Ok(())));
    }

    pub(super) fn start_failed(&mut self, now: Instant, error: SessionError) {
        match self.state {
            State::Starting => self.remove(Ending::never_began(error)),
            State::Waking => {
                self.state = State::Asleep;
                self.report(Report::NotWoken(error.without_workers_words()));
                self.refuse_waiting(now, error);
            }
            _ => {}
        }
    }

    /// Answers what waits for a worker that could not be started. Patient work waits on where that
    /// may be possible later.
    fn refuse_waiting(&mut self, now: Instant, error: SessionError) {
        let may_pass = matches!(
            error,
            SessionError::NoPort { .. }
                | SessionError::Overloaded(_)
                | SessionError::StartFailed(_)
        );
        for task in self.queue.drain_unwanted(|task| task.patient && may_pass) {
            self.answer(task.id, Outcome::Refused(error.clone()));
        }
        let pause = self.retry.map_or(WAKE_RETRY, |retry| (retry.pause * 2).min(WAKE_RETRY_MAX));
        self.retry = (!self.queue.is_idle()).then(|| Retry { at: now + pause, pause });
    }

    pub(super) fn worker_lost(&mut self, why: String) {
        let mut next = match self.state {
            State::Awake(_) => Next::Sleep,
            State::Saving(_, Save { purpose: Purpose::Leave, .. }) | State::Settling(..) => {
                Next::Leave
            }
            State::Saving(_, Save { purpose: Purpose::Begin, .. }) => {
                self.actions.push(Action::Forget);
                Next::End(Ending::never_began(SessionError::StartFailed(why.clone())))
            }
            State::Saving(..) => Next::Sleep,
            _ => return,
        };
        if !self.saving.is_kept() {
            let message = format!("The session's worker is gone: {why}");
            next = Next::End(Ending::new(EndReason::ProcessDied, message));
            self.actions.push(Action::Forget);
        }
        let departure = State::Draining(Departure { why: Why::Lost(why), next });
        if let State::Saving(_, save) = std::mem::replace(&mut self.state, departure) {
            let text = "The session cannot be saved now: its worker is gone".to_owned();
            self.break_save(&save, SessionError::Conflict(text));
        }
    }

    /// Stops the worker, once nothing is on its way to the disk.
    pub(super) fn depart(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Asleep);
        let State::Draining(Departure { why, next }) = state else { return self.state = state };
        let grace = match why {
            Why::AtRest => {
                if self.saving.problem().is_some() {
                    self.report(Report::ChangesLost);
                }
                STOP_GRACE
            }
            Why::Ended => {
                if let Next::End(Ending { message, .. }) = &next {
                    self.answer_running(&Outcome::failed(message));
                }
                STOP_GRACE
            }
            Why::ShutDown => Duration::ZERO,
            Why::Lost(why) => {
                self.answer_lost(why, &next);
                Duration::ZERO
            }
        };
        self.state = State::Stopping(next);
        self.actions.push(Action::StopWorker { grace });
    }

    /// Answers what ran in a worker that was lost.
    pub(super) fn answer_lost(&mut self, why: String, next: &Next) {
        let unsaved = self.saving.problem().is_some();
        let rest = match (next, unsaved) {
            (Next::End(_), _) => "",
            (_, false) => {
                ". The session is as it was before this command, and goes on with the next one."
            }
            (_, true) => {
                ". The session goes on with the next command, as it was when it was saved last."
            }
        };
        let message = format!("The session's worker is gone: {why}{rest}");
        self.report(Report::WorkerLost { why: why.clone(), unsaved });
        self.answer_running(&Outcome::WorkerLost { why, message: message.clone() });
        if matches!(next, Next::End(_)) {
            self.answer_waiting(&Outcome::failed(&message));
        } else if unsaved {
            self.actions.push(Action::Notice(LOST_CHANGES));
        }
    }

    pub(super) fn worker_stopped(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Asleep);
        let State::Stopping(next) = state else { return self.state = state };
        self.saving.begin_anew();
        match next {
            Next::Sleep => {
                self.write_record();
                self.report(Report::Asleep);
                self.actions.push(Action::TellSlept(true));
            }
            Next::Leave => self.leave(),
            Next::End(ending) => self.remove_files(ending),
        }
    }

    pub(super) fn looked(&mut self, now: Instant, idle: bool, expired: bool) {
        let hibernates = self.rules.on_idle == OnIdle::Hibernate && self.saving.is_kept();
        match self.state {
            State::Awake(_) if idle && self.is_at_rest() && hibernates => {
                self.save(now, Purpose::Sleep);
            }
            State::Awake(_) if idle && self.is_at_rest() => {
                let message = "The session was idle for too long".to_owned();
                self.end(Ending::new(EndReason::IdleTimeout, message));
            }
            State::Asleep if expired && self.queue.is_idle() => {
                let message = "The session was kept as long as sessions are".to_owned();
                self.end(Ending::new(EndReason::Expired, message));
            }
            _ => {}
        }
    }

    pub(super) fn end(&mut self, ending: Ending) {
        let message = ending.message.clone();
        let departure = match std::mem::replace(&mut self.state, State::Asleep) {
            State::Starting => {
                self.actions.push(Action::AbandonStart);
                return self.remove(Ending::never_began(SessionError::NotFound));
            }
            State::Waking => {
                self.actions.push(Action::AbandonStart);
                return self.remove(ending);
            }
            State::Asleep => return self.remove(ending),
            State::Awake(_) | State::Settling(..) => {
                State::Draining(Departure { why: Why::Ended, next: Next::End(ending) })
            }
            State::Saving(_, save) => {
                self.break_save(&save, SessionError::NotFound);
                let is_begun = save.purpose != Purpose::Begin;
                let never_began = Ending::never_began(SessionError::NotFound);
                let next = Next::End(if is_begun { ending } else { never_began });
                State::Draining(Departure { why: Why::Ended, next })
            }
            State::Draining(Departure { why, next: Next::Sleep | Next::Leave }) => {
                State::Draining(Departure { why, next: Next::End(ending) })
            }
            State::Stopping(Next::Sleep | Next::Leave) => State::Stopping(Next::End(ending)),
            ended @ (State::Draining(_)
            | State::Stopping(_)
            | State::Removing(_)
            | State::Over(_)) => return self.state = ended,
        };
        self.state = departure;
        self.actions.push(Action::Forget);
        self.answer_waiting(&Outcome::failed(&message));
    }

    pub(super) fn shut_down(&mut self, now: Instant) {
        let next_state = match std::mem::replace(&mut self.state, State::Asleep) {
            State::Starting => {
                self.actions.push(Action::AbandonStart);
                return self.remove(Ending::never_began(SessionError::ShuttingDown));
            }
            State::Asleep => {
                self.answer_waiting(&Outcome::Refused(SessionError::ShuttingDown));
                return self.leave();
            }
            State::Waking => {
                self.actions.push(Action::AbandonStart);
                self.answer_waiting(&Outcome::Refused(SessionError::ShuttingDown));
                return self.leave();
            }
            State::Saving(_, save) if save.purpose == Purpose::Begin => {
                self.break_save(&save, SessionError::ShuttingDown);
                self.actions.push(Action::Forget);
                let next = Next::End(Ending::never_began(SessionError::ShuttingDown));
                State::Draining(Departure { why: Why::Ended, next })
            }
            state @ State::Awake(_) if !self.saving.is_kept() => {
                self.state = state;
                let message = "The session was ended (server_shutdown)".to_owned();
                return self.end(Ending::new(EndReason::ServerShutdown, message));
            }
            State::Saving(worker, save) if save.purpose != Purpose::Leave => {
                self.break_save(&save, SessionError::ShuttingDown);
                State::Settling(worker, now + SETTLE_LIMIT)
            }
            State::Awake(worker) => State::Settling(worker, now + SETTLE_LIMIT),
            State::Draining(Departure { why, next: Next::Sleep }) => {
                State::Draining(Departure { why, next: Next::Leave })
            }
            State::Stopping(Next::Sleep) => State::Stopping(Next::Leave),
            leaving => return self.state = leaving,
        };
        self.state = next_state;
        self.answer_waiting(&Outcome::Refused(SessionError::ShuttingDown));
    }

    /// Ends the settling, once no change runs or the time is over.
    pub(super) fn settle(&mut self, now: Instant) -> bool {
        let State::Settling(_, until) = self.state else { return false };
        let changing = self.queue.running().any(|(_, kind, _)| kind == CommandKind::Change);
        if changing && now < until {
            return false;
        }
        self.answer_running(&Outcome::Interrupted);
        if changing {
            // A Bundle that a command may be changing at this moment is not saved.
            self.state = State::Draining(Departure { why: Why::ShutDown, next: Next::Leave });
        } else {
            self.save(now, Purpose::Leave);
        }
        true
    }

    pub(super) fn leave(&mut self) {
        self.state = State::Over(SessionError::ShuttingDown);
        self.actions.push(Action::Forget);
        self.write_record();
    }

    /// Ends a session that has no worker.
    pub(super) fn remove(&mut self, ending: Ending) {
        self.actions.push(Action::Forget);
        self.answer_waiting(&Outcome::failed(&ending.message));
        self.remove_files(ending);
    }

    pub(super) fn remove_files(&mut self, ending: Ending) {
        self.state = State::Removing(ending);
        self.actions.push(Action::RemoveFiles);
    }

    pub(super) fn files_removed(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Over(SessionError::NotFound));
        match state {
            State::Removing(Ending { start_error: Some(error), .. }) => {
                self.actions.push(Action::TellStarted(Err(error)));
            }
            State::Removing(ending) => self.actions.push(Action::RecordEnd(ending)),
            other => self.state = other,
        }
    }
}
