//! A session's life over HTTP, and what the database says of it afterwards.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{TestServer, stays, until};

/// Long enough for anything on a busy machine; no test waits for it to pass.
const SOON: Duration = Duration::from_secs(20);

fn slow(seconds: f64) -> Value {
    json!({"command": "set_value", "misbehave": "slow", "seconds": seconds})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_started_listed_measured_and_ended() {
    let server = TestServer::builder().fake().start().await;
    let pool = server.port_pool();
    let session = server.start_session_with(&json!({"project_name": "Algol", "course": 7})).await;
    assert_eq!(session.port, pool.start);

    let listed = &server.sessions().await[&session.id];
    assert_eq!(listed["session_id"], session.id);
    assert_eq!(listed["project_name"], "Algol");
    assert_eq!(listed["status"], "awake");
    assert_eq!(listed.get("full_name"), None, "a client in use breaks on it");
    assert_eq!(listed["metadata"]["course"], 7, "metadata is given back: {listed}");

    let memory = server.post_empty(&format!("/dash/session-memory/{}", session.id)).await;
    assert!(memory.expect(200)["mem_used"].as_f64().unwrap() > 0.0);
    assert!(server.get("/dash/session-memory").await.expect(200)[&session.id].is_f64());
    assert_eq!(server.reserved_ports().await, [u64::from(pool.start)]);

    session.ping().await;
    assert_eq!(session.end().await.expect(200), json!({"success": true}));
    assert_eq!(session.end().await.expect(404), json!({"detail": "Session not found"}));
    assert_eq!(server.sessions().await, json!({}));
    assert_eq!(server.reserved_ports().await, [0u64; 0]);
    assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, session.port)).is_ok(), "the port is not free");
    assert_eq!(server.database().end_of(&session.id).await, "manual");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spawned_session_lives_like_a_forked_one() {
    let server = TestServer::builder().fake().set("worker.start", "spawn").start().await;
    let session = server.start_session().await;
    session.result(json!({"command": "set_value", "twig": "a", "value": 1.5})).await;
    assert_eq!(session.result(json!({"command": "get_value", "twig": "a"})).await, 1.5);
    session.end().await.expect(200);
    let second = server.start_session().await;
    assert_eq!(
        second.command(json!({"command": "get_value", "twig": "a"})).await["success"],
        false
    );
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_separate_and_where_nothing_is_kept_leave_at_shutdown() {
    let mut server = TestServer::builder().fake().set("session.durability", "off").start().await;
    let (first, second) = tokio::join!(server.start_session(), server.start_session());
    assert_ne!(first.port, second.port);
    for (session, value) in [(&first, 1), (&second, 2)] {
        session.result(json!({"command": "set_value", "twig": "a", "value": value})).await;
    }
    assert_eq!(first.result(json!({"command": "get_value", "twig": "a"})).await, 1);
    server.stop().await;
    for session in [first, second] {
        assert_eq!(server.database().end_of(&session.id).await, "server_shutdown");
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_something_else_holds_is_skipped_and_reported() {
    let server = TestServer::builder().fake().start().await;
    let first = server.port_pool().start;
    let stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
    let session = server.start_session().await;
    assert_eq!(session.port, first + 1);
    server
        .log()
        .wait_for("the port is named", SOON, |entry| {
            entry["level"] == "WARN" && entry["port"] == first
        })
        .await;
    drop(stranger);
    assert_eq!(server.start_session().await.port, first);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_pool_is_a_clear_503_and_recovers() {
    // Without sleep nothing makes room.
    let server =
        TestServer::builder().fake().ports(2).set("session.durability", "off").start().await;
    let first = server.start_session().await;
    server.start_session().await;
    let refused = server.post("/dash/start-session", &json!({})).await;
    assert_eq!(refused.status, 503);
    assert!(refused.body["detail"].as_str().unwrap().contains("port"), "{}", refused.body);
    first.end().await.expect(200);
    assert_eq!(server.start_session().await.port, first.port);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_no_more_sessions_than_allowed() {
    let server = TestServer::builder()
        .fake()
        .set("auth.mode", "jwt")
        .set("auth.jwt_secret_key", "a secret for this test only, long enough")
        .set("resources.max_workers_per_user", 2)
        .start()
        .await;
    let mut users = Vec::new();
    for email in ["ada@x.org", "bob@x.org"] {
        let account = json!({"email": email, "password": "s3cret!"});
        let account = server.post("/auth/register", &account).await.expect(200);
        users.push(server.with_token(account["access_token"].as_str().unwrap()));
    }
    let [ada, bob] = &users[..] else { unreachable!() };
    let first = ada.start_session().await;
    ada.start_session().await;
    let refused = ada.post("/dash/start-session", &json!({})).await;
    assert_eq!(refused.status, 429);
    assert!(refused.body["detail"].as_str().unwrap().contains('2'), "{}", refused.body);
    bob.start_session().await;
    first.end().await.expect(200);
    ada.start_session().await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_in_order() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let commands: Vec<_> = (0..100)
        .flat_map(|value| {
            [
                json!({"command": "set_value", "twig": "a", "value": value}),
                json!({"command": "get_value", "twig": "a"}),
            ]
        })
        .collect();
    let answers = server.post(&format!("/send/{}/batch", session.id), &json!(commands)).await;
    let answers = answers.expect(200);
    let values: Vec<_> = answers.as_array().unwrap().iter().skip(1).step_by(2).collect();
    for (expected, answer) in (0..100).zip(values) {
        assert_eq!(answer["result"], expected);
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_command_in_a_batch_stops_nothing() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let commands = json!([
        {"command": "set_value", "twig": "a", "value": 1},
        {"command": "fly"},
        {"command": "get_value", "twig": "a"},
    ]);
    let answers = server.post(&format!("/send/{}/batch", session.id), &commands).await.expect(200);
    let success: Vec<_> =
        answers.as_array().unwrap().iter().map(|answer| answer["success"] == true).collect();
    assert_eq!(success, [true, false, true]);
    assert_eq!(answers[2]["result"], 1);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_answered_while_a_long_command_runs() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.result(json!({"command": "set_value", "twig": "a", "value": 1})).await;
    let computing = tokio::spawn({
        let session = session.clone();
        async move { session.result(json!({"command": "run_compute", "seconds": 4.0})).await }
    });
    // Either it comes before the long command or beside it: never after.
    for _ in 0..20 {
        assert_eq!(session.result(json!({"command": "get_value", "twig": "a"})).await, 1);
    }
    assert!(!computing.is_finished(), "reads waited for the long command");
    assert_eq!(computing.await.unwrap()["model"], json!({"steps": 5}));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_command_that_takes_too_long_is_cancelled_and_the_session_lives() {
    let server =
        TestServer::builder().fake().set("resources.command_timeout_seconds", 1.0).start().await;
    let session = server.start_session().await;
    session.result(json!({"command": "set_value", "twig": "model", "value": "before"})).await;
    let answer = session.command(json!({"command": "run_compute", "seconds": 60.0})).await;
    assert_eq!(answer["success"], false);
    assert!(answer["error"].as_str().unwrap().contains("longer than 1 s"), "{answer}");
    assert_eq!(session.result(json!({"command": "get_value", "twig": "model"})).await, "before");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_queue_there_is_429_with_a_time_to_come_back() {
    let server = TestServer::builder().fake().set("resources.queue_depth", 3).start().await;
    let session = server.start_session().await;
    let mut sending = JoinSet::new();
    for _ in 0..10 {
        let session = session.clone();
        sending.spawn(async move { session.send(&slow(1.5)).await });
    }
    let (refused, answered): (Vec<_>, Vec<_>) =
        sending.join_all().await.into_iter().partition(|reply| reply.status == 429);
    assert_eq!((answered.len(), refused.len()), (3, 7));
    assert!(answered.iter().all(|reply| reply.body["success"] == true));
    for reply in refused {
        assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
        assert!(reply.body["detail"].as_str().unwrap().contains('3'), "{}", reply.body);
    }
    session.ping().await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_is_ended() {
    let server = TestServer::builder()
        .fake()
        .set("session.idle_timeout_seconds", 1.0)
        .set("session.on_idle", "terminate")
        .start()
        .await;
    let session = server.start_session().await;
    until("the idle session is gone", SOON, async || {
        server.sessions().await.get(&session.id).is_none().then_some(())
    })
    .await;
    until("its port is free", SOON, async || {
        server.reserved_ports().await.is_empty().then_some(())
    })
    .await;
    assert_eq!(server.database().end_of(&session.id).await, "idle_timeout");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_or_busy_session_is_not_idle() {
    let server = TestServer::builder()
        .fake()
        .set("session.idle_timeout_seconds", 3.0)
        .set("session.on_idle", "terminate")
        .start()
        .await;
    let (used, busy) = tokio::join!(server.start_session(), server.start_session());
    let computing = busy.command(slow(7.0));
    let using = stays("the used session answers", Duration::from_secs(7), async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        used.send(&json!({"command": "ping"})).await.status == 200
    });
    let (computed, ()) = tokio::join!(computing, using);
    assert_eq!(computed["success"], true, "{computed}");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_a_busy_session_answers_its_clients() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let waiting = tokio::spawn({
        let session = session.clone();
        async move { session.send(&slow(60.0)).await }
    });
    let queued = tokio::spawn({
        let session = session.clone();
        async move { session.send(&json!({"command": "ping"})).await }
    });
    // Whether they are in the queue by now or not: they are answered.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let started = Instant::now();
    session.end().await.expect(200);
    assert!(started.elapsed() < Duration::from_secs(10));
    let reply = waiting.await.unwrap();
    assert!(reply.status == 404 || reply.body["success"] == false, "{}", reply.body);
    // It may have come before the slow one, and then it was answered long ago.
    assert!([200, 404].contains(&queued.await.unwrap().status));
    assert_eq!(server.reserved_ports().await, [0u64; 0]);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_ignores_sigterm_is_killed() {
    let server =
        TestServer::builder().fake_that("ignores-sigterm").set("worker.spares", 0).start().await;
    let session = server.start_session().await;
    session.end().await.expect(200);
    assert_eq!(server.reserved_ports().await, [0u64; 0]);
    until("only the zygote is left", SOON, async || (server.workers().len() == 1).then_some(()))
        .await;
    // One more, for the shutdown to meet it.
    server.start_session().await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_and_memory_are_logged() {
    let mut server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.ping().await;
    session.result(json!({"command": "set_value", "twig": "a", "value": 1.5})).await;
    session.command(json!({"command": "get_value", "twig": "b"})).await;
    session.command(json!({"command": "run_compute", "seconds": 0.2})).await;
    server.stop().await;

    let commands = server.database().rows(
        "SELECT session_id, command_name, success, execution_time_ms, error_message \
         FROM session_commands ORDER BY id",
        |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, i64>(2)?,
                row.get::<_, f64>(3)?,
                row.get::<_, Option<String>>(4)?,
            ))
        },
    );
    let names: Vec<_> = commands.iter().map(|(_, name, ..)| name.as_str()).collect();
    assert_eq!(names, ["set_value", "get_value", "run_compute"], "ping is excluded by default");
    assert!(commands.iter().all(|(id, ..)| *id == session.id));
    assert_eq!(commands.iter().map(|row| row.2).collect::<Vec<_>>(), [1, 0, 1]);
    assert!(commands[2].3 >= 200.0, "run_compute took {} ms", commands[2].3);
    assert_eq!(commands[0].4, None);
    assert_eq!(commands[1].4.as_deref(), Some("ValueError"));
    let memory: Vec<f64> = server.database().column("SELECT memory_used_mb FROM session_metrics");
    assert!(!memory.is_empty() && memory.iter().all(|measured| *measured > 0.0), "{memory:?}");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn included_commands_win_over_excluded_ones() {
    let mut server = TestServer::builder()
        .fake()
        .set("database.log_include_commands", "ping, get_value")
        .set("database.log_exclude_commands", "ping")
        .start()
        .await;
    let session = server.start_session().await;
    session.ping().await;
    session.result(json!({"command": "set_value", "twig": "a", "value": 1})).await;
    session.result(json!({"command": "get_value", "twig": "a"})).await;
    server.stop().await;
    let names: Vec<String> =
        server.database().column("SELECT command_name FROM session_commands ORDER BY id");
    assert_eq!(names, ["ping", "get_value"]);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn user_information_is_kept_shown_and_logged() {
    let mut server = TestServer::builder().fake().start().await;
    let session = server
        .start_session_with(
            &json!({"project_name": "Algol", "first_name": "Ada", "email": "a@x.org"}),
        )
        .await;
    let shown = &server.sessions().await[&session.id];
    assert_eq!(
        (&shown["user_first_name"], &shown["user_email"]),
        (&json!("Ada"), &json!("a@x.org"))
    );

    let path = format!("/dash/update-user-info/{}", session.id);
    let updated = server.post_empty(&format!("{path}?last_name=Lovelace")).await;
    assert_eq!(updated.expect(200), json!({"success": true}));
    let updated = server.post(&path, &json!({"email": "ada@x.org"})).await;
    assert_eq!(updated.expect(200), json!({"success": true}));
    let shown = &server.sessions().await[&session.id];
    assert_eq!(shown["user_last_name"], "Lovelace");
    assert_eq!(shown["user_email"], "ada@x.org");
    assert_eq!(shown["user_display_name"], "Ada Lovelace");
    server.post_empty("/dash/update-user-info/nope?first_name=x").await.expect(404);

    server.stop().await;
    let rows = server.database().rows(
        "SELECT session_id, first_name, last_name, email FROM session_user_info",
        |row| {
            let text = |index| row.get::<_, Option<String>>(index);
            Ok((row.get::<_, String>(0)?, text(1)?, text(2)?, text(3)?))
        },
    );
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(rows, [(session.id, text("Ada"), text("Lovelace"), text("ada@x.org"))]);
    server.finish().await;
}
