//! Versions of Python.

use std::fmt;

/// The oldest Python that workers run on.
pub const MINIMUM_PYTHON: PythonVersion = PythonVersion { major: 3, minor: 10 };

/// Version of an interpreter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PythonVersion {
    /// 3.
    pub major: u32,
    /// The 11 of 3.11.
    pub minor: u32,
}

impl fmt::Display for PythonVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}
