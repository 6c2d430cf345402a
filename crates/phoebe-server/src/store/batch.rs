//! Writes log records as rows, many per transaction.

use std::collections::HashMap;

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};

use super::{LogRecord, audit};

/// The records of one transaction. Of a session's activity only the latest time is kept.
#[derive(Default)]
pub(super) struct Batch {
    records: usize,
    rows: Vec<LogRecord>,
    latest_activity: HashMap<String, f64>,
}

impl Batch {
    pub(super) fn new(records: Vec<LogRecord>) -> Self {
        let mut batch = Self { records: records.len(), ..Self::default() };
        for record in records {
            match record {
                LogRecord::SessionActivity { session_id, at } => {
                    let latest = batch.latest_activity.entry(session_id).or_insert(at);
                    *latest = latest.max(at);
                }
                row => batch.rows.push(row),
            }
        }
        batch
    }

    /// The number of records.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Writes all records in one transaction. Returns how many were left out because they violate a
    /// constraint; such a record must not affect the others.
    pub(super) fn write(&self, connection: &mut Connection) -> rusqlite::Result<usize> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut left_out = 0;
        for row in &self.rows {
            match insert(&transaction, row) {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                    left_out += 1;
                }
                outcome => drop(outcome?),
            }
        }
        for (session_id, at) in &self.latest_activity {
            stamp_activity(&transaction, session_id, *at)?;
        }
        transaction.commit()?;
        Ok(left_out)
    }
}

/// Closes sessions that no server has. Returns their number.
pub(super) fn close_stale_sessions(
    connection: &Connection,
    reason: &str,
) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE sessions
         SET status = 'terminated',
             destroyed_at = COALESCE(destroyed_at, last_activity, created_at),
             termination_reason = COALESCE(termination_reason, ?1)
         WHERE status = 'active' OR (status IS NULL AND destroyed_at IS NULL)",
        [reason],
    )
}

fn stamp_activity(
    transaction: &Transaction<'_>,
    session_id: &str,
    at: f64,
) -> rusqlite::Result<usize> {
    transaction
        .prepare_cached(
            "UPDATE sessions SET last_activity = MAX(COALESCE(last_activity, ?2), ?2)
             WHERE session_id = ?1",
        )?
        .execute(params![session_id, at])
}

fn insert(transaction: &Transaction<'_>, record: &LogRecord) -> rusqlite::Result<usize> {
    match record {
        LogRecord::SessionStarted {
            session_id,
            created_at,
            port,
            client_ip,
            user_agent,
            user_id,
            full_name,
            project_name,
        } => transaction
            .prepare_cached(
                "INSERT INTO sessions (session_id, created_at, last_activity, port,
                     client_ip, user_agent, user_id, full_name, project_name, status)
                 VALUES (?1, ?2, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'active')
                 ON CONFLICT (session_id) DO UPDATE SET
                     port = COALESCE(NULLIF(excluded.port, 0), port),
                     status = 'active', destroyed_at = NULL, termination_reason = NULL",
            )?
            .execute(params![
                session_id,
                created_at,
                port,
                client_ip,
                user_agent,
                user_id,
                full_name,
                project_name
            ]),
        LogRecord::SessionActivity { session_id, at } => {
            stamp_activity(transaction, session_id, *at)
        }
        LogRecord::SessionEnded { session_id, at, reason } => transaction
            .prepare_cached(
                "UPDATE sessions
                 SET status = 'terminated', destroyed_at = ?2, termination_reason = ?3
                 WHERE session_id = ?1 AND destroyed_at IS NULL",
            )?
            .execute(params![session_id, at, reason]),
        LogRecord::Command { session_id, at, name, success, execution_time_ms, error } => {
            transaction
                .prepare_cached(
                    "INSERT INTO session_commands (session_id, timestamp, command_name,
                         success, execution_time_ms, error_message)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![session_id, at, name, success, execution_time_ms, error])
        }
        LogRecord::Memory { session_id, at, memory_used_mb } => transaction
            .prepare_cached(
                "INSERT INTO session_metrics (session_id, timestamp, memory_used_mb)
                 VALUES (?1, ?2, ?3)",
            )?
            .execute(params![session_id, at, memory_used_mb]),
        LogRecord::Audit(entry) => audit::record(transaction, entry),
        LogRecord::ApiKeyUsed { id, at } => transaction
            .prepare_cached(
                "UPDATE api_keys SET last_used_at = MAX(COALESCE(last_used_at, ?2), ?2)
                 WHERE id = ?1",
            )?
            .execute(params![id, at]),
        LogRecord::UserInfo { session_id, at, first_name, last_name, email } => transaction
            .prepare_cached(
                "INSERT INTO session_user_info
                     (session_id, first_name, last_name, email, updated_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (session_id) DO UPDATE SET
                     first_name = COALESCE(excluded.first_name, first_name),
                     last_name = COALESCE(excluded.last_name, last_name),
                     email = COALESCE(excluded.email, email),
                     updated_at = excluded.updated_at",
            )?
            .execute(params![session_id, first_name, last_name, email, at]),
    }
}
