//! Random histories of a session, with a model of the world around its state machine: a worker, a
//! disk, clients, a server that stops. The model checks each action against what the world allows,
//! and at the end that nothing is lost.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use phoebe_protocol::command::SnapshotFormat;
use phoebe_protocol::kinds::CommandKind::{self, Change, Long, Read};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::config::{Durability, OnIdle};
use crate::session::view::EndReason;

/// The world around a machine.
struct World {
    machine: Machine,
    rules: Rules,
    now: Instant,
    worker: Place,
    /// What the worker was asked for and has not answered, in order.
    asked: Vec<Asked>,
    /// What is on its way to the disk, in order.
    disk: VecDeque<Write>,
    tasks: BTreeMap<TaskId, Task>,
    /// In the order in which the worker got them.
    begun: Vec<TaskId>,
    waits_for_cores: bool,
    holds_cores: bool,
    /// Changes of the Bundle that the worker has, by their count, and the last that is on disk.
    changes: u64,
    changes_on_disk: u64,
    /// The last change of which a client was told that it is saved.
    acknowledged: u64,
    given: Option<(SnapshotFormat, u64)>,
    /// The session's beginning is still to be saved.
    unsaved_beginning: bool,
    /// The last worker was lost.
    lost: bool,
    /// Nothing can be sent to the worker any more, and whether the machine was told.
    broken: bool,
    told_of_break: bool,
    /// The worker was asked for a Bundle in vain.
    asked_in_vain: bool,
    /// When the last save began, and whether something could not be saved since.
    save_began: Instant,
    save_failed: bool,
    /// The worker was asked for its Bundle since then.
    was_asked: bool,
    /// The log was told that changes are lost.
    changes_lost: bool,
    /// A change was given up, and the worker may still be at it.
    change_given_up: bool,
    stray_replies: usize,
    shut_down_at: Option<Instant>,
    /// The periodic look once found it without work, and idle or expired.
    was_idle: bool,
    was_expired: bool,
    files_wanted: usize,
    sleep_wanted: bool,
    started: Option<bool>,
    was_started: bool,
    told_of_end: bool,
    is_forgotten: bool,
    files_exist: bool,
    removes_files: bool,
    ends_recorded: usize,
    shuts_down: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    None,
    Starting,
    Running,
    Lost,
    Stopping,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Task(TaskId),
    Bundle(SnapshotFormat),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Write {
    Change { task: TaskId, change: u64, durable: bool },
    Bundle { format: SnapshotFormat, change: u64 },
    Note,
    Removal,
}

#[derive(Debug)]
struct Task {
    kind: CommandKind,
    began: bool,
    noted: bool,
    cancelled: bool,
    /// The change that it made, if the worker answered that it made one, and whether its reply
    /// made it durable.
    change: Option<(u64, bool)>,
    replied: bool,
    answers: usize,
    /// The change and its Bundle are written.
    is_on_disk: bool,
    cancel_wanted: bool,
}

/// What happens next; what is impossible at the time does nothing.
#[derive(Debug, Clone)]
enum Step {
    Submit(CommandKind),
    Ready {
        portable: bool,
        beginning: u8,
    },
    StartFails,
    Cores,
    Reply {
        index: usize,
        how: u8,
    },
    Refuse(usize),
    Stray,
    Write {
        works: bool,
    },
    /// The connection breaks; the machine learns of it at once, or when it is used.
    Breaks {
        noticed: bool,
    },
    Dies,
    Cancel(usize),
    Stops,
    WantFiles(bool),
    WantSleep,
    Look {
        idle: bool,
        expired: bool,
    },
    End,
    ShutDown,
    Wait(u16),
    Deadline,
}

/// `disk`: how often a write ends.
fn step(disk: u32) -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop_oneof![Just(Read), Just(Change), Just(Long)].prop_map(Step::Submit),
        6 => (any::<bool>(), 0u8..8).prop_map(|(portable, beginning)| {
            Step::Ready { portable, beginning }
        }),
        1 => Just(Step::StartFails),
        4 => Just(Step::Cores),
        14 => (any::<usize>(), 0u8..8).prop_map(|(index, how)| Step::Reply { index, how }),
        1 => any::<usize>().prop_map(Step::Refuse),
        2 => Just(Step::Stray),
        disk => (0u8..8).prop_map(|number| Step::Write { works: number > 0 }),
        1 => any::<bool>().prop_map(|noticed| Step::Breaks { noticed }),
        1 => Just(Step::Dies),
        3 => any::<usize>().prop_map(Step::Cancel),
        4 => Just(Step::Stops),
        2 => any::<bool>().prop_map(Step::WantFiles),
        2 => Just(Step::WantSleep),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(idle, expired)| {
            Step::Look { idle, expired }
        }),
        1 => (0u8..4).prop_map(|number| if number == 0 { Step::End } else { Step::Cores }),
        1 => (0u8..4).prop_map(|number| if number == 0 { Step::ShutDown } else { Step::Cores }),
        3 => (0u16..9000).prop_map(Step::Wait),
        3 => Just(Step::Deadline),
    ]
}

