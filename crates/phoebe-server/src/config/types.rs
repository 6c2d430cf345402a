//! Types of settings with a fixed set of values, and secrets.

/// How users authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthMode {
    /// No authentication.
    #[default]
    None,
    /// One password for all users.
    Password,
    /// Local accounts with tokens.
    Jwt,
    /// Tokens of another service.
    External,
}

/// Who may register in mode `jwt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RegistrationPolicy {
    /// Everybody.
    #[default]
    Open,
    /// Nobody.
    Closed,
}

/// What happens to an idle session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnIdle {
    /// It goes to sleep.
    #[default]
    Hibernate,
    /// It ends.
    Terminate,
}

/// When a change is stored on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Before the command is answered.
    #[default]
    Command,
    /// Once the session has not changed for some seconds.
    Idle,
    /// Never: a session ends with its worker.
    Off,
}

/// How workers are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorkerStart {
    /// Forked from the zygote.
    #[default]
    Fork,
    /// As a fresh interpreter.
    Spawn,
}

/// Whether the kernel sandboxes workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sandbox {
    /// Required; the server does not start on a kernel without support.
    #[cfg_attr(target_os = "linux", default)]
    Enforce,
    /// As far as the kernel supports it.
    #[cfg_attr(not(target_os = "linux"), default)]
    BestEffort,
    /// Not at all.
    Off,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Plain text.
    #[default]
    Text,
    /// JSON.
    Json,
}

/// A secret text. `Debug` masks it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Printed instead of a secret.
    pub const MASK: &'static str = "********";

    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns whether the text is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the mask, or nothing if the text is empty.
    #[must_use]
    pub fn masked(&self) -> &'static str {
        if self.0.is_empty() { "" } else { Self::MASK }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?}", self.masked())
    }
}
