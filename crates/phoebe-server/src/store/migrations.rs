//! Schema migrations. `PRAGMA user_version` holds the number of the last migration.
//!
//! Databases of earlier servers have no number and different schemas, so each migration adds only
//! what is missing. No migration removes or rewrites data.

use rusqlite::{Connection, Transaction, TransactionBehavior};
use thiserror::Error;

use tracing::warn;

use super::error::explain;
use super::users::account_name;

type Step = fn(&Transaction<'_>) -> Result<(), MigrationError>;

/// The migrations, numbered from 1. Append only.
const STEPS: &[Step] = &[
    first_tables,
    project_and_email,
    owners_and_users,
    indexes,
    groups_keys_and_audit,
    account_names,
    jobs,
];

/// The number of the last migration.
const CURRENT: i64 = STEPS.len() as i64;

/// The tables and columns that the code needs.
const EXPECTED: &[(&str, &[&str])] = &[
    (
        "sessions",
        &[
            "session_id",
            "created_at",
            "destroyed_at",
            "last_activity",
            "port",
            "client_ip",
            "user_agent",
            "termination_reason",
            "status",
            "project_name",
            "user_id",
            "full_name",
        ],
    ),
    ("session_metrics", &["id", "session_id", "timestamp", "memory_used_mb"]),
    (
        "session_commands",
        &[
            "id",
            "session_id",
            "timestamp",
            "command_name",
            "success",
            "execution_time_ms",
            "error_message",
        ],
    ),
    ("session_user_info", &["session_id", "first_name", "last_name", "updated_at", "email"]),
    (
        "users",
        &[
            "id",
            "email",
            "hashed_password",
            "first_name",
            "last_name",
            "role",
            "created_at",
            "is_active",
        ],
    ),
];

/// Why a database cannot be used.
#[derive(Debug, Error)]
pub(super) enum MigrationError {
    /// A later release wrote it.
    #[error(
        "it has version {found}, this phoebe-server knows versions up to {known}. Use the newer \
         phoebe-server, or let [database] path name another file"
    )]
    Newer { found: i64, known: i64 },
    /// Another program's database.
    #[error(
        "it belongs to another program (it has none of phoebe-server's tables). Let [database] \
         path name another file"
    )]
    Foreign,
    /// A table has one of our names but other columns.
    #[error(
        "its table `{table}` has no column `{column}`, so it does not belong to phoebe-server. Let \
         [database] path name another file"
    )]
    UnknownForm { table: &'static str, column: &'static str },
    #[error("{}", explain(.0))]
    Sqlite(#[from] rusqlite::Error),
}

/// Checks whether the database may be used. Only reads.
pub(super) fn check(connection: &Connection) -> Result<(), MigrationError> {
    let found = version(connection)?;
    if !(0..=CURRENT).contains(&found) {
        return Err(MigrationError::Newer { found, known: CURRENT });
    }
    let tables = tables(connection)?;
    let is_ours = |name: &String| EXPECTED.iter().any(|(table, _)| table == name);
    if !tables.is_empty() && !tables.iter().any(is_ours) {
        return Err(MigrationError::Foreign);
    }
    Ok(())
}

/// Runs the missing migrations in one transaction.
pub(super) fn run(connection: &mut Connection) -> Result<(), MigrationError> {
    if version(connection)? == CURRENT {
        return verify(connection);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have migrated meanwhile.
    let taken = version(&transaction)?;
    for (_, step) in (1..).zip(STEPS).filter(|&(number, _)| number > taken) {
        step(&transaction)?;
    }
    verify(&transaction)?;
    transaction.pragma_update(None, "user_version", CURRENT)?;
    Ok(transaction.commit()?)
}

/// Rewrites one page unchanged, to check that the database is writable.
pub(super) fn touch(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "user_version", CURRENT)
}

fn first_tables(transaction: &Transaction<'_>) -> Result<(), MigrationError> {
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS sessions (
             session_id TEXT PRIMARY KEY,
             created_at REAL NOT NULL,
             destroyed_at REAL,
             last_activity REAL,
             port INTEGER NOT NULL,
             client_ip TEXT,
             user_agent TEXT,
             termination_reason TEXT,
             status TEXT DEFAULT 'active'
         );
         CREATE TABLE IF NOT EXISTS session_metrics (
             id INTEGER PRIMARY KEY AUTOINCREMENT,
             session_id TEXT NOT NULL,
             timestamp REAL NOT NULL,
             memory_used_mb REAL NOT NULL
         );
         CREATE TABLE IF NOT EXISTS session_commands (
             id INTEGER PRIMARY KEY AUTOINCREMENT,
             session_id TEXT NOT NULL,
             timestamp REAL NOT NULL,
             command_name TEXT NOT NULL,
             success INTEGER,
             execution_time_ms REAL,
             error_message TEXT
         );
         CREATE TABLE IF NOT EXISTS session_user_info (
             session_id TEXT PRIMARY KEY,
             first_name TEXT,
             last_name TEXT,
             updated_at REAL
         );",
    )?;
    Ok(())
}

fn project_and_email(transaction: &Transaction<'_>) -> Result<(), MigrationError> {
    add_column(transaction, "sessions", "project_name", "TEXT")?;
    add_column(transaction, "session_user_info", "email", "TEXT")?;
    Ok(())
}