fn rules() -> impl Strategy<Value = Rules> {
    let durability = prop_oneof![
        3 => Just(Durability::Command),
        1 => Just(Durability::Idle),
        1 => Just(Durability::Off),
    ];
    let on_idle = prop_oneof![3 => Just(OnIdle::Hibernate), 1 => Just(OnIdle::Terminate)];
    (durability, on_idle, 1usize..12, any::<bool>()).prop_map(
        |(durability, on_idle, queue_depth, limited)| Rules {
            durability,
            on_idle,
            queue_depth,
            command_limit: limited.then(|| Duration::from_secs(7)),
        },
    )
}

impl World {
    /// A session that begins, or one that an earlier server left.
    fn new(rules: Rules, kept: bool) -> Self {
        let mut world = Self {
            machine: Machine::new(rules),
            rules,
            now: Instant::now(),
            worker: Place::None,
            asked: Vec::new(),
            disk: VecDeque::new(),
            tasks: BTreeMap::new(),
            begun: Vec::new(),
            waits_for_cores: false,
            holds_cores: false,
            changes: 0,
            changes_on_disk: 0,
            acknowledged: 0,
            given: None,
            unsaved_beginning: false,
            lost: false,
            broken: false,
            told_of_break: false,
            asked_in_vain: false,
            save_began: Instant::now(),
            save_failed: false,
            was_asked: false,
            changes_lost: false,
            change_given_up: false,
            stray_replies: 0,
            shut_down_at: None,
            was_idle: false,
            was_expired: false,
            files_wanted: 0,
            sleep_wanted: false,
            started: None,
            was_started: kept,
            told_of_end: false,
            is_forgotten: false,
            files_exist: true,
            removes_files: false,
            ends_recorded: 0,
            shuts_down: false,
        };
        if !kept {
            let action = world.machine.start();
            world.perform(action);
        }
        world
    }

    fn is_kept(&self) -> bool {
        self.rules.durability != Durability::Off
    }

    fn tell(&mut self, event: Event) {
        let was_saving = matches!(self.machine.state, State::Saving(..));
        let actions = self.machine.handle(self.now, event);
        if !was_saving && matches!(self.machine.state, State::Saving(..)) {
            (self.save_began, self.save_failed, self.was_asked) = (self.now, false, false);
        }
        for action in actions {
            self.perform(action);
        }
        self.check();
    }

    /// What must hold at all times.
    fn check(&self) {
        let counted = self.disk.iter().filter(|write| **write != Write::Removal).count();
        assert_eq!(self.machine.writes_pending, counted, "each write is counted");
        assert!(counted <= WRITES_MAX + 4 + self.rules.queue_depth, "the disk has a bound");
        let running = self.worker == Place::Running;
        assert!(!self.machine.has_worker() || running, "it listens to a worker that it has");
        assert!(self.stray_replies <= 3 || !self.machine.has_worker(), "it listens to nonsense");
        let queued = self.tasks.values().filter(|task| !task.replied && task.answers == 0).count();
        assert!(queued <= self.rules.queue_depth, "the queue has a bound");
        if self.machine.is_over() {
            assert_eq!(self.worker, Place::None, "a worker outlives its session");
            assert!(self.is_forgotten);
        }
        let computing = self.tasks.values().filter(|task| task.runs() && task.kind == Long).count();
        assert!(computing <= 1 && self.machine.computes() == (computing == 1));
        if self.machine.status() == Status::Awake && self.machine.unsaved().is_none() {
            let pending = self.disk.iter().any(|write| matches!(write, Write::Change { .. }));
            let all = !self.is_kept() || pending || self.changes_on_disk == self.changes;
            assert!(all, "it calls a change saved that is not");
        }
    }

