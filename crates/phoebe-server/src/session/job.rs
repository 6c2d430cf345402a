//! A long command that somebody can follow, cancel and find again: what is known of it, and how
//! that changes. No I/O and no clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A session's jobs that are not done, and those whose end is not stored yet, by id.
pub(super) type Board = BTreeMap<String, Arc<Job>>;

/// The most reasons that a job keeps; a job that is resumed for ever must not grow.
const REASONS_MAX: usize = 30;
/// The most bytes of a command whose arguments a job shows.
const ARGUMENTS_MAX: usize = 16 * 1024;
/// The most characters of an error's text in a job; the whole text is in the result.
const MESSAGE_CHARACTERS_MAX: usize = 500;

/// A long command, from its submission on. Times are Unix seconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// UUID v7: later jobs have greater ids.
    pub job_id: String,
    /// The session's id.
    pub session_id: String,
    /// The command's name.
    pub command: String,
    /// The command's other fields; `None` if they are large.
    pub arguments: Option<serde_json::Map<String, serde_json::Value>>,
    /// Its state.
    pub state: JobState,
    /// What a queued job waits for; not stored.
    #[serde(skip)]
    pub waiting_for: Option<WaitingFor>,
    /// How many wait for cores before it, where it waits for them; not stored.
    #[serde(skip)]
    pub position: Option<usize>,
    /// What the worker says of its progress; not stored.
    #[serde(skip)]
    pub progress: Option<Progress>,
    /// When it was submitted.
    pub created_at: f64,
    /// When it began, the last time.
    pub started_at: Option<f64>,
    /// When it was done.
    pub ended_at: Option<f64>,
    /// Who submitted it.
    pub by: Requester,
    /// The cores that it may use.
    pub cores: Option<usize>,
    /// How often it has begun.
    pub attempt: u32,
    /// The step of the Bundle before it.
    pub revision_before: Option<u64>,
    /// The step of the Bundle that it made.
    pub revision_after: Option<u64>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// Why it changed its state, in order.
    pub reasons: Vec<Reason>,
    /// Whether it begins again after the server was interrupted.
    pub resumes: bool,
    /// Whether somebody asked to cancel it.
    pub cancel_wanted: bool,
    /// SHA-256 of the command's bytes, in hexadecimal.
    pub digest: String,
    /// Its runner was ended because it took too long; not stored.
    #[serde(skip)]
    pub(super) is_overdue: bool,
}

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It waits.
    Queued,
    /// It is in its runner.
    Running,
    /// Somebody cancelled it, and its runner still exists.
    Cancelling,
    /// The Bundle is as it made it.
    Succeeded,
    /// The Bundle is as before.
    Failed,
    /// Somebody cancelled it; the Bundle is as before.
    Cancelled,
    /// The server ended, and it does not begin again; the Bundle is as before.
    Interrupted,
}

/// What a queued job waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WaitingFor {
    /// Earlier work of its session.
    Session,
    /// Cores that other sessions use.
    Cores,
    /// Its session's worker.
    Wake,
}

/// Who submitted a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requester {
    /// The user's id; `None` on a server without users.
    pub user_id: Option<String>,
    /// The beginning of the client's `User-Agent`.
    pub client: Option<String>,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// The class of the error.
    pub kind: JobErrorKind,
    /// The beginning of the error's text.
    pub message: String,
}

/// Classes of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobErrorKind {
    /// PHOEBE refused or failed.
    Phoebe,
    /// The process of the computation or of the worker ended.
    Killed,
    /// The memory did not suffice.
    Memory,
    /// It took longer than a command may take.
    Timeout,
    /// The server did not begin it.
    Refused,
    /// The change is not on disk yet.
    NotSaved,
}

/// Why a job changed its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// Unix seconds.
    pub at: f64,
    /// The new state.
    pub state: JobState,
    /// Why.
    pub reason: String,
}

