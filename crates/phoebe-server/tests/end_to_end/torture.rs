//! Random deaths amid work: worker, runner, zygote and server are killed again and again while
//! clients change and compute. After each, every acknowledged change is there, and nothing is half
//! there.
//!
//! `PHOEBE_TEST_KILLS` sets how many deaths there are, `PHOEBE_TEST_SEED` repeats a run's choices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::support::{Client, Random, Session, TestServer, number};

const CLIENTS: usize = 8;
/// Changes of one client between two deaths, if it gets so far.
const CHANGES: usize = 3;
const DEFAULT_KILLS: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(120);
/// Parameters that no constraint follows, so that a change of one is a change of nothing else.
const FREE: [&str; 3] = ["ra@system", "dec@system", "distance@system"];

/// A Bundle's parameters by unique id.
type Parameters = BTreeMap<String, Value>;

/// One client's knowledge of its session.
struct Known {
    session: String,
    /// After the last acknowledged change.
    parameters: Parameters,
    /// The change that was sent after it and neither acknowledged nor refused.
    open: Option<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Set { twig: &'static str, value: f64 },
    Compute,
}

impl Change {
    fn command(&self) -> Value {
        match self {
            Self::Set { twig, value } => {
                json!({"command": "set_value", "twig": twig, "value": value})
            }
            Self::Compute => json!({"command": "run_compute"}),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_change_is_lost_over_random_deaths() {
    let kills = number("PHOEBE_TEST_KILLS", DEFAULT_KILLS);
    let seed = number("PHOEBE_TEST_SEED", 0x5EED);
    println!("PHOEBE_TEST_KILLS={kills} PHOEBE_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let mut server = TestServer::builder().python().ports(20).alone().start().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let session = server.start_session().await;
        let dataset = json!({
            "command": "add_dataset", "kind": "lc", "dataset": "lc01",
            "compute_phases": [0.0, 0.1, 0.25, 0.5],
        });
        session.result(dataset).await;
        session.result(set("ntriangles@primary", 200.0)).await;
        session.result(set("ntriangles@secondary", 200.0)).await;
        // The first compute fills in what belongs to the system, as limb darkening; later ones make
        // a model only.
        session.result(json!({"command": "run_compute"})).await;
        let parameters = parameters(&session).await;
        clients.push(Arc::new(Mutex::new(Known { session: session.id, parameters, open: None })));
    }
    let (mut killed, mut changes) = (BTreeMap::<_, u64>::new(), 0);
    while killed.values().sum::<u64>() < kills {
        let mut work = JoinSet::new();
        for client in &clients {
            work.spawn(change_until_something_breaks(
                server.client(),
                Arc::clone(client),
                Random::new(random.next(u64::MAX >> 34) + 1),
            ));
        }
        let pause = Duration::from_millis(20 + random.next(400));
        tokio::time::sleep(pause).await;
        let victim = ["worker", "worker", "runner", "runner", "zygote", "server"]
            [usize::try_from(random.next(6)).unwrap()];
        if victim == "server" {
            server.kill_nine().await;
            *killed.entry(victim).or_insert(0) += 1;
            changes += work.join_all().await.into_iter().sum::<u64>();
            server.start_again().await;
        } else {
            // There is not always a runner.
            if kill_one(&server, victim, &mut random) {
                *killed.entry(victim).or_insert(0) += 1;
            }
            changes += work.join_all().await.into_iter().sum::<u64>();
        }
        let mut checks = JoinSet::new();
        for client in &clients {
            let (api, client) = (server.client(), Arc::clone(client));
            checks.spawn(async move { check(api, client).await });
        }
        checks.join_all().await;
    }
    println!("killed {killed:?}; {changes} acknowledged changes, none lost");
    server.finish().await;
}

/// Jobs are submitted, by keys that are sent again after each death, while server and workers die.
/// In the end each is done, and a change is in the journal once for each that succeeded.
#[tokio::test(flavor = "multi_thread")]
async fn no_job_is_lost_or_done_twice_over_random_deaths() {
    let kills = number("PHOEBE_TEST_KILLS", DEFAULT_KILLS);
    let seed = number("PHOEBE_TEST_SEED", 0x5EED);
    println!("PHOEBE_TEST_KILLS={kills} PHOEBE_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let builder = TestServer::builder().fake().set("jobs.attempts", 100);
    let mut server = builder.set("resources.queue_depth", 1000).alone().start().await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(server.start_session().await.id);
    }
    let mut keys: BTreeMap<String, (String, Value)> = BTreeMap::new();
    let mut jobs: BTreeMap<String, String> = BTreeMap::new();
    for death in 0..kills {
        for number in 0..3 {
            let session = sessions[usize::try_from(random.next(4)).unwrap()].clone();
            let seconds = random.next(400) as f64 / 1000.0;
            let command = json!({"command": "run_compute", "seconds": seconds, "steps": 3});
            keys.insert(format!("{death}-{number}"), (session, command));
        }
        let mut submissions = JoinSet::new();
        // All that have no job yet, and some that have.
        let again = random.next(1 + keys.len() as u64);
        let submitted = keys.iter().enumerate().filter(|(place, (key, _))| {
            !jobs.contains_key(*key) || (again..again + 50).contains(&(*place as u64))
        });
        for (_, (key, (session, command))) in submitted {
            let path = format!("/v1/sessions/{session}/jobs");
            let request = server.request(reqwest::Method::POST, &path);
            let request = request.header("Idempotency-Key", key).json(command);
            let key = key.clone();
            submissions.spawn(async move { (key, crate::support::Reply::try_of(request).await) });
        }
        let pause = Duration::from_millis(random.next(400));
        let killed = async {
            tokio::time::sleep(pause).await;
            if random.next(3) == 0 {
                kill_one(&server, "worker", &mut random);
            } else {
                server.kill_nine().await;
                server.start_again().await;
            }
        };
        killed.await;
        for (key, reply) in submissions.join_all().await {
            // A request that the death interrupted is sent again with its key.
            let Ok(reply) = reply else { continue };
            assert!([200, 201, 503].contains(&reply.status), "{}: {}", reply.status, reply.body);
            if let Some(id) = reply.body["job_id"].as_str() {
                let before = jobs.insert(key.clone(), id.to_owned());
                assert!(before.is_none_or(|before| before == id), "{key} has two jobs");
            }
        }
    }
    let (mut states, mut ends) = (BTreeMap::<String, u64>::new(), 0);
    for (key, id) in &jobs {
        let session = &keys[key].0;
        let path = format!("/v1/sessions/{session}/jobs/{id}?wait=5");
        let job = crate::support::until("the job is done", PATIENCE, async || {
            let job = server.get(&path).await.expect(200);
            (job["done"] == true).then_some(job)
        })
        .await;
        let state = job["state"].as_str().unwrap();
        *states.entry(state.to_owned()).or_default() += 1;
        let journal = server.data().join("sessions").join(session).join("journal.jsonl");
        let journal = std::fs::read_to_string(journal).unwrap_or_default();
        let changes = journal.matches(&format!("\"job\":\"{id}\"")).count();
        assert_eq!(changes, usize::from(state == "succeeded"), "{job}");
        // A job that ran when its worker was killed has failed; the server's death ends none.
        assert!(state == "succeeded" || job["error"]["kind"] == "killed", "{job}");
        ends += 1;
    }
    println!("{ends} jobs over {kills} deaths: {states:?}");
    assert!(states["succeeded"] > kills);
    server.finish().await;
}

fn set(twig: &str, value: f64) -> Value {
    json!({"command": "set_value", "twig": twig, "value": value})
}

/// Changes the session until an answer is missing, and a few times at most. Returns how many
/// changes were acknowledged.
async fn change_until_something_breaks(
    api: Client,
    client: Arc<Mutex<Known>>,
    mut random: Random,
) -> u64 {
    let mut known = client.lock().await;
    let session = api.session(&known.session);
    let mut acknowledged = 0;
    for _ in 0..CHANGES {
        let change = if random.next(4) == 0 {
            Change::Compute
        } else {
            let twig = FREE[usize::try_from(random.next(3)).unwrap()];
            // Exact in binary, so that it comes back as it went.
            Change::Set { twig, value: (1 + random.next(1 << 20)) as f64 / 16384.0 }
        };
        known.open = Some(change.clone());
        let Ok(reply) = session.try_send(&change.command()).await else { return acknowledged };
        if reply.status != 200 {
            // The server is stopping or starting; whether it was begun is not said.
            return acknowledged;
        }
        if reply.body["success"] == false {
            // It says that everything is as before.
            known.open = None;
            return acknowledged;
        }
        acknowledged += 1;
        let read = session.try_send(&json!({"command": "get_bundle"})).await;
        match read.ok().and_then(|reply| parse(&reply.body)) {
            Some(parameters) => {
                apply(&known.parameters, &parameters, &change);
                known.parameters = parameters;
                known.open = None;
            }
            // It was acknowledged, so the check finds it done.
            None => {
                known.open = Some(change);
                return acknowledged;
            }
        }
    }
    acknowledged
}

/// Compares the session with what its client knows, parameter by parameter.
async fn check(api: Client, client: Arc<Mutex<Known>>) {
    let mut known = client.lock().await;
    let session = api.session(&known.session);
    let now = parameters(&session).await;
    if now != known.parameters {
        let open = known.open.clone();
        let open = open.unwrap_or_else(|| {
            panic!("session {}: {:?}", session.id, difference(&known.parameters, &now))
        });
        apply(&known.parameters, &now, &open);
    }
    known.parameters = now;
    known.open = None;
}

/// Fails unless `after` is `before` with all of `change` and nothing else.
fn apply(before: &Parameters, after: &Parameters, change: &Change) {
    let different = difference(before, after);
    match change {
        Change::Set { twig, value } => {
            let qualifier = twig.split('@').next().unwrap();
            for id in &different {
                assert_eq!(after[id]["qualifier"], qualifier, "{twig}: {different:?}");
                assert_eq!(after[id]["value"], json!(value));
            }
        }
        Change::Compute => {
            for id in &different {
                let parameter = after.get(id).or_else(|| before.get(id)).unwrap();
                let context = parameter["context"].as_str().unwrap();
                assert!(["model", "figure"].contains(&context), "{context}: {parameter}");
            }
            let fluxes = |parameters: &Parameters| {
                let mut all = parameters.values();
                let fluxes = all.find(|p| p["qualifier"] == "fluxes" && p["context"] == "model");
                fluxes.map(|fluxes| fluxes["value"].clone())
            };
            assert!(fluxes(after).is_some(), "half a model");
        }
    }
}

fn difference(left: &Parameters, right: &Parameters) -> Vec<String> {
    let ids = left.keys().chain(right.keys()).filter(|id| left.get(*id) != right.get(*id));
    let mut ids: Vec<String> = ids.cloned().collect();
    ids.sort();
    ids.dedup();
    ids
}

/// All parameters of the session, as soon as it answers.
async fn parameters(session: &Session) -> Parameters {
    let started = Instant::now();
    loop {
        // Not `until`: what it makes of a borrowed session cannot move to another task.
        let reply = session.try_send(&json!({"command": "get_bundle"})).await;
        match reply.ok().and_then(|reply| parse(&reply.body)) {
            Some(parameters) => return parameters,
            None => assert!(started.elapsed() < PATIENCE, "session {} is dead", session.id),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn parse(answer: &Value) -> Option<Parameters> {
    // Python's JSON has numbers that JSON has not.
    let text = answer["result"]["bundle"].as_str()?;
    let text =
        text.replace("-Infinity", "-1e308").replace("Infinity", "1e308").replace("NaN", "-1e307");
    let parameters: Vec<Value> = serde_json::from_str(&text).ok()?;
    let by_id = parameters.into_iter().map(|parameter| {
        let id = parameter["uniqueid"].as_str().map(str::to_owned);
        (id.unwrap_or_else(|| parameter["twig"].to_string()), parameter)
    });
    Some(by_id.collect())
}

/// Kills one process of that kind, if there is one.
fn kill_one(server: &TestServer, kind: &str, random: &mut Random) -> bool {
    let all = server.workers();
    let zygote = all.iter().find(|process| process.parent == server.pid()).map(|zygote| zygote.pid);
    let is_worker = |parent: i32| Some(parent) == zygote;
    let victims: Vec<i32> = all
        .iter()
        .filter(|process| match kind {
            "zygote" => Some(process.pid) == zygote,
            "worker" => is_worker(process.parent),
            _ => all.iter().any(|other| other.pid == process.parent && is_worker(other.parent)),
        })
        .map(|process| process.pid)
        .collect();
    if victims.is_empty() {
        return false;
    }
    let victim = victims[usize::try_from(random.next(victims.len() as u64)).unwrap()];
    Pid::from_raw(victim).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}
