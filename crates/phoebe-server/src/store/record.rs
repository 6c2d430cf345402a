//! What is logged, and how much of it is kept.

use super::Deed;

/// Bytes of one text that are kept; users choose names and errors, and a log is no place for a megabyte of them.
const TEXT_BYTES: usize = 4096;

/// One thing to remember. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq)]
pub enum LogRecord {
    /// A session began; or it goes on, with another worker or after another start of the server.
    SessionStarted {
        /// UUID of the session.
        session_id: String,
        /// When.
        created_at: f64,
        /// Its worker's port; 0 while it sleeps.
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
    /// A session is over.
    SessionEnded {
        /// UUID of the session.
        session_id: String,
        /// When.
        at: f64,
        /// The recorded word, as `manual` or `idle_timeout`.
        reason: &'static str,
    },
    /// A command was executed. The store applies the include/exclude filter.
    Command {
        /// UUID of the session.
        session_id: String,
        /// When it was asked.
        at: f64,
        /// The command's name.
        name: String,
        /// Whether it did what was asked.
        success: bool,
        /// Milliseconds from asking to the answer.
        execution_time_ms: f64,
        /// What went wrong.
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
    /// Somebody did something with another's things.
    Deed(Deed),
    /// A user's API key was used.
    ApiKeyUsed {
        /// Number of the key.
        id: i64,
        /// When.
        at: f64,
    },
    /// A session's user told something of themself. Only what is given replaces what is known.
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
    /// The same record with every text cut to what is kept.
    pub(super) fn shortened(mut self) -> Self {
        self.texts().into_iter().for_each(shorten);
        self
    }

    /// Memory it takes while it waits, in bytes.
    pub(super) fn size(&mut self) -> usize {
        size_of::<Self>() + self.texts().iter().map(|text| text.capacity()).sum::<usize>()
    }

    /// Every text that came from outside.
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
            Self::Deed(Deed { actor, subject, detail, .. }) => vec![actor, subject, detail],
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
