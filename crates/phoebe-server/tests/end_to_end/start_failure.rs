//! Workers and zygotes that do not come up: the client gets a clear 503 in time, and everything is
//! undone.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Builder, TestServer, processes_of_instance, until};

/// Sooner than the default of `start_timeout_seconds`: a failure that is known is not waited for.
const SOON: Duration = Duration::from_secs(20);

/// A start that fails this way is answered 503 with a clear text, its `cause` is in the log, and it
/// leaves nothing.
async fn is_undone(builder: Builder, cause: &str) {
    let server = builder.start().await;
    let started = Instant::now();
    let reply = server.post("/dash/start-session", &json!({"project_name": "Algol"})).await;
    assert!(started.elapsed() < SOON, "the answer came after {:?}", started.elapsed());
    assert_eq!(reply.status, 503, "{}", reply.body);
    let detail = reply.body["detail"].as_str().unwrap();
    assert!(
        ["could not be started", "try again", "ports are in use"]
            .iter()
            .any(|text| detail.to_lowercase().contains(text)),
        "{detail}"
    );
    assert!(reply.header("retry-after").is_some(), "no time to come back is given");
    server
        .log()
        .wait_for(&format!("the cause, {cause}"), SOON, |entry| {
            ["WARN", "ERROR"].iter().any(|level| entry["level"] == *level)
                && entry.to_string().contains(cause)
        })
        .await;

    assert_eq!(server.sessions().await, json!({}));
    assert_eq!(server.reserved_ports().await, [0u64; 0]);
    until("no worker is left", Duration::from_secs(5), async || {
        let workers = processes_of_instance(&server.instance());
        workers.iter().all(|process| process.mode() == "zygote").then_some(())
    })
    .await;
    server.get("/health").await.expect(200);
    server.finish().await;
}

fn in_one_second(builder: Builder) -> Builder {
    builder.set("session.start_timeout_seconds", 1.0)
}

fn fake_that(word: &'static str) -> Builder {
    TestServer::builder().fake_that(word).set("worker.spares", 0)
}

fn spawned_that(word: &'static str) -> Builder {
    fake_that(word).set("worker.start", "spawn")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_never_ready() {
    is_undone(in_one_second(fake_that("never-ready")), "1 s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spawned_worker_that_is_never_ready() {
    is_undone(in_one_second(spawned_that("never-ready")), "1 s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_answers_no_ping() {
    is_undone(in_one_second(fake_that("mute")), "1 s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_early() {
    is_undone(fake_that("dies-early"), "exit code 3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spawned_worker_that_dies_early() {
    is_undone(spawned_that("dies-early"), "exit code 3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_start() {
    is_undone(fake_that("start-fails"), "no space left on device").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_speaks_nonsense() {
    is_undone(fake_that("garbage-ready"), "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_find_every_port_in_use() {
    is_undone(fake_that("bind-fails").ports(3), "port").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zygote_that_cannot_fork() {
    is_undone(fake_that("fork-fails"), "Cannot allocate memory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zygote_that_never_becomes_ready() {
    is_undone(in_one_second(fake_that("zygote-hangs")), "still being imported").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zygote_that_dies() {
    is_undone(fake_that("zygote-dies"), "exit code 3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zygote_that_cannot_import_phoebe() {
    is_undone(fake_that("fatal"), "No module named 'phoebe'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spawned_worker_that_cannot_import_phoebe() {
    is_undone(spawned_that("fatal"), "No module named 'phoebe'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zygote_that_speaks_nonsense() {
    is_undone(fake_that("zygote-garbage"), "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_start_is_waited_for() {
    let server = fake_that("slow-start").start().await;
    server.start_session().await.ping().await;
    server.finish().await;
}
