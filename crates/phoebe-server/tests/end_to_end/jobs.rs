//! Jobs: long commands are followed, cancelled, found again, and survive every end of the server.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Reply, Session, TestServer, until};

const SOON: Duration = Duration::from_secs(30);

fn jobs(session: &Session) -> String {
    format!("/v1/sessions/{}/jobs", session.id)
}

fn compute(seconds: f64) -> Value {
    json!({"command": "run_compute", "seconds": seconds, "steps": 40})
}

async fn submit(client: &Client, session: &Session, command: &Value) -> Value {
    let reply = client.post(&jobs(session), command).await;
    let address = reply.header("location").map(str::to_owned);
    let job = reply.expect(201);
    assert_eq!(address.unwrap(), address_of(&job));
    job
}

async fn submit_with_key(client: &Client, session: &Session, command: &Value, key: &str) -> Reply {
    let request = client.request(Method::POST, &jobs(session)).header("Idempotency-Key", key);
    Reply::of(request.json(command)).await
}

fn address_of(job: &Value) -> String {
    let (session, id) = (job["session_id"].as_str().unwrap(), job["job_id"].as_str().unwrap());
    format!("/v1/sessions/{session}/jobs/{id}")
}

async fn show(client: &Client, job: &Value) -> Value {
    client.get(&address_of(job)).await.expect(200)
}

/// The job, once it is done.
async fn done(client: &Client, job: &Value) -> Value {
    until("the job is done", SOON, async || {
        let job = client.get(&format!("{}?wait=5", address_of(job))).await.expect(200);
        (job["done"] == true).then_some(job)
    })
    .await
}

async fn has_state(client: &Client, job: &Value, state: &str) -> Value {
    until(state, SOON, async || {
        let job = show(client, job).await;
        (job["state"] == state).then_some(job)
    })
    .await
}

