//! A session's script makes the session's Bundle, whatever changed that; where none does, the
//! answer says why.
//!
//! Random sequences of everything that changes a Bundle or puts another in its place.
//! `PHOEBE_TEST_SEQUENCES` sets how many there are, `PHOEBE_TEST_SEED` repeats a run's choices.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::support::{Program, Random, Reply, Session, TestServer, kept, number, run_stock_phoebe};

/// How a Bundle is changed or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    /// A command.
    Command,
    /// A computation that is submitted as a job.
    Job,
    /// Several at once.
    Batch,
    /// The command that carries a Bundle.
    Load,
    Upload,
    Undo,
    Redo,
    /// A checkpoint is made.
    Checkpoint,
    Restore,
    Clone,
    CloneOfCheckpoint,
    CloneOfShared,
    /// The server is killed and started again.
    Kill,
    /// The newest snapshot is damaged while no server works.
    Damage,
    /// The next version of PHOEBE reads what this one kept.
    Upgrade,
    /// The session goes into an archive and comes out of it.
    Import,
    /// All sessions do.
    Backup,
}

use Act::*;

/// Those that take a moment.
const QUICK: [Act; 12] = [
    Command,
    Job,
    Batch,
    Load,
    Upload,
    Undo,
    Redo,
    Checkpoint,
    Restore,
    Clone,
    CloneOfCheckpoint,
    CloneOfShared,
];
/// Those that start the server again.
const SLOW: [Act; 5] = [Kill, Damage, Upgrade, Import, Backup];

/// Every way into the server that is no mere look, and the acts that go it; none where no session's
/// Bundle changes. A way that is missing here fails the test.
const WAYS: &[(&str, &[Act])] = &[
    ("post /send/{session_id}", &[Command, Load]),
    ("post /send/{session_id}/batch", &[Batch]),
    ("post /v1/sessions/{session_id}/jobs", &[Job]),
    ("put /v1/sessions/{session_id}/bundle", &[Upload]),
    ("post /v1/sessions/{session_id}/undo", &[Undo]),
    ("post /v1/sessions/{session_id}/redo", &[Redo]),
    ("post /v1/sessions/{session_id}/checkpoints", &[Checkpoint]),
    ("post /v1/sessions/{session_id}/checkpoints/{checkpoint_id}/restore", &[Restore]),
    ("post /v1/sessions/{session_id}/clone", &[Clone, CloneOfCheckpoint]),
    ("post /v1/sessions/{session_id}/checkpoints/{checkpoint_id}/share", &[CloneOfShared]),
    ("post /v1/shared/{token}/clone", &[CloneOfShared]),
    ("phoebe-server run", &[Kill, Damage, Upgrade]),
    ("phoebe-server export-session", &[Import]),
    ("phoebe-server import-session", &[Import]),
    ("phoebe-server backup", &[Backup]),
    ("phoebe-server restore", &[Backup]),
];

/// Ways that change no session's Bundle.
const OTHERS: &[&str] = &[
    "post /auth/login",
    "post /auth/register",
    "post /dash/end-session/{session_id}",
    "post /dash/session-memory/{session_id}",
    "post /dash/start-session",
    "post /dash/update-user-info/{session_id}",
    "post /v1/api-keys",
    "delete /v1/api-keys/{key_id}",
    "delete /v1/sessions/{session_id}/checkpoints/{checkpoint_id}",
    "delete /v1/sessions/{session_id}/jobs/{job_id}",
    "post /v1/sessions/{session_id}/jobs/cancel",
    "post /v1/sessions/{session_id}/jobs/{job_id}/cancel",
    "delete /v1/sessions/{session_id}/checkpoints/{checkpoint_id}/share",
    "phoebe-server init-db",
    "phoebe-server user",
    "phoebe-server api-key",
    "phoebe-server generate-key",
    "phoebe-server config",
    "phoebe-server cleanup",
    "phoebe-server doctor",
    "phoebe-server environment",
    "phoebe-server completions",
    "phoebe-server passbands",
    "phoebe-server help",
];

