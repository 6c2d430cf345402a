//! The newcomer's path with real PHOEBE: what a session computes is what PHOEBE computes.

use serde_json::{Value, json};

use crate::support::{TestServer, run_stock_phoebe};

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

    let script = "tests/end_to_end/support/stock_light_curve.py";
    let stock = run_stock_phoebe(&server.interpreter(), script, &json!(phases).to_string());
    let stock = numbers(&stock);

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

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}
