//! Sessions: who has which, in what state, and the one task that may change it.
//!
//! ```text
//!              worker ready         idle, room needed, worker lost
//!  starting ───────────────► awake ─────────────────────────────► asleep ◄─── kept by an earlier server
//!     │                     (idle|busy) ◄────────────────────────────┘
//!     │ start failed            │               any command
//!     ▼                         ▼
//!   (undone)                  ended: manual, idle_timeout, process_died, server_shutdown, expired, admin
//! ```
//!
//! Where nothing is kept on disk (`durability = "off"`) there is no sleep: a session ends with its worker.
//!
//! [`SessionManager`] knows all sessions and nothing of Bundles. Each session has a driver, a task that alone changes
//! the session's state; everybody else sends it requests and reads what it publishes. Nothing here knows HTTP.

mod admission;
mod awake;
mod cores;
mod driver;
mod keeper;
mod manager;
mod memory;
mod ports;
mod queue;
mod request;
mod room;
mod saved;
mod script;
mod start;
mod strikes;

pub use manager::SessionManager;
// For the benchmarks.
#[doc(hidden)]
pub use queue::CommandQueue;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::store::snapshots::{DiskLimitExceeded, DiskLimits};

/// The user that a session belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The user's id as text.
    pub user_id: String,
    /// First and last name; may be empty.
    pub full_name: String,
}

/// What a user tells of themself for the log and the dashboard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserInfo {
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: Option<String>,
    /// E-mail address.
    pub email: Option<String>,
}

impl UserInfo {
    /// Takes over the fields that `newer` gives.
    fn update(&mut self, newer: Self) {
        self.first_name = newer.first_name.or(self.first_name.take());
        self.last_name = newer.last_name.or(self.last_name.take());
        self.email = newer.email.or(self.email.take());
    }
}

/// A wish for a new session.
#[derive(Debug, Clone, Default)]
pub struct StartRequest {
    /// The authenticated user, if there is one.
    pub owner: Option<Owner>,
    /// The name of the user's project.
    pub project_name: Option<String>,
    /// Names and e-mail, from the metadata.
    pub user_info: UserInfo,
    /// Everything else in the metadata; kept and given back.
    pub metadata: BTreeMap<String, serde_json::Value>,
    /// Address of the client, for the log.
    pub client_ip: Option<String>,
    /// Its `User-Agent`, for the log.
    pub user_agent: Option<String>,
    /// The session that it shall begin as a copy of.
    pub copy_of: Option<CopyOf>,
}

/// What a new session begins as.
#[derive(Debug, Clone)]
pub struct CopyOf {
    /// The original's id.
    pub session: String,
    /// One of its checkpoints, instead of its Bundle as it is now.
    pub checkpoint: Option<String>,
}

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its worker is being started.
    Starting,
    /// It has a worker.
    Awake,
    /// It is kept as a snapshot.
    Asleep,
    /// It is over.
    Ended,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Its user ended it.
    Manual,
    /// Nobody used it.
    IdleTimeout,
    /// Its worker died.
    ProcessDied,
    /// The server stopped.
    ServerShutdown,
    /// It was kept as long as was promised.
    Expired,
    /// An administrator ended it.
    Admin,
}

impl EndReason {
    /// The word in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::IdleTimeout => "idle_timeout",
            Self::ProcessDied => "process_died",
            Self::ServerShutdown => "server_shutdown",
            Self::Expired => "expired",
            Self::Admin => "admin",
        }
    }
}

/// What everybody may know of a session at one moment.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// UUID v4.
    pub session_id: String,
    /// Unix seconds.
    pub created_at: f64,
    /// Unix seconds of the last command or session call.
    pub last_activity: f64,
    /// MiB of memory that the session really costs (proportional set size); 0 asleep.
    pub mem_used: f64,
    /// The worker's port; `None` asleep.
    pub port: Option<u16>,
    /// The user it belongs to.
    pub owner: Option<Owner>,
    /// The name of the user's project.
    pub project_name: Option<String>,
    /// What the user told of themself.
    pub user_info: UserInfo,
    /// Other metadata given at the start.
    pub metadata: BTreeMap<String, serde_json::Value>,
    /// Where it is in its life.
    pub status: Status,
    /// Why the last change is not on disk yet, if it is not.
    pub unsaved: Option<String>,
    /// Something that its user must know, as that a change was lost.
    pub notice: Option<String>,
    /// When it ends if nobody uses it, in Unix seconds, if sessions are not kept for ever.
    pub expires_at: Option<f64>,
}

/// The port pool at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortStatus {
    /// First port.
    pub start: u16,
    /// One past the last.
    pub end: u16,
    /// Ports in use by sessions, ascending.
    pub reserved: Vec<u16>,
    /// Ports that something else holds, ascending.
    pub foreign: Vec<u16>,
}

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
    /// A command is longer than what the journal keeps of one.
    #[error(
        "The command has more than {most_mb} MiB without its blanks, and changes nothing: send data \
         in parts, or upload a Bundle that holds them (PUT /v1/sessions/{{session_id}}/bundle)"
    )]
    CommandTooLarge {
        /// The bound in MiB.
        most_mb: usize,
    },
    /// The session's journal holds no more.
    #[error(
        "The session's journal has {most_mb} MiB, which is the limit, and takes no such change any \
         more. Reading, undo and export work: download the Bundle (GET \
         /v1/sessions/{{session_id}}/bundle) and upload it (PUT …/bundle) into a new session"
    )]
    JournalFull {
        /// The bound in MiB.
        most_mb: u64,
    },
    /// A session or a user has taken the disk that it may take.
    #[error("{}", disk_full(.0))]
    DiskFull(DiskLimitExceeded),
    /// The worker did not become ready.
    #[error("The session's worker could not be started: {0}")]
    StartFailed(String),
    /// The session's Bundle is kept, and no form of it can be read.
    #[error(
        "The session's Bundle cannot be read: {0}. Nothing is lost: GET /v1/sessions/{{session_id}}/snapshots/pickle and \
         …/snapshots/portable give the files"
    )]
    Unreadable(String),
    /// What is asked does not fit the session's state.
    #[error("{0}")]
    Conflict(String),
    /// A Bundle that its user brings cannot be used.
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
         ([resources] max_disk_mb_{setting}). Nothing has changed: remove checkpoints, end sessions \
         that you do not need, or go on in a new session with the downloaded Bundle. Reading, undo \
         and export still work",
        mebibytes(taken),
        mebibytes(bound)
    )
}

/// What a session and its user take on disk, and may take, in bytes; a bound of 0 is none.
#[derive(Debug, Clone, Copy)]
pub struct DiskView {
    /// The session's own.
    pub bytes: u64,
    /// The sessions of its user together, if it has one.
    pub user_bytes: Option<u64>,
    /// What they may take.
    pub bounds: DiskLimits,
}

/// What a command's execution gave.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The user's answer: one JSON object, byte for byte as the worker sent it.
    pub body: bytes::Bytes,
}

/// Unix seconds.
fn now() -> f64 {
    // A clock before 1970 is no reason to fail.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}
