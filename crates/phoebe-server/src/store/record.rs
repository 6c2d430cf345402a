//! Log records, and which commands are logged.

use super::AuditEntry;

/// The most bytes of a text in a record: users can choose names and errors of any length.
const TEXT_BYTES: usize = 4096;

/// A log record. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq)]
pub enum LogRecord {
    /// A session started, or continued with another worker or after a restart of the server.
    SessionStarted {
        /// UUID of the session.
        session_id: String,
        /// When.
        created_at: f64,
        /// The worker's port; 0 while asleep.
        port: u16,
        /// Address of the client.
        client_ip: Option<String>,
        /// The client's `User-Agent`.
        user_agent: Option<String>,
        /// The authenticated user's id.
        user_id: Option<String>,
        /// The authenticated user's first and last name.
        full_name: Option<String>,
        /// The name of the user's project.
        project_name: Option<String>,
    },
    /// A session was used.
    SessionActivity {
        /// UUID of the session.
        session_id: String,
        /// When.
        at: f64,
    },
    /// A session ended.
    SessionEnded {
        /// UUID of the session.
        session_id: String,
        /// When.
        at: f64,
        /// The reason, such as `manual` or `idle_timeout`.
        reason: &'static str,
    },
    /// A command was executed. The store applies the include/exclude filter.
    Command {
        /// UUID of the session.
        session_id: String,
        /// When it was received.
        at: f64,
        /// The command's name.
        name: String,
        /// Whether it succeeded.
        success: bool,
        /// Milliseconds from receipt to answer.
        execution_time_ms: f64,
        /// The error message.
        error: Option<String>,
    },
    /// A session's memory was measured.
    Memory {
        /// UUID of the session.
        session_id: String,
        /// When.
        at: f64,
        /// MiB.
        memory_used_mb: f64,
    },
    /// An action on something that belongs to another user.
    Audit(AuditEntry),
    /// A user's API key was used.
    ApiKeyUsed {
        /// The key's row id.
        id: i64,
        /// When.
        at: f64,
    },
    /// A session's user set their name or e-mail. Missing fields stay unchanged.
    UserInfo {
        /// UUID of the session.
        session_id: String,
        /// When.
        at: f64,
        /// Given name.
        first_name: Option<String>,
        /// Family name.
        last_name: Option<String>,
        /// E-mail address.
        email: Option<String>,
    },
}

impl LogRecord {
    /// Cuts every text to the stored length.
    pub(super) fn shortened(mut self) -> Self {
        self.texts().into_iter().for_each(shorten);
        self
    }

    /// Returns the memory of the queued record in bytes.
    pub(super) fn size(&mut self) -> usize {
        size_of::<Self>() + self.texts().iter().map(|text| text.capacity()).sum::<usize>()
    }

    /// Returns all texts that come from outside.
    fn texts(&mut self) -> Vec<&mut String> {
        match self {
            Self::SessionStarted {
                session_id,
                client_ip,
                user_agent,
                user_id,
                full_name,
                project_name,
                ..
            } => [client_ip, user_agent, user_id, full_name, project_name]
                .into_iter()
                .flatten()
                .chain([session_id])
                .collect(),
            Self::SessionActivity { session_id, .. }
            | Self::SessionEnded { session_id, .. }
            | Self::Memory { session_id, .. } => vec![session_id],
            Self::Command { session_id, name, error, .. } => {
                error.iter_mut().chain([session_id, name]).collect()
            }
            Self::Audit(AuditEntry { actor, subject, detail, .. }) => vec![actor, subject, detail],
            Self::ApiKeyUsed { .. } => Vec::new(),
            Self::UserInfo { session_id, first_name, last_name, email, .. } => {
                [first_name, last_name, email].into_iter().flatten().chain([session_id]).collect()
            }
        }
    }
}

fn shorten(text: &mut String) {
    if text.len() > TEXT_BYTES {
        let end = (0..=TEXT_BYTES).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
        text.shrink_to_fit();
    }
}

/// Selects the commands that are logged. `include` wins over `exclude`.
#[derive(Debug, Clone, Default)]
pub struct CommandFilter {
    /// If not empty, only these commands are logged.
    pub include: Vec<String>,
    /// Commands that are not logged.
    pub exclude: Vec<String>,
}

impl CommandFilter {
    /// Returns whether a command of this name is logged.
    #[must_use]
    pub fn admits(&self, name: &str) -> bool {
        let is_in = |names: &[String]| names.iter().any(|known| known == name);
        if self.include.is_empty() { !is_in(&self.exclude) } else { is_in(&self.include) }
    }
}