    fn perform(&mut self, action: Action) {
        let has_worker = self.worker == Place::Running || self.worker == Place::Lost;
        match action {
            Action::StartWorker => {
                assert_eq!(self.worker, Place::None, "two workers");
                assert!(!self.is_forgotten);
                self.worker = Place::Starting;
            }
            Action::AbandonStart => {
                assert_eq!(self.worker, Place::Starting);
                self.worker = Place::None;
            }
            Action::AskForCores(id) => {
                assert!(self.tasks[&id].kind == Long && !self.tasks[&id].began);
                assert!(has_worker && !self.waits_for_cores && !self.holds_cores);
                self.waits_for_cores = true;
            }
            Action::Begin { task: id, cores, snapshot } => self.begin(id, cores, snapshot),
            Action::CancelRunner { task, .. } => {
                let task = self.tasks.get_mut(&task).unwrap();
                assert!(has_worker && task.kind == Long && task.runs() && !task.cancelled);
                task.cancelled = true;
            }
            Action::WriteChange(id) => {
                let (change, durable) = self.tasks[&id].change.unwrap();
                self.disk.push_back(Write::Change { task: id, change, durable });
            }
            Action::NoteEnded(id) => {
                let task = &self.tasks[&id];
                assert!(task.noted && task.answers == 0 && task.change.is_none());
                self.disk.push_back(Write::Note);
            }
            Action::Answer { task, outcome } => self.answer(task, &outcome),
            Action::AskForBundle(format) => {
                let waits = |asked: &Asked| matches!(asked, Asked::Bundle(_));
                assert!(has_worker && !self.asked.iter().any(waits) && self.given.is_none());
                assert!(!self.change_given_up, "it saves a Bundle that is being changed");
                assert!(!self.told_of_break, "a failing worker is asked for its Bundle");
                self.asked_in_vain |= self.broken;
                self.asked.push(Asked::Bundle(format));
                self.was_asked |= format == SnapshotFormat::Pickle;
                self.unsaved_beginning &= format != SnapshotFormat::Pickle;
            }
            Action::WriteBundle(format) => {
                let (given, change) = self.given.take().unwrap();
                assert_eq!(given, format);
                self.disk.push_back(Write::Bundle { format, change });
            }
            Action::WriteRecord => self.disk.push_back(Write::Note),
            Action::StopWorker { grace } => {
                self.lost |= grace.is_zero();
                assert!(has_worker, "no worker to stop");
                let is_note = |write: &Write| *write == Write::Note;
                assert!(self.disk.iter().all(is_note), "stopped before all is written");
                assert!(!self.tasks.values().any(Task::runs), "stopped with work unanswered");
                self.worker = Place::Stopping;
                self.asked.clear();
                (self.waits_for_cores, self.holds_cores, self.given) = (false, false, None);
            }
            Action::Forget => self.is_forgotten = true,
            Action::RemoveFiles => {
                assert!(self.is_forgotten && !self.removes_files);
                assert!(self.worker == Place::None, "a worker writes into removed files");
                self.removes_files = true;
                self.disk.push_back(Write::Removal);
            }
            Action::TellStarted(result) => {
                assert!(self.started.is_none() && !self.was_started, "told twice");
                self.started = Some(result.is_ok());
                assert!(result.is_ok() == (self.worker != Place::None));
                assert!(result.is_err() || !self.unsaved_beginning, "told before it is kept");
            }
            Action::TellSlept(slept) => {
                assert!(!slept || self.worker == Place::None);
                self.sleep_wanted = false;
            }
            Action::TellFiles(result) => {
                assert!(self.files_wanted > 0);
                self.files_wanted = 0;
                if result.is_ok() {
                    let is_change = |write: &Write| matches!(write, Write::Change { .. });
                    let all = self.changes_on_disk == self.changes || !self.machine.has_worker();
                    assert!(self.disk.iter().any(is_change) || all, "the files are not complete");
                    assert!(self.is_kept() && self.files_exist);
                }
            }
            Action::Notice(_) => assert!(has_worker),
            Action::Report(Report::Asleep) => {
                assert_eq!(self.worker, Place::None);
                assert!(self.changes_on_disk >= self.acknowledged, "what was saved is gone");
                assert!(self.lost || self.changes_on_disk == self.changes, "it sleeps unsaved");
            }
            Action::Report(Report::WorkerLost { .. }) => self.lost = true,
            Action::Report(Report::StaysAwake) => {
                let is_late = self.now >= self.save_began + Duration::from_secs(5);
                assert!(self.save_failed || is_late, "it stays awake though it could be saved");
            }
            Action::Report(Report::ChangesLost) => {
                let is_late = self.now >= self.save_began + Duration::from_secs(5);
                assert!(self.was_asked || is_late, "changes are lost that could be saved");
                self.changes_lost = true;
            }
            Action::Report(_) => {}
            Action::RecordEnd(ending) => {
                self.ends_recorded += 1;
                assert!(ending.reason != EndReason::IdleTimeout || self.was_idle);
                assert!(ending.reason != EndReason::Expired || self.was_expired);
            }
        }
    }

