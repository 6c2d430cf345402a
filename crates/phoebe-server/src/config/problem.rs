//! Errors of the settings, each with its place.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use thiserror::Error;

/// The place of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// In a variable of the environment.
    Variable(String),
    /// In a flag of the command line.
    Flag(String),
    /// None: the value is a default.
    Default,
}

impl Display for Place {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => {
                write!(formatter, "{}:{line}:{column}", path.display())
            }
            Self::Variable(name) => write!(formatter, "environment variable {name}"),
            Self::Flag(name) => write!(formatter, "{name}"),
            Self::Default => formatter.write_str("settings"),
        }
    }
}

/// An error with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The place.
    pub place: Place,
    /// The error and the remedy.
    pub message: String,
}

impl Display for Problem {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.message)
    }
}

/// Why the settings cannot be loaded.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("the settings file {} cannot be read: {reason}{}", path.display(), named(.named_by))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What has named the file, if anything.
        named_by: Option<&'static str>,
        /// The system's error.
        reason: String,
    },
    /// The file that was read at the start is missing.
    #[error("the settings file {} is gone", .0.display())]
    Gone(PathBuf),
    /// Values or their combination are invalid.
    #[error("{}", lines(.0))]
    Wrong(Vec<Problem>),
}

fn named(named_by: &Option<&'static str>) -> String {
    named_by.map(|source| format!(" (it is named by {source})")).unwrap_or_default()
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}
