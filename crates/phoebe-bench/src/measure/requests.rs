//! The commands that are measured, the same for the server and for stock PHOEBE.

use serde_json::{Value, json};

/// Phases of the light curve of the promises.
pub(crate) const PHASES: usize = 201;
/// Its dataset.
pub(crate) const DATASET: &str = "lc01";

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
    json!({"command": "set_value", "twig": "period@binary", "value": 1.0 + 1e-3 * (round % 100) as f64})
}

/// Adds a light curve of [`PHASES`] phases over one orbit.
pub(crate) fn add_dataset() -> Value {
    let phases: Vec<f64> =
        (0..PHASES).map(|index| index as f64 / (PHASES - 1) as f64 - 0.5).collect();
    json!({"command": "add_dataset", "kind": "lc", "dataset": DATASET, "passband": "Johnson:V", "compute_phases": phases})
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