    fn begin(&mut self, id: TaskId, cores: Option<usize>, snapshot: bool) {
        assert!(matches!(self.worker, Place::Running), "no worker to send to");
        assert!(!self.told_of_break, "a failing worker gets work");
        assert!(self.machine.writes_pending < WRITES_MAX, "work begins though the disk is behind");
        let kind = self.tasks[&id].kind;
        let others = self.tasks.values().filter(|task| task.runs()).map(|task| task.kind);
        match kind {
            Read => assert!(!others.into_iter().any(|kind| kind == Change)),
            Change | Long => assert_eq!(others.count(), 0, "two work on the Bundle"),
        }
        let earlier = self.tasks.range(..id).filter(|(_, task)| !task.began && task.answers == 0);
        for (_, earlier) in earlier {
            assert!(kind == Read && earlier.kind == Long, "it passes what came before");
        }
        assert_eq!(cores.is_some(), kind == Long);
        assert!(!snapshot || kind != Read);
        if cores.is_some() {
            assert!(std::mem::take(&mut self.holds_cores), "it computes without a turn");
        }
        let task = self.tasks.get_mut(&id).unwrap();
        assert!(!task.began && task.answers == 0);
        task.began = true;
        self.begun.push(id);
        self.asked.push(Asked::Task(id));
    }

