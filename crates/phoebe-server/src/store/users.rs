//! Local accounts.

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::error::StoreError;

/// A local account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub id: i64,
    /// E-mail address as it was given.
    pub email: String,
    /// bcrypt hash of the password.
    pub hashed_password: String,
    /// Given name; may be empty.
    pub first_name: String,
    /// Family name; may be empty.
    pub last_name: String,
    /// `student`, `instructor`, `admin`.
    pub role: String,
    /// Whether it may log in.
    pub is_active: bool,
}

/// A wish for an account; the password is hashed already.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// E-mail address.
    pub email: String,
    /// bcrypt hash of the password.
    pub hashed_password: String,
    /// Given name; may be empty.
    pub first_name: String,
    /// Family name; may be empty.
    pub last_name: String,
    /// `student`, `instructor`, `admin`.
    pub role: String,
}

// Some libraries give hashes as bytes, and so a database may hold them.
const COLUMNS: &str = "id, email, CAST(COALESCE(hashed_password, '') AS TEXT), COALESCE(first_name, ''), \
                       COALESCE(last_name, ''), COALESCE(role, 'student'), COALESCE(is_active, 1)";

/// What can go wrong when an account is made.
pub(super) enum CreateError {
    EmailTaken,
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for CreateError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl CreateError {
    pub(super) fn at(self, path: &std::path::Path) -> StoreError {
        match self {
            Self::EmailTaken => StoreError::EmailTaken,
            Self::Sqlite(error) => StoreError::from_sqlite(path, &error),
        }
    }
}

/// Creates an account, stamped with SQLite's clock.
pub(super) fn create(connection: &mut Connection, user: NewUser) -> Result<User, CreateError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if by_email(&transaction, &user.email)?.is_some() {
        return Err(CreateError::EmailTaken);
    }
    let NewUser { email, hashed_password, first_name, last_name, role } = user;
    transaction.execute(
        "INSERT INTO users
             (email, hashed_password, first_name, last_name, role, created_at, is_active)
         VALUES (?1, ?2, ?3, ?4, ?5, unixepoch('subsec'), 1)",
        params![email, hashed_password, first_name, last_name, role],
    )?;
    let id = transaction.last_insert_rowid();
    transaction.commit()?;
    Ok(User { id, email, hashed_password, first_name, last_name, role, is_active: true })
}

/// The account with this address. Earlier servers told upper from lower case, so two accounts may differ in it
/// alone: the exact one comes first, then the older.
pub(super) fn by_email(connection: &Connection, email: &str) -> rusqlite::Result<Option<User>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM users WHERE email = ?1 COLLATE NOCASE
             ORDER BY email = ?1 COLLATE BINARY DESC, id LIMIT 1"
        ))?
        .query_row([email], user)
        .optional()
}

pub(super) fn by_id(connection: &Connection, id: i64) -> rusqlite::Result<Option<User>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM users WHERE id = ?1"))?
        .query_row([id], user)
        .optional()
}

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: row.get(0)?,
        email: row.get(1)?,
        hashed_password: row.get(2)?,
        first_name: row.get(3)?,
        last_name: row.get(4)?,
        role: row.get(5)?,
        is_active: row.get(6)?,
    })
}
