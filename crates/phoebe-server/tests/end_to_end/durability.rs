//! Sessions outlive idleness, their workers and the server, and say so where something cannot be
//! kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{DiskKind, Session, TestServer, until};

const SOON: Duration = Duration::from_secs(20);

fn set(twig: &str, value: impl Into<Value>) -> Value {
    json!({"command": "set_value", "twig": twig, "value": value.into()})
}

async fn value(session: &Session, twig: &str) -> Value {
    session.result(json!({"command": "get_value", "twig": twig})).await
}

async fn object(server: &TestServer, session: &Session) -> Value {
    server.sessions().await[&session.id].clone()
}

async fn has_status(server: &TestServer, session: &Session, status: &str) {
    until(status, SOON, async || (object(server, session).await["status"] == status).then_some(()))
        .await;
}

fn folder(server: &TestServer, session: &Session) -> PathBuf {
    server.data().join("sessions").join(&session.id)
}

/// The newest snapshot of a session, by its number.
fn newest_snapshot(folder: &Path) -> PathBuf {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let numbered = names.filter_map(|path| {
        let step: u64 = path.file_name()?.to_str()?.strip_suffix(".snapshot")?.parse().ok()?;
        Some((step, path))
    });
    numbered.max().unwrap().1
}

async fn has_begun(server: &TestServer, session: &Session, command: &str) {
    let journal = folder(server, session).join("journal.jsonl");
    until("it has begun", SOON, async || {
        fs::read_to_string(&journal).unwrap_or_default().contains(command).then_some(())
    })
    .await;
}

/// Makes the writing of the next snapshots impossible, whoever runs the test, until it is undone.
struct Blocked(Vec<PathBuf>);

impl Blocked {
    fn next_snapshots(folder: &Path) -> Self {
        let newest = newest_snapshot(folder);
        let step: u64 = newest.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        // The temporary files' places are taken.
        let places = (step + 1..step + 20).map(|step| folder.join(format!("{step}.new"))).collect();
        let blocked = Self(places);
        blocked.0.iter().for_each(|place| fs::create_dir(place).unwrap());
        blocked
    }

