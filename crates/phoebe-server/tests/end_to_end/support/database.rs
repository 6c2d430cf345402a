//! The server's database as somebody with `sqlite3` sees it.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Row, types::FromSql};

use super::wait::until;

#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
}

impl Database {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    fn open(&self) -> Connection {
        let connection =
            Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        connection
    }

    /// Executes a statement behind the server's back.
    pub(crate) fn execute(&self, statement: &str) {
        self.open().execute(statement, []).unwrap();
    }

    /// All rows of a query.
    pub(crate) fn rows<T>(
        &self,
        query: &str,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Vec<T> {
        let connection = self.open();
        let mut statement = connection.prepare(query).unwrap();
        statement.query_map([], |row| read(row)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// The first column of all rows.
    pub(crate) fn column<T: FromSql>(&self, query: &str) -> Vec<T> {
        self.rows(query, |row| row.get(0))
    }

    /// The number of sessions with this status.
    pub(crate) fn sessions_with_status(&self, status: &str) -> i64 {
        self.column(&format!("SELECT count(*) FROM sessions WHERE status = '{status}'"))[0]
    }

    /// Waits for the word in which the log says why a session ended.
    pub(crate) async fn end_of(&self, session: &str) -> String {
        let query = format!(
            "SELECT termination_reason FROM sessions \
             WHERE session_id = '{session}' AND status <> 'active' AND destroyed_at IS NOT NULL"
        );
        until("the session's end in the database", Duration::from_secs(10), async || {
            self.column(&query).pop()
        })
        .await
    }
}
