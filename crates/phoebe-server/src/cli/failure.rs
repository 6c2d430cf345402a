//! A command that failed: what the user reads, and the exit code.

use std::fmt::Display;
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
    /// A failure with exit code 1 that says what `error` says, and why as far down as is known.
    #[must_use]
    pub fn failed(error: impl Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// Tells it on standard error.
    #[must_use]
    pub fn report(self) -> ExitCode {
        let (text, code) = match self {
            Self::Usage(text) => (text, 2),
            Self::Failed(text) => (text, 1),
        };
        eprintln!("phoebe-server: {text}");
        ExitCode::from(code)
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
