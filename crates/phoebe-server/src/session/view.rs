//! What others may know of sessions: who owns one, its state, what it costs, how it is started.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::store::snapshots::DiskLimits;

/// The user that a session belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The user's id as text.
    pub user_id: String,
    /// First and last name; may be empty.
    pub full_name: String,
}

/// What users say about themselves, for the log and the dashboard.
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
    pub(super) fn update(&mut self, newer: Self) {
        self.first_name = newer.first_name.or(self.first_name.take());
        self.last_name = newer.last_name.or(self.last_name.take());
        self.email = newer.email.or(self.email.take());
    }
}

/// A request for a new session.
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
    /// The session of which it begins as a copy.
    pub copy_of: Option<CopyOf>,
}

/// The original of a new session.
#[derive(Debug, Clone)]
pub struct CopyOf {
    /// The original's id.
    pub session: String,
    /// One of its checkpoints, instead of its Bundle as it is now.
    pub checkpoint: Option<String>,
}

/// The state of a session, as others see it.
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
    /// It was not used for too long.
    IdleTimeout,
    /// Its worker died.
    ProcessDied,
    /// The server stopped.
    ServerShutdown,
    /// It was kept as long as sessions are.
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

/// A session at one moment, as others may see it.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// UUID v4.
    pub session_id: String,
    /// Unix seconds.
    pub created_at: f64,
    /// Unix seconds of the last command or session call.
    pub last_activity: f64,
    /// Its memory in MiB (proportional set size); 0 asleep.
    pub mem_used: f64,
    /// The worker's port; `None` asleep.
    pub port: Option<u16>,
    /// The user it belongs to.
    pub owner: Option<Owner>,
    /// The name of the user's project.
    pub project_name: Option<String>,
    /// What the user says about themselves.
    pub user_info: UserInfo,
    /// Other metadata given at the start.
    pub metadata: BTreeMap<String, serde_json::Value>,
    /// Its state.
    pub status: Status,
    /// Why the last change is not on disk yet, if it is not.
    pub unsaved: Option<String>,
    /// A message for its user, such as that a change was lost.
    pub notice: Option<String>,
    /// When it ends if nobody uses it, in Unix seconds; `None` where it is kept for ever.
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
    /// Ports that other programs hold, ascending.
    pub foreign: Vec<u16>,
}

/// The disk use of a session and of its user, with the bounds, in bytes; a bound of 0 is none.
#[derive(Debug, Clone, Copy)]
pub struct DiskView {
    /// The session's own.
    pub bytes: u64,
    /// The sessions of its user together, if it has one.
    pub user_bytes: Option<u64>,
    /// The bounds.
    pub bounds: DiskLimits,
}

/// The answer to a command.
#[derive(Debug, Clone)]
pub struct Answer {
    /// One JSON object, byte for byte as the worker sent it.
    pub body: bytes::Bytes,
}

/// Unix seconds.
pub(super) fn now() -> f64 {
    // A clock before 1970 is no reason to fail.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}