/// What a worker says of a command that runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// From 0 to 1; `None` where the end is not known.
    #[serde(default)]
    pub fraction: Option<f64>,
    /// What is being done.
    #[serde(default)]
    pub stage: Option<String>,
    /// Frames, iterations or models that are done.
    #[serde(default)]
    pub done: Option<u64>,
    /// How many there are.
    #[serde(default)]
    pub total: Option<u64>,
    /// The best solution so far.
    #[serde(default)]
    pub best: Option<Best>,
    /// Seconds since it began.
    #[serde(default, skip_deserializing)]
    pub elapsed_seconds: f64,
    /// The rest, if the pace stays; `None` where the end is not known.
    #[serde(default, skip_deserializing)]
    pub remaining_seconds: Option<f64>,
}

/// The best solution of a fit so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The logarithm of its probability.
    #[serde(default)]
    pub lnprobability: Option<f64>,
    /// The value that an optimizer minimizes.
    #[serde(default)]
    pub value: Option<f64>,
    /// The fitted parameters, by twig.
    #[serde(default)]
    pub values: BTreeMap<String, f64>,
}

/// A job to be made.
#[derive(Debug, Clone, Default)]
pub struct NewJob {
    /// Who submits it.
    pub by: Requester,
    /// Whether it begins again after the server was interrupted. Then it is stored before it is
    /// accepted.
    pub resumes: bool,
}

/// The end of a job.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum JobEnd {
    Succeeded { revision: u64, unsaved: Option<String> },
    Failed(JobErrorKind, String),
    Cancelled(String),
    Interrupted,
}

impl JobState {
    /// Whether nothing more happens to the job.
    #[must_use]
    pub fn is_done(self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::Cancelling => false,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Interrupted => true,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }
}

impl Job {
    pub(super) fn new(
        job_id: String,
        session_id: &str,
        command: &str,
        body: &[u8],
        new: NewJob,
        at: f64,
    ) -> Self {
        let arguments = (body.len() <= ARGUMENTS_MAX).then(|| serde_json::from_slice(body).ok());
        let arguments = arguments.flatten().map(|mut fields: serde_json::Map<_, _>| {
            fields.remove("command");
            fields
        });
        Self {
            job_id,
            session_id: session_id.to_owned(),
            command: command.to_owned(),
            arguments,
            state: JobState::Queued,
            waiting_for: None,
            position: None,
            progress: None,
            created_at: at,
            started_at: None,
            ended_at: None,
            by: new.by,
            cores: None,
            attempt: 0,
            revision_before: None,
            revision_after: None,
            error: None,
            reasons: Vec::new(),
            resumes: new.resumes,
            cancel_wanted: false,
            digest: digest(body),
            is_overdue: false,
        }
    }

    pub(super) fn begin(&mut self, at: f64, cores: Option<usize>, revision: u64) {
        self.attempt += 1;
        (self.started_at, self.cores) = (Some(at), cores);
        (self.revision_before, self.waiting_for) = (Some(revision), None);
        self.position = None;
        self.enter(at, JobState::Running, format!("attempt {}", self.attempt));
    }

    /// Notes that it waits again.
    pub(super) fn queue(&mut self, at: f64, reason: &str) {
        self.progress = None;
        self.enter(at, JobState::Queued, reason.to_owned());
    }

    pub(super) fn want_cancel(&mut self, at: f64, reason: &str) {
        self.cancel_wanted = true;
        if self.state == JobState::Running {
            self.enter(at, JobState::Cancelling, reason.to_owned());
        }
    }

    pub(super) fn end(&mut self, at: f64, end: JobEnd) {
        self.ended_at = Some(at);
        (self.waiting_for, self.progress) = (None, None);
        let (state, reason) = match end {
            JobEnd::Succeeded { revision, unsaved } => {
                self.revision_after = Some(revision);
                self.error = unsaved.map(|why| JobError::new(JobErrorKind::NotSaved, &why));
                (JobState::Succeeded, String::new())
            }
            JobEnd::Failed(kind, message) => {
                self.error = Some(JobError::new(kind, &message));
                (JobState::Failed, String::new())
            }
            JobEnd::Cancelled(reason) => (JobState::Cancelled, reason),
            JobEnd::Interrupted => (JobState::Interrupted, "the server ended".to_owned()),
        };
        self.enter(at, state, reason);
    }

    /// Takes over what the worker reports of its progress.
    pub(super) fn report(&mut self, at: f64, mut progress: Progress) {
        if self.state.is_done() || self.state == JobState::Queued {
            return;
        }
        progress.elapsed_seconds = self.started_at.map_or(0.0, |began| (at - began).max(0.0));
        progress.remaining_seconds = progress
            .fraction
            .filter(|fraction| *fraction > 0.0)
            .map(|fraction| progress.elapsed_seconds * (1.0 - fraction) / fraction);
        self.progress = Some(progress);
    }

