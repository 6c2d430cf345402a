//! What sessions keep on disk is bounded, told and refused in time; nothing in the server's memory
//! grows with it; a data directory that is moved away is noticed and not made anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::load::status_mb;
use crate::support::{Reply, Session, TestServer, until};

const SOON: Duration = Duration::from_secs(30);
const MEGABYTE: usize = 1_000_000;
/// What the server's memory must stay below, in MiB.
const MEMORY: f64 = 500.0;

fn journal(server: &TestServer, session: &Session) -> PathBuf {
    server.data().join("sessions").join(&session.id).join("journal.jsonl")
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

fn set(twig: &str, bytes: usize) -> Value {
    json!({"command": "set_value", "twig": twig, "value": "x".repeat(bytes)})
}

async fn get(session: &Session, twig: &str) -> Value {
    session.result(json!({"command": "get_value", "twig": twig})).await
}

async fn upload(server: &TestServer, session: &Session, bundle: &Value) -> Reply {
    let path = format!("/v1/sessions/{}/bundle", session.id);
    Reply::of(server.request(Method::PUT, &path).body(bundle.to_string())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn blanks_around_a_command_take_no_room_on_disk() {
    let server = TestServer::builder().fake().alone().start().await;
    let session = server.start_session().await;
    for _ in 0..4 {
        let blanks = " ".repeat(20 * MEGABYTE);
        let body = format!("{{\"command\":\"set_value\",{blanks}\"twig\":\"a b\",\"value\":1}}");
        let path = format!("/send/{}", session.id);
        let reply = Reply::of(server.request(Method::POST, &path).body(body)).await;
        assert_eq!(reply.expect(200)["success"], true);
    }
    assert!(size(&journal(&server, &session)) < 10_000);
    assert_eq!(get(&session, "a b").await, 1);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_no_line_of_the_journal_holds_is_refused_and_changes_nothing() {
    let server = TestServer::builder().fake().alone().start().await;
    let session = server.start_session().await;
    session.result(set("a", 1)).await;
    let before = size(&journal(&server, &session));
    let refused = session.send(&set("a", 17 * MEGABYTE)).await.expect(413);
    assert_eq!(refused["code"], "command_too_large");
    assert!(refused["detail"].as_str().unwrap().contains("16 MiB"), "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("upload"), "{refused}");
    let batch = format!("/send/{}/batch", session.id);
    let answers = server.post(&batch, &json!([set("a", 17 * MEGABYTE), set("b", 1)])).await;
    let answers = answers.expect(200);
    assert_eq!((&answers[0]["success"], &answers[1]["success"]), (&json!(false), &json!(true)));
    assert_eq!(get(&session, "a").await, "x");
    // A command that fails leaves its name only.
    let failed = json!({"command": "set_value", "twig": "x".repeat(10 * MEGABYTE)});
    assert_eq!(session.command(failed).await["success"], false);
    assert!(size(&journal(&server, &session)) < before + 2000);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_refuses_changes_and_nothing_else() {
    let server = TestServer::builder().fake().alone().start().await;
    let session = server.start_session().await;
    let large = set("a", 15 * MEGABYTE);
    for _ in 0..4 {
        session.result(large.clone()).await;
    }
    let refused = session.send(&large).await.expect(507);
    assert_eq!(refused["code"], "journal_full");
    assert!(refused["detail"].as_str().unwrap().contains("64 MiB"), "{refused}");
    assert!(size(&journal(&server, &session)) < 64 << 20);
    assert_eq!(get(&session, "a").await.as_str().unwrap().len(), 15 * MEGABYTE);
    server.post_empty(&format!("/v1/sessions/{}/undo", session.id)).await.expect(200);
    let script = server.get(&format!("/v1/sessions/{}/script", session.id)).await.expect(200);
    assert_eq!(script["entries"].as_array().unwrap().len(), 3);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_what_is_on_disk() {
    let mut server = TestServer::builder().fake().alone().start().await;
    let neighbour = server.start_session().await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        let session = server.start_session().await;
        let bundle = json!({"from outside": "y".repeat(14 * MEGABYTE)});
        upload(&server, &session, &bundle).await.expect(200);
        for _ in 0..4 {
            session.result(set("a", 14 * MEGABYTE)).await;
        }
        sessions.push(session);
    }
    let on_disk: u64 = sessions.iter().map(|session| size(&journal(&server, session))).sum();
    assert!(on_disk > 200 << 20, "{on_disk}");
    assert_memory(&server);

    server.stop().await;
    server.start_again().await;
    assert_memory(&server);
    let scripts = sessions.iter().map(|session| {
        let (client, path) = (server.client(), format!("/v1/sessions/{}/script", session.id));
        tokio::spawn(async move { client.get(&path).await })
    });
    let scripts: Vec<_> = scripts.collect();
    while !scripts.iter().all(tokio::task::JoinHandle::is_finished) {
        server.session(&neighbour.id).ping().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for script in scripts {
        let script = script.await.unwrap().expect(200);
        assert_eq!(script["entries"].as_array().unwrap().len(), 4);
        assert_eq!(script["begins_with"]["from outside"].as_str().unwrap().len(), 14 * MEGABYTE);
    }
    assert_memory(&server);
    let path = format!("/v1/sessions/{}/clone", sessions[0].id);
    server.post(&path, &json!({})).await.expect(200);
    assert_memory(&server);
    server.session(&neighbour.id).ping().await;
    server.finish().await;
}

fn assert_memory(server: &TestServer) {
    let peak = status_mb(server, "VmHWM");
    assert!(peak < MEMORY, "the server had {peak} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_bounded_and_what_was_kept_before_is_left_out_of_lists() {
    let mut server = TestServer::builder().fake().start().await;
    let note = json!({"note": "n".repeat(20_000)});
    let refused = server.post("/dash/start-session", &note).await.expect(422);
    assert!(refused.to_string().contains("16 KiB"), "{refused}");
    let name = json!({"project_name": "n".repeat(20_000)});
    server.post("/dash/start-session", &name).await.expect(422);
    let session = server.start_session_with(&json!({"note": "n".repeat(10_000)})).await;
    server.post(&format!("/v1/sessions/{}/clone", session.id), &note).await.expect(422);
    let info = json!({"first_name": "n".repeat(20_000)});
    server.post(&format!("/dash/update-user-info/{}", session.id), &info).await.expect(422);

    // As an earlier server kept it.
    server.stop().await;
    let path = server.data().join("sessions").join(&session.id).join("session.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record["metadata"]["note"] = json!("n".repeat(200_000));
    fs::write(&path, record.to_string()).unwrap();
    server.start_again().await;
    let sessions = server.sessions().await;
    assert!(sessions.to_string().len() < 5000, "the list is heavy");
    assert_eq!(sessions[&session.id]["metadata_omitted"], true);
    let whole = server.get(&format!("/v1/sessions/{}", session.id)).await.expect(200);
    assert_eq!(whole["metadata"]["note"].as_str().unwrap().len(), 200_000);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_is_moved_away_is_noticed_and_not_made_anew() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.result(set("a", 1)).await;
    until("ready", SOON, async || (server.get("/health/ready").await.status == 200).then_some(()))
        .await;
    let away = server.root().join("moved");
    fs::rename(server.data(), &away).unwrap();

    let answer = session.command(set("b", 1)).await;
    assert_eq!((&answer["success"], &answer["saved"]), (&json!(true), &json!(false)), "{answer}");
    assert!(server.post("/dash/start-session", &json!({})).await.status >= 500);
    let ready = server.get("/health/ready").await.expect(503);
    let why = ready["checks"]["data_directory"].as_str().unwrap();
    assert!(why.contains("moved") || why.contains("gone"), "{ready}");
    // The log's writer meets it too.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!server.data().exists(), "it was made anew");

    fs::rename(&away, server.data()).unwrap();
    until("the change is saved", SOON, async || {
        let session = server.get(&format!("/v1/sessions/{}", session.id)).await.expect(200);
        session.get("saved").is_none().then_some(())
    })
    .await;
    server.get("/health/ready").await.expect(200);
    server.start_session().await.ping().await;
    assert_eq!(get(&session, "b").await, "x");
    server.finish().await;
}

/// Sets values of 300 kB until one is refused, and returns the refusal.
async fn fill(session: &Session) -> Value {
    for number in 0..30 {
        let reply = session.send(&set(&format!("twig {number}"), 300_000)).await;
        if reply.status != 200 {
            return reply.expect(507);
        }
    }
    panic!("nothing was refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_takes_no_more_disk_than_it_may_and_all_but_changes_goes_on() {
    let builder = TestServer::builder().fake().set("resources.max_disk_mb_per_session", 5);
    let mut server = builder.start().await;
    let session = server.start_session().await;
    let refused = fill(&session).await;
    assert_eq!(refused["code"], "disk_quota");
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("of 5 MiB") && detail.contains("checkpoints"), "{refused}");

    let v1 = format!("/v1/sessions/{}", session.id);
    let shown = server.get(&v1).await.expect(200);
    let folder = server.data().join("sessions").join(&session.id);
    let on_disk: u64 = fs::read_dir(&folder).unwrap().map(|file| size(&file.unwrap().path())).sum();
    assert_eq!(shown["disk_bytes"], on_disk);
    assert_eq!(shown["disk_limit_bytes"], 5 << 20);
    assert!(on_disk <= 5 << 20, "{on_disk}");
    assert!(server.sessions().await[&session.id].get("disk_bytes").is_none());

    assert_eq!(get(&session, "twig 1").await.as_str().unwrap().len(), 300_000);
    server.post(&format!("{v1}/checkpoints"), &json!({"name": "a"})).await.expect(507);
    upload(&server, &session, &json!({"a": "x".repeat(300_000)})).await.expect(507);
    server.post_empty(&format!("{v1}/undo")).await.expect(200);
    server.get(&format!("{v1}/history")).await.expect(200);
    server.get(&format!("{v1}/script")).await.expect(200);
    server.get(&format!("{v1}/snapshots/pickle")).await.expect(200);

    // It is counted again after a restart, and another session has its own room.
    server.stop().await;
    server.start_again().await;
    let session = server.session(&session.id);
    until("it is measured", SOON, async || {
        server.get(&v1).await.expect(200)["disk_bytes"].as_u64().filter(|bytes| *bytes > 3 << 20)
    })
    .await;
    let redone = server.post_empty(&format!("{v1}/redo")).await;
    redone.expect(200);
    session.send(&set("more", 300_000)).await.expect(507);
    let other = server.start_session().await;
    other.result(set("a", 300_000)).await;
    session.end().await.expect(200);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computation_that_is_refused_takes_no_turn_on_the_cores_from_others() {
    let builder = TestServer::builder().fake().set("resources.max_disk_mb_per_session", 5);
    let server = builder.set("resources.max_concurrent_computes", 1).start().await;
    let session = server.start_session().await;
    fill(&session).await;
    let compute = json!({"command": "run_compute", "value": "x".repeat(300_000)});
    session.send(&compute).await.expect(507);
    let other = server.start_session().await;
    let computed = other.command(json!({"command": "run_compute"}));
    let computed = tokio::time::timeout(SOON, computed).await.expect("no turn for another session");
    assert_eq!(computed["success"], true);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sessions_of_a_user_take_no_more_disk_than_they_may_together() {
    let builder = TestServer::builder().fake().set("resources.max_disk_mb_per_user", 5);
    let builder = builder.set("auth.mode", "jwt");
    let server =
        builder.set("auth.jwt_secret_key", "a secret that nobody knows 0123456").start().await;
    let mut users = Vec::new();
    for email in ["ada@uni.edu", "grace@uni.edu"] {
        let account = json!({
            "email": email, "password": "long enough 1", "first_name": "A", "last_name": "B",
        });
        let account = server.post("/auth/register", &account).await.expect(200);
        users.push(server.with_token(account["access_token"].as_str().unwrap()));
    }
    let (ada, grace) = (&users[0], &users[1]);
    let (one, other) = (ada.start_session().await, ada.start_session().await);
    one.result(set("a", 300_000)).await;
    let refused = fill(&other).await;
    assert_eq!(refused["code"], "disk_quota");
    assert!(refused["detail"].as_str().unwrap().contains("together"), "{refused}");
    one.send(&set("b", 900_000)).await.expect(507);
    let shown = ada.get(&format!("/v1/sessions/{}", one.id)).await.expect(200);
    assert!(shown["user_disk_bytes"].as_u64() > shown["disk_bytes"].as_u64(), "{shown}");
    assert_eq!(shown["user_disk_limit_bytes"], 5 << 20);
    let clone = format!("/v1/sessions/{}/clone", other.id);
    ada.post(&clone, &json!({})).await.expect(507);
    grace.start_session().await.result(set("a", 300_000)).await;

    other.end().await.expect(200);
    one.result(set("b", 900_000)).await;
    server.finish().await;
}