fn owners_and_users(transaction: &Transaction<'_>) -> Result<(), MigrationError> {
    add_column(transaction, "sessions", "user_id", "TEXT")?;
    add_column(transaction, "sessions", "full_name", "TEXT")?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS users (
             id INTEGER PRIMARY KEY AUTOINCREMENT,
             email TEXT NOT NULL UNIQUE,
             hashed_password TEXT NOT NULL,
             first_name TEXT,
             last_name TEXT,
             role TEXT DEFAULT 'student',
             created_at REAL,
             is_active INTEGER DEFAULT 1
         );",
    )?;
    Ok(())
}

/// Indexes for dashboards and for login.
fn indexes(transaction: &Transaction<'_>) -> Result<(), MigrationError> {
    verify(transaction)?;
    for (table, columns) in [
        ("sessions", "status"),
        ("sessions", "created_at"),
        ("sessions", "user_id"),
        ("session_metrics", "session_id, timestamp"),
        ("session_commands", "session_id, timestamp"),
        ("session_commands", "timestamp"),
        ("users", "email COLLATE NOCASE"),
    ] {
        // Earlier servers may have created indexes with any name; the prefix avoids conflicts.
        let name = format!("phoebe_{table}_by_{}", columns.replace([' ', ','], "_"));
        transaction
            .execute_batch(&format!("CREATE INDEX IF NOT EXISTS {name} ON {table} ({columns})"))?;
    }
    Ok(())
}

/// Groups, API keys and the audit log.
fn groups_keys_and_audit(transaction: &Transaction<'_>) -> Result<(), MigrationError> {
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS user_groups (
             group_name TEXT NOT NULL COLLATE NOCASE,
             user_id INTEGER NOT NULL,
             PRIMARY KEY (group_name, user_id)
         ) WITHOUT ROWID;
         CREATE INDEX IF NOT EXISTS phoebe_user_groups_by_user_id ON user_groups (user_id);
         CREATE TABLE IF NOT EXISTS api_keys (
             id INTEGER PRIMARY KEY AUTOINCREMENT,
             prefix TEXT NOT NULL UNIQUE,
             hash TEXT NOT NULL,
             auth_mode TEXT NOT NULL,
             user_id TEXT NOT NULL,
             email TEXT,
             full_name TEXT,
             role TEXT,
             name TEXT NOT NULL,
             created_at REAL NOT NULL,
             expires_at REAL,
             last_used_at REAL,
             revoked_at REAL
         );
         CREATE INDEX IF NOT EXISTS phoebe_api_keys_by_user ON api_keys (auth_mode, user_id);
         CREATE TABLE IF NOT EXISTS audit_log (
             id INTEGER PRIMARY KEY AUTOINCREMENT,
             timestamp REAL NOT NULL,
             actor TEXT NOT NULL,
             action TEXT NOT NULL,
             subject TEXT NOT NULL,
             detail TEXT NOT NULL DEFAULT ''
         );",
    )?;
    Ok(())
}

/// Normalizes account names. Earlier servers treated spellings as different accounts: then the
/// oldest account gets the name, and the others are found by their exact spelling.
fn account_names(transaction: &Transaction<'_>) -> Result<(), MigrationError> {
    add_column(transaction, "users", "account_name", "TEXT")?;
    transaction.execute_batch(
        "CREATE UNIQUE INDEX IF NOT EXISTS phoebe_users_by_account_name ON users (account_name)",
    )?;
    let mut accounts = transaction.prepare("SELECT id, email FROM users ORDER BY id")?;
    let accounts: Vec<(i64, String)> =
        accounts.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    for (id, email) in accounts {
        let named = transaction.execute(
            "UPDATE OR IGNORE users SET account_name = ?2 WHERE id = ?1",
            rusqlite::params![id, account_name(&email)],
        )?;
        if named == 0 {
            warn!(
                id,
                email,
                "an earlier account has the same address, spelled otherwise; this one is found by \
                 its exact spelling only"
            );
        }
    }
    Ok(())
}

/// Long commands that can be followed and found again.
fn jobs(transaction: &Transaction<'_>) -> Result<(), MigrationError> {
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS jobs (
             job_id TEXT PRIMARY KEY,
             session_id TEXT NOT NULL,
             user_id TEXT,
             state TEXT NOT NULL,
             ended_at REAL,
             idempotency_key TEXT,
             command BLOB,
             record TEXT NOT NULL
         ) WITHOUT ROWID;
         CREATE UNIQUE INDEX IF NOT EXISTS phoebe_jobs_by_key
             ON jobs (session_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
         CREATE INDEX IF NOT EXISTS phoebe_jobs_by_session ON jobs (session_id, job_id);
         CREATE INDEX IF NOT EXISTS phoebe_jobs_by_user ON jobs (user_id, job_id);
         CREATE INDEX IF NOT EXISTS phoebe_jobs_not_done ON jobs (job_id) WHERE ended_at IS NULL;",
    )?;
    Ok(())
}

fn add_column(
    transaction: &Transaction<'_>,
    table: &str,
    column: &str,
    kind: &str,
) -> rusqlite::Result<()> {
    if columns(transaction, table)?.iter().any(|known| known.eq_ignore_ascii_case(column)) {
        return Ok(());
    }
    transaction.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"))
}

fn verify(connection: &Connection) -> Result<(), MigrationError> {
    for &(table, expected) in EXPECTED {
        let found = columns(connection, table)?;
        for &column in expected {
            if !found.iter().any(|known| known.eq_ignore_ascii_case(column)) {
                return Err(MigrationError::UnknownForm { table, column });
            }
        }
    }
    Ok(())
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
        )?
        .query_map([], |row| row.get(0))?
        .collect()
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare("SELECT name FROM pragma_table_info(?1)")?
        .query_map([table], |row| row.get(0))?
        .collect()
}
