//! Who changed what that is not theirs: a table beside the log.

use rusqlite::{Connection, params};

/// One thing that somebody did with another's things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// Who: a user's id, or an account of the machine.
    pub actor: String,
    /// What, in one word, as `session.end` or `user.disable`.
    pub action: &'static str,
    /// To whom or what.
    pub subject: String,
    /// What else is to be known; no secrets.
    pub detail: String,
}

/// Writes it down.
pub(crate) fn record(connection: &Connection, deed: &Deed) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "INSERT INTO audit_log (timestamp, actor, action, subject, detail)
             VALUES (unixepoch('subsec'), ?1, ?2, ?3, ?4)",
        )?
        .execute(params![deed.actor, deed.action, deed.subject, deed.detail])
}
