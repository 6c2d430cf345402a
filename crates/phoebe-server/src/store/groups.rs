//! Groups of accounts, such as courses. A group exists as long as it has a member.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use rusqlite::{Connection, params};

/// Adds an account to a group. Returns whether it was not a member before.
pub(crate) fn join(connection: &Connection, user_id: i64, group: &str) -> rusqlite::Result<bool> {
    let inserted = connection
        .prepare_cached(
            "INSERT INTO user_groups (group_name, user_id) VALUES (?1, ?2)
             ON CONFLICT (group_name, user_id) DO NOTHING",
        )?
        .execute(params![group, user_id])?;
    Ok(inserted > 0)
}

/// Removes an account from a group. Returns whether it was a member.
pub(crate) fn leave(connection: &Connection, user_id: i64, group: &str) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM user_groups WHERE group_name = ?1 AND user_id = ?2";
    Ok(connection.execute(sql, params![group, user_id])? > 0)
}

/// Returns the groups of each account that is in a group.
pub(crate) fn all(connection: &Connection) -> rusqlite::Result<BTreeMap<i64, BTreeSet<String>>> {
    let mut groups: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    let mut statement = connection.prepare("SELECT user_id, group_name FROM user_groups")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        groups.entry(row.get(0)?).or_default().insert(row.get(1)?);
    }
    Ok(groups)
}

/// Returns the ids, as text, of the students who share a group with this account.
pub(super) fn students_of(
    connection: &Connection,
    user_id: i64,
) -> rusqlite::Result<HashSet<String>> {
    connection
        .prepare_cached(
            "SELECT DISTINCT CAST(member.user_id AS TEXT)
             FROM user_groups AS own
             JOIN user_groups AS member ON member.group_name = own.group_name
             JOIN users ON users.id = member.user_id
             WHERE own.user_id = ?1
               AND LOWER(TRIM(COALESCE(users.role, ''))) NOT IN ('instructor', 'admin')",
        )?
        .query_map([user_id], |row| row.get(0))?
        .collect()
}
