//! Why a session call failed, in words for the user. It knows no HTTP.

use thiserror::Error;

use crate::metrics::StartOutcome;
use crate::store::snapshots::DiskLimitExceeded;

/// Why a session call failed.
#[derive(Debug, Clone, Error)]
pub enum SessionError {
    /// No session has this id.
    #[error("Session not found")]
    NotFound,
    /// The user has as many sessions as allowed.
    #[error("You already have {limit} sessions, which is the limit; end one first")]
    UserLimit {
        /// The limit.
        limit: usize,
    },
    /// All ports are in use.
    #[error("All {total} worker ports are in use; end a session or enlarge [port_pool]")]
    NoPort {
        /// Ports in the pool.
        total: usize,
    },
    /// Too many sessions are being started at once.
    #[error("{0}; try again in a moment")]
    Overloaded(String),
    /// Too many commands wait in this session.
    #[error("{depth} commands wait in this session already; try again when some are done")]
    QueueFull {
        /// The bound.
        depth: usize,
    },
    /// A command is longer than a journal line may be.
    #[error(
        "The command has more than {most_mb} MiB without its blanks, and changes nothing: send \
         data in parts, or upload a Bundle that holds them (PUT /v1/sessions/{{session_id}}/bundle)"
    )]
    CommandTooLarge {
        /// The bound in MiB.
        most_mb: usize,
    },
    /// The session's journal is full.
    #[error(
        "The session's journal has {most_mb} MiB, which is the limit, and takes no such change any \
         more. Reading, undo and export work: download the Bundle (GET \
         /v1/sessions/{{session_id}}/bundle) and upload it (PUT …/bundle) into a new session"
    )]
    JournalFull {
        /// The bound in MiB.
        most_mb: u64,
    },
    /// A session or a user has reached the bound of its disk use.
    #[error("{}", disk_full(.0))]
    DiskFull(DiskLimitExceeded),
    /// The worker did not become ready.
    #[error("The session's worker could not be started: {0}")]
    StartFailed(String),
    /// No form of the session's kept Bundle can be read.
    #[error(
        "The session's Bundle cannot be read: {0}. Nothing is lost: GET \
         /v1/sessions/{{session_id}}/snapshots/pickle and …/snapshots/portable give the files"
    )]
    Unreadable(String),
    /// The request does not fit the session's state.
    #[error("{0}")]
    Conflict(String),
    /// An uploaded Bundle cannot be used.
    #[error("{0}")]
    BadBundle(String),
    /// No checkpoint of the session has this id.
    #[error("Checkpoint not found")]
    NoCheckpoint,
    /// The server is stopping.
    #[error("The server is shutting down")]
    ShuttingDown,
}

fn disk_full(DiskLimitExceeded { of_user, taken, bound }: &DiskLimitExceeded) -> String {
    let (whose, setting) = match of_user {
        false => ("This session takes", "per_session"),
        true => ("Your sessions together take", "per_user"),
    };
    let mebibytes = |bytes: &u64| (*bytes as f64 / f64::from(1 << 20) * 10.0).round() / 10.0;
    format!(
        "{whose} {} MiB on the server's disk, and this needs more than the rest of {} MiB \
         ([resources] max_disk_mb_{setting}). Nothing has changed: remove checkpoints, end \
         sessions that you do not need, or go on in a new session with the downloaded Bundle. \
         Reading, undo and export still work",
        mebibytes(taken),
        mebibytes(bound)
    )
}

impl SessionError {
    pub(super) fn nothing_is_kept() -> Self {
        let text = "Nothing is kept of sessions on this server ([session] durability = \"off\")";
        Self::Conflict(text.to_owned())
    }

    /// What became of a start that ended so.
    pub(super) fn start_outcome(&self) -> StartOutcome {
        match self {
            Self::StartFailed(_) | Self::Unreadable(_) => StartOutcome::Failed,
            // It was ended before it was ready.
            Self::NotFound => StartOutcome::Abandoned,
            _ => StartOutcome::Refused,
        }
    }

    /// Its text for the log, which leaves out a worker's words about a user's Bundle.
    pub(super) fn without_workers_words(&self) -> String {
        match self {
            Self::Unreadable(_) => "nothing that is kept of it can be read".to_owned(),
            error => error.to_string(),
        }
    }
}
