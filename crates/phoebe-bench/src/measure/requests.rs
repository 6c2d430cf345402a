//! The commands that are measured, the same for the server and for stock PHOEBE.

use serde_json::{Value, json};

/// Phases of the light curve of the promises.
pub(crate) const PHASES: usize = 201;
/// Its dataset.
pub(crate) const DATASET: &str = "lc01";

/// Points of the observed light curve.
pub(crate) const OBSERVATIONS: usize = 100_000;
/// Phases at which its model is computed.
const MODEL_PHASES: usize = 11;

/// Reads one parameter.
pub(crate) fn get_value() -> Value {
    json!({"command": "get_value", "twig": "period@binary"})
}

/// Sets one parameter, on which nothing depends, to another value each time.
pub(crate) fn set_value(round: usize) -> Value {
    json!({"command": "set_value", "twig": "teff@primary@component", "value": 6000 + round % 100})
}

/// Sets one parameter, on which constraints depend, to another value each time.
pub(crate) fn set_constraining_value(round: usize) -> Value {
    let value = 1.0 + 1e-3 * (round % 100) as f64;
    json!({"command": "set_value", "twig": "period@binary", "value": value})
}

/// Adds a light curve of [`PHASES`] phases over one orbit.
pub(crate) fn add_dataset() -> Value {
    json!({
        "command": "add_dataset", "kind": "lc", "dataset": DATASET, "passband": "Johnson:V",
        "compute_phases": orbit(PHASES)
    })
}

/// Adds a light curve that was observed at [`OBSERVATIONS`] times, of which a model is computed at
/// few phases.
pub(crate) fn add_observations() -> Value {
    let each = |value: fn(f64) -> f64| -> Vec<f64> {
        (0..OBSERVATIONS).map(|index| value(index as f64)).collect()
    };
    json!({
        "command": "add_dataset", "kind": "lc", "dataset": DATASET, "passband": "Johnson:V",
        "times": each(|index| index * 1e-3),
        "fluxes": each(|index| 1.0 + 1e-2 * index.sin()),
        "sigmas": each(|_| 1e-2),
        "compute_phases": orbit(MODEL_PHASES),
    })
}

/// So many phases, over one orbit.
fn orbit(count: usize) -> Vec<f64> {
    (0..count).map(|index| index as f64 / (count - 1) as f64 - 0.5).collect()
}

/// Removes it.
pub(crate) fn remove_dataset() -> Value {
    json!({"command": "remove_dataset", "dataset": DATASET})
}

/// Gets the whole Bundle as JSON.
pub(crate) fn get_bundle() -> Value {
    json!({"command": "get_bundle"})
}

/// Computes the light curve.
pub(crate) fn run_compute() -> Value {
    json!({"command": "run_compute"})
}

/// Replaces the Bundle.
pub(crate) fn load_bundle(bundle: &Value) -> Value {
    json!({"command": "load_bundle", "bundle": bundle})
}
