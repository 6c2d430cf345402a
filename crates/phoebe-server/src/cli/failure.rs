//! A command that failed: what the user reads, and the exit code.

use std::fmt::{self, Display, Formatter};
use std::process::ExitCode;

use crate::config::ConfigError;

/// Why a command ended without success.
#[derive(Debug)]
pub enum Failure {
    /// What was asked for or set makes no sense: exit code 2, as for wrong arguments.
    Usage(String),
    /// It was tried and failed: exit code 1.
    Failed(String),
}

impl Failure {
    /// A failure with exit code 1 that says what `error` says.
    #[must_use]
    pub fn failed(error: impl Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// Tells it on standard error.
    #[must_use]
    pub fn report(self) -> ExitCode {
        eprintln!("phoebe-server: {self}");
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
        })
    }
}

impl Display for Failure {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let (Self::Usage(text) | Self::Failed(text)) = self;
        formatter.write_str(text)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match &error {
            ConfigError::Wrong(problems) if problems.len() > 1 => Self::Usage(format!(
                "the settings are wrong in {} places:\n{error}",
                problems.len()
            )),
            _ => Self::Usage(error.to_string()),
        }
    }
}