#[test]
fn every_way_that_may_change_a_bundle_is_tried() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let document: Value = serde_json::from_slice(&fs::read(document).unwrap()).unwrap();
    let routes = document["paths"].as_object().unwrap().iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().keys();
        let methods =
            methods.filter(|method| ["post", "put", "patch", "delete"].contains(&&***method));
        methods.map(move |method| format!("{method} {path}")).collect::<Vec<_>>()
    });
    let folder = tempfile::tempdir().unwrap();
    let help = Program::new(folder.path()).arguments(["--help"]).run().stdout;
    let commands = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    // A description goes on further to the right.
    let commands = commands.filter(|line| !line.starts_with("   "));
    let commands = commands.filter_map(|line| line.split_whitespace().next());
    let commands = commands.map(|name| format!("phoebe-server {name}"));
    let there: BTreeSet<String> = routes.chain(commands).collect();
    let known: BTreeSet<String> = WAYS
        .iter()
        .map(|(way, _)| (*way).to_owned())
        .chain(OTHERS.iter().map(|way| (*way).to_owned()))
        .collect();
    assert_eq!(there, known);
    let tried: BTreeSet<Act> = WAYS.iter().flat_map(|(_, acts)| acts.iter().copied()).collect();
    assert_eq!(tried, QUICK.into_iter().chain(SLOW).collect());
}

/// What works in the sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Workers {
    Fake,
    Phoebe,
}

/// One session, and what was done with it.
struct World {
    workers: Workers,
    server: TestServer,
    random: Random,
    session: Session,
    checkpoints: Vec<String>,
    /// Bundles that can be brought.
    files: Vec<String>,
    /// For archives, scripts and Bundles.
    folder: tempfile::TempDir,
    done: Vec<Act>,
    /// Scripts and the Bundles that they are to make.
    pairs: Vec<(PathBuf, PathBuf)>,
    /// After what each was taken.
    taken_after: Vec<String>,
}

impl World {
    async fn new(workers: Workers, seed: u64) -> Self {
        let builder = TestServer::builder().set("session.undo_depth", 4);
        let builder = match workers {
            Workers::Fake => builder.fake(),
            Workers::Phoebe => builder.python(),
        };
        let server = builder.start().await;
        let session = server.start_session().await;
        let mut world = Self {
            workers,
            server,
            random: Random::new(seed),
            session,
            checkpoints: Vec::new(),
            files: Vec::new(),
            folder: tempfile::tempdir().unwrap(),
            done: Vec::new(),
            pairs: Vec::new(),
            taken_after: Vec::new(),
        };
        world.take_file().await;
        world
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/sessions/{}/{rest}", self.session.id)
    }

    async fn post(&self, rest: &str, body: &Value) -> Reply {
        self.server.post(&self.path(rest), body).await
    }

    fn kept(&self) -> PathBuf {
        self.server.data().join("sessions").join(&self.session.id)
    }

