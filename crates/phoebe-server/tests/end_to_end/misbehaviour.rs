//! Workers that misbehave at a command: the client gets a clear answer, and nobody else notices.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Session, TestServer, until};

/// Long enough for any answer on a busy machine; no test waits for it to pass.
const SOON: Duration = Duration::from_secs(20);

fn misbehave(how: &str) -> Value {
    json!({"command": "set_value", "misbehave": how})
}

fn in_silence(how: &str) -> Value {
    json!({"command": "set_value", "misbehave": how, "answer": false})
}

/// Sends `command` to `session` and meanwhile, until it is answered, pings another session and asks
/// for `/health`. Returns the answer.
async fn while_others_go_on(server: &TestServer, session: &Session, command: Value) -> Value {
    let other = server.start_session().await;
    let answer = async {
        let answer = tokio::time::timeout(SOON, session.command(command.clone())).await;
        answer.unwrap_or_else(|_| panic!("no answer to {command}"))
    };
    tokio::pin!(answer);
    let answer = loop {
        tokio::select! {
            answer = &mut answer => break answer,
            () = async {
                other.ping().await;
                server.get("/health").await.expect(200);
                tokio::time::sleep(Duration::from_millis(20)).await;
            } => {}
        }
    };
    other.ping().await;
    other.end().await.expect(200);
    answer
}

/// The message is dropped, and the right answer, which follows it, arrives.
async fn is_survived(how: &str) {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let answer = while_others_go_on(&server, &session, misbehave(how)).await;
    assert_eq!(answer, json!({"success": true, "result": {"misbehaved": how}}));
    session.ping().await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_no_request_is_dropped() {
    is_survived("wrong-seq").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_answer_is_dropped() {
    is_survived("twice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_answers_garbage_is_noticed() {
    is_noticed("garbage", "broke the protocol").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_signs_wrongly_is_noticed() {
    is_noticed("unsigned", "the signature is wrong").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_answers_for_another_session_is_noticed() {
    is_noticed("wrong-session", "another session").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stray_output_goes_to_the_log_and_nowhere_else() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.result(misbehave("stray-output")).await;
    let id = session.id.clone();
    let entry = server
        .log()
        .wait_for("the stray line", SOON, |entry| {
            entry.to_string().contains("stray line on standard output")
        })
        .await;
    assert!(entry.to_string().contains(&id), "the line does not name its session: {entry}");
    let forged = server.log().entries().into_iter().find(|entry| entry["level"] == "forged");
    assert_eq!(forged, None, "a worker wrote a log line of its own");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_neither_blocks_nor_fills_the_log() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let answer = while_others_go_on(&server, &session, misbehave("flood-output")).await;
    assert_eq!(answer["success"], true);
    let length = server.log().text().len();
    assert!(length < 8 << 20, "32 MiB of output became {length} bytes of log");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_answer_arrives_whole() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let command = json!({"command": "set_value", "misbehave": "huge", "megabytes": 24});
    let answer = while_others_go_on(&server, &session, command).await;
    assert_eq!(answer["result"].as_str().unwrap().len(), 24 << 20);
    session.ping().await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_json_becomes_a_failure() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let answer = while_others_go_on(&server, &session, in_silence("not-json")).await;
    assert_eq!(answer["success"], false);
    session.ping().await;
    server.finish().await;
}

/// The session is over because of its worker: nobody finds it, its port is free, the database says
/// why.
async fn is_gone(server: &TestServer, session: &Session) {
    port_is_free(server).await;
    assert_eq!(server.sessions().await, json!({}));
    let gone = session.send(&json!({"command": "ping"})).await;
    assert_eq!(gone.expect(404), json!({"detail": "Invalid session ID"}));
    assert_eq!(server.database().end_of(&session.id).await, "process_died");
}

async fn port_is_free(server: &TestServer) {
    until("the port is free", SOON, async || {
        server.reserved_ports().await.is_empty().then_some(())
    })
    .await;
}

/// No answer comes: the command's time runs out, and the client learns that.
async fn runs_out_of_time(how: &str) {
    let server =
        TestServer::builder().fake().set("resources.command_timeout_seconds", 1.0).start().await;
    let session = server.start_session().await;
    let answer = while_others_go_on(&server, &session, in_silence(how)).await;
    assert_eq!(answer["success"], false);
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains("1 s"), "the bound is not named: {error}");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_runs_into_the_time_limit() {
    runs_out_of_time("never").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_another_request_runs_into_the_time_limit() {
    runs_out_of_time("wrong-seq").await;
}

/// The worker dies: the waiting client learns how, and the port is free. The session goes on as it
/// was before, or is over where nothing is kept.
async fn is_noticed(how: &str, cause: &str) {
    for durability in ["command", "off"] {
        let server =
            TestServer::builder().fake().set("session.durability", durability).start().await;
        let session = server.start_session().await;
        session.result(json!({"command": "set_value", "twig": "a", "value": 7})).await;
        let answer = while_others_go_on(&server, &session, misbehave(how)).await;
        assert_eq!(answer["success"], false);
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(cause), "{cause} is not named: {error}");
        if durability == "off" {
            is_gone(&server, &session).await;
        } else {
            port_is_free(&server).await;
            assert_eq!(session.result(json!({"command": "get_value", "twig": "a"})).await, 7);
        }
        server.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_nothing_asked_end_their_worker() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.result(json!({"command": "set_value", "twig": "a", "value": 7})).await;
    for _ in 0..4 {
        session.result(misbehave("twice")).await;
    }
    until("the session without its worker", SOON, async || {
        (server.sessions().await[&session.id]["status"] == "asleep").then_some(())
    })
    .await;
    assert_eq!(session.result(json!({"command": "get_value", "twig": "a"})).await, 7);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_socket_is_noticed() {
    is_noticed("close-socket", "it was closed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_noticed() {
    is_noticed("die", "SIGKILL").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segfault_is_noticed() {
    is_noticed("segfault", "SIGSEGV").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_is_noticed() {
    is_noticed("exit", "exit code 3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_behind_the_one_that_killed_the_worker_go_on_with_the_next() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let slow = json!({"command": "set_value", "misbehave": "slow", "seconds": 0.5});
    let (_, killed, behind) = tokio::join!(
        session.command(slow),
        async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            session.command(misbehave("die")).await
        },
        async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            session.send(&json!({"command": "set_value", "twig": "a", "value": 1})).await
        },
    );
    assert_eq!(killed["success"], false);
    assert_eq!(behind.expect(200)["success"], true);
    server.finish().await;
}
