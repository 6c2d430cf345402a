//! Local accounts.

use icu_normalizer::ComposingNormalizerBorrowed;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::api_keys;
use super::error::{QueryError, StoreError};

/// A local account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Row id.
    pub id: i64,
    /// E-mail address as it was given.
    pub email: String,
    /// Hash of the password.
    pub hashed_password: String,
    /// Given name; may be empty.
    pub first_name: String,
    /// Family name; may be empty.
    pub last_name: String,
    /// `student`, `instructor`, `admin`.
    pub role: String,
    /// Whether the account may log in.
    pub is_active: bool,
}

/// The data of a new account; the password is already hashed.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// E-mail address.
    pub email: String,
    /// Hash of the password.
    pub hashed_password: String,
    /// Given name; may be empty.
    pub first_name: String,
    /// Family name; may be empty.
    pub last_name: String,
    /// `student`, `instructor`, `admin`.
    pub role: String,
}

// Some libraries return hashes as bytes, so databases may hold BLOBs.
const COLUMNS: &str = "id, email, CAST(COALESCE(hashed_password, '') AS TEXT),
    COALESCE(first_name, ''), COALESCE(last_name, ''), COALESCE(role, 'student'),
    COALESCE(is_active, 1)";

/// Returns the normalized form of an address: NFC and lower case. Each account has a unique one.
pub(crate) fn account_name(email: &str) -> String {
    let normalizer = ComposingNormalizerBorrowed::new_nfc();
    normalizer.normalize(&normalizer.normalize(email.trim()).to_lowercase()).into_owned()
}

/// Creates an account. SQLite's clock sets the time.
pub(crate) fn create(connection: &Connection, user: NewUser) -> Result<User, QueryError> {
    if by_email(connection, &user.email)?.is_some() {
        return Err(StoreError::EmailTaken.into());
    }
    let NewUser { email, hashed_password, first_name, last_name, role } = user;
    connection.execute(
        "INSERT INTO users
             (email, hashed_password, first_name, last_name, role, created_at, is_active,
              account_name)
         VALUES (?1, ?2, ?3, ?4, ?5, unixepoch('subsec'), 1, ?6)",
        params![email, hashed_password, first_name, last_name, role, account_name(&email)],
    )?;
    let id = connection.last_insert_rowid();
    // In tables of earlier servers, ids of deleted accounts may be reused.
    connection.execute("DELETE FROM user_groups WHERE user_id = ?1", [id])?;
    api_keys::forget(connection, id)?;
    Ok(User { id, email, hashed_password, first_name, last_name, role, is_active: true })
}

/// Returns all accounts, oldest first.
pub(crate) fn all(connection: &Connection) -> rusqlite::Result<Vec<User>> {
    let sql = format!("SELECT {COLUMNS} FROM users ORDER BY id");
    connection.prepare(&sql)?.query_map([], user)?.collect()
}

/// Sets an account's role.
pub(crate) fn set_role(connection: &Connection, id: i64, role: &str) -> rusqlite::Result<usize> {
    connection.execute("UPDATE users SET role = ?2 WHERE id = ?1", params![id, role])
}

/// Enables or disables an account.
pub(crate) fn set_active(
    connection: &Connection,
    id: i64,
    active: bool,
) -> rusqlite::Result<usize> {
    connection.execute("UPDATE users SET is_active = ?2 WHERE id = ?1", params![id, active])
}

/// Replaces the hash of an account's password.
pub(crate) fn set_password(
    connection: &Connection,
    id: i64,
    hash: &str,
) -> rusqlite::Result<usize> {
    connection.execute("UPDATE users SET hashed_password = ?2 WHERE id = ?1", params![id, hash])
}

/// Returns the account with this address. Earlier servers treated spellings as different accounts;
/// of several matches, the exact spelling comes first, then the oldest account.
pub(crate) fn by_email(connection: &Connection, email: &str) -> rusqlite::Result<Option<User>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM users WHERE account_name = ?2 OR email = ?1 COLLATE NOCASE
             ORDER BY email = ?1 COLLATE BINARY DESC, id LIMIT 1"
        ))?
        .query_row([email, &account_name(email)], user)
        .optional()
}

pub(crate) fn by_id(connection: &Connection, id: i64) -> rusqlite::Result<Option<User>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_an_address_are_one_name() {
        let name = "j\u{fc}rgen@uni.edu";
        for spelling in
            [name, "ju\u{308}rgen@uni.edu", "J\u{dc}RGEN@UNI.EDU", " JU\u{308}rgen@Uni.edu "]
        {
            assert_eq!(account_name(spelling), name);
        }
        assert_eq!(
            account_name("\u{418}\u{412}\u{410}\u{41d}@x"),
            "\u{438}\u{432}\u{430}\u{43d}@x"
        );
        assert_ne!(account_name("jurgen@uni.edu"), name);
    }
}
