//! The server's log: JSON lines in a file, read while the server writes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::wait::until;

/// The log of all runs of one server, in one file.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    path: PathBuf,
}

impl Log {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The whole text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.path).unwrap_or_default()).into_owned()
    }

    /// All lines that are JSON objects, in order.
    pub(crate) fn entries(&self) -> Vec<Value> {
        self.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for an entry that `matches`.
    pub(crate) async fn wait_for(
        &self,
        what: &str,
        deadline: Duration,
        matches: impl Fn(&Value) -> bool,
    ) -> Value {
        until(&format!("a log entry: {what}"), deadline, async || {
            self.entries().into_iter().find(|entry| matches(entry))
        })
        .await
    }

    /// The last lines, for a failure's message, without the harness's own questions.
    pub(crate) fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<_> = text.lines().filter(|line| !line.contains("/health")).collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}