async fn model(session: &Session) -> Value {
    session.result(json!({"command": "get_value", "twig": "model"})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_followed_to_its_result() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.result(json!({"command": "set_value", "twig": "a", "value": 1})).await;
    let job = submit(&server, &session, &compute(1.5)).await;
    assert_eq!(job["command"], "run_compute");
    assert_eq!(job["arguments"], json!({"seconds": 1.5, "steps": 40}));
    assert!(["queued", "running"].contains(&job["state"].as_str().unwrap()), "{job}");

    let moving = until("progress", SOON, async || {
        let job = show(&server, &job).await;
        job["progress"]["fraction"].as_f64().is_some_and(|done| done < 1.0).then_some(job)
    })
    .await;
    assert_eq!(moving["state"], "running");
    assert_eq!((&moving["attempt"], &moving["revision_before"]), (&json!(1), &json!(1)));
    assert!(moving["progress"]["remaining_seconds"].as_f64().unwrap() >= 0.0, "{moving}");
    assert!(moving["cores"].as_u64().unwrap() >= 1 && moving["started_at"].is_f64());
    let shown = server.get(&format!("/v1/sessions/{}", session.id)).await.expect(200);
    assert_eq!(shown["job"]["job_id"], job["job_id"], "the session shows what it computes");
    let early = server.get(&format!("{}/result", address_of(&job))).await.expect(404);
    assert!(early["detail"].as_str().unwrap().contains("running"), "{early}");

    let result = server.get(&format!("{}/result?wait=30", address_of(&job))).await.expect(200);
    assert_eq!(result["success"], true);
    assert_eq!(result["result"]["model"]["steps"], 40);
    let ended = show(&server, &job).await;
    assert_eq!((&ended["state"], &ended["done"]), (&json!("succeeded"), &json!(true)));
    assert_eq!(ended["revision_after"], 2);
    assert!(ended["expires_at"].as_f64() > ended["ended_at"].as_f64());
    assert_eq!((&ended["error"], &ended["progress"]), (&Value::Null, &Value::Null));
    let shown = server.get(&format!("/v1/sessions/{}", session.id)).await.expect(200);
    assert_eq!(shown.get("job"), None);
    server.finish().await;
}

/// Every route that only reads, and every way to read by a command.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_reads_is_answered_while_a_job_runs() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.result(json!({"command": "set_value", "twig": "a", "value": 1})).await;
    let checkpoints = format!("/v1/sessions/{}/checkpoints", session.id);
    let checkpoint = server.post(&checkpoints, &json!({"name": "one"})).await.expect(200);
    let job = submit(&server, &session, &compute(100.0)).await;
    has_state(&server, &job, "running").await;

    let document = server.get("/openapi.json").await.expect(200);
    let routes = document["paths"].as_object().unwrap();
    let reads: Vec<_> = routes
        .iter()
        .filter(|(path, methods)| path.contains("{session_id}") && methods["get"].is_object())
        .map(|(path, _)| path.replace("{session_id}", &session.id))
        .map(|path| path.replace("{job_id}", job["job_id"].as_str().unwrap()))
        .collect();
    assert!(reads.len() >= 10, "{reads:?}");
    for path in reads {
        for format in ["pickle", "portable"] {
            let path = path.replace("{format}", format);
            let path = path.replace("{checkpoint_id}", checkpoint["id"].as_str().unwrap_or("0"));
            let status = server.get(&path).await.status;
            let expected = if path.ends_with("/result") { 404 } else { 200 };
            assert_eq!(status, expected, "{path}");
        }
    }
    let value = json!({"command": "get_value", "twig": "a"});
    assert_eq!(session.result(value.clone()).await, 1);
    assert_eq!(session.command(json!({"command": "no_such_command"})).await["success"], false);
    let batch = format!("/send/{}/batch", session.id);
    server.post(&batch, &json!([value])).await.expect(200);
    server.post_empty(&format!("/dash/session-memory/{}", session.id)).await.expect(200);
    server.get("/dash/sessions").await.expect(200);
    assert_eq!(show(&server, &job).await["state"], "running", "it was answered after the job");
    server.post_empty(&format!("{}/cancel", address_of(&job))).await.expect(202);
    done(&server, &job).await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_sent_again_is_done_once() {
    let mut server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let first = submit_with_key(&server, &session, &compute(0.2), "a").await.expect(201);
    let again = submit_with_key(&server, &session, &compute(0.2), "a").await.expect(200);
    assert_eq!(again["job_id"], first["job_id"]);
    let other = submit_with_key(&server, &session, &compute(0.3), "a").await.expect(409);
    assert!(other["detail"].as_str().unwrap().contains("Idempotency-Key"), "{other}");
    done(&server, &first).await;
    let again = submit_with_key(&server, &session, &compute(0.2), "a").await.expect(200);
    assert_eq!(again["state"], "succeeded");
    server.kill_nine().await;
    server.start_again().await;
    let again = submit_with_key(&server, &session, &compute(0.2), "a").await.expect(200);
    assert_eq!((&again["job_id"], &again["state"]), (&first["job_id"], &json!("succeeded")));
    let list = server.get(&jobs(&session)).await.expect(200);
    assert_eq!(list["jobs"].as_array().unwrap().len(), 1);
    let elsewhere = server.start_session().await;
    submit_with_key(&server, &elsewhere, &compute(0.3), "a").await.expect(201);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_leaves_the_bundle_as_it_was_and_the_next_one_runs() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.result(json!({"command": "set_value", "twig": "model", "value": "before"})).await;
    let running = submit(&server, &session, &compute(60.0)).await;
    let waiting = submit(&server, &session, &compute(60.0)).await;
    let next = submit(&server, &session, &json!({"command": "run_compute", "steps": 7})).await;
    has_state(&server, &running, "running").await;
    let queued = show(&server, &waiting).await;
    assert_eq!((&queued["state"], &queued["waiting_for"]), (&json!("queued"), &json!("session")));

    let cancel = format!("{}/cancel", address_of(&waiting));
    server.post(&cancel, &json!({"reason": "a typing error"})).await.expect(202);
    let cancelled = done(&server, &waiting).await;
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(cancelled["reasons"][0]["reason"], "a typing error");
    assert_eq!(show(&server, &running).await["state"], "running", "another one was cancelled");

    assert_eq!(model(&session).await, "before", "reads are answered meanwhile");
    server.post_empty(&format!("{}/cancel", address_of(&running))).await.expect(202);
    let cancelled = done(&server, &running).await;
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(cancelled["revision_after"], Value::Null);
    let again = server.post_empty(&format!("{}/cancel", address_of(&running))).await.expect(200);
    assert_eq!(again["state"], "cancelled");
    let result = server.get(&format!("{}/result", address_of(&running))).await.expect(200);
    assert_eq!(result["success"], false);

    assert_eq!(done(&server, &next).await["state"], "succeeded");
    assert_eq!(model(&session).await, json!({"steps": 7}));
    let both = [compute(60.0), compute(60.0)];
    for command in &both {
        submit(&server, &session, command).await;
    }
    let all = server.post_empty(&format!("{}/cancel", jobs(&session))).await.expect(200);
    assert_eq!(all["jobs"].as_array().unwrap().len(), 2);
    for job in all["jobs"].as_array().unwrap() {
        assert_eq!(done(&server, job).await["state"], "cancelled");
    }
    session.ping().await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_finds_its_computation_again() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let path = format!("/send/{}", session.id);
    let request = server.request(Method::POST, &path).header("User-Agent", "notebook/1");
    let gone = request.json(&compute(2.0)).timeout(Duration::from_millis(400)).send().await;
    assert!(gone.unwrap_err().is_timeout());
    let list = server.get(&jobs(&session)).await.expect(200);
    let job = &list["jobs"][0];
    assert_eq!((&job["state"], &job["by"]["client"]), (&json!("running"), &json!("notebook/1")));
    let ended = done(&server, job).await;
    assert_eq!(ended["state"], "succeeded");
    let result = server.get(&format!("{}/result", address_of(job))).await.expect(200);
    assert_eq!(result["result"]["model"]["steps"], 40);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_prefers_it_gets_the_job_instead_of_waiting() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let path = format!("/send/{}", session.id);
    let send = |command: Value, prefer: &'static str| {
        Reply::of(server.request(Method::POST, &path).header("Prefer", prefer).json(&command))
    };
    let quick = send(compute(0.1), "respond-async, wait=30").await.expect(200);
    assert_eq!(quick["result"]["model"]["steps"], 40);
    let slow = send(compute(30.0), "respond-async; wait=1").await;
    assert_eq!(slow.header("preference-applied"), Some("respond-async"));
    assert!(slow.header("location").is_some_and(|path| path.contains("/jobs/")));
    let job = slow.expect(202);
    assert_eq!(job["state"], "running");
    assert_eq!(
        send(json!({"command": "ping"}), "respond-async").await.expect(200)["success"],
        true
    );
    server.post_empty(&format!("{}/cancel", address_of(&job))).await.expect(202);
    done(&server, &job).await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_survives_the_servers_death_and_runs_once() {
    let mut server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let asleep = server.start_session().await;
    let ended = submit(&server, &session, &compute(0.1)).await;
    done(&server, &ended).await;
    let running = submit(&server, &session, &compute(3.0)).await;
    let queued = submit(&server, &session, &json!({"command": "run_compute", "steps": 3})).await;
    let fails = format!("{}?on_interrupt=fail", jobs(&asleep));
    let fails = server.post(&fails, &compute(60.0)).await.expect(201);
    has_state(&server, &running, "running").await;
    has_state(&server, &fails, "running").await;
    server.kill_nine().await;
    server.start_again().await;
    let session = server.session(&session.id);
    assert_eq!(done(&server, &fails).await["state"], "interrupted");
    let resumed = done(&server, &running).await;
    assert_eq!((&resumed["state"], &resumed["attempt"]), (&json!("succeeded"), &json!(2)));
    assert_eq!(done(&server, &queued).await["attempt"], 1);
    assert_eq!(show(&server, &ended).await["attempt"], 1);
    assert_eq!(model(&session).await, json!({"steps": 3}), "the last one ran last");
    let history = server.get(&format!("/v1/sessions/{}/history", session.id)).await.expect(200);
    assert_eq!(history["undo"], 3, "each change once");

    // A server that stops in order leaves jobs in the same way; who waits for an answer is told.
    let running = submit(&server, &session, &compute(3.0)).await;
    has_state(&server, &running, "running").await;
    let waits = server.session(&asleep.id);
    let waits = tokio::spawn(async move { waits.send(&compute(60.0)).await });
    until("its job", SOON, async || {
        let list = server.get(&format!("{}?state=running", jobs(&asleep))).await.expect(200);
        (!list["jobs"].as_array().unwrap().is_empty()).then_some(())
    })
    .await;
    server.stop().await;
    waits.await.unwrap();
    server.start_again().await;
    assert_eq!(done(&server, &running).await["attempt"], 2);
    let list = server.get(&format!("{}?state=interrupted", jobs(&asleep))).await.expect(200);
    assert_eq!(list["jobs"].as_array().unwrap().len(), 2, "{list}");
    server.finish().await;
}

/// The student's session, Bundle and history are as before, and what it computes stays private.
#[tokio::test(flavor = "multi_thread")]
async fn an_instructor_stops_a_runaway_computation_of_a_student() {
    let builder = TestServer::builder().fake().set("auth.mode", "jwt");
    let server = builder.set("auth.jwt_secret_key", "a secret for this test only").start().await;
    let mut clients = Vec::new();
    for (email, role, group) in [
        ("ada@uni.edu", "student", "stars"),
        ("prof@uni.edu", "instructor", "stars"),
        ("other@uni.edu", "instructor", "planets"),
    ] {
        let account = json!({"email": email, "password": "long enough 1"});
        let account = server.post("/auth/register", &account).await.expect(200);
        let database = server.database();
        database.execute(&format!("UPDATE users SET role = '{role}' WHERE email = '{email}'"));
        let user = format!("SELECT '{group}', id FROM users WHERE email = '{email}'");
        database.execute(&format!("INSERT INTO user_groups (group_name, user_id) {user}"));
        clients.push(server.with_token(account["access_token"].as_str().unwrap()));
    }
    let [ada, prof, other] = &clients[..] else { panic!("three") };
    let session = ada.start_session().await;
    session.result(json!({"command": "set_value", "twig": "a", "value": 1})).await;
    let job = submit(ada, &session, &compute(600.0)).await;
    has_state(ada, &job, "running").await;

    let path = format!("/v1/sessions/{}", session.id);
    let shown = prof.get(&path).await.expect(200);
    assert_eq!(
        (&shown["job"]["state"], &shown["job"]["arguments"]),
        (&json!("running"), &json!(null))
    );
    prof.get(&jobs(&session)).await.expect(403);
    let cancel = format!("{}/cancel", address_of(&job));
    other.post(&cancel, &json!({})).await.expect(403);
    let cancelled = prof.post(&cancel, &json!({"reason": "it never ends"})).await.expect(202);
    assert_eq!(cancelled["arguments"], json!(null));
    let ended = done(ada, &job).await;
    assert_eq!(ended["state"], "cancelled");
    assert!(ended["reasons"].to_string().contains("it never ends"), "{ended}");
    assert_eq!(session.result(json!({"command": "get_value", "twig": "a"})).await, 1);
    let history = ada.get(&format!("{path}/history")).await.expect(200);
    assert_eq!((&history["undo"], &history["redo"]), (&json!(1), &json!(0)));
    until("the audit", SOON, async || {
        let actions: Vec<String> = server.database().column("SELECT action FROM audit_log");
        (actions == ["job.cancel"]).then_some(())
    })
    .await;
    server.finish().await;
}

/// A solver that computes holds up no light curve; two solvers wait for each other.
#[tokio::test(flavor = "multi_thread")]
async fn interactive_computations_never_wait_for_fits() {
    let builder = TestServer::builder().fake().set("resources.max_concurrent_computes", 1);
    let server = builder.start().await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(server.start_session().await);
    }
    let fit = json!({"command": "run_solver", "seconds": 100.0, "steps": 10});
    let first = submit(&server, &sessions[0], &fit).await;
    has_state(&server, &first, "running").await;
    let second = submit(&server, &sessions[1], &fit).await;
    let third = submit(&server, &sessions[2], &fit).await;
    let waiting = until("the wait for cores", SOON, async || {
        let job = show(&server, &second).await;
        (job["waiting_for"] == "cores").then_some(job)
    })
    .await;
    assert_eq!((&waiting["state"], &waiting["position"]), (&json!("queued"), &json!(0)));
    for _ in 0..3 {
        let computed = sessions[3].command(compute(0.1)).await;
        assert_eq!(computed["success"], true);
    }
    assert_eq!(show(&server, &first).await["state"], "running");
    assert_eq!(show(&server, &second).await["state"], "queued");
    for job in [&first, &second, &third] {
        server.post_empty(&format!("{}/cancel", address_of(job))).await.expect(202);
        assert_eq!(done(&server, job).await["state"], "cancelled");
    }
    server.finish().await;
}

