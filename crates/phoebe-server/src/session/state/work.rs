//! Work and what it leaves to be written: which begins, what a reply means, when it is answered. No
//! transition is made here.

use std::time::Duration;

use phoebe_protocol::command::SnapshotFormat;
use phoebe_protocol::kinds::CommandKind;
use tokio::time::Instant;

use super::event::{Action, Outcome, Reply, Report, TaskId};
use super::{Content, Cores, Machine, State, Task, Worker, Write};
use crate::session::error::SessionError;
use crate::session::job::WaitingFor;

/// A command whose runner was ended for its time gets this long to answer.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// A worker with more replies to nothing asked than this breaks the protocol.
const STRAY_REPLIES_MAX: u32 = 3;
/// While this many writes wait for the disk, no work begins.
pub(in crate::session) const WRITES_MAX: usize = 16;

impl Machine {
    pub(super) fn submitted(&mut self, now: Instant, id: TaskId, kind: CommandKind, patient: bool) {
        let task = Task { id, began: None, ending: None, noted: false, patient };
        if !patient && let Some(retry) = &mut self.retry {
            // Somebody waits for an answer: whether a worker can be started is tried now.
            retry.at = now;
        }
        let refused = match self.refusal() {
            Some(error) => Some(error),
            None => {
                let depth = self.rules.queue_depth;
                self.queue.push(kind, task).err().map(|_| SessionError::QueueFull { depth })
            }
        };
        if let Some(error) = refused {
            self.answer(id, Outcome::Refused(error));
        }
    }

    pub(super) fn begun(&mut self, id: TaskId, noted: bool) {
        self.writes_pending += usize::from(noted);
        let mut running = self.queue.running_mut();
        if let Some((_, _, task)) = running.find(|(number, ..)| *number == id) {
            task.noted = noted;
        }
    }

    /// Takes waiting work out, or ends the runner of long work that runs.
    pub(super) fn cancel(&mut self, now: Instant, id: TaskId, reason: String) {
        if self.queue.remove_waiting(|task| task.id == id).is_some() {
            return self.answer(id, Outcome::Cancelled { reason });
        }
        if !self.has_worker() {
            return;
        }
        let mut running = self.queue.running_mut();
        let task = running.find(|(number, kind, _)| *number == id && *kind == CommandKind::Long);
        if let Some((_, _, task)) = task
            && task.ending.is_none()
        {
            task.ending = Some(now);
            self.actions.push(Action::CancelRunner { task: id, reason });
        }
    }

    /// What work waits for, if it waits.
    pub(in crate::session) fn waiting_for(&self, id: TaskId) -> Option<WaitingFor> {
        let place = self.queue.place_of(|task| task.id == id)?;
        Some(match &self.state {
            State::Awake(Worker { cores: Cores::Asked, .. }) if place == 0 => WaitingFor::Cores,
            State::Asleep | State::Waking => WaitingFor::Wake,
            _ => WaitingFor::Session,
        })
    }

    /// Why no more work is taken, if that is so; `coming` will be submitted in any case.
    pub(in crate::session) fn submission_refusal(&self, coming: usize) -> Option<SessionError> {
        let depth = self.rules.queue_depth;
        let is_full = self.queue.room() <= coming;
        self.refusal().or(is_full.then_some(SessionError::QueueFull { depth }))
    }

    /// The worker that could not be reached does not know of the work: the next one gets it.
    pub(super) fn not_sent(&mut self, id: TaskId) {
        self.worker_failing();
        let is_cancelled = self.queue.running().any(|(number, kind, task)| {
            number == id && kind == CommandKind::Long && task.ending.is_some()
        });
        if is_cancelled {
            self.queue.finished(id);
            let reason = "it was to end before it had begun".to_owned();
            return self.answer(id, Outcome::Cancelled { reason });
        }
        match self.refusal() {
            Some(error) if self.queue.finished(id).is_some() => {
                self.answer(id, Outcome::Refused(error));
            }
            Some(_) => {}
            None => self.queue.put_back(id, |waiting| waiting.id > id),
        }
    }

    pub(super) fn worker_failing(&mut self) {
        if let Some(worker) = self.worker() {
            worker.is_failing = true;
        }
    }

    /// Begins what may go to the worker now.
    pub(super) fn begin_work(&mut self, now: Instant) {
        while self.writes_pending < WRITES_MAX {
            let computes_next = self.queue.first_long().map(|task| task.id);
            let snapshots = self.saving.with_every_change();
            let State::Awake(worker) = &mut self.state else { return };
            if let (Some(task), Cores::NotAsked) = (computes_next, &worker.cores) {
                worker.cores = Cores::Asked;
                self.actions.push(Action::AskForCores(task));
            }
            let granted = matches!(worker.cores, Cores::Granted(_));
            let Some((kind, mut task)) = self.queue.next(granted) else { return };
            let cores = match (kind, &worker.cores) {
                (CommandKind::Long, Cores::Granted(cores)) => {
                    let cores = *cores;
                    worker.cores = Cores::NotAsked;
                    Some(cores)
                }
                _ => None,
            };
            (task.began, task.ending) = (Some(now), None);
            let id = task.id;
            let snapshot = snapshots && kind != CommandKind::Read;
            self.queue.started(id, kind, task);
            self.actions.push(Action::Begin { task: id, cores, snapshot });
        }
    }

