//! Backups and sessions as files, by the command line, while a server works and after.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::{Finished, Program, Session, TestServer, until};

const SOON: Duration = Duration::from_secs(30);

async fn phoebe_server(server: &TestServer, arguments: &[&str]) -> Finished {
    let config = server.config().to_str().unwrap();
    let program = Program::new(server.root()).arguments(["--config", config]).arguments(arguments);
    tokio::task::spawn_blocking(|| program.run()).await.unwrap()
}

async fn value(session: &Session) -> i64 {
    let answer = session.result(json!({"command": "get_value", "twig": "a"})).await;
    answer.as_i64().unwrap()
}

/// A session whose value counts up until it is told to stop, and the last value that was
/// acknowledged.
fn count_up(session: Session, stop: Arc<AtomicBool>) -> (Arc<AtomicI64>, impl Future<Output = ()>) {
    let acknowledged = Arc::new(AtomicI64::new(0));
    let seen = Arc::clone(&acknowledged);
    let counting = async move {
        for value in 1.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            session.result(json!({"command": "set_value", "twig": "a", "value": value})).await;
            acknowledged.store(value, Ordering::SeqCst);
        }
    };
    (seen, counting)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_holds_every_acknowledged_change() {
    let files = tempfile::tempdir().unwrap();
    let backup = files.path().join("backup");
    let backup = backup.to_str().unwrap();
    let server = TestServer::builder().fake().start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let (mut counters, mut tasks) = (Vec::new(), Vec::new());
    for number in 0..6 {
        let name = json!({"project_name": format!("star {number}")});
        let session = server.start_session_with(&name).await;
        let id = session.id.clone();
        let (seen, counting) = count_up(session, Arc::clone(&stop));
        counters.push((id, seen));
        tasks.push(tokio::spawn(counting));
    }
    until("all count", SOON, async || {
        counters.iter().all(|(_, seen)| seen.load(Ordering::SeqCst) > 20).then_some(())
    })
    .await;
    let before: Vec<i64> = counters.iter().map(|(_, seen)| seen.load(Ordering::SeqCst)).collect();
    let written = phoebe_server(&server, &["backup", backup]).await;
    assert_eq!(written.code, Some(0), "{written:?}");
    assert!(written.stdout.contains("6 sessions"), "{written:?}");
    assert_eq!(written.stderr, "");
    assert_eq!(fs::metadata(backup).unwrap().permissions().mode() & 0o777, 0o600);
    stop.store(true, Ordering::Relaxed);
    futures::future::join_all(tasks).await;
    let after: Vec<i64> = counters.iter().map(|(_, seen)| seen.load(Ordering::SeqCst)).collect();

    let again = phoebe_server(&server, &["backup", backup]).await;
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("--force"), "{again:?}");
    let used = phoebe_server(&server, &["restore", backup, "--force"]).await;
    assert_eq!(used.code, Some(1), "{used:?}");
    assert!(used.stderr.contains("in use"), "{used:?}");
    server.finish().await;

    let mut other = empty_server().await;
    let restored = phoebe_server(&other, &["restore", backup]).await;
    assert_eq!(restored.code, Some(0), "{restored:?}");
    other.start_again().await;
    let listed = other.sessions().await;
    assert_eq!(listed.as_object().unwrap().len(), 6);
    for (number, (id, _)) in counters.iter().enumerate() {
        assert_eq!(listed[id]["project_name"], json!(format!("star {number}")));
        let restored = value(&other.session(id)).await;
        let range = before[number]..=after[number];
        assert!(range.contains(&restored), "session {number} has {restored}, not in {range:?}");
    }
    let known: Vec<String> = other.database().column("SELECT session_id FROM sessions");
    assert!(counters.iter().all(|(id, _)| known.contains(id)));
    other.finish().await;
}

/// A server that does not run, on an empty data directory.
async fn empty_server() -> TestServer {
    let mut server = TestServer::builder().fake().start().await;
    server.stop().await;
    fs::remove_dir_all(server.data()).unwrap();
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_moves_to_another_server_and_another_owner() {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("algol");
    let file = file.to_str().unwrap();
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session_with(&json!({"project_name": "Algol"})).await;
    session.result(json!({"command": "set_value", "twig": "a", "value": 7})).await;
    let exported = phoebe_server(&server, &["export-session", &session.id, file]).await;
    assert_eq!(exported.code, Some(0), "{exported:?}");
    let unknown = phoebe_server(&server, &["export-session", "x", "nowhere"]).await;
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(!server.root().join("nowhere").exists());
    let used = phoebe_server(&server, &["import-session", file]).await;
    assert_eq!(used.code, Some(1), "{used:?}");
    assert!(used.stderr.contains("in use"), "{used:?}");
    server.finish().await;

    let mut other = TestServer::builder()
        .fake()
        .set("auth.mode", "jwt")
        .set("auth.jwt_secret_key", "a secret for this test only, long enough")
        .start()
        .await;
    let account = json!({"email": "ada@x.org", "password": "s3cret!", "first_name": "Ada"});
    other.post("/auth/register", &account).await.expect(200);
    other.stop().await;
    let nobody = phoebe_server(&other, &["import-session", file, "--owner", "eve@x.org"]).await;
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    assert!(nobody.stderr.contains("eve@x.org"), "{nobody:?}");
    let mut ids = Vec::new();
    for _ in 0..2 {
        let imported =
            phoebe_server(&other, &["import-session", file, "--owner", "ada@x.org"]).await;
        assert_eq!(imported.code, Some(0), "{imported:?}");
        ids.push(imported.stdout.trim().to_owned());
    }
    assert_eq!(ids[0], session.id);
    assert_ne!(ids[1], session.id);
    other.start_again().await;
    let login = json!({"email": "ada@x.org", "password": "s3cret!"});
    let token = other.post("/auth/login", &login).await.expect(200);
    let ada = other.with_token(token["access_token"].as_str().unwrap());
    let sessions = ada.sessions().await;
    for id in &ids {
        assert_eq!(sessions[id]["full_name"], "Ada", "{sessions}");
        assert_eq!(sessions[id]["project_name"], "Algol");
        assert_eq!(value(&ada.session(id)).await, 7);
    }
    other.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_keeps_what_was_there() {
    let files = tempfile::tempdir().unwrap();
    let backup = files.path().join("backup");
    let backup = backup.to_str().unwrap();
    let mut server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.result(json!({"command": "set_value", "twig": "a", "value": 1})).await;
    phoebe_server(&server, &["backup", backup]).await;
    session.result(json!({"command": "set_value", "twig": "a", "value": 2})).await;
    server.stop().await;
    let refused = phoebe_server(&server, &["restore", backup]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("--force"), "{refused:?}");
    let restored = phoebe_server(&server, &["restore", backup, "--force"]).await;
    assert_eq!(restored.code, Some(0), "{restored:?}");
    let kept: Vec<&Path> = restored
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("What was there is kept as ").map(Path::new))
        .collect();
    assert_eq!(kept.len(), 2, "{restored:?}");
    let sessions = kept.iter().find(|path| path.is_dir()).unwrap();
    assert!(sessions.join(&session.id).join("2.snapshot").exists());
    for path in kept {
        let from = server.root().join(path);
        fs::rename(&from, files.path().join(from.file_name().unwrap())).unwrap();
    }
    server.start_again().await;
    assert_eq!(value(&server.session(&session.id)).await, 1);
    server.finish().await;
}