    /// Reads a stored job.
    pub(super) fn from_record(record: &str) -> Option<Self> {
        serde_json::from_str(record).ok()
    }

    fn enter(&mut self, at: f64, state: JobState, reason: String) {
        self.state = state;
        if !reason.is_empty() {
            self.reasons.push(Reason { at, state, reason: cut(&reason) });
        }
        if self.reasons.len() > REASONS_MAX {
            self.reasons.remove(0);
        }
    }
}

impl JobError {
    fn new(kind: JobErrorKind, message: &str) -> Self {
        Self { kind, message: cut(message) }
    }
}

impl Progress {
    /// The most bytes of a report.
    const BYTES_MAX: usize = 16 * 1024;
    const STAGE_CHARACTERS_MAX: usize = 100;
    const VALUES_MAX: usize = 64;

    /// Reads a worker's report, which may be hostile.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        if body.len() > Self::BYTES_MAX {
            return None;
        }
        let mut progress: Self = serde_json::from_slice(body).ok()?;
        progress.fraction = progress.fraction.map(|fraction| fraction.clamp(0.0, 1.0));
        let cut = |text: String| text.chars().take(Self::STAGE_CHARACTERS_MAX).collect();
        progress.stage = progress.stage.map(cut);
        if let Some(best) = &mut progress.best {
            let names = std::mem::take(&mut best.values).into_iter();
            best.values = names.take(Self::VALUES_MAX).collect();
        }
        Some(progress)
    }
}

/// SHA-256 in hexadecimal.
pub(super) fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cut(text: &str) -> String {
    text.chars().take(MESSAGE_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        let body = br#"{"command": "run_solver", "solver": "nm"}"#;
        Job::new("1".to_owned(), "s", "run_solver", body, NewJob::default(), 10.0)
    }

    #[test]
    fn a_job_says_what_became_of_it() {
        let mut job = job();
        assert_eq!(serde_json::json!(job.arguments), serde_json::json!({"solver": "nm"}));
        job.begin(11.0, Some(2), 17);
        job.report(13.0, Progress { fraction: Some(0.25), ..Progress::default() });
        let progress = job.progress.clone().unwrap();
        assert_eq!((progress.elapsed_seconds, progress.remaining_seconds), (2.0, Some(6.0)));
        job.want_cancel(14.0, "too slow");
        assert_eq!(job.state, JobState::Cancelling);
        // The answer came before the cancel was seen.
        job.end(15.0, JobEnd::Succeeded { revision: 18, unsaved: None });
        assert!(job.state.is_done() && job.error.is_none() && job.progress.is_none());
        assert_eq!((job.revision_before, job.revision_after), (Some(17), Some(18)));
        let states: Vec<_> = job.reasons.iter().map(|reason| reason.state).collect();
        assert_eq!(states, [JobState::Running, JobState::Cancelling]);
    }

    #[test]
    fn a_job_that_is_resumed_without_end_does_not_grow() {
        let mut job = job();
        for number in 0..1000 {
            job.begin(f64::from(number), None, 1);
            job.queue(f64::from(number), &"x".repeat(10_000));
        }
        assert!(serde_json::to_vec(&job).unwrap().len() < 64 * 1024);
    }

    #[test]
    fn hostile_reports_are_cut_or_dropped() {
        assert_eq!(Progress::read(b"[1"), None);
        assert_eq!(Progress::read(&[b' '; 20_000]), None);
        let long = serde_json::json!({"fraction": 1e9, "stage": "x".repeat(5000)});
        let read = Progress::read(long.to_string().as_bytes()).unwrap();
        assert_eq!((read.fraction, read.stage.unwrap().len()), (Some(1.0), 100));
        let values: BTreeMap<_, _> = (0..500).map(|number| (number.to_string(), 1.0)).collect();
        let many = serde_json::json!({"best": {"values": values}});
        let read = Progress::read(many.to_string().as_bytes()).unwrap();
        assert_eq!(read.best.unwrap().values.len(), 64);
    }
}