    pub(super) fn replied(&mut self, now: Instant, id: TaskId, reply: Reply) {
        let Some(task) = self.queue.finished(id) else { return };
        let content = match reply {
            Reply::Unchanged => {
                self.note_ended(&task);
                return self.answer(id, Outcome::Reply { unsaved: None });
            }
            Reply::ChangedWithSnapshot(bytes) => Content::Snapshot(bytes),
            Reply::ChangedToStep => Content::Step,
            Reply::Changed { .. } => Content::JournalOnly,
        };
        let change = self.saving.record_change(now);
        if !self.saving.is_kept() {
            return self.answer(id, Outcome::Reply { unsaved: None });
        }
        if let Reply::Changed { problem } = reply {
            match problem {
                Some(problem) => self.not_saved(now, change, problem),
                None => self.saving.postpone(now, change),
            }
        }
        let holds_answer = content != Content::JournalOnly || self.saving.with_every_change();
        self.writes.insert(id, Write { change, content, holds_answer });
        self.writes_pending += 1;
        self.actions.push(Action::WriteChange(id));
        if !holds_answer {
            self.answer(id, Outcome::Reply { unsaved: None });
        }
    }

    pub(super) fn change_written(&mut self, now: Instant, id: TaskId, result: Result<(), String>) {
        self.writes_pending -= 1;
        let Some(Write { change, content, holds_answer }) = self.writes.remove(&id) else {
            return;
        };
        let mut is_saved = true;
        match (result, content) {
            (Ok(()), Content::Snapshot(bytes)) => self.saving.record_saved(change, bytes),
            (Ok(()), Content::Step) => self.saving.record_step(change),
            (Ok(()), Content::JournalOnly) => is_saved = self.saving.is_saved(change),
            (Err(problem), _) => {
                self.not_saved(now, change, problem);
                is_saved = false;
            }
        }
        // A later change may be unsaved though this one is not.
        let unsaved = self.saving.problem().filter(|_| !is_saved).map(str::to_owned);
        if holds_answer {
            self.answer(id, Outcome::Reply { unsaved });
        }
    }

    pub(super) fn not_saved(&mut self, now: Instant, change: u64, problem: String) {
        if self.saving.problem().is_none() {
            self.report(Report::NotSaved(problem.clone()));
        }
        self.saving.record_failure(now, change, problem);
    }

    pub(super) fn note_ended(&mut self, task: &Task) {
        if task.noted {
            self.writes_pending += 1;
            self.actions.push(Action::NoteEnded(task.id));
        }
    }

    pub(super) fn stray_reply(&mut self) {
        let Some(worker) = self.worker() else { return };
        worker.stray_replies += 1;
        if worker.stray_replies > STRAY_REPLIES_MAX {
            self.worker_lost("it broke the protocol: it answers what nobody asked".to_owned());
        }
    }

    /// Ends runners whose command took too long, and the worker where that does not help.
    pub(super) fn end_overdue(&mut self, now: Instant) {
        if !self.has_worker() {
            return;
        }
        let limit = self.rules.command_limit;
        let mut is_stuck = false;
        for (_, kind, task) in self.queue.running_mut() {
            if due(limit, task).is_none_or(|due| now < due) {
                continue;
            }
            is_stuck |= task.ending.is_some();
            task.ending.get_or_insert(now);
            if kind == CommandKind::Long && !is_stuck {
                let seconds = limit.unwrap_or_default().as_secs_f64();
                let reason = format!("it took longer than {seconds} s");
                self.actions.push(Action::CancelRunner { task: task.id, reason });
            }
        }
        if is_stuck {
            let why = match limit.map(|limit| limit.as_secs_f64()) {
                Some(limit) => {
                    format!("a command took longer than {limit} s and could not be stopped")
                }
                None => "a command was cancelled and could not be stopped".to_owned(),
            };
            self.worker_lost(why);
        }
    }

    pub(super) fn answer_waiting(&mut self, outcome: &Outcome) {
        for task in self.queue.drain_waiting() {
            self.answer(task.id, outcome.clone());
        }
    }

    pub(super) fn answer_running(&mut self, outcome: &Outcome) {
        for task in self.queue.drain_running() {
            self.note_ended(&task);
            self.answer(task.id, outcome.clone());
        }
    }

    pub(super) fn bundle_given(&mut self, now: Instant, given: Result<usize, String>) {
        let Some(asked) = self.saving.asked().filter(|_| self.has_worker()) else { return };
        match given {
            Ok(bytes) => {
                self.saving.record_given(bytes);
                self.writes_pending += 1;
                self.actions.push(Action::WriteBundle(asked.format));
            }
            Err(problem) => self.finish_bundle(now, Err(problem)),
        }
    }

    pub(super) fn finish_bundle(&mut self, now: Instant, result: Result<(), String>) {
        let portable =
            self.saving.asked().is_some_and(|asked| asked.format == SnapshotFormat::Portable);
        let was_unsaved = self.saving.problem().is_some();
        if let (true, Err(problem)) = (portable, &result) {
            self.report(Report::NoPortableCopy(problem.clone()));
        }
        self.saving.finish(now, result);
        if was_unsaved && self.saving.problem().is_none() {
            self.report(Report::SavedAgain);
        }
    }

    pub(super) fn ask_for_bundle(&mut self, format: SnapshotFormat) {
        self.saving.ask(format);
        self.actions.push(Action::AskForBundle(format));
    }

    pub(super) fn write_record(&mut self) {
        self.writes_pending += 1;
        self.actions.push(Action::WriteRecord);
    }
}

/// When a command that runs takes too long, or, where its runner was told to end, the worker is
/// given up.
pub(super) fn due(limit: Option<Duration>, task: &Task) -> Option<Instant> {
    match task.ending {
        Some(ending) => Some(ending + CANCEL_GRACE),
        None => Some(task.began? + limit?),
    }
}
