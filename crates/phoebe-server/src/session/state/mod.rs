//! The states of a session and all transitions between them: decisions without I/O and clock.
//!
//! ```text
//!                StartWorker fails               Ended
//!   Starting ───────────────────► Removing ───────────────► Over
//!      │ ready                        ▲                       ▲
//!      ▼        Save: files, sleep    │ end                   │ leave (the server stops)
//!    Awake ◄──────────► Saving        │                       │
//!      │  │ lost, end     │ saved     │                       │
//!      │  └─────────┐     │           │                       │
//!      │ shutdown   ▼     ▼           │                       │
//!      └► Settling ► Draining ► Stopping ───────► Asleep ─────┤
//!                                       sleep      │ ▲ failed │
//!                                                  ▼ │        │
//!                           Awake ◄────────────── Waking ─────┘
//!                                     ready
//! ```
//!
//! [`Machine::handle`] takes one [`Event`] and returns the [`Action`]s that follow. The driver
//! performs them in order and reports what came of each as a later event. Work is known here by a
//! number only. A worker is stopped in one place (`Draining`), after all writes have ended, so no
//! answer that waits for the disk is lost.

mod event;
mod queue;
mod saving;
#[cfg(test)]
mod tests;
mod transitions;
mod work;

pub(super) use event::{Action, Beginning, Ending, Event, Outcome, Reply, Report, Rules, TaskId};
pub use queue::CommandQueue;
pub(super) use work::WRITES_MAX;

use std::collections::BTreeMap;
use std::time::Duration;

use phoebe_protocol::kinds::CommandKind;
use tokio::time::Instant;

use self::saving::Saving;
use super::error::SessionError;
use super::view::Status;

/// A session's state.
#[derive(Debug)]
enum State {
    /// The first worker is being started.
    Starting,
    /// It is on disk only.
    Asleep,
    /// A worker is being started for work that waits.
    Waking,
    /// Its worker serves.
    Awake(Worker),
    /// No work begins until the save has ended.
    Saving(Worker, Save),
    /// The server stops; changes that run may finish until then.
    Settling(Worker, Instant),
    /// The worker is stopped as soon as all writes have ended.
    Draining(Departure),
    /// The worker is being stopped.
    Stopping(Next),
    /// The files are being removed.
    Removing(Ending),
    /// Everybody who still comes is refused with this error.
    Over(SessionError),
}

/// What is known of a worker.
#[derive(Debug, Default)]
struct Worker {
    /// It takes no more work.
    is_failing: bool,
    stray_replies: u32,
    cores: Cores,
}

#[derive(Debug, Default)]
enum Cores {
    #[default]
    NotAsked,
    Asked,
    Granted(usize),
}

/// A save that something waits for.
#[derive(Debug)]
struct Save {
    until: Instant,
    all_forms: bool,
    files_wanted: bool,
    purpose: Purpose,
    /// The last change that the worker was asked for.
    tried: Option<u64>,
    tried_portable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To begin the session.
    Begin,
    /// To go on, with everything on disk.
    Serve,
    Sleep,
    /// To leave the session to the next server.
    Leave,
}

/// Why a worker is stopped, and what follows.
#[derive(Debug)]
struct Departure {
    why: Why,
    next: Next,
}

#[derive(Debug)]
enum Why {
    /// Nothing runs.
    AtRest,
    Lost(String),
    ShutDown,
    Ended,
}

/// What follows when the worker is gone.
#[derive(Debug)]
enum Next {
    Sleep,
    Leave,
    End(Ending),
}

/// Work in the queue.
#[derive(Debug)]
struct Task {
    id: TaskId,
    began: Option<Instant>,
    /// When its runner was told to end.
    ending: Option<Instant>,
    noted: bool,
    /// It waits for a worker as long as it takes.
    patient: bool,
}

/// When a worker is to be started again, for work that waits as long as it takes.
#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Instant,
    pause: Duration,
}

