//! Databases of earlier servers open in place; what is none of ours stays untouched.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use phoebe_server::store::{CommandFilter, LogRecord, Store, StoreError};
use rusqlite::Connection;
use tempfile::TempDir;

const OLDEST: &str = "
    CREATE TABLE sessions (
        session_id TEXT PRIMARY KEY, created_at REAL NOT NULL, destroyed_at REAL, last_activity
        REAL,
        port INTEGER NOT NULL, client_ip TEXT, user_agent TEXT, termination_reason TEXT,
        status TEXT DEFAULT 'active');
    CREATE TABLE session_metrics (
        id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL, timestamp REAL NOT NULL,
        memory_used_mb REAL NOT NULL, FOREIGN KEY (session_id) REFERENCES sessions (session_id));
    CREATE TABLE session_commands (
        id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL, timestamp REAL NOT NULL,
        command_name TEXT NOT NULL, success INTEGER NOT NULL, execution_time_ms REAL,
        error_message TEXT,
        FOREIGN KEY (session_id) REFERENCES sessions (session_id));
    CREATE INDEX idx_sessions_status ON sessions (status);
";

const USER_INFO: &str = "
    CREATE TABLE session_user_info (
        session_id TEXT PRIMARY KEY, first_name TEXT, last_name TEXT, updated_at REAL);
    INSERT INTO session_user_info VALUES ('old', 'Ada', 'Lovelace', 3.0);
";

const ROWS: &str = "
    INSERT INTO sessions (session_id, created_at, destroyed_at, last_activity, port, client_ip,
    user_agent,
        termination_reason, status)
        VALUES ('old', 1.5, 9.5, 9.0, 6560, '10.0.0.1', 'curl', 'manual', 'terminated');
    INSERT INTO sessions (session_id, created_at, last_activity, port) VALUES ('left', 2.5,
    7.25, 6561);
    INSERT INTO session_metrics (session_id, timestamp, memory_used_mb) VALUES ('old', 2.0, 170.5);
    INSERT INTO session_commands (session_id, timestamp, command_name, success, execution_time_ms)
        VALUES ('old', 2.0, 'ping', 1, 15.0);
";

const PROJECT_AND_EMAIL: &str = "
    ALTER TABLE sessions ADD COLUMN project_name TEXT;
    ALTER TABLE session_user_info ADD COLUMN email TEXT;
    UPDATE sessions SET project_name = 'Algol' WHERE session_id = 'old';
    UPDATE session_user_info SET email = 'ada@x.org';
";

const OWNERS_AND_USERS: &str = "
    DROP TABLE session_user_info;
    ALTER TABLE sessions ADD COLUMN user_id TEXT;
    ALTER TABLE sessions ADD COLUMN full_name TEXT;
    CREATE TABLE users (
        id INTEGER PRIMARY KEY AUTOINCREMENT, email TEXT UNIQUE NOT NULL, hashed_password TEXT
        NOT NULL,
        first_name TEXT, last_name TEXT, role TEXT DEFAULT 'student', created_at REAL NOT NULL,
        is_active INTEGER DEFAULT 1);
    INSERT INTO users (email, hashed_password, first_name, last_name, created_at)
        VALUES ('Ada@X.org', '$2b$12$old', 'Ada', 'Lovelace', 1.0);
    INSERT INTO users (email, hashed_password, role, created_at, is_active)
        VALUES ('ada@x.org', CAST('$2b$12$other' AS BLOB), 'admin', 2.0, 0);
";

fn database_of(folder: &TempDir, scripts: &[&str]) -> std::path::PathBuf {
    let path = folder.path().join("sessions.db");
    let connection = Connection::open(&path).unwrap();
    scripts.iter().for_each(|script| connection.execute_batch(script).unwrap());
    path
}

fn open(path: &Path) -> Result<Store, StoreError> {
    Store::open(path, CommandFilter::default())
}

fn one<T: rusqlite::types::FromSql>(path: &Path, query: &str) -> T {
    Connection::open(path).unwrap().query_row(query, [], |row| row.get(0)).unwrap()
}

fn refusal(path: &Path) -> String {
    open(path).err().expect("the database is refused").to_string()
}