    async fn act(&mut self, act: Act) {
        self.done.push(act);
        match act {
            Command => {
                let command = self.command().await;
                self.session.command(command).await;
            }
            Job => {
                let command = match self.workers {
                    Workers::Fake => json!({"command": "run_compute", "seconds": 0, "steps": 4}),
                    Workers::Phoebe => json!({"command": "run_compute"}),
                };
                let job = self.post("jobs", &command).await.expect(201);
                let id = job["job_id"].as_str().unwrap();
                // A Bundle without a way to compute fails, and is as before.
                self.server.get(&self.path(&format!("jobs/{id}/result?wait=60"))).await.expect(200);
            }
            Batch => {
                let commands = [self.command().await, self.command().await];
                let path = format!("/send/{}/batch", self.session.id);
                self.server.post(&path, &json!(commands)).await.expect(200);
            }
            Load => {
                let text = self.random.one_of(&self.files).clone();
                self.session.result(json!({"command": "load_bundle", "bundle": text})).await;
            }
            Upload => {
                let file = self.random.one_of(&self.files).clone();
                let request = self.server.request(Method::PUT, &self.path("bundle")).body(file);
                Reply::of(request).await.expect(200);
                let refused = self.server.request(Method::PUT, &self.path("bundle")).body("none");
                Reply::of(refused).await.expect(422);
            }
            Undo => drop(self.post("undo", &json!({})).await),
            Redo => drop(self.post("redo", &json!({})).await),
            Checkpoint => {
                self.take_file().await;
                self.checkpoint().await;
            }
            Restore => {
                let id = self.checkpoint().await;
                self.post(&format!("checkpoints/{id}/restore"), &json!({})).await.expect(200);
            }
            Clone => self.clone_with(json!({})).await,
            CloneOfCheckpoint => {
                let id = self.checkpoint().await;
                self.clone_with(json!({"checkpoint": id})).await;
            }
            CloneOfShared => {
                let id = self.checkpoint().await;
                let link = self.post(&format!("checkpoints/{id}/share"), &json!({})).await;
                let link = link.expect(200);
                let url = format!("/v1/shared/{}/clone", link["token"].as_str().unwrap());
                let begun = self.server.post_empty(&url).await.expect(200);
                self.go_on_as(begun["session_id"].as_str().unwrap()).await;
            }
            Kill => {
                self.server.kill_nine().await;
                self.server.start_again().await;
            }
            Damage => self.damage().await,
            Upgrade => self.upgrade().await,
            Import => self.import().await,
            Backup => self.back_up().await,
        }
        // The session of a server that was started again has another address.
        self.session = self.server.session(&self.session.id);
    }

    async fn command(&mut self) -> Value {
        match self.workers {
            Workers::Fake => match self.random.next(5) {
                0 => json!({"command": "run_compute", "seconds": 0, "steps": self.random.next(9)}),
                1 => json!({"command": "set_value", "twig": "a"}),
                _ => {
                    let twig = *self.random.one_of(&["a", "b", "c"]);
                    json!({"command": "set_value", "twig": twig, "value": self.random.next(1000)})
                }
            },
            Workers::Phoebe => self.command_of_phoebe().await,
        }
    }

    async fn command_of_phoebe(&mut self) -> Value {
        let period = json!({"command": "get_uniqueid", "twig": "period@binary@component"});
        let number = self.random.next(1000) as f64 / 700.0;
        let dataset = *self.random.one_of(&["lc01", "lc02"]);
        match self.random.next(8) {
            0 | 1 => {
                let twig = "incl@binary@component";
                json!({"command": "set_value", "twig": twig, "value": 70.0 + number})
            }
            2 => {
                let unique_id = self.session.result(period).await;
                json!({"command": "set_value", "uniqueid": unique_id, "value": 2.0 + number})
            }
            3 => {
                let flip = "flip_constraint";
                json!({"command": flip, "twig": "teffratio", "solve_for": "teff@secondary"})
            }
            4 => json!({"command": "remove_dataset", "dataset": dataset}),
            5 => json!({"command": "run_compute", "ntriangles": 100, "irrad_method": "none"}),
            6 => {
                let twig = "ecc@binary@component";
                json!({"command": "set_value", "twig": twig, "value": 1.0 + number})
            }
            _ => json!({
                "command": "add_dataset", "kind": "lc", "dataset": dataset,
                "compute_phases": [0.0, number],
            }),
        }
    }

    /// Keeps the Bundle as a file.
    async fn take_file(&mut self) {
        let file = self.server.request(Method::GET, &self.path("bundle")).send().await.unwrap();
        assert_eq!(file.status(), 200);
        self.files.push(file.text().await.unwrap());
    }

    /// One of the session's checkpoints; a new one where there are few.
    async fn checkpoint(&mut self) -> String {
        if self.checkpoints.len() < 3 {
            let made = self.post("checkpoints", &json!({"name": "some state"})).await.expect(200);
            self.checkpoints.push(made["id"].as_str().unwrap().to_owned());
        }
        self.random.one_of(&self.checkpoints).clone()
    }

