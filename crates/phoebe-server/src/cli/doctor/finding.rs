//! One line of the doctor's report.

use std::fmt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Ok,
    Warning,
    Failed,
}

/// What was found, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// What was looked at.
    pub(super) subject: &'static str,
    /// What it is like.
    pub(super) text: String,
    /// What to do; empty where nothing has to be done.
    pub(super) advice: String,
}

impl Finding {
    pub(super) fn ok(subject: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject, text: text.into(), advice: String::new() }
    }

    pub(super) fn warning(
        subject: &'static str,
        text: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { level: Level::Warning, subject, text: text.into(), advice: advice.into() }
    }

    pub(super) fn failed(
        subject: &'static str,
        text: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { level: Level::Failed, ..Self::warning(subject, text, advice) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Failed => "failed",
        };
        write!(formatter, "{level:8} {:16} {}", self.subject, self.text)?;
        if self.advice.is_empty() {
            return Ok(());
        }
        write!(formatter, "\n{:26}what to do: {}", "", self.advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_to_do() {
        assert_eq!(Finding::ok("Python", "3.11").to_string(), "ok       Python           3.11");
        let failed = Finding::failed("ports", "none is free", "end something").to_string();
        assert!(failed.starts_with("failed   ports"), "{failed}");
        assert!(failed.ends_with("\n                          what to do: end something"));
    }

    #[test]
    fn failed_is_the_worst() {
        assert!(Level::Failed > Level::Warning && Level::Warning > Level::Ok);
    }
}