    fn answer(&mut self, id: TaskId, outcome: &Outcome) {
        let change = self.tasks[&id].change;
        let written = |world: &Self| {
            !world
                .disk
                .iter()
                .any(|write| matches!(write, Write::Change { task, .. } if *task == id))
        };
        match outcome {
            Outcome::Reply { unsaved } => {
                assert!(self.tasks[&id].replied, "an answer that the worker did not give");
                assert!(!self.tasks[&id].is_on_disk || unsaved.is_none(), "it is saved");
                if let (Some((change, durable)), true) = (change, self.is_kept())
                    && unsaved.is_none()
                    && (durable || self.rules.durability == Durability::Command && written(self))
                {
                    assert!(written(self), "answered before it is saved");
                    assert!(self.changes_on_disk >= change, "a change is called saved and is not");
                    self.acknowledged = self.acknowledged.max(change);
                }
            }
            Outcome::Refused(error) => {
                let is_patient = self.tasks[&id].kind == Long && id.is_multiple_of(2);
                let waits = matches!(error, SessionError::StartFailed(_)) && is_patient;
                assert!(!self.tasks[&id].replied && !waits, "it is stored, and does not wait");
            }
            Outcome::Cancelled { .. } => {
                let task = &self.tasks[&id];
                let is_wanted = task.cancel_wanted || task.cancelled;
                assert!(!task.began && is_wanted, "it is cancelled, and nobody asked");
            }
            Outcome::Interrupted => {
                assert!(self.shuts_down && !self.tasks[&id].replied);
                if self.tasks[&id].kind == Change {
                    let waited = self.shut_down_at.map(|at| self.now - at);
                    assert!(waited >= Some(Duration::from_secs(2)), "a change gets no time");
                }
                self.change_given_up |= self.tasks[&id].runs() && self.tasks[&id].kind == Change;
            }
            Outcome::WorkerLost { .. } => {
                let has_worker = matches!(self.worker, Place::Running | Place::Lost);
                assert!(self.tasks[&id].began && has_worker);
            }
            Outcome::Failed { .. } => {
                assert!(!self.tasks[&id].replied);
                self.change_given_up |= self.tasks[&id].runs() && self.tasks[&id].kind == Change;
            }
        }
        let task = self.tasks.get_mut(&id).unwrap();
        task.answers += 1;
        assert_eq!(task.answers, 1, "answered twice");
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Submit(kind) => {
                if self.worker == Place::Starting && !self.was_started && self.started.is_none() {
                    return;
                }
                let id = self.tasks.len() as TaskId;
                let task = Task {
                    kind: *kind,
                    began: false,
                    noted: false,
                    cancelled: false,
                    change: None,
                    replied: false,
                    answers: 0,
                    is_on_disk: false,
                    cancel_wanted: false,
                };
                self.tasks.insert(id, task);
                let patient = *kind == Long && id.is_multiple_of(2);
                self.tell(Event::Submitted { task: id, kind: *kind, patient });
                self.report_begun();
            }
            Step::Ready { portable, beginning } if self.worker == Place::Starting => {
                self.worker = Place::Running;
                self.changes = self.changes_on_disk;
                (self.lost, self.stray_replies, self.change_given_up) = (false, 0, false);
                (self.broken, self.told_of_break, self.asked_in_vain) = (false, false, false);
                let beginning = match beginning {
                    0 if self.is_kept() => Beginning::NotKept,
                    1 if self.is_kept() => Beginning::Failed("disk full".to_owned()),
                    _ => Beginning::Kept,
                };
                self.unsaved_beginning =
                    !self.was_started && self.started.is_none() && beginning == Beginning::NotKept;
                self.tell(Event::WorkerReady { portable: *portable, beginning });
            }
            Step::StartFails if self.worker == Place::Starting => {
                self.worker = Place::None;
                self.tell(Event::StartFailed(SessionError::StartFailed("no".to_owned())));
            }
            Step::Cores if self.waits_for_cores => {
                self.waits_for_cores = false;
                self.holds_cores = true;
                self.tell(Event::CoresGranted(2));
            }
            Step::Reply { index, how }
                if self.worker == Place::Running && !self.asked.is_empty() =>
            {
                let asked = self.asked.remove(index % self.asked.len());
                self.reply(asked, *how);
            }
            Step::Refuse(index) if self.worker == Place::Running => {
                let tasks: Vec<_> = self.asked.iter().copied().enumerate().collect();
                let tasks: Vec<_> = tasks
                    .into_iter()
                    .filter(|(_, asked)| matches!(asked, Asked::Task(_)))
                    .collect();
                if let Some((place, Asked::Task(task))) =
                    (!tasks.is_empty()).then(|| tasks[index % tasks.len()])
                    && !self.tasks[&task].noted
                {
                    self.asked.remove(place);
                    if self.broken {
                        self.not_sent(task);
                    } else {
                        let error = SessionError::NoCheckpoint;
                        self.tell(Event::NotBegun { task, error });
                    }
                }
            }
            Step::Stray if self.worker == Place::Running => {
                self.stray_replies += 1;
                self.tell(Event::StrayReply);
            }
            Step::Write { works } => self.write(*works),
            Step::Breaks { noticed } if self.worker == Place::Running => {
                self.broken = true;
                if *noticed && self.machine.has_worker() {
                    self.told_of_break = true;
                    self.tell(Event::WorkerFailing);
                }
            }
            Step::Cancel(index) if !self.tasks.is_empty() => {
                let id = (index % self.tasks.len()) as TaskId;
                let waits = !self.tasks[&id].began && self.tasks[&id].answers == 0;
                self.tasks.get_mut(&id).unwrap().cancel_wanted = true;
                let reason = "nobody wants it".to_owned();
                self.tell(Event::CancelWanted { task: id, reason });
                assert!(!waits || self.tasks[&id].answers == 1, "it waits on, though cancelled");
            }
            Step::Dies if self.worker == Place::Running && self.machine.has_worker() => {
                self.worker = Place::Lost;
                self.tell(Event::WorkerLost("it died".to_owned()));
            }
            Step::Stops if self.worker == Place::Stopping => {
                self.worker = Place::None;
                self.tell(Event::WorkerStopped);
            }
            Step::WantFiles(all_forms) if !self.is_starting() => {
                self.files_wanted += 1;
                self.tell(Event::FilesWanted { all_forms: *all_forms });
            }
            Step::WantSleep if !self.is_starting() && !self.sleep_wanted => {
                self.sleep_wanted = true;
                self.tell(Event::SleepWanted);
            }
            Step::Look { idle, expired } if !self.is_starting() => {
                let is_at_rest = self.tasks.values().all(|task| task.answers > 0);
                self.was_idle |= *idle && is_at_rest;
                self.was_expired |= *expired && is_at_rest;
                self.tell(Event::Looked { idle: *idle, expired: *expired });
            }
            Step::End => {
                self.told_of_end = true;
                let ending = Ending::new(EndReason::Manual, "ended".to_owned());
                self.tell(Event::EndWanted(ending));
            }
            Step::ShutDown => {
                self.shuts_down = true;
                self.shut_down_at.get_or_insert(self.now);
                self.tell(Event::ShutDown);
            }
            Step::Wait(milliseconds) => {
                self.now += Duration::from_millis((*milliseconds).into());
                self.tell(Event::Tick);
            }
            Step::Deadline => {
                if let Some(deadline) = self.machine.deadline() {
                    self.now = self.now.max(deadline);
                    self.tell(Event::Tick);
                    let next = self.machine.deadline();
                    assert!(next.is_none_or(|next| next > self.now), "a deadline stays due");
                }
            }
            _ => {}
        }
        if self.worker == Place::Running && !self.machine.has_worker() {
            // The machine gave it up, or lets it go: nobody listens to it any more.
            self.worker = Place::Lost;
        }
        self.report_begun();
    }

    fn is_starting(&self) -> bool {
        !self.was_started && self.started.is_none()
    }

    /// The driver reports what it sent.
    fn report_begun(&mut self) {
        let begun = std::mem::take(&mut self.begun);
        if std::mem::take(&mut self.asked_in_vain) {
            self.told_of_break = true;
            self.tell(Event::WorkerFailing);
        }
        for id in begun {
            if self.broken && id % 4 > 0 {
                self.asked.retain(|asked| *asked != Asked::Task(id));
                self.not_sent(id);
                continue;
            }
            let kept = self.is_kept();
            let task = self.tasks.get_mut(&id).unwrap();
            task.noted = kept && task.kind != Read && id % 3 > 0 && task.answers == 0;
            let noted = task.noted;
            if noted {
                self.disk.push_back(Write::Note);
            }
            self.tell(Event::Begun { task: id, noted });
        }
    }

    fn not_sent(&mut self, task: TaskId) {
        self.told_of_break = true;
        self.tasks.get_mut(&task).unwrap().began = false;
        self.tell(Event::NotSent { task });
    }

    fn reply(&mut self, asked: Asked, how: u8) {
        match asked {
            Asked::Bundle(format) => {
                if how > 0 {
                    self.given = Some((format, self.changes));
                    self.tell(Event::BundleGiven(Ok(1 + usize::from(how))));
                } else {
                    self.save_failed = true;
                    self.tell(Event::BundleGiven(Err("it cannot be pickled".to_owned())));
                }
                self.given = None;
            }
            Asked::Task(id) => {
                let answered = self.tasks[&id].answers > 0;
                let kind = self.tasks[&id].kind;
                if answered {
                    return;
                }
                let reply = match how {
                    _ if kind == Read => Reply::Unchanged,
                    0 | 1 => Reply::Unchanged,
                    2 => Reply::Changed { problem: Some("it cannot be pickled".to_owned()) },
                    3 if self.rules.durability == Durability::Command && kind == Change => {
                        Reply::ChangedToStep
                    }
                    4 => Reply::ChangedWithSnapshot(64 << 20),
                    _ if self.rules.durability == Durability::Command => {
                        Reply::ChangedWithSnapshot(1000)
                    }
                    _ => Reply::Changed { problem: None },
                };
                let durable = matches!(reply, Reply::ChangedToStep | Reply::ChangedWithSnapshot(_));
                if reply != Reply::Unchanged {
                    self.changes += 1;
                }
                let change = (reply != Reply::Unchanged).then_some((self.changes, durable));
                let task = self.tasks.get_mut(&id).unwrap();
                (task.replied, task.change) = (true, change);
                self.tell(Event::Replied { task: id, reply });
            }
        }
    }

    fn write(&mut self, works: bool) {
        let Some(write) = self.disk.pop_front() else { return };
        self.save_failed |= !works;
        let result = works.then_some(()).ok_or_else(|| "disk full".to_owned());
        match write {
            Write::Change { task, change, durable } => {
                if works && durable {
                    self.changes_on_disk = self.changes_on_disk.max(change);
                    self.tasks.get_mut(&task).unwrap().is_on_disk = true;
                }
                self.tell(Event::ChangeWritten { task, result });
            }
            Write::Bundle { format, change } => {
                if works && format == SnapshotFormat::Pickle {
                    self.changes_on_disk = self.changes_on_disk.max(change);
                }
                self.tell(Event::BundleWritten(result));
            }
            Write::Note => self.tell(Event::NoteWritten(result)),
            Write::Removal => {
                self.files_exist = false;
                self.tell(Event::FilesRemoved);
            }
        }
        let counts = !matches!(write, Write::Bundle { format: SnapshotFormat::Portable, .. });
        if !works && counts && self.machine.has_worker() {
            assert!(self.machine.unsaved().is_some(), "a failed write is not told");
        }
    }

    /// Lets everything that is under way finish, and ends the session or stops the server.
    fn finish(&mut self, by_shutdown: bool) {
        for _ in 0..2000 {
            if self.machine.is_over() && self.disk.is_empty() {
                break;
            }
            for step in [
                Step::Ready { portable: true, beginning: 7 },
                Step::Cores,
                Step::Reply { index: 0, how: 5 },
                Step::Write { works: true },
                Step::Stops,
                Step::Deadline,
            ] {
                self.take(&step);
            }
            if self.broken {
                self.take(&Step::Dies);
            }
            if !self.shuts_down && !self.told_of_end {
                self.take(if by_shutdown { &Step::ShutDown } else { &Step::End });
            }
        }
        assert!(self.machine.is_over() && self.disk.is_empty(), "it never ends");
        assert!(self.tasks.values().all(|task| task.answers == 1), "a command has no answer");
        assert_eq!(self.files_wanted, 0, "nobody told the one who wants the files");
        assert!(self.was_started || self.started.is_some(), "nobody told who started it");
        assert!(!self.holds_cores && !self.waits_for_cores);
        let began = self.was_started || self.started == Some(true);
        assert_eq!(self.ends_recorded, usize::from(began && self.removes_files));
        assert_eq!(self.removes_files, !self.files_exist);
        if !self.removes_files {
            assert!(self.shuts_down && self.is_kept(), "left though the server goes on");
            let all = self.changes_on_disk == self.changes || self.lost || self.changes_lost;
            assert!(all, "changes are lost and nobody is told");
        }
    }
}

impl Task {
    fn runs(&self) -> bool {
        self.began && !self.replied && self.answers == 0
    }
}

fn history(rules: Rules, kept: bool, by_shutdown: bool, steps: &[Step]) {
    let kept = kept && rules.durability != Durability::Off;
    let mut world = World::new(rules, kept);
    for step in steps {
        world.take(step);
    }
    world.finish(by_shutdown);
}

/// No command is lost or answered twice, the order is kept, what is called saved is saved, there is
/// one worker at most, and at the end neither a worker nor a turn on the cores is left.
#[test]
fn every_history_ends_well() {
    let steps = |disk| prop::collection::vec(step(disk), 0..120);
    let steps = prop_oneof![3 => steps(14), 1 => steps(1)];
    let histories = (rules(), any::<bool>(), any::<bool>(), steps);
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = Config { cases: cases.unwrap_or(100_000), ..Config::default() };
    TestRunner::new(config)
        .run(&histories, |(rules, kept, by_shutdown, steps)| {
            history(rules, kept, by_shutdown, &steps);
            Ok(())
        })
        .unwrap();
}
