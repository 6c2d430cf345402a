//! The log from outside: filter, batches, readers beside it, a deleted file, the end.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use phoebe_server::store::{CommandFilter, LogRecord, NewUser, Store, StoreError};
use rusqlite::Connection;
use tempfile::TempDir;

fn command(session: &str, name: &str, at: f64) -> LogRecord {
    LogRecord::Command {
        session_id: session.to_owned(),
        at,
        name: name.to_owned(),
        success: true,
        execution_time_ms: 1.0,
        error: None,
    }
}

fn started(session: &str) -> LogRecord {
    LogRecord::SessionStarted {
        session_id: session.to_owned(),
        created_at: 1.0,
        port: 6560,
        client_ip: None,
        user_agent: None,
        user_id: None,
        full_name: None,
        project_name: None,
    }
}

fn account(email: &str) -> NewUser {
    NewUser {
        email: email.to_owned(),
        hashed_password: "$2b$12$hash".to_owned(),
        first_name: "Ada".to_owned(),
        last_name: String::new(),
        role: "student".to_owned(),
    }
}

fn one<T: rusqlite::types::FromSql>(path: &Path, query: &str) -> T {
    Connection::open(path).unwrap().query_row(query, [], |row| row.get(0)).unwrap()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

async fn logged(filter: CommandFilter) -> String {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sessions.db");
    let store = Store::open(&path, filter).unwrap();
    for (at, name) in ["ping", "set_value", "run_compute"].into_iter().enumerate() {
        store.log(command("s", name, at as f64));
    }
    store.close().await;
    one::<Option<String>>(
        &path,
        "SELECT group_concat(command_name) FROM session_commands ORDER BY id",
    )
    .unwrap_or_default()
}

#[tokio::test]
async fn the_filter_includes_before_it_excludes() {
    let filter = |include: &[&str], exclude: &[&str]| CommandFilter {
        include: names(include),
        exclude: names(exclude),
    };
    assert_eq!(logged(filter(&[], &[])).await, "ping,set_value,run_compute");
    assert_eq!(logged(filter(&[], &["ping"])).await, "set_value,run_compute");
    assert_eq!(logged(filter(&["ping"], &["ping", "set_value"])).await, "ping");
    assert_eq!(logged(filter(&["new_bundle"], &[])).await, "");
}

#[tokio::test]
async fn flush_waits_for_everything_logged_before_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sessions.db");
    let store = Store::open(&path, CommandFilter::default()).unwrap();
    store.log(started("s"));
    for round in 1..=3 {
        for at in 0..5000 {
            store.log(command("s", "set_value", f64::from(at)));
            store.log(LogRecord::SessionActivity { session_id: "s".to_owned(), at: f64::from(at) });
        }
        store.flush().await;
        assert_eq!(one::<i64>(&path, "SELECT count(*) FROM session_commands"), round * 5000);
        assert_eq!(one::<f64>(&path, "SELECT last_activity FROM sessions"), 4999.0);
    }
    assert_eq!(store.lost_records(), 0);
}

#[tokio::test]
async fn records_arrive_without_a_flush() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sessions.db");
    let store = Store::open(&path, CommandFilter::default()).unwrap();
    store.log(started("s"));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while one::<i64>(&path, "SELECT count(*) FROM sessions") == 0 {
        assert!(std::time::Instant::now() < deadline, "the record was never committed");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_session_ends_once_and_activity_never_goes_back() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sessions.db");
    let store = Store::open(&path, CommandFilter::default()).unwrap();
    store.log(started("s"));
    for at in [50.0, 20.0] {
        store.log(LogRecord::SessionActivity { session_id: "s".to_owned(), at });
        store.flush().await;
    }
    for (at, reason) in [(60.0, "process_died"), (61.0, "manual")] {
        store.log(LogRecord::SessionEnded { session_id: "s".to_owned(), at, reason });
    }
    store.close().await;
    assert_eq!(one::<f64>(&path, "SELECT last_activity FROM sessions"), 50.0);
    assert_eq!(one::<f64>(&path, "SELECT destroyed_at FROM sessions"), 60.0);
    assert_eq!(one::<String>(&path, "SELECT termination_reason FROM sessions"), "process_died");
}

