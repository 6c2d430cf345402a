//! The newcomer's path with real PHOEBE: what a session computes is what PHOEBE computes.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{TestServer, until};

/// Relative difference that the server may make.
const TOLERANCE: f64 = 1e-12;

#[tokio::test(flavor = "multi_thread")]
async fn a_light_curve_equals_that_of_stock_phoebe() {
    let mut server = TestServer::builder().python().start().await;
    let session = server.start_session().await;
    let phases: Vec<f64> = (0..201).map(|n| -0.5 + f64::from(n) / 200.0).collect();
    session.result(json!({"command": "set_value", "twig": "period@binary", "value": 1.5})).await;
    let dataset = json!({
        "command": "add_dataset", "kind": "lc", "dataset": "lc01", "passband": "Johnson:V",
        "compute_phases": phases,
    });
    session.result(dataset).await;
    let result = session.result(json!({"command": "run_compute"})).await;
    let fluxes = numbers(&result["model"]["lc01"]["fluxes"]);

    let stock = stock_fluxes(&interpreter(&server).await, &phases);

    assert_eq!(fluxes.len(), 201);
    assert_eq!(fluxes.len(), stock.len());
    for ((phase, ours), theirs) in phases.iter().zip(&fluxes).zip(&stock) {
        let difference = ((ours - theirs) / theirs).abs();
        assert!(difference <= TOLERANCE, "phase {phase}: {ours} here, {theirs} in stock PHOEBE");
    }
    let dip = fluxes.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(dip < 0.6 * fluxes[50], "no eclipse in the light curve");

    session.end().await.expect(200);
    server.stop().await;
    let names: Vec<String> =
        server.database().column("SELECT command_name FROM session_commands ORDER BY id");
    assert_eq!(names, ["set_value", "add_dataset", "run_compute"]);
    let measured: Vec<f64> = server.database().column("SELECT memory_used_mb FROM session_metrics");
    assert!(!measured.is_empty());
    server.finish().await;
}

/// The interpreter in which the server's workers run.
async fn interpreter(server: &TestServer) -> String {
    until("the zygote", std::time::Duration::from_secs(10), async || {
        let zygote = server.workers().into_iter().find(|process| process.parent == server.pid())?;
        zygote.command_line.split_ascii_whitespace().next().map(str::to_owned)
    })
    .await
}

fn stock_fluxes(python: &str, phases: &[f64]) -> Vec<f64> {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/support/stock_light_curve.py");
    let output = Command::new(python)
        .arg("-I")
        .arg(script)
        .arg(json!(phases).to_string())
        .env("PHOEBE_ENABLE_ONLINE_PASSBANDS", "FALSE")
        .env("OPENBLAS_NUM_THREADS", "1")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let text = String::from_utf8(output.stdout).unwrap();
    numbers(&serde_json::from_str(text.lines().last().unwrap()).unwrap())
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}
