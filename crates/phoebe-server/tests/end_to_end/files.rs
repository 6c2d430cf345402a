//! Bundles and scripts as files, from outside.

use std::fs;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Reply, Session, TestServer};

fn path(session: &Session, rest: &str) -> String {
    format!("/v1/sessions/{}/{rest}", session.id)
}

async fn put(client: &Client, path: &str, file: impl Into<reqwest::Body>) -> Reply {
    Reply::of(client.request(Method::PUT, path).body(file)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_taken_away_and_brought_back() {
    let server = TestServer::builder().fake().set("server.max_body_mb", 1).start().await;
    let session = server.start_session_with(&json!({"project_name": "Algol & co."})).await;
    session.result(json!({"command": "set_value", "twig": "a", "value": 1})).await;
    let file = server.get(&path(&session, "bundle")).await;
    assert_eq!(file.header("content-type"), Some("application/octet-stream"));
    let disposition = file.header("content-disposition");
    assert_eq!(disposition, Some("attachment; filename=\"Algol-co.phoebe\""));
    let file = file.expect(200).to_string();

    let other = server.start_session().await;
    other.result(json!({"command": "set_value", "twig": "b", "value": 2})).await;
    let history = put(&server, &path(&other, "bundle"), file).await.expect(200);
    assert_eq!(history, json!({"undo": 2, "redo": 0}));
    let get = async |twig: &str| other.command(json!({"command": "get_value", "twig": twig})).await;
    assert_eq!(get("a").await["result"], 1);
    assert_eq!(get("b").await["success"], false);

    let refused = put(&server, &path(&other, "bundle"), "this is no Bundle").await.expect(422);
    assert!(refused["detail"].as_str().unwrap().contains("this is no bundle"), "{refused}");
    put(&server, &path(&other, "bundle"), vec![b' '; 1024 * 1024 + 1]).await.expect(413);
    assert_eq!(get("a").await["result"], 1);
    server.post_empty(&path(&other, "undo")).await.expect(200);
    assert_eq!(get("b").await["result"], 2);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_there_for_its_owner_also_where_it_cannot_be_woken() {
    let mut server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.result(json!({"command": "set_value", "twig": "a", "value": 1})).await;
    // Sleeping writes the portable form.
    server.stop().await;
    server.start_again().await;
    let kept = async |form: &str| server.get(&path(&session, &format!("snapshots/{form}"))).await;
    assert_eq!(kept("pickle").await.expect(200), json!({"a": 1}));
    let portable = kept("portable").await;
    assert_eq!(portable.header("content-type"), Some("application/json"));
    assert_eq!(portable.expect(200), json!({"a": 1}));
    kept("json").await.expect(404);
    let asleep = server.get(&format!("/v1/sessions/{}", session.id)).await.expect(200);
    assert_eq!(asleep["status"], "asleep", "looking woke it");
    assert_eq!(asleep, server.sessions().await[&session.id]);

    // Both files are of this session, whole, and nothing that a worker can read.
    let folder = server.data().join("sessions").join(&session.id);
    for file in ["1.snapshot", "portable.snapshot"] {
        let content = fs::read(folder.join(file)).unwrap();
        fs::write(folder.join(file), resigned(&content, b"{\"a\": 1}}")).unwrap();
    }
    let woken = server.session(&session.id).send(&json!({"command": "ping"})).await;
    let refused = woken.expect(503);
    assert!(refused["detail"].as_str().unwrap().contains("snapshots/pickle"), "{refused}");
    assert_eq!(kept("pickle").await.expect(200), Value::Null);
    fs::write(folder.join("1.snapshot"), "torn").unwrap();
    let torn = kept("pickle").await.expect(409);
    assert!(torn["detail"].as_str().unwrap().contains("cut short"), "{torn}");
    server.finish().await;
}

/// A snapshot's file with another payload and the right checksum.
fn resigned(file: &[u8], payload: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let header = file.split(|byte| *byte == b'\n').nth(1).unwrap();
    let rest = [header, b"\n", payload].concat();
    let checksum = hex::encode(Sha256::digest(&rest));
    [format!("phoebe-snapshot 1 {checksum}\n").as_bytes(), &rest].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_made_from_the_journal() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    for value in 1..=3 {
        let command = json!({"command": "set_value", "twig": "a", "value": value});
        session.result(command).await;
    }
    server.post_empty(&path(&session, "undo")).await.expect(200);
    session.result(json!({"command": "set_value", "twig": "b", "value": 4})).await;
    session.command(json!({"command": "get_value", "twig": "b"})).await;
    let script = server.get(&path(&session, "script")).await;
    assert_eq!(script.header("content-type"), Some("text/x-python; charset=utf-8"));
    assert!(script.header("content-disposition").unwrap().ends_with(".py\""));
    // The fake worker's script is the journal that it was given.
    let entry = |twig: &str, value: i64| {
        let command = json!({"command": "set_value", "twig": twig, "value": value});
        json!({"command": command, "success": true})
    };
    let entries = json!([entry("a", 1), entry("a", 2), entry("b", 4)]);
    assert_eq!(script.expect(200), json!({"entries": entries, "phoebe": "2.5.4"}));
    server.finish().await;
}