/// Writes one record of each kind, as a server of today does.
async fn use_it(store: &Store) {
    let session_id = "new".to_owned();
    store.log(LogRecord::SessionStarted {
        session_id: session_id.clone(),
        created_at: 100.0,
        port: 6562,
        client_ip: Some("127.0.0.1".to_owned()),
        user_agent: None,
        user_id: Some("7".to_owned()),
        full_name: Some("Grace Hopper".to_owned()),
        project_name: Some("β Lyrae".to_owned()),
    });
    store.log(LogRecord::Command {
        session_id: session_id.clone(),
        at: 101.0,
        name: "set_value".to_owned(),
        success: false,
        execution_time_ms: 1.25,
        error: Some("no such twig".to_owned()),
    });
    store.log(LogRecord::Memory { session_id: session_id.clone(), at: 102.0, memory_used_mb: 3.5 });
    store.log(LogRecord::UserInfo {
        session_id: session_id.clone(),
        at: 103.0,
        first_name: Some("Grace".to_owned()),
        last_name: None,
        email: None,
    });
    store.log(LogRecord::UserInfo {
        session_id: session_id.clone(),
        at: 104.0,
        first_name: None,
        last_name: None,
        email: Some("grace@x.org".to_owned()),
    });
    store.log(LogRecord::SessionActivity { session_id: session_id.clone(), at: 105.0 });
    store.log(LogRecord::SessionEnded { session_id, at: 106.0, reason: "manual" });
    store.flush().await;
    assert_eq!(store.lost_records(), 0);
}

fn assert_used(path: &Path) {
    let count = |query: &str| assert_eq!(one::<i64>(path, query), 1, "{query}");
    count(
        "SELECT count(*) FROM sessions WHERE session_id = 'new' AND created_at = 100 AND
        last_activity = 105
         AND destroyed_at = 106 AND status = 'terminated' AND termination_reason = 'manual' AND
         port = 6562
         AND client_ip = '127.0.0.1' AND user_agent IS NULL AND user_id = '7' AND full_name =
         'Grace Hopper'
         AND project_name = 'β Lyrae'",
    );
    count(
        "SELECT count(*) FROM session_commands WHERE session_id = 'new' AND command_name =
        'set_value'
         AND success = 0 AND execution_time_ms = 1.25 AND error_message = 'no such twig'",
    );
    count("SELECT count(*) FROM session_metrics WHERE session_id = 'new' AND memory_used_mb = 3.5");
    count(
        "SELECT count(*) FROM session_user_info WHERE session_id = 'new' AND first_name = 'Grace'
         AND last_name IS NULL AND email = 'grace@x.org' AND updated_at = 104",
    );
}

fn assert_old_rows(path: &Path) {
    let count = |query: &str| assert_eq!(one::<i64>(path, query), 1, "{query}");
    count(
        "SELECT count(*) FROM sessions WHERE session_id = 'old' AND created_at = 1.5 AND
        destroyed_at = 9.5
         AND last_activity = 9 AND port = 6560 AND client_ip = '10.0.0.1' AND user_agent = 'curl'
         AND termination_reason = 'manual' AND status = 'terminated'",
    );
    count(
        "SELECT count(*) FROM session_metrics WHERE session_id = 'old' AND memory_used_mb = 170.5",
    );
    count(
        "SELECT count(*) FROM session_commands WHERE session_id = 'old' AND command_name = 'ping'
         AND success = 1",
    );
    assert_eq!(one::<String>(path, "PRAGMA integrity_check"), "ok");
    assert_eq!(one::<String>(path, "PRAGMA journal_mode"), "wal");
}

async fn assert_migrates(path: &Path) {
    let store = open(path).unwrap();
    assert_eq!(store.close_stale_sessions("server_died").await.unwrap(), 1);
    assert_eq!(store.close_stale_sessions("server_died").await.unwrap(), 0);
    use_it(&store).await;
    store.close().await;
    assert_old_rows(path);
    assert_used(path);
    assert_eq!(
        one::<i64>(
            path,
            "SELECT count(*) FROM sessions WHERE session_id = 'left' AND status = 'terminated'
             AND termination_reason = 'server_died' AND destroyed_at = 7.25",
        ),
        1
    );
    // Migrated once, it opens again as it is.
    let version: i64 = one(path, "PRAGMA user_version");
    open(path).unwrap().close().await;
    assert_eq!(one::<i64>(path, "PRAGMA user_version"), version);
    assert_old_rows(path);
}