/// More sessions have jobs than there are ports: all jobs run, one session after the other.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_more_sessions_than_there_are_ports_wait_for_one() {
    let mut server = TestServer::builder().fake().ports(2).start().await;
    let mut jobs = Vec::new();
    for _ in 0..6 {
        let session = server.start_session().await;
        jobs.push(submit(&server, &session, &compute(0.5)).await);
        done(&server, jobs.last().unwrap()).await;
        // The port is free for the next one only when this one sleeps.
        server.kill_nine().await;
        server.start_again().await;
    }
    let sessions: Vec<_> = jobs.iter().map(|job| job["session_id"].as_str().unwrap()).collect();
    let mut waiting = Vec::new();
    for id in &sessions {
        waiting.push(submit(&server, &server.session(id), &compute(1.0)).await);
    }
    server.kill_nine().await;
    server.start_again().await;
    for job in &waiting {
        let ended = done(&server, job).await;
        assert_eq!(ended["state"], "succeeded", "{ended}");
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_always_interrupted_is_given_up() {
    let mut server = TestServer::builder().fake().set("jobs.attempts", 2).start().await;
    let session = server.start_session().await;
    let job = submit(&server, &session, &compute(600.0)).await;
    for attempt in 1..=2 {
        let running = has_state(&server, &job, "running").await;
        assert_eq!(running["attempt"], attempt);
        server.kill_nine().await;
        server.start_again().await;
    }
    let ended = done(&server, &job).await;
    assert_eq!((&ended["state"], &ended["error"]["kind"]), (&json!("failed"), &json!("killed")));
    // A job that was to be cancelled is not begun again.
    let job = submit(&server, &session, &compute(600.0)).await;
    has_state(&server, &job, "running").await;
    server.kill_nine().await;
    server.start_again().await;
    has_state(&server, &job, "running").await;
    server.post_empty(&format!("{}/cancel", address_of(&job))).await.expect(202);
    assert_eq!(done(&server, &job).await["state"], "cancelled");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_failure_is_told_apart() {
    let server =
        TestServer::builder().fake().set("resources.command_timeout_seconds", 1.0).start().await;
    let session = server.start_session().await;
    let job = submit(&server, &session, &compute(60.0)).await;
    assert_eq!(done(&server, &job).await["error"]["kind"], "timeout");
    let dies = json!({"command": "run_compute", "misbehave": "exit"});
    let job = submit(&server, &session, &dies).await;
    let ended = done(&server, &job).await;
    assert_eq!(ended["error"]["kind"], "killed", "{ended}");
    let result = server.get(&format!("{}/result", address_of(&job))).await.expect(200);
    assert!(result["error"].as_str().unwrap().contains("worker is gone"), "{result}");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_listed_in_parts_and_removed() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let job = submit(&server, &session, &compute(0.05)).await;
        done(&server, &job).await;
        ids.insert(0, job["job_id"].clone());
    }
    let running = submit(&server, &session, &compute(60.0)).await;
    has_state(&server, &running, "running").await;
    let mut listed = Vec::new();
    let mut path = format!("{}?limit=2&state=succeeded", jobs(&session));
    loop {
        let part = server.get(&path).await.expect(200);
        listed.extend(part["jobs"].as_array().unwrap().iter().map(|job| job["job_id"].clone()));
        let Some(next) = part["next"].as_str() else { break };
        path = format!("{}?limit=2&state=succeeded&before={next}", jobs(&session));
    }
    assert_eq!(listed, ids);
    let all = server.get("/v1/jobs").await.expect(200);
    assert_eq!(all["jobs"].as_array().unwrap().len(), 6);
    let delete = |job: &Value| {
        let id = job.as_str().unwrap();
        Reply::of(server.request(Method::DELETE, &format!("{}/{id}", jobs(&session))))
    };
    delete(&running["job_id"]).await.expect(409);
    delete(&ids[0]).await.expect(204);
    delete(&ids[0]).await.expect(404);
    let gone = format!("{}/{}/result", jobs(&session), ids[0].as_str().unwrap());
    server.get(&gone).await.expect(404);
    session.end().await.expect(200);
    assert_eq!(server.get("/v1/jobs").await.expect(200)["jobs"], json!([]));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_named() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let base = jobs(&session);
    for (path, body, named) in [
        (base.clone(), json!({"command": "ping"}), "ping"),
        (base.clone(), json!({"command": "no_such"}), "no_such"),
        (base.clone(), json!({}), "is not a long command"),
        (format!("{base}?on_interrupt=maybe"), compute(1.0), "maybe"),
        (format!("{base}?resume=1"), compute(1.0), "resume"),
    ] {
        let refused = server.post(&path, &body).await.expect(422).to_string();
        assert!(refused.contains(named), "{path}: {refused}");
    }
    for (query, named) in [
        ("?limit=0", "limit"),
        ("?limit=1000", "limit"),
        ("?state=lost", "lost"),
        ("?user=1", "user"),
    ] {
        let refused = server.get(&format!("{base}{query}")).await.expect(422).to_string();
        assert!(refused.contains(named), "{query}: {refused}");
    }
    for key in ["", "é", &"x".repeat(129)] {
        submit_with_key(&server, &session, &compute(1.0), key).await.expect(422);
    }
    for job in ["nothing", "019aa1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b", "..%2f..%2fsession"] {
        server.get(&format!("{base}/{job}")).await.expect(404);
        server.get(&format!("{base}/{job}/result")).await.expect(404);
        server.post_empty(&format!("{base}/{job}/cancel")).await.expect(404);
    }
    let job = submit(&server, &session, &compute(0.1)).await;
    for wait in ["-1", "61", "NaN", "x"] {
        server.get(&format!("{}?wait={wait}", address_of(&job))).await.expect(422);
    }
    let cancel = format!("{}/cancel", address_of(&job));
    server.post(&cancel, &json!({"keep": true})).await;
    server.post(&cancel, &json!({"reason": 1})).await.expect(422);
    server.finish().await;
}
