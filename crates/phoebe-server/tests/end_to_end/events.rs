//! Streams of events: complete over lost connections, bounded, and ended with session and server.

use std::collections::VecDeque;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{Client, Session, TestServer, until};

const SOON: Duration = Duration::from_secs(30);

/// One event as a client reads it.
#[derive(Debug, Clone)]
struct Event {
    name: String,
    id: Option<String>,
    data: Value,
}

/// A client's side of a stream.
struct Events {
    response: reqwest::Response,
    text: String,
    read: VecDeque<Event>,
}

impl Events {
    async fn open(client: &Client, session: &Session, last: Option<&str>) -> Self {
        let path = format!("/v1/sessions/{}/events", session.id);
        let mut request = client.request(Method::GET, &path);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        Self { response, text: String::new(), read: VecDeque::new() }
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.read.pop_front() {
                return Some(event);
            }
            let piece = timeout(SOON, self.response.chunk()).await.expect("an event or the end");
            self.text.push_str(std::str::from_utf8(&piece.ok()??).unwrap());
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                self.read.push_back(parse(event));
                self.text = rest.to_owned();
            }
        }
    }

    async fn until(&mut self, what: &str, is_it: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut seen = Vec::new();
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("no {what}: {seen:?}"));
            seen.push(event);
            if is_it(seen.last().unwrap()) {
                return seen;
            }
        }
    }
}

fn parse(text: &str) -> Event {
    let field = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(field, _)| *field == name).map(|(_, value)| value.to_owned())
    };
    Event {
        name: field("event").unwrap(),
        id: field("id"),
        data: serde_json::from_str(&field("data").unwrap()).unwrap(),
    }
}

fn set(value: u32) -> Value {
    json!({"command": "set_value", "twig": "a", "value": value})
}

async fn submit(client: &Client, session: &Session, seconds: f64) -> Value {
    let command = json!({"command": "run_compute", "seconds": seconds, "steps": 40});
    client.post(&format!("/v1/sessions/{}/jobs", session.id), &command).await.expect(201)
}

fn is_done(event: &Event) -> bool {
    event.name == "job" && event.data["done"] == true
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_in_a_session_is_told_as_it_happens() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let mut events = Events::open(&server, &session, None).await;
    let hello = events.next().await.unwrap();
    assert_eq!((hello.name.as_str(), hello.id), ("hello", None));
    assert_eq!(hello.data["session"]["status"], "awake");
    assert_eq!(hello.data["jobs"], json!([]));

    session.result(set(1)).await;
    let bundle = events.until("change", |event| event.name == "bundle").await.pop().unwrap();
    assert_eq!(bundle.data, json!({"revision": 1, "command": "set_value"}));
    let job = submit(&server, &session, 1.5).await;
    let seen = events.until("end of the job", is_done).await;
    let states: Vec<_> = seen
        .iter()
        .filter(|event| event.name == "job")
        .map(|event| event.data["state"].as_str().unwrap())
        .collect();
    assert_eq!((states[0], *states.last().unwrap()), ("queued", "succeeded"), "{states:?}");
    assert!(states.contains(&"running"));
    let progress: Vec<_> = seen.iter().filter(|event| event.name == "progress").collect();
    assert!(progress.len() >= 2 && progress.len() <= 12, "{} reports", progress.len());
    for report in progress {
        assert_eq!((&report.data["job_id"], &report.id), (&job["job_id"], &None));
    }
    let path = format!("/dash/update-user-info/{}", session.id);
    server.post(&path, &json!({"first_name": "Ada"})).await.expect(200);
    let renamed = events.until("the name", |event| event.name == "session").await.pop().unwrap();
    assert_eq!(renamed.data["user_first_name"], "Ada");

    session.end().await.expect(200);
    let last = events.until("end", |event| event.data["status"] == "ended").await;
    assert_eq!(last.last().unwrap().name, "session");
    // Its worker's end is told, too; then the stream ends.
    while let Some(event) = events.next().await {
        assert_eq!((event.name.as_str(), &event.data["status"]), ("session", &json!("ended")));
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_misses_nothing() {
    let mut server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let mut events = Events::open(&server, &session, None).await;
    session.result(set(0)).await;
    let first = events.until("change", |event| event.name == "bundle").await.pop().unwrap();
    drop(events);
    for value in 1..=20 {
        session.result(set(value)).await;
    }
    submit(&server, &session, 0.1).await;
    let mut events = Events::open(&server, &session, first.id.as_deref()).await;
    let seen = events.until("end of the job", is_done).await;
    assert_eq!(seen[0].name, "hello");
    let ids: Vec<u64> = seen.iter().filter_map(|event| number(event.id.as_deref()?)).collect();
    let first_id = number(first.id.as_deref().unwrap()).unwrap();
    assert_eq!(ids, (first_id + 1..).take(ids.len()).collect::<Vec<_>>(), "each once, in order");
    let changes = seen.iter().filter(|event| event.name == "bundle").count();
    assert!(changes >= 20, "{changes}");

    // What is not kept, or was of another server, is told once.
    let last = seen.iter().rev().find_map(|event| event.id.clone()).unwrap();
    for value in 0..1010 {
        session.result(set(value)).await;
    }
    for seen in [last.as_str(), "nonsense", "0-0", &last.replace('-', "-999999")] {
        let mut events = Events::open(&server, &session, Some(seen)).await;
        assert_eq!(events.next().await.unwrap().name, "hello");
        let reset = events.next().await.unwrap();
        assert_eq!((reset.name.as_str(), reset.id), ("reset", None), "{seen}");
        session.result(set(1)).await;
        assert_eq!(events.next().await.unwrap().name, "bundle");
    }
    let mut events = Events::open(&server, &session, None).await;
    let stopped = server.stop().await;
    assert!(stopped < Duration::from_secs(9), "a stream holds the server up: {stopped:?}");
    while events.next().await.is_some() {}
    server.start_again().await;
    let session = server.session(&session.id);
    let mut events = Events::open(&server, &session, Some(&last)).await;
    events.next().await.unwrap();
    assert_eq!(events.next().await.unwrap().name, "reset");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_survives_the_sleep_of_its_session() {
    let server =
        TestServer::builder().fake().set("session.idle_timeout_seconds", 0.5).start().await;
    let session = server.start_session().await;
    session.result(set(1)).await;
    let mut events = Events::open(&server, &session, None).await;
    events.until("sleep", |event| event.data["status"] == "asleep").await;
    session.result(set(2)).await;
    let seen = events.until("change", |event| event.name == "bundle").await;
    assert!(seen.iter().any(|event| event.data["status"] == "awake"), "{seen:?}");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_follows_a_bounded_number_of_streams() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(Events::open(&server, &session, None).await);
    }
    let path = format!("/v1/sessions/{}/events", session.id);
    let refused = server.get(&path).await;
    assert!(refused.header("retry-after").is_some());
    refused.expect(429);
    streams.pop();
    until("a place is free", SOON, async || (server.get(&path).await.status == 200).then_some(()))
        .await;
    let bad = format!("{path}?until=1");
    server.get(&bad).await.expect(422);
    server.finish().await;
}

fn number(id: &str) -> Option<u64> {
    id.rsplit_once('-')?.1.parse().ok()
}
