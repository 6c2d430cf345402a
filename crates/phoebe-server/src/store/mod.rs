//! What must outlive a process: the SQLite log of sessions, commands, metrics and users.
//!
//! One thread owns the writing connection and commits in batches. Log records are sent and forgotten: no request waits
//! for them; only calls whose answer depends on the database wait. Nothing here knows HTTP or processes.

use std::path::Path;

use thiserror::Error;

/// One thing to remember. Times are Unix seconds.
#[derive(Debug, Clone)]
pub enum LogRecord {
    /// A session began.
    SessionStarted {
        session_id: String,
        created_at: f64,
        port: u16,
        client_ip: Option<String>,
        user_agent: Option<String>,
        user_id: Option<String>,
        full_name: Option<String>,
        project_name: Option<String>,
    },
    /// A session was used.
    SessionActivity { session_id: String, at: f64 },
    /// A session is over; `reason` is the recorded word.
    SessionEnded { session_id: String, at: f64, reason: &'static str },
    /// A command was executed. The store applies the include/exclude filter.
    Command {
        session_id: String,
        at: f64,
        name: String,
        success: bool,
        execution_time_ms: f64,
        error: Option<String>,
    },
    /// A session's memory was measured.
    Memory { session_id: String, at: f64, memory_used_mb: f64 },
    /// A session's user told something of themself.
    UserInfo {
        session_id: String,
        at: f64,
        first_name: Option<String>,
        last_name: Option<String>,
        email: Option<String>,
    },
}

/// A local account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: i64,
    pub email: String,
    pub hashed_password: String,
    pub first_name: String,
    pub last_name: String,
    pub role: String,
    pub is_active: bool,
}

/// A wish for an account; the password is hashed already.
#[derive(Debug, Clone)]
pub struct NewUser {
    pub email: String,
    pub hashed_password: String,
    pub first_name: String,
    pub last_name: String,
    pub role: String,
}

/// Why the database did not do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another account has this address.
    #[error("A user with this email already exists")]
    EmailTaken,
    /// Anything SQLite says.
    #[error("the database {path}: {message}")]
    Database { path: String, message: String },
}

/// Which commands are logged: `include` wins over `exclude`.
#[derive(Debug, Clone, Default)]
pub struct CommandFilter {
    pub include: Vec<String>,
    pub exclude: Vec<String>,
}

/// Handle to the database; cheap to clone.
#[derive(Clone)]
pub struct Store {}

impl Store {
    /// Opens or creates the database, migrates it, and starts the writer.
    pub fn open(_path: &Path, _filter: CommandFilter) -> Result<Self, StoreError> {
        todo!()
    }

    /// Closes rows left `active` by a server that died; returns how many.
    pub async fn close_stale_sessions(&self, _reason: &'static str) -> Result<usize, StoreError> {
        todo!()
    }

    /// Whether the filter lets this command into the log.
    #[must_use]
    pub fn logs_command(&self, _name: &str) -> bool {
        todo!()
    }

    /// Remembers `record`; never blocks.
    pub fn log(&self, _record: LogRecord) {
        todo!()
    }

    /// Waits until everything logged so far is committed (or has been reported as lost).
    pub async fn flush(&self) {
        todo!()
    }

    pub async fn create_user(&self, _user: NewUser) -> Result<User, StoreError> {
        todo!()
    }

    pub async fn user_by_email(&self, _email: &str) -> Result<Option<User>, StoreError> {
        todo!()
    }

    pub async fn user_by_id(&self, _id: i64) -> Result<Option<User>, StoreError> {
        todo!()
    }

    /// Whether the database can be read and written now.
    pub async fn check(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// Commits what is queued and ends the writer.
    pub async fn close(&self) {
        todo!()
    }
}
