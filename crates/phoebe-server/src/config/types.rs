//! The types of settings that are more than numbers and text.

/// How users prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthMode {
    /// Nobody is asked.
    #[default]
    None,
    /// One password for all.
    Password,
    /// Local users with tokens.
    Jwt,
    /// Tokens of somebody else.
    External,
}

/// Who may make an account for themself.
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

/// When a change of a session is kept on disk.
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

/// Where workers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorkerStart {
    /// Forked from the zygote.
    #[default]
    Fork,
    /// A fresh interpreter each.
    Spawn,
}

/// Whether workers are contained by the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sandbox {
    /// Always; the server does not start where the kernel cannot do it.
    #[cfg_attr(target_os = "linux", default)]
    Enforce,
    /// As far as the kernel can.
    #[cfg_attr(not(target_os = "linux"), default)]
    BestEffort,
    /// Not at all.
    Off,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// A text that must not be printed: `Debug` masks it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// What is printed in the place of a secret.
    pub const MASK: &'static str = "********";

    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What may be shown of it: the mask, or nothing where it is empty.
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