    async fn clone_with(&mut self, body: Value) {
        let begun = self.post("clone", &body).await.expect(200);
        self.go_on_as(begun["session_id"].as_str().unwrap()).await;
    }

    async fn go_on_as(&mut self, id: &str) {
        self.session.end().await.expect(200);
        self.session = self.server.session(id);
        self.checkpoints.clear();
    }

    /// The state before is used, or the portable copy of the same.
    async fn damage(&mut self) {
        self.server.stop().await;
        let folder = self.kept();
        let (steps, head) = kept::steps(&folder);
        fs::write(folder.join(format!("{head}.snapshot")), "torn").unwrap();
        let is_whole = |step: &&u64| {
            let file = fs::read(folder.join(format!("{step}.snapshot"))).unwrap();
            **step < head && file.starts_with(b"phoebe-snapshot")
        };
        if steps.iter().any(|step| is_whole(&step)) && self.random.next(2) == 0 {
            fs::remove_file(folder.join("portable.snapshot")).unwrap();
        }
        self.server.start_again().await;
    }

    async fn upgrade(&mut self) {
        self.server.stop().await;
        for file in kept::snapshots(&self.kept()) {
            let content = fs::read(&file).unwrap();
            if content.starts_with(b"phoebe-snapshot") {
                fs::write(&file, kept::by_phoebe(&content, "2.5.3")).unwrap();
            }
        }
        self.server.start_again().await;
    }

    async fn import(&mut self) {
        let file = self.folder.path().join(format!("{}.session", self.done.len()));
        let file = file.to_str().unwrap();
        self.phoebe_server(&["export-session", &self.session.id, file]).await;
        self.server.stop().await;
        let id = self.phoebe_server(&["import-session", file]).await.trim().to_owned();
        self.server.start_again().await;
        self.session = self.server.session(&self.session.id);
        self.go_on_as(&id).await;
    }

    async fn back_up(&mut self) {
        let file = self.folder.path().join(format!("{}.backup", self.done.len()));
        let file = file.to_str().unwrap();
        self.phoebe_server(&["backup", file]).await;
        self.session.command(json!({"command": "set_value", "twig": "a", "value": "later"})).await;
        self.server.stop().await;
        let restored = self.phoebe_server(&["restore", file, "--force"]).await;
        let aside =
            restored.lines().filter_map(|line| line.strip_prefix("What was there is kept as "));
        for (number, path) in aside.enumerate() {
            let to = self.folder.path().join(format!("{}.aside.{number}", self.done.len()));
            fs::rename(self.server.root().join(path), to).unwrap();
        }
        self.server.start_again().await;
    }

    async fn phoebe_server(&self, arguments: &[&str]) -> String {
        let config = self.server.config().to_str().unwrap();
        let program = Program::new(self.server.root()).arguments(["--config", config]);
        let program = program.arguments(arguments);
        let done = tokio::task::spawn_blocking(|| program.run()).await.unwrap();
        assert_eq!(done.code, Some(0), "{done:?}");
        done.stdout
    }

    /// The script makes the Bundle. What a script of PHOEBE makes is seen at the end, for all of
    /// them.
    async fn check(&mut self) {
        let request = self.server.request(Method::GET, &self.path("script"));
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let script = answer.text().await.unwrap();
        assert_eq!(status, 200, "{script}, after {:?}", self.done);
        match self.workers {
            Workers::Fake => {
                let bundle = self.server.get(&self.path("bundle")).await.expect(200);
                let script: Value = serde_json::from_str(&script).unwrap();
                assert_eq!(made_by(&script), bundle, "{script}, after {:?}", self.done);
            }
            Workers::Phoebe => {
                let request = self.server.request(Method::GET, &self.path("snapshots/pickle"));
                let pickled = request.send().await.unwrap();
                if pickled.status() != 200 {
                    // Between a damage and the next change there is the portable copy only.
                    return assert!(self.done.contains(&Act::Damage), "after {:?}", self.done);
                }
                let pickled = pickled.bytes().await.unwrap();
                let name = |extension: &str| {
                    self.folder.path().join(format!("{}.{extension}", self.pairs.len()))
                };
                let pair = (name("py"), name("pickle"));
                fs::write(&pair.0, script).unwrap();
                fs::write(&pair.1, pickled).unwrap();
                self.pairs.push(pair);
                self.taken_after.push(format!("{:?}", self.done));
            }
        }
    }

