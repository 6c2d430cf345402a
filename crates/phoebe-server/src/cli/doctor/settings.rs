//! The settings: which file they are from, and everything that is wrong with them.

use super::finding::Finding;
use crate::config::{ConfigError, Resolved};

const SUBJECT: &str = "settings";

/// Each error is a finding of its own: all other checks go on with what can be read.
pub(super) fn check(resolved: &Resolved, errors: &[ConfigError]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = errors.iter().map(wrong).collect();
    if findings.is_empty() {
        findings.push(match &resolved.file {
            Some(path) => Finding::ok(SUBJECT, path.display().to_string()),
            None => Finding::ok(SUBJECT, "no file: the defaults, and what the environment says"),
        });
    }
    findings.extend(passed_over(resolved));
    findings
}

fn wrong(error: &ConfigError) -> Finding {
    Finding::failed(SUBJECT, error.to_string(), "correct it: the server does not start before")
}

/// A file that somebody wrote and that has no effect.
fn passed_over(resolved: &Resolved) -> impl Iterator<Item = Finding> {
    resolved.passed_over.iter().map(|path| {
        let first = resolved.file.as_deref().map(|file| file.display().to_string());
        Finding::warning(
            SUBJECT,
            format!("{} is not read", path.display()),
            format!(
                "{} comes first: remove one of both, or name the other with --config",
                first.unwrap_or_default()
            ),
        )
    })
}