/// A change that goes to the disk.
#[derive(Debug)]
struct Write {
    change: u64,
    content: Content,
    /// The answer waits for it.
    holds_answer: bool,
}

/// What a write puts on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// The Bundle, in this many bytes.
    Snapshot(usize),
    /// The name of a state that is there already.
    Step,
    JournalOnly,
}

/// One session's state machine.
#[derive(Debug)]
pub(super) struct Machine {
    rules: Rules,
    state: State,
    queue: CommandQueue<Task>,
    saving: Saving,
    /// Why no worker is started at once for what waits.
    retry: Option<Retry>,
    writes: BTreeMap<TaskId, Write>,
    /// Everything that is on its way to the disk.
    writes_pending: usize,
    actions: Vec<Action>,
}

impl Machine {
    /// A session that is on disk only.
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            state: State::Asleep,
            queue: CommandQueue::new(rules.queue_depth),
            saving: Saving::new(rules.durability),
            retry: None,
            writes: BTreeMap::new(),
            writes_pending: 0,
            actions: Vec::new(),
        }
    }

    /// Makes it a session that begins, and returns the first action.
    pub(super) fn start(&mut self) -> Action {
        self.state = State::Starting;
        Action::StartWorker
    }

    /// Takes one event and returns what is to be done, in order.
    pub(super) fn handle(&mut self, now: Instant, event: Event) -> Vec<Action> {
        match event {
            Event::WorkerReady { portable, beginning } => {
                self.worker_ready(now, portable, beginning);
            }
            Event::StartFailed(error) => self.start_failed(now, error),
            Event::Submitted { task, kind, patient } => {
                self.submitted(now, task, kind, patient);
            }
            Event::Begun { task, noted } => self.begun(task, noted),
            Event::NotBegun { task, error } => {
                if self.queue.finished(task).is_some() {
                    self.answer(task, Outcome::Refused(error));
                }
            }
            Event::CancelWanted { task, reason } => self.cancel(now, task, reason),
            Event::NotSent { task } => self.not_sent(task),
            Event::CoresGranted(cores) => {
                if let Some(worker) = self.worker() {
                    worker.cores = Cores::Granted(cores);
                }
            }
            Event::Replied { task, reply } => self.replied(now, task, reply),
            Event::StrayReply => self.stray_reply(),
            Event::BundleGiven(given) => self.bundle_given(now, given),
            Event::ChangeWritten { task, result } => self.change_written(now, task, result),
            Event::BundleWritten(result) => {
                self.writes_pending -= 1;
                self.finish_bundle(now, result);
            }
            Event::NoteWritten(result) => {
                self.writes_pending -= 1;
                if let Err(reason) = result {
                    self.not_saved(now, self.saving.last_change(), reason);
                }
            }
            Event::WorkerFailing => self.worker_failing(),
            Event::WorkerLost(why) => self.worker_lost(why),
            Event::WorkerStopped => self.worker_stopped(),
            Event::FilesWanted { all_forms } => self.files_wanted(now, all_forms),
            Event::SleepWanted => match self.state {
                State::Awake(_) if self.is_at_rest() && self.saving.is_kept() => {
                    self.save(now, Purpose::Sleep);
                }
                _ => self.actions.push(Action::TellSlept(false)),
            },
            Event::Looked { idle, expired } => self.looked(now, idle, expired),
            Event::EndWanted(ending) => self.end(ending),
            Event::ShutDown => self.shut_down(now),
            Event::FilesRemoved => self.files_removed(),
            Event::Tick => {}
        }
        self.advance(now);
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] is due, if time alone changes something.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let of_state = match &self.state {
            State::Awake(Worker { is_failing: false, .. }) => {
                self.saving.next().map(|(due, _)| due)
            }
            State::Saving(_, Save { until, .. }) | State::Settling(_, until) => Some(*until),
            State::Asleep if !self.queue.is_idle() => self.retry.map(|retry| retry.at),
            _ => return None,
        };
        let limit = self.rules.command_limit;
        let running = self.queue.running();
        let of_commands = running.filter_map(|(_, _, task)| work::due(limit, task)).min();
        of_state.into_iter().chain(of_commands).min()
    }

    /// Whether what the worker sends is still listened to.
    pub(super) fn has_worker(&self) -> bool {
        matches!(self.state, State::Awake(_) | State::Saving(..) | State::Settling(..))
    }

    /// Whether a long command computes.
    pub(super) fn computes(&self) -> bool {
        self.queue.running().any(|(_, kind, _)| kind == CommandKind::Long)
    }

    pub(super) fn is_starting(&self) -> bool {
        self.status() == Status::Starting
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    pub(super) fn status(&self) -> Status {
        match &self.state {
            State::Starting | State::Saving(_, Save { purpose: Purpose::Begin, .. }) => {
                Status::Starting
            }
            State::Asleep | State::Waking | State::Over(SessionError::ShuttingDown) => {
                Status::Asleep
            }
            State::Draining(Departure { next: Next::End(_), .. })
            | State::Stopping(Next::End(_))
            | State::Removing(_)
            | State::Over(_) => Status::Ended,
            State::Awake(_)
            | State::Saving(..)
            | State::Settling(..)
            | State::Draining(_)
            | State::Stopping(_) => Status::Awake,
        }
    }

    /// Why the last change is not on disk, if it is not.
    pub(super) fn unsaved(&self) -> Option<&str> {
        self.saving.problem()
    }

    fn worker(&mut self) -> Option<&mut Worker> {
        match &mut self.state {
            State::Awake(worker) | State::Saving(worker, _) | State::Settling(worker, _) => {
                Some(worker)
            }
            _ => None,
        }
    }

    /// Nothing waits, runs or waits for the disk.
    fn is_at_rest(&self) -> bool {
        self.queue.is_idle() && self.writes.is_empty()
    }

    /// Why nothing can be submitted any more, if that is so.
    fn refusal(&self) -> Option<SessionError> {
        match &self.state {
            State::Settling(..)
            | State::Saving(_, Save { purpose: Purpose::Leave, .. })
            | State::Draining(Departure { next: Next::Leave, .. })
            | State::Stopping(Next::Leave) => Some(SessionError::ShuttingDown),
            State::Draining(Departure { next: Next::End(_), .. })
            | State::Stopping(Next::End(_))
            | State::Removing(_) => Some(SessionError::NotFound),
            State::Over(refusal) => Some(refusal.clone()),
            _ => None,
        }
    }

    fn answer(&mut self, task: TaskId, outcome: Outcome) {
        self.actions.push(Action::Answer { task, outcome });
    }

    fn report(&mut self, report: Report) {
        self.actions.push(Action::Report(report));
    }

    /// Does what follows from the state alone.
    fn advance(&mut self, now: Instant) {
        self.end_overdue(now);
        while self.step(now) {}
    }

    /// Does one step; returns whether there may be another.
    fn step(&mut self, now: Instant) -> bool {
        match self.state {
            State::Asleep
                if !self.queue.is_idle() && self.retry.is_none_or(|retry| now >= retry.at) =>
            {
                self.state = State::Waking;
                self.actions.push(Action::StartWorker);
                false
            }
            State::Awake(Worker { is_failing: false, .. }) => {
                self.begin_work(now);
                if let Some((due, format)) = self.saving.next()
                    && now >= due
                {
                    self.ask_for_bundle(format);
                }
                false
            }
            State::Saving(..) => {
                let has_saved = self.has_saved(now);
                if has_saved {
                    self.finish_save(now);
                }
                has_saved
            }
            State::Settling(..) => self.settle(now),
            State::Draining(_) if self.writes_pending == 0 => {
                self.depart();
                false
            }
            _ => false,
        }
    }
}
