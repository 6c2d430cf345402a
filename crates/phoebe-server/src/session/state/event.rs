//! What a session's state machine is told and what it tells the driver to do.

use std::time::Duration;

use phoebe_protocol::command::SnapshotFormat;
use phoebe_protocol::kinds::CommandKind;

use crate::config::{Durability, OnIdle};
use crate::session::error::SessionError;
use crate::session::view::EndReason;

/// Names a piece of work from its submission to its answer.
pub(in crate::session) type TaskId = u64;

/// The settings that decide.
#[derive(Debug, Clone, Copy)]
pub(in crate::session) struct Rules {
    pub(in crate::session) durability: Durability,
    pub(in crate::session) on_idle: OnIdle,
    pub(in crate::session) queue_depth: usize,
    /// How long a command may take, if there is a limit.
    pub(in crate::session) command_limit: Option<Duration>,
}

/// What has happened.
#[derive(Debug)]
pub(in crate::session) enum Event {
    /// The worker that was asked for has its Bundle; `portable`: the portable copy is on disk.
    WorkerReady {
        portable: bool,
        beginning: Beginning,
    },
    /// No worker could be started.
    StartFailed(SessionError),
    /// `patient`: the work is stored, and waits for a worker as long as it takes.
    Submitted {
        task: TaskId,
        kind: CommandKind,
        patient: bool,
    },
    /// The work went to the worker; `noted`: the journal is told that it began.
    Begun {
        task: TaskId,
        noted: bool,
    },
    /// The work cannot be done, and the worker does not know of it.
    NotBegun {
        task: TaskId,
        error: SessionError,
    },
    /// Somebody does not want the work any more, for this reason.
    CancelWanted {
        task: TaskId,
        reason: String,
    },
    /// The work could not be sent: the worker is failing and does not know of it.
    NotSent {
        task: TaskId,
    },
    CoresGranted(usize),
    Replied {
        task: TaskId,
        reply: Reply,
    },
    /// The worker answered something that nobody asked.
    StrayReply,
    /// The worker's answer to [`Action::AskForBundle`]: the size in bytes.
    BundleGiven(Result<usize, String>),
    ChangeWritten {
        task: TaskId,
        result: Result<(), String>,
    },
    BundleWritten(Result<(), String>),
    /// A line about a command's begin or end is written.
    NoteWritten(Result<(), String>),
    /// The worker takes no more work; [`Self::WorkerLost`] will follow.
    WorkerFailing,
    /// The worker cannot be used any more, for this reason.
    WorkerLost(String),
    /// The worker's process is gone and its port is free.
    WorkerStopped,
    /// Somebody wants the files with all acknowledged changes on them.
    FilesWanted {
        all_forms: bool,
    },
    /// Another session needs this one's port or memory.
    SleepWanted,
    /// The periodic look. `idle`: unused longer than the limit; `expired`: kept long enough.
    Looked {
        idle: bool,
        expired: bool,
    },
    EndWanted(Ending),
    ShutDown,
    FilesRemoved,
    /// Time has passed; see [`super::Machine::deadline`].
    Tick,
}

/// What is on disk of the Bundle that a worker begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::session) enum Beginning {
    Kept,
    /// The server has no copy of it yet.
    NotKept,
    /// It could not be written.
    Failed(String),
}

/// What a worker's reply means for the Bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::session) enum Reply {
    Unchanged,
    /// It came with a snapshot of this many bytes.
    ChangedWithSnapshot(usize),
    /// It is now a state that is on disk already.
    ChangedToStep,
    /// No snapshot came: none was asked for, or the worker could not make it.
    Changed {
        problem: Option<String>,
    },
}

/// The end of a session.
#[derive(Debug, Clone)]
pub(in crate::session) struct Ending {
    pub(in crate::session) reason: EndReason,
    /// What commands that wait or run are told.
    pub(in crate::session) message: String,
    /// Set where the session never began.
    pub(in crate::session) start_error: Option<SessionError>,
}

impl Ending {
    pub(in crate::session) fn new(reason: EndReason, message: String) -> Self {
        Self { reason, message, start_error: None }
    }

    pub(super) fn never_began(error: SessionError) -> Self {
        Self { start_error: Some(error), ..Self::new(EndReason::Manual, "it never began".into()) }
    }
}

/// What is to be done.
#[derive(Debug)]
pub(in crate::session) enum Action {
    /// Answered by [`Event::WorkerReady`] or [`Event::StartFailed`].
    StartWorker,
    AbandonStart,
    /// For this work. Answered by [`Event::CoresGranted`].
    AskForCores(TaskId),
    /// Answered by [`Event::Begun`], [`Event::NotBegun`] or [`Event::NotSent`]. `snapshot`: the
    /// reply to a change is to bring the Bundle.
    Begin {
        task: TaskId,
        cores: Option<usize>,
        snapshot: bool,
    },
    CancelRunner {
        task: TaskId,
        reason: String,
    },
    /// Answered by [`Event::ChangeWritten`].
    WriteChange(TaskId),
    /// The work ended without a change. Answered by [`Event::NoteWritten`].
    NoteEnded(TaskId),
    Answer {
        task: TaskId,
        outcome: Outcome,
    },
    /// Answered by [`Event::BundleGiven`].
    AskForBundle(SnapshotFormat),
    /// Answered by [`Event::BundleWritten`].
    WriteBundle(SnapshotFormat),
    WriteRecord,
    /// Answered by [`Event::WorkerStopped`].
    StopWorker {
        grace: Duration,
    },
    /// Nobody finds the session from now on.
    Forget,
    /// Answered by [`Event::FilesRemoved`].
    RemoveFiles,
    TellStarted(Result<(), SessionError>),
    TellSlept(bool),
    TellFiles(Result<(), SessionError>),
    /// Its user must know this.
    Notice(&'static str),
    Report(Report),
    /// The session has ended.
    RecordEnd(Ending),
}

/// How work is answered.
#[derive(Debug, Clone)]
pub(in crate::session) enum Outcome {
    /// As the worker did. `unsaved`: why the change is not on disk.
    Reply { unsaved: Option<String> },
    /// It has not begun.
    Refused(SessionError),
    /// It was cancelled before it began.
    Cancelled { reason: String },
    /// The server stops, and it has not ended.
    Interrupted,
    /// It began and the worker was lost.
    WorkerLost { why: String, message: String },
    /// It began, or waited in a session that ended; `logged` is for the log.
    Failed { message: String, logged: String },
}

impl Outcome {
    pub(super) fn failed(message: &str) -> Self {
        Self::Failed { message: message.to_owned(), logged: message.to_owned() }
    }
}

/// What the log is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::session) enum Report {
    Awake,
    Asleep,
    NotWoken(String),
    WorkerLost { why: String, unsaved: bool },
    NotSaved(String),
    NoPortableCopy(String),
    SavedAgain,
    StaysAwake,
    ChangesLost,
}