#[tokio::test]
async fn a_row_that_breaks_a_rule_costs_itself_only() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sessions.db");
    let store = Store::open(&path, CommandFilter::default()).unwrap();
    store.log(command("s", "first", 1.0));
    store.log(command("s", "no time", f64::NAN));
    store.log(command("session that nobody started", "third", 3.0));
    store.log(started("s"));
    store.log(started("s"));
    store.close().await;
    assert_eq!(
        one::<String>(&path, "SELECT group_concat(command_name) FROM session_commands"),
        "first,third"
    );
    assert_eq!(store.lost_records(), 1);
}

#[tokio::test]
async fn long_texts_are_cut_at_a_letter() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sessions.db");
    let store = Store::open(&path, CommandFilter::default()).unwrap();
    store.log(command("s", &format!("x{}", "é".repeat(1 << 20)), 1.0));
    store.close().await;
    let name: String = one(&path, "SELECT command_name FROM session_commands");
    assert!(name.len() < 5000 && name.ends_with("é…"), "{} bytes", name.len());
}

#[tokio::test]
async fn accounts_are_one_for_each_address_whatever_its_case() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(&folder.path().join("sessions.db"), CommandFilter::default()).unwrap();
    let ada = store.create_user(account("Ada@X.org")).await.unwrap();
    assert_eq!((ada.id, ada.email.as_str(), ada.is_active), (1, "Ada@X.org", true));
    let again = store.create_user(account("ada@x.ORG")).await;
    assert!(matches!(again, Err(StoreError::EmailTaken)));
    assert_eq!(store.user_by_email("ada@x.org").await.unwrap(), Some(ada.clone()));
    assert_eq!(store.user_by_id(ada.id).await.unwrap(), Some(ada));
    assert_eq!(store.user_by_email("a%@x.org").await.unwrap(), None);
    assert_eq!(store.user_by_id(99).await.unwrap(), None);
    assert_eq!(store.create_user(account("bob@x.org")).await.unwrap().id, 2);
}

#[tokio::test]
async fn of_many_who_register_one_address_at_once_one_succeeds() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(&folder.path().join("sessions.db"), CommandFilter::default()).unwrap();
    let wishes = (0..20).map(|_| store.create_user(account("ada@x.org")));
    let outcomes = futures::future::join_all(wishes).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(StoreError::EmailTaken))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_go_on_beside_the_log() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sessions.db");
    let store = Store::open(&path, CommandFilter::default()).unwrap();
    let ada = store.create_user(account("ada@x.org")).await.unwrap();
    let logger = tokio::spawn({
        let store = store.clone();
        async move {
            for at in 0..20_000 {
                store.log(command("s", "set_value", f64::from(at)));
                if at % 1000 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            store.flush().await;
        }
    });
    let dashboard = Connection::open(&path).unwrap();
    dashboard.execute_batch("BEGIN; SELECT count(*) FROM session_commands;").unwrap();
    let readers = (0..8).map(|_| {
        let (store, ada) = (store.clone(), ada.clone());
        tokio::spawn(async move {
            for _ in 0..50 {
                assert_eq!(store.user_by_email("ADA@X.ORG").await.unwrap(), Some(ada.clone()));
            }
        })
    });
    for outcome in futures::future::join_all(readers).await {
        outcome.unwrap();
    }
    logger.await.unwrap();
    drop(dashboard);
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM session_commands"), 20_000);
    assert_eq!(store.lost_records(), 0);
}

#[tokio::test]
async fn a_deleted_database_is_made_anew() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("data/sessions.db");
    let store = Store::open(&path, CommandFilter::default()).unwrap();
    store.create_user(account("ada@x.org")).await.unwrap();
    assert!(store.user_by_id(1).await.unwrap().is_some());

    std::fs::remove_file(&path).unwrap();
    store.log(command("s", "set_value", 1.0));
    store.flush().await;
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM session_commands"), 1);
    assert_eq!(store.user_by_id(1).await.unwrap(), None);

    // Its folder is not: that may have been moved, and come back.
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    assert!(store.user_by_id(1).await.is_err() && store.check().await.is_err());
    assert!(!path.parent().unwrap().exists());
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    assert_eq!(store.user_by_id(1).await.unwrap(), None);
    store.check().await.unwrap();
    assert_eq!(store.create_user(account("ada@x.org")).await.unwrap().id, 1);
    store.close().await;
    assert_eq!(one::<String>(&path, "PRAGMA integrity_check"), "ok");
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM users"), 1);
}