#[tokio::test]
async fn a_new_database_keeps_every_kind_of_record() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("deep/data/sessions.db");
    let store = open(&path).unwrap();
    use_it(&store).await;
    store.close().await;
    assert_used(&path);
}

#[tokio::test]
async fn the_oldest_form_migrates() {
    let folder = TempDir::new().unwrap();
    let path = database_of(&folder, &[OLDEST, USER_INFO, ROWS]);
    assert_migrates(&path).await;
    assert_eq!(
        one::<String>(&path, "SELECT last_name FROM session_user_info WHERE session_id = 'old'"),
        "Lovelace"
    );
}

#[tokio::test]
async fn the_form_with_projects_and_addresses_migrates() {
    let folder = TempDir::new().unwrap();
    let path = database_of(&folder, &[OLDEST, USER_INFO, ROWS, PROJECT_AND_EMAIL]);
    assert_migrates(&path).await;
    assert_eq!(
        one::<String>(&path, "SELECT project_name FROM sessions WHERE session_id = 'old'"),
        "Algol"
    );
    assert_eq!(
        one::<String>(&path, "SELECT email FROM session_user_info WHERE session_id = 'old'"),
        "ada@x.org"
    );
}

#[tokio::test]
async fn the_form_with_users_migrates_and_its_accounts_work() {
    let folder = TempDir::new().unwrap();
    let path =
        database_of(&folder, &[OLDEST, USER_INFO, ROWS, PROJECT_AND_EMAIL, OWNERS_AND_USERS]);
    assert_migrates(&path).await;
    let store = open(&path).unwrap();
    let upper = store.user_by_email("Ada@X.org").await.unwrap().unwrap();
    assert_eq!((upper.id, upper.hashed_password.as_str()), (1, "$2b$12$old"));
    assert_eq!((upper.role.as_str(), upper.is_active), ("student", true));
    let lower = store.user_by_email("ada@x.org").await.unwrap().unwrap();
    assert_eq!((lower.id, lower.first_name.as_str(), lower.is_active), (2, "", false));
    assert_eq!(lower.hashed_password, "$2b$12$other", "bytes are text");
    assert_eq!(store.user_by_email("ADA@x.org").await.unwrap().unwrap().id, 1);
    assert_eq!(store.user_by_id(2).await.unwrap().unwrap().role, "admin");
    store.close().await;
}

#[test]
fn a_newer_version_is_refused_and_untouched() {
    let folder = TempDir::new().unwrap();
    let path = database_of(&folder, &[OLDEST, "PRAGMA user_version = 999"]);
    let before = std::fs::read(&path).unwrap();
    let message = refusal(&path);
    assert!(
        message.contains("version 999") && message.contains(path.to_str().unwrap()),
        "{message}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn another_programs_database_is_refused_and_untouched() {
    for tables in
        ["CREATE TABLE bookmarks (url TEXT)", "CREATE TABLE sessions (sid TEXT, data BLOB)"]
    {
        let folder = TempDir::new().unwrap();
        let path = database_of(&folder, &[tables]);
        let schema: String = one(&path, "SELECT group_concat(sql) FROM sqlite_schema");
        let message = refusal(&path);
        assert!(
            message.contains("phoebe-server") && message.contains("[database] path"),
            "{message}"
        );
        assert_eq!(one::<String>(&path, "SELECT group_concat(sql) FROM sqlite_schema"), schema);
    }
}

#[test]
fn a_file_that_is_no_database_is_refused_and_untouched() {
    for text in ["hello".to_owned(), "no database at all\n".repeat(1000)] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("sessions.db");
        std::fs::write(&path, &text).unwrap();
        let message = refusal(&path);
        assert!(
            message.contains("not an SQLite database") && message.contains("init-db"),
            "{message}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_folder_in_place_of_the_file_is_refused() {
    let folder = TempDir::new().unwrap();
    assert!(refusal(folder.path()).contains(folder.path().to_str().unwrap()));
}

#[test]
fn a_new_database_is_for_its_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("data/sessions.db");
    drop(open(&path).unwrap());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
}
