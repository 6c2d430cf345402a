//! The audit log: actions on things of other users.

use rusqlite::{Connection, params};

/// An action on something that belongs to another user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// The actor: a user's id, or an account of the machine.
    pub actor: String,
    /// The action, such as `session.end` or `user.disable`.
    pub action: &'static str,
    /// The id or address of the object.
    pub subject: String,
    /// Further details; no secrets.
    pub detail: String,
}

/// Inserts an entry.
pub(crate) fn record(connection: &Connection, entry: &AuditEntry) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "INSERT INTO audit_log (timestamp, actor, action, subject, detail)
             VALUES (unixepoch('subsec'), ?1, ?2, ?3, ?4)",
        )?
        .execute(params![entry.actor, entry.action, entry.subject, entry.detail])
}
