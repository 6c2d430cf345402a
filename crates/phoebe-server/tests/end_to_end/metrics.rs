//! The metrics: who may read them, that they tell what happened, and that Prometheus can read them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::{Client, Reply, Session, TestServer, until};

const SOON: Duration = Duration::from_secs(20);

/// The samples of a text: values by name and labels.
struct Samples(BTreeMap<String, f64>);

impl Samples {
    async fn read(client: &Client) -> Self {
        Self::of(&text(client).await)
    }

    fn of(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        });
        Self(samples.collect())
    }

    /// A sample without the prefix of its name; 0 where there is none.
    fn get(&self, name: &str) -> f64 {
        self.0.get(&format!("phoebe_server_{name}")).copied().unwrap_or_default()
    }

    fn commands(&self, command: &str, outcome: &str) -> f64 {
        let labels = format!(r#"{{command="{command}",outcome="{outcome}"}}"#);
        self.get(&format!("command_seconds_count{labels}"))
    }

    /// All commands, whatever their names and outcomes.
    fn all_commands(&self) -> f64 {
        let prefix = "phoebe_server_command_seconds_count{";
        self.0.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value).sum()
    }
}

async fn text(client: &Client) -> String {
    let answer = client.request(Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4");
    answer.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counted_load_is_in_the_metrics_to_the_last_command() {
    let server = TestServer::builder()
        .fake()
        .set("resources.max_concurrent_computes", 1)
        .set("resources.queue_depth", 2)
        .start()
        .await;
    let sessions = [(); 3].map(|()| async { server.start_session().await });
    let sessions: Vec<Session> = futures::future::join_all(sessions).await;
    for (index, session) in sessions.iter().enumerate() {
        for value in 0..=index {
            session.ping().await;
            session.result(json!({"command": "set_value", "twig": "a", "value": value})).await;
        }
        let missing = session.command(json!({"command": "get_value", "twig": "nothing"})).await;
        assert_eq!(missing["success"], false);
        session.command(json!({"command": format!("secret-name-{index}")})).await;
    }
    let path = |what: &str| format!("/v1/sessions/{}/{what}", sessions[0].id);
    server.post_empty(&path("undo")).await.expect(200);
    server.get(&path("bundle")).await.expect(200);

    let all = text(&server).await;
    assert!(!all.contains("secret-name"));
    let seen = Samples::of(&all);
    assert_eq!(seen.get(r#"sessions{state="awake"}"#), 3.0);
    assert_eq!(seen.get(r#"ports{state="used"}"#), 3.0);
    let ports = ["used", "free", "foreign"].map(|name| format!(r#"ports{{state="{name}"}}"#));
    let ports: f64 = ports.iter().map(|name| seen.get(name)).sum();
    assert_eq!(ports as usize, server.port_pool().len());
    assert_eq!(seen.get(r#"session_start_seconds_count{kind="start",outcome="success"}"#), 3.0);
    for (command, outcome, count) in [
        ("ping", "success", 6.0),
        ("set_value", "success", 6.0),
        ("get_value", "error", 3.0),
        ("(unknown)", "error", 3.0),
        ("undo", "success", 1.0),
        ("export", "success", 1.0),
    ] {
        assert_eq!(seen.commands(command, outcome), count, "{command} {outcome}");
    }
    assert_eq!(seen.all_commands(), 20.0);
    let waits = ["read", "change", "long"]
        .map(|kind| seen.get(&format!(r#"queue_wait_seconds_count{{kind="{kind}"}}"#)));
    assert_eq!(waits, [13.0, 7.0, 0.0]);
    for name in ["worker_memory_bytes", "zygote_memory_bytes", "database_bytes"] {
        assert!(seen.get(name) > 4096.0, "{name}");
    }
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(seen.get(&format!(r#"build_info{{version="{version}"}}"#)), 1.0);

    // Two long commands share one turn.
    let compute = json!({"command": "run_compute", "seconds": 30.0, "steps": 300});
    let computes = [&sessions[0], &sessions[1]].map(|session| {
        let (session, compute) = (session.clone(), compute.clone());
        tokio::spawn(async move { session.try_send(&compute).await })
    });
    until("one computes, one waits", SOON, async || {
        let seen = Samples::read(&server).await;
        let state = |name: &str| seen.get(&format!(r#"long_commands{{state="{name}"}}"#));
        (state("running") == 1.0 && state("waiting") == 1.0).then_some(())
    })
    .await;
    for session in &sessions[..2] {
        session.end().await.expect(200);
    }
    for compute in computes {
        compute.await.unwrap().unwrap();
    }
    let seen = Samples::read(&server).await;
    // One had not begun, so it was refused or failed without a run.
    let ended = seen.commands("run_compute", "failed") + seen.get("commands_refused_total");
    assert_eq!(ended, 2.0);
    assert_eq!(seen.get(r#"long_commands{state="running"}"#), 0.0);
    assert_eq!(seen.get(r#"long_commands{state="waiting"}"#), 0.0);

    // A worker that is lost, and the wake that follows.
    sessions[2].command(json!({"command": "set_value", "misbehave": "segfault"})).await;
    sessions[2].ping().await;
    let seen = Samples::read(&server).await;
    assert_eq!(seen.get(r#"worker_losses_total{cause="crashed"}"#), 1.0);
    assert_eq!(seen.commands("set_value", "worker_lost"), 1.0);
    assert_eq!(seen.get(r#"session_start_seconds_count{kind="wake",outcome="success"}"#), 1.0);
    assert_eq!(seen.commands("ping", "success"), 7.0);
    assert_eq!(seen.get(r#"sessions{state="awake"}"#), 1.0);

    // The zygote is started again.
    let zygote = server.workers().into_iter().find(|process| process.parent == server.pid());
    kill_process(Pid::from_raw(zygote.unwrap().pid).unwrap(), Signal::KILL).unwrap();
    until("the zygote is started again", SOON, async || {
        (Samples::read(&server).await.get("zygote_restarts_total") == 1.0).then_some(())
    })
    .await;
    until("the log is written", SOON, async || {
        (Samples::read(&server).await.get("log_backlog_records") == 0.0).then_some(())
    })
    .await;
    assert_eq!(Samples::read(&server).await.get("log_records_lost_total"), 0.0);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bearer_of_the_token_reads_the_metrics_and_nothing_else() {
    let server = TestServer::builder()
        .fake()
        .set("auth.mode", "jwt")
        .set("auth.jwt_secret_key", "a secret for this test only, long enough")
        .set("auth.enabled", true)
        .set("auth.api_keys", vec!["a key of the server's"])
        .set("metrics.token", "a-token-for-prometheus")
        .start()
        .await;
    let prometheus = server.with_token("a-token-for-prometheus");
    assert!(text(&prometheus).await.contains("phoebe_server_sessions"));
    for path in ["/dash/sessions", "/system/info"] {
        assert_eq!(prometheus.get(path).await.status, 401, "the API key is missing: {path}");
        let request = prometheus.request(Method::GET, path);
        let request = request.header("X-API-Key", "a key of the server's");
        assert_eq!(Reply::of(request).await.status, 401, "{path}");
    }
    for client in [server.client(), server.with_token("another-token")] {
        let request = client.request(Method::GET, "/metrics");
        let request = request.header("X-API-Key", "a key of the server's");
        assert_eq!(Reply::of(request).await.status, 401);
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_can_read_the_whole_text() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.ping().await;
    session.command(json!({"command": "no \"such\\command\n"})).await;
    session.result(json!({"command": "run_compute"})).await;
    let text = text(&server).await;
    check_format(&text);
    if let Some(promtool) = promtool() {
        check_with(&promtool, &text);
    }
    session.end().await.expect(200);
    server.finish().await;
}

/// Every family has one help and one type before its samples; every sample is there once;
/// histograms grow with their bounds up to their count.
fn check_format(text: &str) {
    assert!(text.ends_with('\n'));
    let (mut helps, mut types) = (BTreeSet::new(), BTreeMap::new());
    let mut seen = BTreeSet::new();
    let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(helps.insert(name.to_owned()) && words.ends_with('.'), "{line}");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(helps.contains(name) && types.insert(name.to_owned(), kind).is_none());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        assert!(value >= 0.0 && seen.insert(series.to_owned()), "{line}");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let is_name = |text: &str| {
            text.chars().all(|character| character.is_ascii_lowercase() || character == '_')
        };
        assert!(is_name(name), "{line}");
        let labels: Vec<_> = labels.strip_suffix('}').unwrap().split_terminator(',').collect();
        for label in &labels {
            let (name, value) = label.split_once('=').unwrap();
            assert!(is_name(name) && value.starts_with('"') && value.ends_with('"'), "{line}");
        }
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
            let family = name.strip_suffix(suffix)?;
            (types.get(family) == Some(&"histogram")).then_some((family, *suffix))
        });
        let Some((family, suffix)) = family else {
            let kind = types[name];
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert_ne!(kind, "histogram", "{line}");
            continue;
        };
        let others: Vec<_> = labels.iter().filter(|label| !label.starts_with("le=")).collect();
        let series = format!("{family}{others:?}");
        match suffix {
            "_bucket" => {
                let bound = labels.iter().find_map(|label| label.strip_prefix("le=")).unwrap();
                let bound = bound.trim_matches('"').parse().unwrap();
                buckets.entry(series).or_default().push((bound, value));
            }
            "_count" => assert_eq!(counts.insert(series, value), None),
            _ => {}
        }
    }
    assert!(types.len() >= 15 && buckets.len() >= 10);
    assert_eq!(helps, types.keys().cloned().collect());
    assert!(buckets.keys().eq(counts.keys()));
    for (series, buckets) in buckets {
        assert!(buckets.is_sorted(), "{series}: {buckets:?}");
        assert!(buckets.is_sorted_by_key(|(_, count)| *count), "{series}: {buckets:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, counts[&series])), "{series}");
    }
}

/// Prometheus' own program; none where it is not installed. The gate installs it.
fn promtool() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&folders).map(|folder| folder.join("promtool"));
    let program = program.into_iter().find(|path| path.is_file());
    if program.is_none() {
        assert!(std::env::var_os("CI").is_none(), "promtool is missing (Debian: prometheus)");
        eprintln!("SKIPPED: promtool is not installed (Debian: prometheus)");
    }
    program
}

/// `promtool check metrics`, which must have nothing to say.
fn check_with(promtool: &Path, text: &str) {
    let mut process = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let done = process.wait_with_output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