#[tokio::test]
async fn a_database_behind_a_link_is_made_anew() {
    let folder = TempDir::new().unwrap();
    let (path, disk) = (folder.path().join("data/sessions.db"), folder.path().join("disk"));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::create_dir(&disk).unwrap();
    std::os::unix::fs::symlink(disk.join("real.db"), &path).unwrap();
    let store = Store::open(&path, CommandFilter::default()).unwrap();
    store.create_user(account("ada@x.org")).await.unwrap();
    std::fs::remove_file(disk.join("real.db")).unwrap();
    store.log(command("s", "set_value", 1.0));
    store.close().await;
    assert_eq!(one::<i64>(&disk.join("real.db"), "SELECT count(*) FROM session_commands"), 1);
    assert_eq!(one::<String>(&path, "PRAGMA integrity_check"), "ok");
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM users"), 0);
}

#[tokio::test]
async fn a_replaced_database_is_used_in_place() {
    let folder = TempDir::new().unwrap();
    let (path, other) = (folder.path().join("sessions.db"), folder.path().join("other.db"));
    let other_store = Store::open(&other, CommandFilter::default()).unwrap();
    other_store.create_user(account("grace@x.org")).await.unwrap();
    other_store.close().await;
    let store = Store::open(&path, CommandFilter::default()).unwrap();
    // A reader elsewhere keeps the write-ahead log of the old file from being folded into it.
    let dashboard = Connection::open(&path).unwrap();
    dashboard.execute_batch("BEGIN; SELECT count(*) FROM sessions;").unwrap();
    store.create_user(account("ada@x.org")).await.unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert!(store.user_by_email("grace@x.org").await.unwrap().is_some());
    assert_eq!(store.user_by_email("ada@x.org").await.unwrap(), None);
    drop(dashboard);
    store.log(command("s", "set_value", 1.0));
    store.close().await;
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM session_commands"), 1);
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM users"), 1);
}

#[tokio::test]
async fn a_database_moved_away_keeps_what_it_has() {
    let folder = TempDir::new().unwrap();
    let (path, aside) = (folder.path().join("sessions.db"), folder.path().join("aside.db"));
    let store = Store::open(&path, CommandFilter::default()).unwrap();
    for (round, at) in [(0, 1.0), (1, 2.0)] {
        store.log(command("s", "set_value", at));
        store.flush().await;
        if round == 0 {
            std::fs::rename(&path, &aside).unwrap();
        }
    }
    store.close().await;
    let moments = "SELECT group_concat(timestamp) FROM session_commands";
    assert_eq!(one::<String>(&aside, moments), "1.0");
    assert_eq!(one::<String>(&path, moments), "2.0");
}

#[tokio::test]
async fn after_the_end_calls_fail_and_records_are_counted() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sessions.db");
    let store = Store::open(&path, CommandFilter::default()).unwrap();
    store.log(command("s", "set_value", 1.0));
    assert_eq!(store.user_by_id(1).await.unwrap(), None);
    store.close().await;
    assert!(!folder.path().join("sessions.db-wal").exists(), "all is in the one file");
    store.log(command("s", "set_value", 2.0));
    store.flush().await;
    store.close().await;
    assert!(store.check().await.unwrap_err().to_string().contains("closed"));
    assert!(store.create_user(account("a@x.org")).await.is_err());
    assert!(store.user_by_id(1).await.is_err());
    assert!(store.close_stale_sessions("server_died").await.is_err());
    assert_eq!(store.lost_records(), 1);
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM session_commands"), 1);
}

#[tokio::test]
async fn dropping_the_last_handle_keeps_what_was_logged() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sessions.db");
    let store = Store::open(&path, CommandFilter::default()).unwrap();
    (0..100).for_each(|at| store.clone().log(command("s", "set_value", f64::from(at))));
    drop(store);
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM session_commands"), 100);
}
