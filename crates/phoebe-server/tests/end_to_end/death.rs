//! Ends of the server, of the zygote and of workers, from outside and in the middle of work:
//! nothing survives that should not, and nothing dies that should not.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{ProcessInfo, Program, Session, TestServer, until};

/// Long enough for anything on a busy machine; no test waits for it to pass.
const SOON: Duration = Duration::from_secs(20);

fn kill(process: &ProcessInfo, signal: Signal) {
    kill_process(Pid::from_raw(process.pid).unwrap(), signal).unwrap();
}

fn zygote(server: &TestServer) -> Option<ProcessInfo> {
    server.workers().into_iter().find(|process| process.parent == server.pid())
}

/// The worker of the only session.
fn worker(server: &TestServer) -> ProcessInfo {
    let zygote = zygote(server).unwrap();
    server.workers().into_iter().find(|process| process.parent == zygote.pid).unwrap()
}

/// Begins a long command in `session` that nobody waits for.
fn begin(session: &Session, command: serde_json::Value) -> tokio::task::JoinHandle<()> {
    let session = session.clone();
    tokio::spawn(async move {
        let _answer_or_broken_connection = session.try_send(&command).await;
    })
}

/// A computation that takes minutes.
async fn begin_a_computation(session: &Session) {
    let dataset = json!({
        "command": "add_dataset", "kind": "lc", "dataset": "lc01", "passband": "Johnson:V",
        "compute_phases": (0..5000).map(|n| f64::from(n) / 5000.0).collect::<Vec<_>>(),
    });
    session.result(dataset).await;
    begin(session, json!({"command": "run_compute"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_amid_thirty_sessions_and_a_computation() {
    let mut server =
        TestServer::builder().python().set("worker.spares", 0).ports(40).alone().start().await;
    let mut starting = JoinSet::new();
    for _ in 0..30 {
        let client = server.client();
        starting.spawn(async move { client.start_session().await });
    }
    let sessions = starting.join_all().await;
    let mut commands = JoinSet::new();
    for (number, session) in sessions.iter().cloned().enumerate() {
        commands.spawn(async move {
            // Exact in binary, so that it comes back as it went.
            let period = 1.0 + number as f64 / 8.0;
            session
                .result(json!({"command": "set_value", "twig": "period@binary", "value": period}))
                .await;
            let read =
                session.result(json!({"command": "get_value", "twig": "period@binary"})).await;
            assert_eq!(read, period);
        });
    }
    commands.join_all().await;
    begin_a_computation(&sessions[7]).await;
    // Server, zygote, workers; the computation is under way when there is one process more: its
    // runner.
    until("the computation runs", SOON, async || (server.workers().len() >= 32).then_some(()))
        .await;

    let elapsed = server.stop().await;

    assert!(elapsed < Duration::from_secs(5), "the end took {elapsed:?}");
    assert_eq!(server.workers().len(), 0, "processes outlived the server");
    server.start_again().await;
    let kept = server.sessions().await;
    assert_eq!(kept.as_object().unwrap().len(), 30);
    for (number, session) in sessions.iter().enumerate() {
        assert_eq!(kept[&session.id]["status"], "asleep");
        let session = server.session(&session.id);
        let read = session.result(json!({"command": "get_value", "twig": "period@binary"})).await;
        assert_eq!(read, 1.0 + number as f64 / 8.0);
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let mut server = TestServer::builder().fake_that("ignores-sigterm").start().await;
    server.start_session().await;
    // The worker goes on for the full grace of 3 s, which the second signal cuts short.
    server.signal(Signal::INT);
    server
        .log()
        .wait_for("the shutdown", SOON, |entry| {
            entry["message"].as_str().is_some_and(|message| message.contains("stopping"))
        })
        .await;
    server.signal(Signal::INT);
    let started = Instant::now();
    server.wait_for_exit(SOON).await;
    assert!(started.elapsed() < Duration::from_secs(2), "it took {:?}", started.elapsed());
    // Such an end may leave rows and records; the next start closes them.
    until("no worker survives", Duration::from_secs(2), async || {
        server.workers().is_empty().then_some(())
    })
    .await;
    server.start_again().await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_worker_survives_kill_nine_and_every_session_does() {
    let mut server = TestServer::builder().python().alone().start().await;
    let (idle, computing) = tokio::join!(server.start_session(), server.start_session());
    begin_a_computation(&computing).await;
    until("the computation runs", SOON, async || (server.workers().len() >= 4).then_some(())).await;
    until("both rows are written", SOON, async || {
        (server.database().sessions_with_status("active") == 2).then_some(())
    })
    .await;

    server.kill_nine().await;

    until("no worker survives", Duration::from_secs(2), async || {
        server.workers().is_empty().then_some(())
    })
    .await;
    server.start_again().await;
    for session in [&idle, &computing] {
        assert_eq!(server.sessions().await[&session.id]["status"], "asleep");
        server.session(&session.id).ping().await;
    }
    let interrupted: Vec<String> = server.database().column(&format!(
        "SELECT error_message FROM session_commands \
         WHERE session_id = '{}' AND command_name = 'run_compute'",
        computing.id
    ));
    assert!(interrupted[0].starts_with("interrupted"), "{interrupted:?}");
    server.finish().await;
}

/// As a service manager does it. What the server left ends by itself at that moment, and for a
/// while of its end a process cannot be examined, least of all by an ordinary user.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_right_after_kill_nine_has_nothing_to_complain_of() {
    let mut server = TestServer::builder().fake().ports(20).start().await;
    for _ in 0..3 {
        let sessions = futures::future::join_all((0..20).map(|_| server.start_session())).await;
        let seen = server.log().entries().len();

        server.kill_nine().await;
        server.start_again().await;

        let entries = server.log().entries();
        let complaint =
            |entry: &&serde_json::Value| entry["level"] == "WARN" || entry["level"] == "ERROR";
        assert_eq!(entries.iter().skip(seen).find(complaint), None);
        for session in sessions {
            server.session(&session.id).end().await.expect(200);
        }
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_survives_the_server_while_phoebe_is_being_imported() {
    let mut server = TestServer::builder().python().alone().start().await;
    import_phoebe_anew(&server).await;
    server.kill_nine().await;
    until("the zygote is gone", Duration::from_secs(2), async || {
        server.workers().is_empty().then_some(())
    })
    .await;

    server.start_again().await;
    import_phoebe_anew(&server).await;
    let elapsed = server.stop().await;
    assert!(elapsed < Duration::from_secs(5), "the end took {elapsed:?}");
    server.finish().await;
}

/// Kills the zygote and waits for the start of its successor, which takes seconds to import PHOEBE.
async fn import_phoebe_anew(server: &TestServer) {
    let before = zygote(server).unwrap();
    kill(&before, Signal::KILL);
    until("the zygote is replaced", SOON, async || {
        zygote(server).filter(|zygote| zygote.pid != before.pid)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_stubborn_worker_survives_kill_nine() {
    for start in ["fork", "spawn"] {
        let mut server = TestServer::builder()
            .fake_that("ignores-sigterm")
            .set("worker.start", start)
            .start()
            .await;
        let session = server.start_session().await;
        begin(&session, json!({"command": "set_value", "misbehave": "never"}));
        server.kill_nine().await;
        until("no worker survives", Duration::from_secs(2), async || {
            server.workers().is_empty().then_some(())
        })
        .await;
        server.start_again().await;
        server.finish().await;
    }
}

/// A process that is none of ours, but whose command line looks like a worker's. It ends with its
/// holder.
struct Stranger(Child);

impl Stranger {
    fn new(arguments: &[String]) -> Self {
        let mut command = Command::new("sh");
        // It says when it is there, then waits until its input ends.
        command
            .arg0(&arguments[0])
            .args(["-c", "echo here; read line", "sh"])
            .args(&arguments[1..]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "here\n");
        Self(child)
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _status = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_only_looks_like_a_worker_is_not_touched() {
    let mut server = TestServer::builder().fake().start().await;
    server.start_session().await;
    let worker = worker(&server);
    let arguments: Vec<_> =
        worker.command_line.split_ascii_whitespace().map(str::to_owned).collect();
    let mut stranger = Stranger::new(&arguments);
    // A record of an earlier run that now speaks of the stranger's process id, as after a
    // wrap-around of ids.
    let record = fs::read_dir(server.data().join("run"))
        .unwrap()
        .map(|boot| boot.unwrap().path())
        .find(|boot| boot.is_dir())
        .unwrap()
        .join(format!("{}-1", stranger.0.id()));
    fs::write(&record, []).unwrap();

    server.kill_nine().await;
    server.start_again().await;

    assert!(stranger.lives(), "a foreign process was ended");
    assert!(!record.exists(), "the stale record is still there");
    server.finish().await;
    assert!(stranger.lives(), "a foreign process was ended at the shutdown");
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_ends_what_a_server_left_and_nothing_else() {
    let mut server = TestServer::builder().fake().start().await;
    let instance = server.instance();
    let cleanup = |server: &TestServer| {
        Program::new(server.root())
            .arguments(["cleanup", "--config"])
            .arguments([server.config()])
            .run()
    };
    let refused = cleanup(&server);
    assert_ne!(refused.code, Some(0), "it ran beside a living server: {refused:?}");
    server.get("/health").await.expect(200);

    server.kill_nine().await;
    // What a worker that escaped its lifeline would look like.
    let mut orphan = Command::new("sleep")
        .arg("600")
        .env("PHOEBE_SERVER_INSTANCE", &instance)
        .process_group(0)
        .spawn()
        .unwrap();
    let mut stranger = Command::new("sleep")
        .arg("600")
        .env("PHOEBE_SERVER_INSTANCE", "another")
        .process_group(0)
        .spawn()
        .unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let folder = server.data().join("run").join(boot.trim());
    for child in [&orphan, &stranger] {
        // Between fork and exec the child still has the environment of this process.
        until("the child is there", SOON, async || {
            let command_line = fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap();
            command_line.starts_with("sleep").then_some(())
        })
        .await;
        let started = start_time(child.id());
        fs::write(folder.join(format!("{}-{started}", child.id())), []).unwrap();
    }

    let done = cleanup(&server);

    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains(&orphan.id().to_string()), "{done:?}");
    assert!(!orphan.wait().unwrap().success());
    assert!(stranger.try_wait().unwrap().is_none(), "a foreign process was ended");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    server.start_again().await;
    server.finish().await;
}

/// Field 22 of `/proc/PID/stat`.
fn start_time(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    after_name.split_ascii_whitespace().nth(19).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_zygote_is_replaced_and_ends_no_session() {
    for signal in [Signal::KILL, Signal::SEGV, Signal::TERM] {
        let server = TestServer::builder().fake().start().await;
        let session = server.start_session().await;
        session.result(json!({"command": "set_value", "twig": "a", "value": 1})).await;
        let before = zygote(&server).unwrap();
        kill(&before, signal);
        assert_eq!(session.result(json!({"command": "get_value", "twig": "a"})).await, 1);
        let next = server.start_session().await;
        next.ping().await;
        assert_eq!(session.result(json!({"command": "get_value", "twig": "a"})).await, 1);
        for session in [session, next] {
            session.end().await.expect(200);
        }
        server.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zygote_with_another_phoebe_is_told_and_its_snapshots_name_it() {
    // A copy of the program in a folder of its own.
    let server =
        TestServer::builder().fake_that("slow-start").set("worker.spares", 0).start().await;
    let version = async |server: &TestServer| {
        server.get("/system/info").await.expect(200)["result"]["phoebe_version"].take()
    };
    let set = json!({"command": "set_value", "twig": "a", "value": 1});
    let session = server.start_session().await;
    session.result(set.clone()).await;
    assert_eq!(version(&server).await, "2.5.4");

    fs::write(server.root().join("phoebe-version"), "2.6.0").unwrap();
    kill(&zygote(&server).unwrap(), Signal::KILL);

    until("the new version is told", SOON, async || {
        (version(&server).await == "2.6.0").then_some(())
    })
    .await;
    let next = server.start_session().await;
    next.result(set.clone()).await;
    // A worker that outlives its zygote has the version that it was forked with.
    session.result(set).await;
    for (session, expected) in [(&session, "2.5.4"), (&next, "2.6.0")] {
        let folder = server.data().join("sessions").join(&session.id);
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut snapshots =
            files.filter(|path| path.extension().is_some_and(|it| it == "snapshot"));
        let header = format!("\"phoebe\":\"{expected}\"");
        assert!(snapshots.all(|path| fs::read_to_string(path).unwrap().contains(&header)));
    }
    server.finish().await;
}

/// Fifty sessions are asked for at once, and the zygote is killed when some of them are there: each
/// start succeeds or says clearly to come again, and the next is warm.
#[tokio::test(flavor = "multi_thread")]
async fn a_zygote_killed_amid_a_rush_loses_no_start() {
    const RUSH: u16 = 50;
    let server = TestServer::builder().python().ports(RUSH).start().await;
    server.start_session().await.end().await.expect(200);
    let mut starts = JoinSet::new();
    for _ in 0..RUSH {
        let client = server.client();
        starts.spawn(async move { client.post_empty("/dash/start-session").await });
    }
    until("some sessions are there", SOON, async || (server.workers().len() > 10).then_some(()))
        .await;
    let before = zygote(&server).unwrap();
    kill(&before, Signal::KILL);
    while let Some(start) = starts.join_next().await {
        let start = start.unwrap();
        match start.status {
            200 => {}
            503 => assert!(start.header("retry-after").is_some()),
            other => panic!("a start was answered with {other}"),
        }
    }
    let sessions = server.sessions().await;
    for id in sessions.as_object().unwrap().keys() {
        server.client().post_empty(&format!("/dash/end-session/{id}")).await.expect(200);
    }
    server.start_session().await.ping().await;
    server.finish().await;
}

/// Waits until zygote, workers and spares are so many.
async fn are_processes(server: &TestServer, count: usize) {
    until("processes", SOON, async || (server.workers().len() == count).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spares_are_ready_before_they_are_wanted_and_end_with_the_server() {
    let mut server = TestServer::builder().fake().set("worker.spares", 2).start().await;
    are_processes(&server, 3).await;
    let session = server.start_session().await;
    session.ping().await;
    // The session's worker was one of them, and is made up for.
    are_processes(&server, 4).await;
    server.kill_nine().await;
    are_processes(&server, 0).await;
    server.start_again().await;
    are_processes(&server, 3).await;
    server.session(&session.id).ping().await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spare_that_ended_costs_no_start() {
    let server = TestServer::builder().fake().start().await;
    for signal in [Signal::KILL, Signal::TERM] {
        are_processes(&server, 2).await;
        kill(&worker(&server), signal);
        are_processes(&server, 1).await;
        let session = server.start_session().await;
        session.ping().await;
        session.end().await.expect(200);
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_zygote_is_replaced() {
    let server = TestServer::builder().fake().set("worker.spares", 0).start().await;
    server.start_session().await.ping().await;
    kill(&zygote(&server).unwrap(), Signal::STOP);
    server.start_session().await.ping().await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_amid_a_command_is_reported_with_the_signal() {
    let server = TestServer::builder().python().set("worker.spares", 0).start().await;
    for (signal, name) in [(Signal::KILL, "SIGKILL"), (Signal::TERM, "exit code 0")] {
        let session = server.start_session().await;
        let worker = worker(&server);
        let (answer, ()) = tokio::join!(
            async {
                let dataset = json!({
                    "command": "add_dataset", "kind": "lc", "dataset": "lc01",
                    "compute_phases": (0..5000).map(|n| f64::from(n) / 5000.0).collect::<Vec<_>>(),
                });
                session.result(dataset).await;
                session.command(json!({"command": "run_compute"})).await
            },
            async {
                until("the runner works", SOON, async || {
                    let mut all = server.workers().into_iter();
                    all.any(|process| process.parent == worker.pid).then_some(())
                })
                .await;
                kill(&worker, signal);
            },
        );
        assert_eq!(answer["success"], false);
        assert!(answer["error"].as_str().unwrap().contains(name), "{answer}");
        until("the port is free", SOON, async || {
            server.reserved_ports().await.is_empty().then_some(())
        })
        .await;
        until("worker and runner are gone", Duration::from_secs(5), async || {
            (server.workers().len() == 1).then_some(())
        })
        .await;
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_one_data_directory_is_refused() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let refused = Program::new(server.root())
        .arguments(["run", "--port", "0", "--config"])
        .arguments([server.config()])
        .run();
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains(&server.pid().to_string()), "{refused:?}");
    session.ping().await;
    server.finish().await;
}
