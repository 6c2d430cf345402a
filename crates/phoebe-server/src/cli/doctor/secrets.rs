//! Files with secrets: whether others can read them.

use super::finding::Finding;
use crate::config::Resolved;
use crate::exposure::exposed;

pub(super) fn check(resolved: &Resolved) -> Vec<Finding> {
    let subject = "secrets";
    let found = exposed(resolved);
    if found.is_empty() {
        return vec![Finding::ok(subject, "no file with secrets is open to others")];
    }
    let warning = |file: &crate::exposure::Exposed| {
        Finding::warning(subject, file.to_string(), format!("`{}`", file.way_out()))
    };
    found.iter().map(warning).collect()
}
