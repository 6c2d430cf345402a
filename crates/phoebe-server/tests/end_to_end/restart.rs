//! What a server knows right after its start, before it has had a worker: each command's kind; and
//! what it tells of a session that does nothing but compute since.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use phoebe_protocol::kinds::{self, CommandKind};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Session, TestServer, until};

/// Long enough for anything on a busy machine; no test waits for it to pass.
const SOON: Duration = Duration::from_secs(60);

/// Every command that workers know, and one that they don't.
fn commands() -> Vec<(&'static str, CommandKind)> {
    kinds::all().chain([("no_such_command", CommandKind::Read)]).collect()
}

/// A server that was killed and started again, and an asleep session of it for each command.
async fn restarted(
    commands: impl IntoIterator<Item = &'static str>,
) -> (TestServer, BTreeMap<&'static str, Session>) {
    let builder = TestServer::builder().fake().ports(50).set("worker.spares", 0);
    let mut server = builder.set("resources.max_concurrent_computes", 50).start().await;
    let mut sessions = BTreeMap::new();
    for command in commands {
        sessions.insert(command, server.start_session().await.id);
    }
    server.kill_nine().await;
    server.start_again().await;
    let awoken = |(command, id): (_, String)| (command, server.session(&id));
    let sessions = sessions.into_iter().map(awoken).collect();
    (server, sessions)
}

/// Kills the server, starts it again, and returns the commands of which it says then that they
/// were interrupted.
async fn interrupted_by_a_kill(
    server: &mut TestServer,
    sessions: &BTreeMap<&'static str, Session>,
) -> BTreeSet<String> {
    server.kill_nine().await;
    let seen = server.log().entries().len();
    server.start_again().await;
    for session in sessions.values() {
        have_looked(server, session).await;
    }
    let entries = server.log().entries().into_iter().skip(seen);
    let interrupted = entries.filter(|entry| entry["message"] == "a command was interrupted");
    let mut commands = BTreeSet::new();
    for entry in interrupted {
        let command = entry["command"].as_str().unwrap().to_owned();
        let session = sessions.get(command.as_str()).map(|session| session.id.as_str());
        assert_eq!(entry["session"].as_str(), session, "{entry}");
        assert!(commands.insert(command), "it is told twice: {entry}");
    }
    commands
}

/// Waits until all that is to be read or written of a session's files so far has been.
async fn have_looked(server: &TestServer, session: &Session) {
    server.get(&format!("/v1/sessions/{}/checkpoints", session.id)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answered_command_is_called_interrupted_later() {
    let (mut server, sessions) = restarted(["ping"]).await;
    let id = &sessions["ping"].id;
    for (name, _) in commands() {
        let session = server.session(id);
        let answer = session.command(json!({"command": name, "twig": "a", "value": 1})).await;
        if name == "no_such_command" {
            assert_eq!(answer["error"], "API does not recognize command no_such_command.");
        }
        have_looked(&server, &session).await;
        // The next one, too, meets a server that has had no worker.
        let sessions = BTreeMap::from([(name, session)]);
        assert_eq!(interrupted_by_a_kill(&mut server, &sessions).await, BTreeSet::new());
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_a_bundle_is_called_interrupted_and_nothing_else() {
    let (mut server, sessions) = restarted(commands().into_iter().map(|(name, _)| name)).await;
    let mut sending = JoinSet::new();
    for (name, session) in &sessions {
        let session = session.clone();
        let command = json!({"command": name, "misbehave": "never"});
        sending.spawn(async move { session.try_send(&command).await.is_err() });
    }
    until("every worker has its command", SOON, async || {
        let entries = server.log().entries();
        let told = |name: &str| {
            let line = format!("{name} is never answered");
            entries.iter().any(|entry| entry["line"] == line)
        };
        sessions.keys().all(|name| told(name)).then_some(())
    })
    .await;
    // The journal's line about a command goes to the disk beside the command itself.
    for session in sessions.values() {
        have_looked(&server, session).await;
    }

    let interrupted = interrupted_by_a_kill(&mut server, &sessions).await;

    assert!(sending.join_all().await.into_iter().all(|broken| broken), "a command was answered");
    let changes = commands().into_iter().filter(|(_, kind)| *kind != CommandKind::Read);
    let changes: BTreeSet<_> = changes.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(interrupted, changes);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_long_command_takes_cores_and_reads_pass_it() {
    let long = || {
        let long = commands().into_iter().filter(|(_, kind)| *kind == CommandKind::Long);
        long.map(|(name, _)| name)
    };
    let (server, sessions) = restarted(long()).await;
    for (name, session) in &sessions {
        let computed = session.result(json!({"command": name})).await;
        assert!(computed["cores"].as_u64().is_some_and(|cores| cores > 0), "{name}: {computed}");
    }
    server.finish().await;

    let (server, sessions) = restarted(long()).await;
    let mut computing = JoinSet::new();
    for (name, session) in &sessions {
        let session = session.clone();
        let command = json!({"command": name, "seconds": 3600});
        computing.spawn(async move { session.try_send(&command).await.map(|reply| reply.body) });
    }
    for session in sessions.values() {
        until("the session is awake", SOON, async || {
            let status = server.sessions().await[&session.id]["status"].take();
            (status == "awake").then_some(())
        })
        .await;
        let passed = tokio::time::timeout(SOON, session.ping()).await;
        assert_eq!(passed.expect("a read passes"), json!({"status": "ready"}));
        until("what it costs is told", SOON, async || {
            let costs = server.get("/dash/session-memory").await.expect(200);
            costs[&session.id].as_f64().filter(|mib| *mib > 0.0)
        })
        .await;
    }
    assert!(computing.try_join_next().is_none(), "it was not computing any more");
    server.finish().await;
    for answer in computing.join_all().await {
        let answer = answer.unwrap_or(Value::Null);
        assert_ne!(answer["success"], true, "{answer}");
    }
}
