//! API keys of users. Only hashes of them are here.

use rusqlite::{Connection, OptionalExtension, Row, params};

/// A user's API key, as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    /// Its number.
    pub id: i64,
    /// The public beginning of the key, by which it is found and shown.
    pub prefix: String,
    /// SHA-256 of the whole key, in hexadecimal digits.
    pub hash: String,
    /// Whose it is.
    pub holder: Holder,
    /// What its user calls it.
    pub name: String,
    /// Unix seconds.
    pub created_at: f64,
    /// Unix seconds; never where there are none.
    pub expires_at: Option<f64>,
    /// Unix seconds, within a minute; never used where there are none.
    pub last_used_at: Option<f64>,
}

/// Whose a key is: an account here, or somebody whom another service vouched for when the key was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The mode in which `user_id` means somebody: `jwt` or `external`.
    pub mode: &'static str,
    /// The user's id as text.
    pub user_id: String,
    /// E-mail address at that time.
    pub email: String,
    /// First and last name at that time.
    pub full_name: String,
    /// Role at that time.
    pub role: String,
}

/// A wish for a key.
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
    /// Seconds from now until it expires.
    pub life_seconds: Option<f64>,
}

const COLUMNS: &str = "id, prefix, hash, auth_mode, user_id, COALESCE(email, ''), COALESCE(full_name, ''), \
                       COALESCE(role, 'student'), name, created_at, expires_at, last_used_at";

/// Keeps a key, unless its holder has `limit` keys already.
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

/// The keys of a user that are not revoked, oldest first.
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

/// All keys of a mode that are not revoked.
pub(crate) fn all(connection: &Connection, mode: &str) -> rusqlite::Result<Vec<ApiKey>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM api_keys WHERE auth_mode = ?1 AND revoked_at IS NULL ORDER BY id"
    );
    connection.prepare(&sql)?.query_map([mode], api_key)?.collect()
}

/// The key with this public beginning, if it is not revoked.
pub(crate) fn by_prefix(connection: &Connection, prefix: &str) -> rusqlite::Result<Option<ApiKey>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM api_keys WHERE prefix = ?1 AND revoked_at IS NULL"
        ))?
        .query_row([prefix], api_key)
        .optional()
}

/// Ends a key; returns whether there was one.
pub(crate) fn revoke(connection: &Connection, id: i64) -> rusqlite::Result<bool> {
    let sql =
        "UPDATE api_keys SET revoked_at = unixepoch('subsec') WHERE id = ?1 AND revoked_at IS NULL";
    Ok(connection.execute(sql, [id])? > 0)
}

/// Forgets the keys of an account: its number may have been another's.
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