    async fn finish(self) {
        let differences = if self.pairs.is_empty() {
            json!([])
        } else {
            let stock = "tests/end_to_end/support/stock_scripts.py";
            run_stock_phoebe(&self.server.interpreter(), stock, &json!(self.pairs).to_string())
        };
        for (found, after) in differences.as_array().unwrap().iter().zip(&self.taken_after) {
            assert_eq!(*found, json!([]), "after {after}");
        }
        assert_eq!(differences.as_array().unwrap().len(), self.pairs.len());
        self.server.finish().await;
    }
}

/// The map that the fake worker's script makes: the one that it begins with, and what its commands
/// change.
fn made_by(script: &Value) -> Value {
    let mut bundle = script["begins_with"].as_object().cloned().unwrap_or_default();
    assert_eq!(script["base"].is_string(), script["begins_with"].is_object(), "{script}");
    for entry in script["entries"].as_array().unwrap() {
        let command = &entry["command"];
        let change = match command["command"].as_str().unwrap() {
            "set_value" => (command["twig"].as_str().unwrap(), command["value"].clone()),
            "run_compute" => ("model", json!({"steps": command["steps"].as_u64().unwrap().max(1)})),
            other => panic!("{other} is in the script: {script}"),
        };
        bundle.extend(Map::from_iter([(change.0.to_owned(), change.1)]));
    }
    Value::Object(bundle)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_makes_the_bundle_whatever_replaced_it() {
    let sequences = number("PHOEBE_TEST_SEQUENCES", 1) * 5;
    let seed = number("PHOEBE_TEST_SEED", 1);
    for seed in seed..seed + sequences {
        println!("PHOEBE_TEST_SEED={seed}");
        let mut world = World::new(Workers::Fake, seed).await;
        for _ in 0..25 {
            for _ in 0..3 {
                let act = *world.random.one_of(&QUICK);
                world.act(act).await;
                world.check().await;
            }
            if world.random.next(3) == 0 {
                let act = *world.random.one_of(&SLOW);
                world.act(act).await;
                world.check().await;
            }
            world.act(Command).await;
        }
        world.finish().await;
    }
}

/// Each way once, in an order that the seed chooses, and quick ones between.
#[tokio::test(flavor = "multi_thread")]
async fn with_phoebe_a_script_makes_the_bundle_whatever_replaced_it() {
    let sequences = number("PHOEBE_TEST_SEQUENCES", 1);
    let seed = number("PHOEBE_TEST_SEED", 1);
    for seed in seed..seed + sequences {
        println!("PHOEBE_TEST_SEED={seed}");
        let mut world = World::new(Workers::Phoebe, seed).await;
        let incl = json!({"command": "set_value", "twig": "incl@binary@component", "value": 81.5});
        world.session.result(incl).await;
        let dataset = json!({
            "command": "add_dataset", "kind": "lc", "dataset": "lc01", "compute_phases": [0.0, 0.5],
        });
        world.session.result(dataset).await;
        world.take_file().await;
        let mut acts: Vec<Act> = QUICK.into_iter().chain(SLOW).collect();
        world.random.shuffle(&mut acts);
        for act in acts {
            world.act(Command).await;
            world.act(act).await;
            world.act(Command).await;
            world.check().await;
        }
        world.finish().await;
    }
}

/// Why there is no script, and the way out that the answer names.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_journal_does_not_say_is_answered_with_the_reason() {
    let mut world = World::new(Workers::Fake, 1).await;
    let set = |value: i64| json!({"command": "set_value", "twig": "a", "value": value});
    world.act(Upload).await;
    world.session.result(set(1)).await;
    let folder = world.kept();
    let journal = folder.join("journal.jsonl");
    let whole = fs::read_to_string(&journal).unwrap();
    let bases = folder.join("bases");
    let base = fs::read_dir(&bases).unwrap().next().unwrap().unwrap().path();

    // As servers wrote it that did not note what took the place of a Bundle.
    let old: Vec<String> = whole.lines().map(without_base).collect();
    type Damage<'a> = Box<dyn Fn() + 'a>;
    let damages: [(&str, Damage); 5] = [
        ("did not record which", Box::new(|| write(&journal, &(old.join("\n") + "\n")))),
        ("lacks change", Box::new(|| write(&journal, ""))),
        ("is damaged", Box::new(|| write(&journal, &format!("{whole}{{\"step\"\n")))),
        ("is missing", Box::new(|| fs::remove_file(&base).unwrap())),
        ("is damaged", Box::new(|| write(&base, "torn"))),
    ];
    let kept_base = fs::read(&base).unwrap();
    for (why, damage) in damages {
        world.server.stop().await;
        fs::write(&base, &kept_base).unwrap();
        write(&journal, &whole);
        damage();
        world.server.start_again().await;
        world.session = world.server.session(&world.session.id);
        let refused = world.server.get(&world.path("script")).await.expect(409);
        let text = refused["detail"].as_str().unwrap();
        assert!(text.starts_with("No script makes this Bundle: "), "{text}");
        assert!(text.contains(why), "{text}");
        // A copy knows no more.
        let copy = world.post("clone", &json!({})).await.expect(200);
        let copy = world.server.session(copy["session_id"].as_str().unwrap());
        let refused = world.server.get(&format!("/v1/sessions/{}/script", copy.id)).await;
        assert!(refused.expect(409)["detail"].as_str().unwrap().starts_with("No script makes"));
        copy.end().await.expect(200);
    }
    // The way out that the answer names.
    let bundle = world.server.get(&world.path("bundle")).await.expect(200).to_string();
    let request = world.server.request(Method::PUT, &world.path("bundle")).body(bundle);
    Reply::of(request).await.expect(200);
    world.session.result(set(2)).await;
    world.check().await;
    // Undone, it has none again; made again, it has one.
    world.post("undo", &json!({})).await.expect(200);
    world.post("undo", &json!({})).await.expect(200);
    world.server.get(&world.path("script")).await.expect(409);
    world.post("redo", &json!({})).await.expect(200);
    world.check().await;
    world.finish().await;
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

fn without_base(line: &str) -> String {
    let mut line: Value = serde_json::from_str(line).unwrap();
    line.as_object_mut().unwrap().remove("base");
    line.to_string()
}

/// What is kept of Bundles from outside is bounded by what can be gone back to, however many come.
#[tokio::test(flavor = "multi_thread")]
async fn bundles_from_outside_are_kept_as_long_as_a_state_began_with_them() {
    let mut world = World::new(Workers::Fake, 1).await;
    let bases = world.kept().join("bases");
    let count = || fs::read_dir(&bases).unwrap().count();
    let pad = " ".repeat(100_000);
    for number in 0..20 {
        let text = format!("{{\"n\": {number}}}{pad}");
        world.session.result(json!({"command": "load_bundle", "bundle": text})).await;
        if number == 3 {
            world.checkpoint().await;
        }
        world.check().await;
    }
    // Those of undo's depth, the present one, and the checkpoint's.
    assert_eq!(count(), 4 + 1 + 1);
    let journal = fs::metadata(world.kept().join("journal.jsonl")).unwrap().len();
    assert!(journal < 20_000, "no line holds a Bundle: {journal} bytes");
    let id = world.checkpoint().await;
    world.post(&format!("checkpoints/{id}/restore"), &json!({})).await.expect(200);
    world.check().await;
    world.finish().await;
}
