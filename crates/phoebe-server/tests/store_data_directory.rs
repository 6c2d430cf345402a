//! One server on one data directory, and `init-db`, which loses nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use phoebe_server::cli::init_db::{self, InitDbError};
use phoebe_server::config::Settings;
use phoebe_server::store::{CommandFilter, DataDirectory, DataDirectoryError, NewUser, Store};
use rusqlite::Connection;
use tempfile::TempDir;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn settings(path: &Path) -> Settings {
    let mut settings = Settings::default();
    settings.database.path = path.to_owned();
    settings
}

fn one<T: rusqlite::types::FromSql>(path: &Path, query: &str) -> T {
    Connection::open(path).unwrap().query_row(query, [], |row| row.get(0)).unwrap()
}

fn backups(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains("sessions.db.backup-"))
        .collect();
    found.sort();
    found
}

/// A database with one account.
async fn populate(path: &Path) -> Store {
    let store = Store::open(path, CommandFilter::default()).unwrap();
    let user = NewUser {
        email: "ada@x.org".to_owned(),
        hashed_password: "$2b$12$hash".to_owned(),
        first_name: String::new(),
        last_name: String::new(),
        role: "student".to_owned(),
    };
    store.create_user(user).await.unwrap();
    store
}

#[test]
fn a_new_directory_is_private_and_keeps_its_id() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("deep/data/sessions.db");
    assert_eq!(DataDirectory::peek(&path).unwrap().instance_id, None);
    assert!(!folder.path().join("deep").exists(), "a look changes nothing");

    let directory = DataDirectory::open(&path).unwrap();
    assert_eq!(directory.root(), path.parent().unwrap());
    assert_eq!(directory.run(), path.parent().unwrap().join("run"));
    assert_eq!((mode(directory.root()), mode(directory.run())), (0o700, 0o700));
    assert_eq!(mode(&directory.root().join("instance")), 0o600);
    let id = directory.instance_id().to_owned();
    uuid::Uuid::parse_str(&id).unwrap();
    drop(directory);
    assert_eq!(DataDirectory::open(&path).unwrap().instance_id(), id);
    assert_eq!(DataDirectory::peek(&path).unwrap().instance_id, Some(id));
}

#[test]
fn the_second_to_open_is_told_who_has_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sessions.db");
    let first = DataDirectory::open(&path).unwrap();
    let error = DataDirectory::open(&path).unwrap_err();
    let own = std::process::id();
    assert!(matches!(error, DataDirectoryError::InUse { pid: Some(pid), .. } if pid == own));
    assert!(error.to_string().contains(&format!("process {own}")), "{error}");
    let view = DataDirectory::peek(&path).unwrap();
    assert_eq!((view.is_in_use, view.holder_pid), (true, Some(own)));
    drop(first);
    let view = DataDirectory::peek(&path).unwrap();
    assert_eq!((view.is_in_use, view.holder_pid), (false, None));
    DataDirectory::open(&path).unwrap();
}

/// Not a test by itself: the process that [`a_killed_holder_frees_the_directory`] kills.
#[test]
#[ignore = "not a test: the process that a_killed_holder_frees_the_directory starts and kills"]
fn holder() {
    let Ok(path) = std::env::var("HELD_DATABASE") else { return };
    let _directory = DataDirectory::open(Path::new(&path)).unwrap();
    println!("\nheld");
    std::io::stdin().lines().for_each(drop);
}

#[test]
fn a_killed_holder_frees_the_directory() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sessions.db");
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holder", "--ignored", "--nocapture"])
        .env("HELD_DATABASE", &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line == "held"));
    let error = DataDirectory::open(&path).unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", holder.id())), "{error}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    DataDirectory::open(&path).unwrap();
}

#[test]
fn a_damaged_id_is_named() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("instance"), "something").unwrap();
    let error = DataDirectory::open(&folder.path().join("sessions.db")).unwrap_err().to_string();
    assert!(error.contains(folder.path().join("instance").to_str().unwrap()), "{error}");
}

#[test]
fn a_file_in_place_of_the_folder_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("data");
    fs::write(&file, "").unwrap();
    let error = DataDirectory::open(&file.join("sessions.db")).unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()), "{error}");
}

#[test]
fn init_db_makes_a_database_without_a_question() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("data/sessions.db");
    init_db::run(&settings(&path), false, |question| panic!("{question}")).unwrap();
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM sessions"), 0);
}

#[tokio::test]
async fn init_db_keeps_a_database_unless_told() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sessions.db");
    populate(&path).await.close().await;
    let refused = init_db::run(&settings(&path), false, |question| {
        assert!(question.contains("sessions.db"), "{question}");
        false
    });
    assert!(matches!(refused, Err(InitDbError::Kept { .. })));
    assert!(refused.unwrap_err().to_string().contains("--force"));
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM users"), 1);
    assert!(backups(folder.path()).is_empty());

    init_db::run(&settings(&path), false, |_| true).unwrap();
    init_db::run(&settings(&path), true, |question| panic!("{question}")).unwrap();
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM users"), 0);
    let backups = backups(folder.path());
    assert_eq!(backups.len(), 2, "each is kept: {backups:?}");
    let kept: i64 = backups.iter().map(|path| one::<i64>(path, "SELECT count(*) FROM users")).sum();
    assert_eq!(kept, 1);
}

#[tokio::test]
async fn init_db_keeps_what_a_killed_server_left_in_the_write_ahead_log() {
    let folder = TempDir::new().unwrap();
    let (running, path) = (folder.path().join("running.db"), folder.path().join("sessions.db"));
    let store = populate(&running).await;
    for suffix in ["", "-wal"] {
        let named = |path: &Path| format!("{}{suffix}", path.display());
        fs::copy(named(&running), named(&path)).unwrap();
    }
    store.close().await;
    init_db::run(&settings(&path), true, |_| true).unwrap();
    let backups = backups(folder.path());
    assert_eq!(backups.len(), 1, "one file is the whole copy: {backups:?}");
    assert_eq!(one::<String>(&backups[0], "SELECT email FROM users"), "ada@x.org");
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM users"), 0);
}

#[test]
fn init_db_puts_aside_what_is_no_database() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sessions.db");
    fs::write(&path, "no database at all").unwrap();
    init_db::run(&settings(&path), true, |_| true).unwrap();
    assert_eq!(fs::read_to_string(&backups(folder.path())[0]).unwrap(), "no database at all");
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM sessions"), 0);
}

#[tokio::test]
async fn init_db_refuses_while_the_database_is_in_use() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sessions.db");
    let held = DataDirectory::open(&path).unwrap();
    let refused = init_db::run(&settings(&path), true, |_| true);
    assert!(matches!(refused, Err(InitDbError::DataDirectory(_))), "a server: {refused:?}");
    drop(held);

    let store = populate(&path).await;
    let refused = init_db::run(&settings(&path), true, |_| true);
    assert!(matches!(refused, Err(InitDbError::OpenElsewhere { .. })), "SQLite: {refused:?}");
    store.check().await.unwrap();
    store.close().await;
    assert_eq!(one::<i64>(&path, "SELECT count(*) FROM users"), 1);
    assert!(backups(folder.path()).is_empty());
}
