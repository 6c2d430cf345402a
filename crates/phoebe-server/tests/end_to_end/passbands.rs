//! Passbands that are installed and removed while the server runs, with real PHOEBE and a passband
//! that the recipe of the documents makes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Finished, Program, Session, TestServer, run_stock_phoebe};

/// Relative difference that the server may make.
const TOLERANCE: f64 = 1e-12;

/// Runs `passbands` beside the server, on its settings.
fn passbands(server: &TestServer, arguments: &[&str]) -> Finished {
    let config = server.config().to_str().unwrap();
    let program = Program::new(server.root()).arguments(["--config", config, "passbands"]);
    program.arguments(arguments).deadline(Duration::from_secs(600)).run()
}

#[track_caller]
fn succeed(server: &TestServer, arguments: &[&str]) -> String {
    let finished = passbands(server, arguments);
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    finished.stdout
}

#[track_caller]
fn refused(server: &TestServer, arguments: &[&str], reason: &str) {
    let finished = passbands(server, arguments);
    assert_eq!(finished.code, Some(1), "{arguments:?}: {finished:?}");
    assert!(finished.stderr.contains(reason), "{reason}: {finished:?}");
}

async fn names(server: &TestServer) -> Value {
    server.get("/system/passbands").await.expect(200)["result"]["passbands"].clone()
}

/// The document's commands.
async fn light_curve(session: &Session, commands: &Value) -> Value {
    let mut result = Value::Null;
    for command in commands.as_array().unwrap() {
        result = session.result(command.clone()).await;
    }
    result["model"]["lc01"]["fluxes"].clone()
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[track_caller]
fn assert_equal(ours: &Value, stock: &Value) {
    let (ours, stock) = (numbers(ours), numbers(stock));
    assert_eq!(ours.len(), stock.len());
    for (ours, stock) in ours.iter().zip(&stock) {
        assert!(((ours - stock) / stock).abs() <= TOLERANCE, "{ours} here, {stock} in PHOEBE");
    }
}

/// The recipe's file is in `folder` afterwards.
fn stock(server: &TestServer, folder: &Path) -> Value {
    fs::create_dir(folder).unwrap();
    let script = "tests/end_to_end/support/stock_passband.py";
    run_stock_phoebe(&server.interpreter(), script, &json!({"folder": folder}).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passband_comes_and_goes_while_sessions_live() {
    let mut server = TestServer::builder().python().start().await;
    let living = server.start_session().await;
    let stock = stock(&server, &server.root().join("recipe"));
    let commands = &stock["commands"];
    let own = json!(["Bolometric:900-40000", "Johnson:V"]);
    assert_eq!(names(&server).await, own);
    let unknown = living.command(commands[1].clone()).await;
    assert_eq!(unknown["success"], false);
    assert!(unknown["advice"].as_str().unwrap().contains("passbands install"), "{unknown}");

    // What is wrong is refused whole, and says why.
    let page = server.root().join("page.fits");
    fs::write(&page, "<html>404</html>").unwrap();
    refused(&server, &["install", "recipe/dome_i.fits", "page.fits"], "looks like a web page");
    refused(&server, &["install", "nowhere.fits"], "No such file");
    let folder = server.data().join("passbands");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "all or none");

    let told = succeed(&server, &["install", "recipe/dome_i.fits"]);
    assert!(told.starts_with("Dome:i (blackbody): ") && told.ends_with("dome_i.fits\n"), "{told}");
    assert_eq!(names(&server).await, json!(["Bolometric:900-40000", "Dome:i", "Johnson:V"]));
    assert_equal(&light_curve(&living, commands).await, &stock["fluxes"]);
    let new = server.start_session().await;
    assert_equal(&light_curve(&new, commands).await, &stock["fluxes"]);
    refused(&server, &["install", "recipe/dome_i.fits"], "Dome:i is there already, version 1.0");
    let list = succeed(&server, &["list"]);
    let row = list.lines().find(|line| line.starts_with("Dome:i ")).unwrap();
    assert!(row.contains(" 1.0 ") && row.ends_with("installed"), "{list}");
    assert!(list.contains("PHOEBE's own"), "{list}");

    // It is there after a restart, and a session that used it wakes and computes.
    server.stop().await;
    server.start_again().await;
    let woken = server.session(&living.id);
    let again = woken.result(json!({"command": "run_compute"})).await;
    assert_equal(&again["model"]["lc01"]["fluxes"], &stock["fluxes"]);

    let told = succeed(&server, &["remove", "Dome:i"]);
    assert!(told.starts_with("Dome:i: removed "), "{told}");
    refused(&server, &["remove", "Dome:i"], "there is no passband Dome:i");
    refused(&server, &["remove", "Johnson:V"], "was not installed by this command");
    assert_eq!(names(&server).await, own);
    let failed = woken.command(json!({"command": "run_compute"})).await;
    assert!(failed["error"].as_str().unwrap().contains("'Dome:i' passband"), "{failed}");
    assert!(failed["advice"].as_str().unwrap().contains("passbands install"), "{failed}");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_zygote_and_with_phoebes_variable_follows_too() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("passbands");
    let builder = TestServer::builder().python().set("worker.start", "spawn");
    let builder = builder.set("session.start_timeout_seconds", 300.0);
    let server = builder.environment("PHOEBE_PBDIR", folder.to_str().unwrap()).start().await;
    let own = names(&server).await;
    // Its worker's interpreter is the one with PHOEBE.
    let session = server.start_session().await;
    let stock = stock(&server, &server.root().join("recipe"));
    assert!(folder.is_dir(), "it is made where it is missing");
    fs::copy(server.root().join("recipe/dome_i.fits"), folder.join("dome_i.fits")).unwrap();
    assert_ne!(names(&server).await, own);
    assert_equal(&light_curve(&session, &stock["commands"]).await, &stock["fluxes"]);
    fs::remove_file(folder.join("dome_i.fits")).unwrap();
    assert_eq!(names(&server).await, own);
    server.finish().await;
}
