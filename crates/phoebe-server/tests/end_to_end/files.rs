//! Bundles and scripts as files, from outside.

use std::fs;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Reply, Session, TestServer, kept, run_stock_phoebe};

fn path(session: &Session, rest: &str) -> String {
    format!("/v1/sessions/{}/{rest}", session.id)
}

async fn put(client: &Client, path: &str, file: impl Into<reqwest::Body>) -> Reply {
    Reply::of(client.request(Method::PUT, path).body(file)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_taken_away_and_brought_back() {
    let server = TestServer::builder().fake().set("server.max_body_mb", 1).start().await;
    let session = server.start_session_with(&json!({"project_name": "Algol & co."})).await;
    session.result(json!({"command": "set_value", "twig": "a", "value": 1})).await;
    let file = server.get(&path(&session, "bundle")).await;
    assert_eq!(file.header("content-type"), Some("application/octet-stream"));
    let disposition = file.header("content-disposition");
    assert_eq!(disposition, Some("attachment; filename=\"Algol-co.phoebe\""));
    let file = file.expect(200).to_string();

    let other = server.start_session().await;
    other.result(json!({"command": "set_value", "twig": "b", "value": 2})).await;
    let history = put(&server, &path(&other, "bundle"), file).await.expect(200);
    assert_eq!(history, json!({"undo": 2, "redo": 0}));
    let get = async |twig: &str| other.command(json!({"command": "get_value", "twig": twig})).await;
    assert_eq!(get("a").await["result"], 1);
    assert_eq!(get("b").await["success"], false);

    let refused = put(&server, &path(&other, "bundle"), "this is no Bundle").await.expect(422);
    assert!(refused["detail"].as_str().unwrap().contains("this is no bundle"), "{refused}");
    put(&server, &path(&other, "bundle"), vec![b' '; 1024 * 1024 + 1]).await.expect(413);
    assert_eq!(get("a").await["result"], 1);
    server.post_empty(&path(&other, "undo")).await.expect(200);
    assert_eq!(get("b").await["result"], 2);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_kept_a_bundle_is_brought_all_the_same() {
    let server = TestServer::builder().fake().set("session.durability", "off").start().await;
    let session = server.start_session().await;
    let history = put(&server, &path(&session, "bundle"), r#"{"a": 1}"#).await.expect(200);
    assert_eq!(history, json!({"undo": 0, "redo": 0}));
    let get = json!({"command": "get_value", "twig": "a"});
    assert_eq!(session.result(get).await, 1);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_there_for_its_owner_also_where_it_cannot_be_woken() {
    let mut server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    session.result(json!({"command": "set_value", "twig": "a", "value": 1})).await;
    // Sleeping writes the portable form.
    server.stop().await;
    server.start_again().await;
    let kept = async |form: &str| server.get(&path(&session, &format!("snapshots/{form}"))).await;
    assert_eq!(kept("pickle").await.expect(200), json!({"a": 1}));
    let portable = kept("portable").await;
    assert_eq!(portable.header("content-type"), Some("application/json"));
    assert_eq!(portable.expect(200), json!({"a": 1}));
    kept("json").await.expect(404);
    let asleep = server.get(&format!("/v1/sessions/{}", session.id)).await.expect(200);
    assert_eq!(asleep["status"], "asleep", "looking woke it");
    let mut listed = asleep;
    // Lists leave out what a session takes on disk.
    for field in ["disk_bytes", "disk_limit_bytes"] {
        listed.as_object_mut().unwrap().remove(field).unwrap();
    }
    assert_eq!(listed, server.sessions().await[&session.id]);

    // Both files are of this session, whole, and nothing that a worker can read.
    let folder = server.data().join("sessions").join(&session.id);
    for file in ["1.snapshot", "portable.snapshot"] {
        let content = fs::read(folder.join(file)).unwrap();
        fs::write(folder.join(file), kept::with_payload(&content, b"{\"a\": 1}}")).unwrap();
    }
    let woken = server.session(&session.id).send(&json!({"command": "ping"})).await;
    let refused = woken.expect(503);
    assert!(refused["detail"].as_str().unwrap().contains("snapshots/pickle"), "{refused}");
    assert_eq!(kept("pickle").await.expect(200), Value::Null);
    fs::write(folder.join("1.snapshot"), "torn").unwrap();
    let torn = kept("pickle").await.expect(409);
    assert!(torn["detail"].as_str().unwrap().contains("truncated"), "{torn}");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_made_from_the_journal() {
    let server = TestServer::builder().fake().start().await;
    let session = server.start_session().await;
    for value in 1..=3 {
        let command = json!({"command": "set_value", "twig": "a", "value": value});
        session.result(command).await;
    }
    server.post_empty(&path(&session, "undo")).await.expect(200);
    session.result(json!({"command": "set_value", "twig": "b", "value": 4})).await;
    session.command(json!({"command": "get_value", "twig": "b"})).await;
    let script = server.get(&path(&session, "script")).await;
    assert_eq!(script.header("content-type"), Some("text/x-python; charset=utf-8"));
    assert!(script.header("content-disposition").unwrap().ends_with(".py\""));
    // The fake worker's script is the journal that it was given.
    let entry = |twig: &str, value: i64| {
        let command = json!({"command": "set_value", "twig": twig, "value": value});
        json!({"command": command, "success": true})
    };
    let entries = json!([entry("a", 1), entry("a", 2), entry("b", 4)]);
    assert_eq!(script.expect(200), json!({"entries": entries, "phoebe": "2.5.4"}));
    server.finish().await;
}

async fn download(client: &Client, path: &str) -> Vec<u8> {
    let answer = client.request(Method::GET, path).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.bytes().await.unwrap().to_vec()
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// With PHOEBE: what is undone, kept, copied and taken away has the same values and unique ids, and
/// stock PHOEBE reads it.
#[tokio::test(flavor = "multi_thread")]
async fn phoebes_bundles_go_through_undo_checkpoints_copies_and_files() {
    let server = TestServer::builder().python().start().await;
    let session = server.start_session().await;
    let period = async |session: &Session| {
        session.result(json!({"command": "get_value", "twig": "period@binary@component"})).await
    };
    let unique_id = async |session: &Session| {
        let command = json!({"command": "get_uniqueid", "twig": "period@binary@component"});
        session.result(command).await
    };
    let twig = "period@binary@component";
    let set_period = |value: f64| json!({"command": "set_value", "twig": twig, "value": value});
    let id_before = unique_id(&session).await;
    session.result(set_period(1.5)).await;
    let phases: Vec<f64> = (0..21).map(|n| -0.5 + f64::from(n) / 20.0).collect();
    let dataset = json!({
        "command": "add_dataset", "kind": "lc", "dataset": "lc01", "passband": "Johnson:V",
        "compute_phases": phases,
    });
    session.result(dataset).await;
    let computed = session.result(json!({"command": "run_compute"})).await;
    let fluxes = numbers(&computed["model"]["lc01"]["fluxes"]);
    let wish = json!({"name": "computed"});
    let checkpoint = server.post(&path(&session, "checkpoints"), &wish).await.expect(200);

    session.result(set_period(7.0)).await;
    server.post_empty(&path(&session, "undo")).await.expect(200);
    assert_eq!(period(&session).await, 1.5);
    server.post_empty(&path(&session, "redo")).await.expect(200);
    assert_eq!(period(&session).await, 7.0);
    let back = format!("checkpoints/{}/restore", checkpoint["id"].as_str().unwrap());
    server.post_empty(&path(&session, &back)).await.expect(200);
    assert_eq!(period(&session).await, 1.5);
    assert_eq!(unique_id(&session).await, id_before);
    // The same from the form that survives an upgrade: the exact one is damaged.
    session.result(set_period(7.0)).await;
    let id = checkpoint["id"].as_str().unwrap();
    let kept = server.data().join("sessions").join(&session.id).join("checkpoints");
    fs::write(kept.join(format!("{id}.snapshot")), b"torn").unwrap();
    server.post_empty(&path(&session, &back)).await.expect(200);
    assert_eq!(period(&session).await, 1.5);
    assert_eq!(unique_id(&session).await, id_before);

    let copy = server.post_empty(&path(&session, "clone")).await.expect(200);
    let copy = server.session(copy["session_id"].as_str().unwrap());
    assert_eq!(unique_id(&copy).await, id_before);
    copy.result(set_period(3.0)).await;
    assert_eq!(period(&session).await, 1.5);

    let folder = tempfile::tempdir().unwrap();
    let (script, file) = (folder.path().join("script.py"), folder.path().join("star.phoebe"));
    fs::write(&script, download(&server, &path(&session, "script")).await).unwrap();
    let bundle = download(&server, &path(&session, "bundle")).await;
    fs::write(&file, &bundle).unwrap();
    let paths = json!({"script": script, "file": file}).to_string();
    let stock = "tests/end_to_end/support/stock_files.py";
    let seen = run_stock_phoebe(&server.interpreter(), stock, &paths);
    for (way, seen) in seen.as_object().unwrap() {
        assert_eq!(seen["period"], 1.5, "{way}");
        assert_eq!(seen["datasets"], json!(["lc01"]), "{way}");
        let theirs = numbers(&seen["fluxes"]);
        assert_eq!(theirs.len(), fluxes.len(), "{way}");
        for (ours, theirs) in fluxes.iter().zip(theirs) {
            assert!(((ours - theirs) / theirs).abs() <= 1e-12, "{way}: {ours}, {theirs}");
        }
    }

    let other = server.start_session().await;
    put(&server, &path(&other, "bundle"), bundle).await.expect(200);
    assert_eq!((period(&other).await, unique_id(&other).await), (json!(1.5), id_before));
    let refused = put(&server, &path(&other, "bundle"), "[{\"nonsense\": 1}]").await.expect(422);
    assert!(refused["detail"].as_str().is_some_and(|reason| reason.len() > 10), "{refused}");
    assert_eq!(period(&other).await, 1.5);
    // Of an earlier PHOEBE, and of PHOEBE 1.
    for old in ["phoebe-2.2.2.phoebe.gz", "phoebe-1-by-2.4.23.phoebe.gz"] {
        put(&server, &path(&other, "bundle"), unpacked(old)).await.expect(200);
        period(&other).await.as_f64().unwrap();
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_of_other_versions_of_phoebe_keep_their_values() {
    let server = TestServer::builder().python().start().await;
    let session = server.start_session().await;
    let bundle = path(&session, "bundle");
    let value = async |qualifier: &str, context: &str, label: &str, star: Option<&str>| {
        let mut command = json!({
            "command": "get_value", "qualifier": qualifier, "context": context, context: label,
        });
        if let Some(star) = star {
            command["component"] = json!(star);
        }
        session.result(command).await
    };
    let (primary, secondary) = (Some("primary"), Some("secondary"));

    let imported = put(&server, &bundle, unpacked("phoebe-2.4.23.phoebe.gz")).await.expect(200);
    assert_eq!(imported["notice"], Value::Null);
    assert_eq!(value("rvs", "dataset", "rv01", primary).await, json!([-50.0, -40.0, -30.0]));
    assert_eq!(value("rvs", "dataset", "rv01", secondary).await, json!([60.0, 70.0]));
    assert_eq!(value("times", "dataset", "rv01", primary).await, json!([0.1, 0.2, 0.3]));
    assert_eq!(value("times", "dataset", "rv01", secondary).await, json!([0.15, 0.25]));
    assert_eq!(value("ntriangles", "compute", "phoebe01", secondary).await, 777);
    assert_eq!(value("atm", "compute", "phoebe01", primary).await, "blackbody");
    let enabled = json!({
        "command": "get_value", "qualifier": "enabled", "dataset": "rv01", "compute": "phoebe02",
    });
    assert_eq!(session.result(enabled).await, false);

    // With distributions of constrained parameters.
    put(&server, &bundle, unpacked("phoebe-2.4.3.phoebe.gz")).await.expect(200);

    // With phases to compute at, and from a version that does not exist.
    session.result(json!({"command": "new_bundle"})).await;
    let dataset = json!({
        "command": "add_dataset", "kind": "lc", "dataset": "lc01", "passband": "Johnson:V",
        "compute_phases": [0.0, 0.25],
    });
    session.result(dataset).await;
    let file = download(&server, &bundle).await;
    for (version, told) in [("2.4.23", false), ("devel", true)] {
        // PHOEBE writes NaN, which is no JSON: the text is changed.
        let text = String::from_utf8(file.to_vec()).unwrap();
        let at = text.find("\"phoebe_version\"").unwrap();
        let rest = text[at..].replacen("\"2.5.4\"", &format!("\"{version}\""), 1);
        let imported = format!("{}{rest}", &text[..at]);
        let imported = put(&server, &bundle, imported).await.expect(200);
        assert_eq!(value("compute_phases", "dataset", "lc01", None).await, json!([0.0, 0.25]));
        let shown = server.get(&format!("/v1/sessions/{}", session.id)).await.expect(200);
        assert_eq!(shown["notice"], imported["notice"]);
        let notice = imported["notice"].as_str().unwrap_or_default();
        assert_eq!(notice.contains("'devel'"), told, "{notice}");
    }
    server.finish().await;
}

/// A file that an earlier PHOEBE wrote.
fn unpacked(name: &str) -> Vec<u8> {
    let path = format!("{}/../../worker/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut content = Vec::new();
    let mut file = flate2::read::GzDecoder::new(fs::File::open(path).unwrap());
    std::io::Read::read_to_end(&mut file, &mut content).unwrap();
    content
}
