//! Tests with small limits: full disk, locks, full queue; and what is logged then.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::batch::Batch;
use super::health::Health;
use super::queue::{Barrier, Pushed, Queue, Work};
use super::*;

const SHORT: Duration = Duration::from_millis(100);
/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

fn short_bounds() -> Bounds {
    Bounds {
        busy_timeout: Duration::from_millis(10),
        patience: SHORT,
        patience_when_awaited: SHORT,
        ..Bounds::default()
    }
}

fn open(bounds: Bounds) -> (TempDir, PathBuf, Store) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sessions.db");
    let store = Store::open_bounded(&path, CommandFilter::default(), bounds).unwrap();
    (folder, path, store)
}

fn command(name: &str) -> LogRecord {
    LogRecord::Command {
        session_id: "s".to_owned(),
        at: 1.0,
        name: name.to_owned(),
        success: true,
        execution_time_ms: 1.0,
        error: None,
    }
}

fn count(path: &Path) -> i64 {
    let query = "SELECT count(*) FROM session_commands";
    Connection::open(path).unwrap().query_row(query, [], |row| row.get(0)).unwrap()
}

/// Locks the database as another program would.
fn lock(path: &Path) -> Connection {
    let other = Connection::open(path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    other
}

#[tokio::test]
async fn a_full_disk_loses_only_records() {
    // A new database has about twenty pages of 4096 bytes.
    let (_folder, path, store) =
        open(Bounds { max_pages: Some(40), gather: NEVER, ..short_bounds() });
    let ada = store.create_user(account("ada@x.org")).await.unwrap();
    for _ in 0..2000 {
        store.log(command(&"x".repeat(1000)));
    }
    store.flush().await;
    assert_eq!(store.lost_records(), 2000, "they were one transaction");
    assert_eq!(store.user_by_id(ada.id).await.unwrap(), Some(ada));

    store.log(command("small"));
    store.flush().await;
    assert_eq!((count(&path), store.lost_records()), (1, 2000), "what fits is kept");
    store.close().await;
}

#[tokio::test]
async fn what_waits_and_what_is_written_is_counted() {
    let (_folder, path, store) = open(Bounds { gather: NEVER, ..short_bounds() });
    for _ in 0..3 {
        store.log(command("set_value"));
    }
    assert_eq!(store.queued_records(), 3);
    store.flush().await;
    assert_eq!(store.queued_records(), 0);
    let log = path.with_file_name("sessions.db-wal");
    let files = [&path, &log].map(|path| path.metadata().map_or(0, |file| file.len()));
    assert_eq!(store.size(), Some(files.iter().sum()));
    assert!(files[0] > 0);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(store.size(), None);
    store.close().await;
}

#[tokio::test]
async fn a_lock_of_another_program_delays_records() {
    let (_folder, path, store) =
        open(Bounds { patience: NEVER, patience_when_awaited: NEVER, ..short_bounds() });
    let other = lock(&path);
    for _ in 0..100 {
        store.log(command("set_value"));
    }
    let error = store.check().await.unwrap_err().to_string();
    assert!(error.contains("another program") && error.contains("sessions.db"), "{error}");
    assert_eq!(store.user_by_id(1).await.unwrap(), None, "reading goes on");
    drop(other);
    store.flush().await;
    assert_eq!((count(&path), store.lost_records()), (100, 0));
    store.check().await.unwrap();
}

#[tokio::test]
async fn a_lasting_lock_loses_records_when_a_caller_waits() {
    let bounds = Bounds { patience: NEVER, batch_records: 10, ..short_bounds() };
    let (_folder, path, store) = open(bounds);
    let other = lock(&path);
    for _ in 0..1000 {
        store.log(command("set_value"));
    }
    // All hundred batches share one timeout; otherwise this would take a hundred times as long.
    store.flush().await;
    assert_eq!(store.lost_records(), 1000);
    drop(other);
    store.log(command("set_value"));
    store.close().await;
    assert_eq!((count(&path), store.lost_records()), (1, 1000));
}

#[tokio::test]
async fn close_returns_despite_a_lasting_lock() {
    let (_folder, path, store) = open(Bounds { patience: NEVER, ..short_bounds() });
    let other = lock(&path);
    (0..50).for_each(|_| store.log(command("set_value")));
    store.close().await;
    drop(other);
    assert_eq!((count(&path), store.lost_records()), (0, 50));
}

#[tokio::test]
async fn too_many_records_are_dropped_and_counted() {
    let bounds = Bounds { queue_bytes: 64 << 10, gather: NEVER, ..Bounds::default() };
    let (_folder, path, store) = open(bounds);
    for _ in 0..1000 {
        store.log(command(&"x".repeat(1000)));
    }
    let lost = store.lost_records();
    assert!((900..1000).contains(&lost), "{lost} of 1000");
    store.close().await;
    assert_eq!(count(&path) as u64, 1000 - lost);
}

#[tokio::test]
async fn records_that_gather_share_a_transaction() {
    let (_folder, path, store) = open(Bounds { gather: NEVER, ..Bounds::default() });
    let before = commits(&path);
    (0..500).for_each(|_| store.log(command("set_value")));
    assert_eq!((count(&path), commits(&path)), (0, before), "they wait for each other");
    store.flush().await;
    assert_eq!((count(&path), commits(&path)), (500, before + 1));
}

/// Returns the number of transactions in the write-ahead log: frames with the size of the database.
fn commits(path: &Path) -> usize {
    let log = std::fs::read(database::with_suffix(path, "-wal")).unwrap();
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let Some((header, frames)) = log.split_at_checked(32) else { return 0 };
    let frame_size = 24 + number(&header[8..12]) as usize;
    frames.chunks_exact(frame_size).filter(|frame| number(&frame[4..8]) != 0).count()
}

#[tokio::test]
async fn an_account_overtakes_the_log() {
    let (_folder, path, store) = open(Bounds { gather: NEVER, ..Bounds::default() });
    (0..500).for_each(|_| store.log(command("set_value")));
    store.create_user(account("ada@x.org")).await.unwrap();
    assert_eq!(count(&path), 0);
}

#[test]
fn a_failure_and_its_end_are_logged_once() {
    let text = Text::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer({
            let text = text.clone();
            move || text.clone()
        })
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let health = Health::new(Path::new("data/sessions.db"));
        health.report_recovery();
        for _ in 0..3 {
            health.report_failure("no room");
            health.count_lost(2);
        }
        health.report_recovery();
        health.report_recovery();
    });
    let text = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    for part in ["ERROR", "data/sessions.db", "no room"] {
        assert!(lines[0].contains(part), "{part} in {}", lines[0]);
    }
    assert!(lines[1].contains("WARN") && lines[1].contains('6'), "{}", lines[1]);
}