    fn lift(self) {
        self.0.iter().for_each(|place| fs::remove_dir(place).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_sleeps_and_any_command_wakes_it() {
    let server =
        TestServer::builder().fake().set("session.idle_timeout_seconds", 1.0).start().await;
    let session = server.start_session_with(&json!({"project_name": "Algol", "course": 7})).await;
    session.result(set("a", 5)).await;
    let before = object(&server, &session).await;
    has_status(&server, &session, "asleep").await;
    let asleep = object(&server, &session).await;
    assert_eq!(asleep["port"], Value::Null);
    assert_eq!(asleep["mem_used"], 0.0);
    for field in ["session_id", "created_at", "project_name", "metadata"] {
        assert_eq!(asleep[field], before[field], "{field}");
    }
    assert!(server.reserved_ports().await.is_empty());
    assert_eq!(value(&session, "a").await, 5);
    let awake = object(&server, &session).await;
    assert_eq!(awake["status"], "awake");
    assert!(awake["port"].is_u64());
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commands_at_once_wake_a_session_once_and_run_in_order() {
    let server =
        TestServer::builder().fake().set("session.idle_timeout_seconds", 1.0).start().await;
    let session = server.start_session().await;
    has_status(&server, &session, "asleep").await;
    let batch = Value::from_iter((0..20).map(|number| set("a", number)));
    let path = format!("/send/{}/batch", session.id);
    let (answers, ..) =
        tokio::join!(server.post(&path, &batch), session.ping(), session.ping(), session.ping(),);
    answers.expect(200);
    assert_eq!(value(&session, "a").await, 19);
    let entries = server.log().entries();
    let wakes = entries.iter().filter(|entry| entry["message"] == "session awake").count();
    assert_eq!(wakes, 1);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_ports_run_out_the_longest_idle_session_sleeps() {
    let server = TestServer::builder().fake().ports(2).start().await;
    let mut sessions = Vec::new();
    for number in 0..6 {
        let session = server.start_session().await;
        session.result(set("a", number)).await;
        sessions.push(session);
    }
    let listed = server.sessions().await;
    for (number, session) in sessions.iter().enumerate() {
        let expected = if number < 4 { "asleep" } else { "awake" };
        assert_eq!(listed[&session.id]["status"], expected, "session {number}");
    }
    for (number, session) in sessions.iter().enumerate() {
        assert_eq!(value(session, "a").await, number);
    }
    assert_eq!(server.reserved_ports().await.len(), 2);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_session_never_sleeps_to_make_room() {
    let server = TestServer::builder().fake().ports(1).start().await;
    let busy = server.start_session().await;
    let slow = json!({"command": "run_compute", "seconds": 4});
    let (answer, refused) = tokio::join!(busy.command(slow), async {
        has_begun(&server, &busy, "run_compute").await;
        server.post("/dash/start-session", &json!({})).await
    });
    assert_eq!(refused.status, 503);
    assert_eq!(answer["success"], true);
    assert!(refused.body["detail"].as_str().unwrap().contains("port"), "{}", refused.body);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_busy_for_a_moment_is_waited_for() {
    let server = TestServer::builder().fake().ports(1).start().await;
    let busy = server.start_session().await;
    let slow = json!({"command": "run_compute", "seconds": 0.3});
    let (answer, started) = tokio::join!(busy.command(slow), async {
        has_begun(&server, &busy, "run_compute").await;
        server.post("/dash/start-session", &json!({})).await
    });
    assert_eq!((answer["success"].as_bool(), started.status), (Some(true), 200));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_more_sessions_than_ports_wake_in_turn() {
    let server = TestServer::builder().fake().ports(4).start().await;
    let mut sessions = Vec::new();
    for number in 0..24 {
        let session = server.start_session().await;
        session.result(set("a", number)).await;
        sessions.push(session);
    }
    // All at once, each several times: nobody is refused, nobody is passed over.
    let wakes = sessions.iter().enumerate().map(|(number, session)| async move {
        for _ in 0..5 {
            assert_eq!(value(session, "a").await, number);
        }
    });
    futures::future::join_all(wakes).await;
    assert!(server.reserved_ports().await.len() <= 4);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_nine_of_the_server() {
    let mut server = TestServer::builder().fake().start().await;
    let session = server.start_session_with(&json!({"first_name": "Ada"})).await;
    session.result(set("a", 1)).await;
    let before = object(&server, &session).await;
    for round in 2..6 {
        server.kill_nine().await;
        server.start_again().await;
        let session = server.session(&session.id);
        let after = object(&server, &session).await;
        assert_eq!(after["status"], "asleep");
        assert_eq!(after["created_at"], before["created_at"]);
        assert_eq!(after["user_first_name"], "Ada");
        assert_eq!(value(&session, "a").await, round - 1);
        session.result(set("a", round)).await;
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_was_interrupted_is_recorded() {
    let mut server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.result(set("a", 1)).await;
    let client = server.client();
    let id = session.id.clone();
    let running = tokio::spawn(async move {
        client.session(&id).try_send(&json!({"command": "run_compute", "seconds": 60})).await
    });
    has_begun(&server, &session, "run_compute").await;
    server.kill_nine().await;
    assert!(running.await.unwrap().is_err());
    server.start_again().await;
    let errors = until("its row", SOON, async || {
        let errors: Vec<String> = server.database().column(&format!(
            "SELECT error_message FROM session_commands \
             WHERE session_id = '{}' AND command_name = 'run_compute' AND success = 0",
            session.id
        ));
        (!errors.is_empty()).then_some(errors)
    })
    .await;
    assert!(errors[0].starts_with("interrupted"), "{errors:?}");
    assert_eq!(value(&server.session(&session.id), "a").await, 1);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_ends_its_worker_three_times_is_refused() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.result(set("a", 1)).await;
    let deadly = json!({"command": "set_value", "misbehave": "segfault"});
    for _ in 0..3 {
        let answer = session.command(deadly.clone()).await;
        assert!(answer["error"].as_str().unwrap().contains("as it was before"), "{answer}");
    }
    let starts = server.log().entries().len();
    let refused = session.command(deadly).await;
    assert!(refused["error"].as_str().unwrap().contains("3 times"), "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("SIGSEGV"), "{refused}");
    let woken = |entry: &Value| entry["message"] == "session awake";
    assert!(!server.log().entries().iter().skip(starts).any(woken), "it woke for nothing");
    assert_eq!(value(&session, "a").await, 1);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_saved_is_said_and_saved_when_it_can_be() {
    let mut server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.result(set("a", 1)).await;
    let other = server.start_session().await;
    let blocked = Blocked::next_snapshots(&folder(&server, &session));
    let answer = session.command(set("a", 2)).await;
    assert_eq!(answer["success"], true);
    assert_eq!(answer["saved"], false);
    assert!(answer["warning"].as_str().unwrap().contains("not saved"), "{answer}");
    let unsaved = object(&server, &session).await;
    assert_eq!(unsaved["saved"], false);
    assert!(unsaved["notice"].is_string());
    // It is usable, and nobody else notices.
    assert_eq!(value(&session, "a").await, 2);
    assert_eq!(other.command(set("a", 1)).await.get("saved"), None);
    blocked.lift();
    until("it is saved", SOON, async || {
        object(&server, &session).await.get("saved").is_none().then_some(())
    })
    .await;
    server.kill_nine().await;
    server.start_again().await;
    assert_eq!(value(&server.session(&session.id), "a").await, 2);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_memory_is_short_sessions_that_do_nothing_sleep() {
    // More than any machine has: memory is always short. Looks are frequent, and idleness alone is
    // far off.
    let builder = TestServer::builder().fake().set("resources.memory_reserve_mb", 16_777_216);
    let server = builder.set("session.idle_timeout_seconds", 60.0).start().await;
    let session = server.start_session().await;
    session.result(set("a", 1)).await;
    let busy = server.start_session().await;
    let slow = json!({"command": "run_compute", "seconds": 9});
    let (answer, ()) = tokio::join!(busy.command(slow), async {
        has_begun(&server, &busy, "run_compute").await;
        has_status(&server, &session, "asleep").await;
        assert_eq!(object(&server, &busy).await["status"], "awake");
        assert_eq!(value(&session, "a").await, 1);
    });
    assert_eq!(answer["success"], true);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_be_saved_does_not_sleep() {
    let server =
        TestServer::builder().fake().set("session.idle_timeout_seconds", 1.0).start().await;
    let session = server.start_session().await;
    session.result(set("a", 1)).await;
    let blocked = Blocked::next_snapshots(&folder(&server, &session));
    session.command(set("a", 2)).await;
    server
        .log()
        .wait_for("it stays awake", SOON, |entry| {
            entry["message"].as_str().is_some_and(|message| message.contains("stays awake"))
        })
        .await;
    assert_eq!(object(&server, &session).await["status"], "awake");
    blocked.lift();
    has_status(&server, &session, "asleep").await;
    assert_eq!(value(&session, "a").await, 2);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_no_answer_and_no_session() {
    let mut server = TestServer::builder().fake().disk(DiskKind::Memory(32)).start().await;
    if !server.has_disk() {
        eprintln!("not tested: only root can mount a disk to fill");
        return server.finish().await;
    }
    let other = server.start_session().await;
    other.result(set("a", 1)).await;
    let hoarder = server.start_session().await;
    let session = server.start_session().await;
    // First in large pieces, at last in the smallest.
    for (filler, size) in [(&hoarder, 4 << 20), (&session, 64 << 10), (&session, 1)] {
        let (mut piece, mut answer) = ("x".repeat(size), json!({}));
        while answer.get("saved").is_none() {
            answer = filler.command(set("a", piece.clone())).await;
            assert_eq!(answer["success"], true, "{answer}");
            piece.replace_range(..1, if piece.starts_with('x') { "y" } else { "x" });
        }
        assert_eq!(answer["saved"], false);
        assert!(answer["warning"].as_str().unwrap().contains("the disk is full"), "{answer}");
    }
    let last = value(&session, "a").await;
    // Everybody works on: their changes are made, and kept as soon as there is room.
    assert_eq!(other.command(set("a", 2)).await["success"], true);
    assert_eq!(value(&other, "a").await, 2);
    let late = server.start_session().await;
    assert_eq!(late.command(set("a", 3)).await["success"], true);

    hoarder.end().await.expect(200);
    for session in [&session, &other, &late] {
        until("it is saved", Duration::from_secs(60), async || {
            object(&server, session).await.get("saved").is_none().then_some(())
        })
        .await;
    }
    server.kill_nine().await;
    server.start_again().await;
    for (session, expected) in [(&session, last), (&other, json!(2)), (&late, json!(3))] {
        assert_eq!(value(&server.session(&session.id), "a").await, expected);
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_of_power_loses_nothing_that_was_acknowledged() {
    let builder = TestServer::builder().fake().disk(DiskKind::Journaled(64));
    let mut server = builder.set("session.fsync", true).start().await;
    if !server.has_disk() {
        eprintln!("not tested: only root can mount a disk that loses its power");
        return server.finish().await;
    }
    let session = server.start_session_with(&json!({"first_name": "Ada"})).await;
    for round in 1..6 {
        server.session(&session.id).result(set("a", round)).await;
        let fresh = server.start_session().await;
        fresh.result(set("a", 7)).await;
        let canary = server.data().join("canary");
        fs::write(&canary, "in the kernel's memory only").unwrap();
        server.lose_power().await;
        let left = fs::read(&canary).unwrap_or_default();
        assert!(left.is_empty(), "what nobody flushed has survived: this shows nothing");
        let _not_there = fs::remove_file(&canary);
        server.start_again().await;
        let object = object(&server, &session).await;
        assert_eq!((&object["user_first_name"], &object["notice"]), (&json!("Ada"), &Value::Null));
        assert_eq!(value(&server.session(&session.id), "a").await, round);
        assert_eq!(value(&server.session(&fresh.id), "a").await, 7);
        server.session(&fresh.id).end().await.expect(200);
    }
    server.finish().await;
}

/// A damaged newest snapshot is noticed, and the state before it is used.
async fn is_passed_over(damage: impl Fn(&Path)) {
    let mut server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    for number in 1..4 {
        session.result(set("a", number)).await;
    }
    server.kill_nine().await;
    damage(&newest_snapshot(&folder(&server, &session)));
    server.start_again().await;
    let session = server.session(&session.id);
    assert_eq!(value(&session, "a").await, 2);
    let notice = object(&server, &session).await["notice"].as_str().unwrap().to_owned();
    assert!(notice.contains("The last change is lost"), "{notice}");
    session.result(set("a", 9)).await;
    server.kill_nine().await;
    server.start_again().await;
    assert_eq!(value(&server.session(&session.id), "a").await, 9);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_snapshot_is_passed_over() {
    is_passed_over(|path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 3]).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_snapshot_is_passed_over() {
    is_passed_over(|path| {
        let mut bytes = fs::read(path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(path, bytes).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_which_nothing_can_be_read_stays_and_says_so() {
    let mut server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.result(set("a", 1)).await;
    server.stop().await;
    let files = fs::read_dir(folder(&server, &session)).unwrap().map(|entry| entry.unwrap().path());
    for path in files.filter(|path| path.extension().is_some_and(|end| end == "snapshot")) {
        fs::write(path, "torn").unwrap();
    }
    server.start_again().await;
    let session = server.session(&session.id);
    for _ in 0..2 {
        let refused = session.send(&json!({"command": "ping"})).await;
        assert_eq!(refused.status, 503, "{}", refused.body);
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.contains("cannot be read") && detail.contains("/v1/sessions/"), "{detail}");
        assert_eq!(object(&server, &session).await["status"], "asleep");
    }
    assert!(server.reserved_ports().await.is_empty());
    session.end().await.expect(200);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_deleted_costs_no_session() {
    let mut server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.result(set("a", 1)).await;
    for name in ["sessions.db", "sessions.db-wal", "sessions.db-shm"] {
        // The last two may not be there.
        let _gone = fs::remove_file(server.data().join(name));
    }
    session.result(set("a", 2)).await;
    server.kill_nine().await;
    server.start_again().await;
    assert_eq!(value(&server.session(&session.id), "a").await, 2);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_set_back_ends_no_session_and_shows_no_future() {
    let mut server =
        TestServer::builder().fake().set("session.retention_seconds", 3600).start().await;
    let session = server.start_session().await;
    session.result(set("a", 1)).await;
    server.stop().await;
    // As if the clock had been a year ahead so far.
    let record = folder(&server, &session).join("session.json");
    let mut fields: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    let now = fields["last_activity"].as_f64().unwrap();
    fields["last_activity"] = json!(now + 3.2e7);
    fs::write(&record, fields.to_string()).unwrap();
    server.database().execute("UPDATE sessions SET last_activity = last_activity + 3.2e7");
    server.start_again().await;
    let session = server.session(&session.id);
    let shown = object(&server, &session).await;
    assert!(shown["last_activity"].as_f64().unwrap() < now + 3600.0, "{shown}");
    assert_eq!(value(&session, "a").await, 1);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_nobody_touched_expires() {
    let server = TestServer::builder()
        .fake()
        .set("session.idle_timeout_seconds", 0.5)
        .set("session.retention_seconds", 2.0)
        .start()
        .await;
    let session = server.start_session().await;
    has_status(&server, &session, "asleep").await;
    let warned = object(&server, &session).await;
    let expected = warned["last_activity"].as_f64().unwrap() + 2.0;
    assert_eq!(warned["expires_at"].as_f64().unwrap(), expected);
    until("it is gone", SOON, async || {
        server.sessions().await.get(&session.id).is_none().then_some(())
    })
    .await;
    assert_eq!(server.database().end_of(&session.id).await, "expired");
    assert!(!folder(&server, &session).exists());
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_an_earlier_server_left_expires_too() {
    let mut server =
        TestServer::builder().fake().set("session.retention_seconds", 3.0).start().await;
    let session = server.start_session().await;
    server.stop().await;
    server.start_again().await;
    until("it is gone", SOON, async || {
        server.sessions().await.get(&session.id).is_none().then_some(())
    })
    .await;
    assert_eq!(server.database().end_of(&session.id).await, "expired");
    assert!(!folder(&server, &session).exists());
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn user_information_is_kept_in_its_order_and_never_after_the_end() {
    let mut server = TestServer::builder().fake().start().await;
    let kept = server.start_session().await;
    for _ in 0..20 {
        let session = server.start_session().await;
        let told = (0..12).map(|number| {
            let told = json!({"first_name": format!("Ada {number}")});
            let path = format!("/dash/update-user-info/{}", session.id);
            let server = &server;
            async move { server.post(&path, &told).await.status }
        });
        let (told, ended) = tokio::join!(futures::future::join_all(told), session.end());
        ended.expect(200);
        assert!(told.iter().all(|status| [200, 404].contains(status)), "{told:?}");
        assert!(!folder(&server, &session).exists(), "an ended session is written again");
    }
    let path = format!("/dash/update-user-info/{}", kept.id);
    let told = (0..40).map(|number| {
        let (server, path) = (&server, &path);
        async move { server.post(path, &json!({"first_name": number.to_string()})).await }
    });
    futures::future::join_all(told).await;
    let shown = object(&server, &kept).await["first_name"].clone();
    server.kill_nine().await;
    server.start_again().await;
    assert_eq!(object(&server, &kept).await["first_name"], shown, "an older record is on disk");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_changes_are_saved_when_idle_the_session_says_so_meanwhile() {
    let mut server = TestServer::builder().fake().set("session.durability", "idle").start().await;
    let session = server.start_session().await;
    let answer = session.command(set("a", 1)).await;
    assert_eq!(answer.get("saved"), None, "nobody was promised it: {answer}");
    assert_eq!(object(&server, &session).await["saved"], false);
    until("it is saved", SOON, async || {
        object(&server, &session).await.get("saved").is_none().then_some(())
    })
    .await;
    server.kill_nine().await;
    server.start_again().await;
    let session = server.session(&session.id);
    assert_eq!(value(&session, "a").await, 1);
    // An orderly end saves at once.
    session.result(set("a", 2)).await;
    server.stop().await;
    server.start_again().await;
    assert_eq!(value(&server.session(&session.id), "a").await, 2);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_session_leaves_no_files() {
    let mut server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.result(set("a", 1)).await;
    session.end().await.expect(200);
    assert!(server.kept_sessions().is_empty());
    server.stop().await;
    server.start_again().await;
    assert_eq!(server.sessions().await, json!({}));
    server.finish().await;
}
