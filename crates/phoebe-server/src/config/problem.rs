//! What is wrong with the settings, and where.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use thiserror::Error;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file; line and column count from 1.
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
    /// By a flag of the command line.
    Flag(String),
    /// Nowhere: it follows from the defaults.
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

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, and the way out.
    pub message: String,
}

impl Display for Problem {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.message)
    }
}

/// Why there are no settings.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("the settings file {} cannot be read: {reason}{}", path.display(), named(.named_by))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What named it, if somebody did.
        named_by: Option<&'static str>,
        /// What the system says.
        reason: String,
    },
    /// The file that was read at the start is there no more, and no other was named.
    #[error("the settings file {} is gone", .0.display())]
    Gone(PathBuf),
    /// Something in the settings is wrong.
    #[error("{}", lines(.0))]
    Wrong(Vec<Problem>),
}

fn named(named_by: &Option<&'static str>) -> String {
    named_by.map(|source| format!(" (it is named by {source})")).unwrap_or_default()
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}