#[test]
fn waiting_callers_notice_the_end_of_the_writer() {
    let queue = Queue::new(Bounds::default());
    let (reply, mut answer) = oneshot::channel();
    queue.push_barrier(Barrier::Flush { reply });
    queue.abandon();
    assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    assert_eq!(queue.push_record(command("late")), Pushed::Closed);
    assert!(matches!(queue.take(), Work::End));
}

fn account(email: &str) -> NewUser {
    NewUser {
        email: email.to_owned(),
        hashed_password: "$2b$12$hash".to_owned(),
        first_name: String::new(),
        last_name: String::new(),
        role: "student".to_owned(),
    }
}

/// Collects what a subscriber writes.
#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn session(number: u8) -> String {
    format!("session {number}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However activity is split into batches, each session ends with its latest time, and no
    /// command is lost.
    #[test]
    fn coalesced_activity_keeps_the_latest_time(
        uses in prop::collection::vec((0u8..4, 1u32..1000, any::<bool>()), 0..60),
        batch_size in 1usize..20,
    ) {
        let mut connection = Connection::open_in_memory().unwrap();
        migrations::run(&mut connection).unwrap();
        let starts = (0..4).map(|number| LogRecord::SessionStarted {
            session_id: session(number),
            created_at: 1.0,
            port: 6560,
            client_ip: None,
            user_agent: None,
            user_id: None,
            full_name: None,
            project_name: None,
        });
        let moments = uses.iter().map(|&(number, at, is_command)| match is_command {
            true => command("set_value"),
            false => LogRecord::SessionActivity { session_id: session(number), at: f64::from(at) },
        });
        let records: Vec<_> = starts.chain(moments).collect();
        for records in records.chunks(batch_size) {
            Batch::new(records.to_vec()).write(&mut connection).unwrap();
        }
        for number in 0..4 {
            let expected = uses
                .iter()
                .filter(|&&(used, _, is_command)| used == number && !is_command)
                .fold(1.0, |latest: f64, &(_, at, _)| latest.max(f64::from(at)));
            let query = "SELECT last_activity FROM sessions WHERE session_id = ?1";
            let found: rusqlite::Result<f64> =
                connection.query_row(query, [session(number)], |row| row.get(0));
            let found = found.unwrap();
            prop_assert_eq!(found, expected);
        }
        let commands: u32 = connection
            .query_row("SELECT count(*) FROM session_commands", [], |row| row.get(0))
            .unwrap();
        let expected = uses.iter().filter(|&&(_, _, is_command)| is_command).count();
        prop_assert_eq!(commands as usize, expected);
    }

    /// All entries come out once and in order, and a barrier follows the records before it.
    #[test]
    fn the_queue_keeps_the_order(
        is_barrier in prop::collection::vec(prop::bool::weighted(0.2), 0..80),
        batch_records in 1usize..10,
    ) {
        let queue = Queue::new(Bounds { batch_records, ..Bounds::default() });
        for (position, &is_barrier) in is_barrier.iter().enumerate() {
            if is_barrier {
                queue.push_barrier(Barrier::Flush { reply: oneshot::channel().0 });
            } else {
                prop_assert_eq!(queue.push_record(command(&position.to_string())), Pushed::Queued);
            }
        }
        queue.close();
        let mut out = Vec::new();
        while let Work::Batch { records, barrier } = queue.take() {
            prop_assert!(records.len() <= batch_records);
            out.extend(records.into_iter().map(Some));
            out.extend(barrier.map(|_| None));
        }
        let pushed: Vec<_> = is_barrier
            .iter()
            .enumerate()
            .map(|(position, &is_barrier)| (!is_barrier).then(|| command(&position.to_string())))
            .collect();
        prop_assert_eq!(out, pushed);
        prop_assert!(queue.has_room());
    }
}
