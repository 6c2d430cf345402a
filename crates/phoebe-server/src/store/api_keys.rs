//! API keys of users. Only their hashes are stored.

use rusqlite::{Connection, OptionalExtension, Row, params};

/// A stored API key.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    /// Row id.
    pub id: i64,
    /// The public prefix of the key.
    pub prefix: String,
    /// SHA-256 of the whole key, in hexadecimal digits.
    pub hash: String,
    /// The user who holds the key.
    pub holder: Holder,
    /// The name that the user gave it.
    pub name: String,
    /// Unix seconds.
    pub created_at: f64,
    /// Unix seconds; `None` if the key does not expire.
    pub expires_at: Option<f64>,
    /// Unix seconds, accurate to a minute; `None` if the key was never used.
    pub last_used_at: Option<f64>,
}

/// The holder of a key: a local account, or a user of mode `external` as known when the key was
/// made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The authentication mode of `user_id`: `jwt` or `external`.
    pub mode: &'static str,
    /// The user's id as text.
    pub user_id: String,
    /// E-mail address when the key was made.
    pub email: String,
    /// First and last name when the key was made.
    pub full_name: String,
    /// Role when the key was made.
    pub role: String,
}

/// The data of a new key.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// As in [`ApiKey`].
    pub prefix: String,
    /// As in [`ApiKey`].
    pub hash: String,
    /// As in [`ApiKey`].
    pub holder: Holder,
    /// As in [`ApiKey`].
    pub name: String,
    /// Lifetime in seconds.
    pub life_seconds: Option<f64>,
}

const COLUMNS: &str = "id, prefix, hash, auth_mode, user_id, COALESCE(email, ''),
    COALESCE(full_name, ''), COALESCE(role, 'student'), name, created_at, expires_at, last_used_at";

/// Inserts a key. Returns `None` if the holder already has `limit` keys.
pub(crate) fn insert(
    connection: &Connection,
    key: &NewApiKey,
    limit: usize,
) -> rusqlite::Result<Option<ApiKey>> {
    let NewApiKey { prefix, hash, holder, name, life_seconds } = key;
    connection
        .query_row(
            &format!(
            "INSERT INTO api_keys (prefix, hash, auth_mode, user_id, email, full_name, role, name,
                 created_at, expires_at)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, unixepoch('subsec'), unixepoch('subsec') + ?9
             WHERE (SELECT count(*) FROM api_keys WHERE auth_mode = ?3 AND user_id = ?4
                    AND revoked_at IS NULL) < ?10
             RETURNING {COLUMNS}"
        ),
            params![
                prefix,
                hash,
                holder.mode,
                holder.user_id,
                holder.email,
                holder.full_name,
                holder.role,
                name,
                life_seconds,
                i64::try_from(limit).unwrap_or(i64::MAX),
            ],
            api_key,
        )
        .optional()
}

/// Returns a user's keys that are not revoked, oldest first.
pub(crate) fn of_user(
    connection: &Connection,
    mode: &str,
    user_id: &str,
) -> rusqlite::Result<Vec<ApiKey>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM api_keys
         WHERE auth_mode = ?1 AND user_id = ?2 AND revoked_at IS NULL ORDER BY id"
    );
    connection.prepare(&sql)?.query_map([mode, user_id], api_key)?.collect()
}

/// Returns all keys of a mode that are not revoked.
pub(crate) fn all(connection: &Connection, mode: &str) -> rusqlite::Result<Vec<ApiKey>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM api_keys WHERE auth_mode = ?1 AND revoked_at IS NULL ORDER BY id"
    );
    connection.prepare(&sql)?.query_map([mode], api_key)?.collect()
}

/// Returns the key with this prefix, unless it is revoked.
pub(crate) fn by_prefix(connection: &Connection, prefix: &str) -> rusqlite::Result<Option<ApiKey>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM api_keys WHERE prefix = ?1 AND revoked_at IS NULL"
        ))?
        .query_row([prefix], api_key)
        .optional()
}

/// Revokes a key. Returns whether it existed.
pub(crate) fn revoke(connection: &Connection, id: i64) -> rusqlite::Result<bool> {
    let sql =
        "UPDATE api_keys SET revoked_at = unixepoch('subsec') WHERE id = ?1 AND revoked_at IS NULL";
    Ok(connection.execute(sql, [id])? > 0)
}

/// Deletes the keys of a new account: its id may have belonged to a deleted account.
pub(super) fn forget(connection: &Connection, user_id: i64) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM api_keys WHERE auth_mode = 'jwt' AND user_id = CAST(?1 AS TEXT)";
    connection.execute(sql, [user_id])
}

fn api_key(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    let mode: String = row.get(3)?;
    Ok(ApiKey {
        id: row.get(0)?,
        prefix: row.get(1)?,
        hash: row.get(2)?,
        holder: Holder {
            mode: if mode == "external" { "external" } else { "jwt" },
            user_id: row.get(4)?,
            email: row.get(5)?,
            full_name: row.get(6)?,
            role: row.get(7)?,
        },
        name: row.get(8)?,
        created_at: row.get(9)?,
        expires_at: row.get(10)?,
        last_used_at: row.get(11)?,
    })
}
