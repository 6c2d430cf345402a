//! Health, readiness, passbands and versions of the server.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::caller::Caller;
use super::state::Shared;
use crate::error::{ErrorBody, HttpError};

/// How long the database and Python may take to answer a readiness check.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// Name and version of the server.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Service {
    #[schema(example = "phoebe-server")]
    service: &'static str,
    #[schema(example = "0.1.0")]
    version: &'static str,
    #[schema(example = "running")]
    status: &'static str,
}

/// The result of a health check.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    #[schema(example = "ok")]
    status: &'static str,
}

/// The result of a readiness check.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    /// `ready` or `not_ready`.
    #[schema(example = "ready")]
    status: &'static str,
    /// The state of each part: `ok`, or the error.
    checks: BTreeMap<&'static str, String>,
}

/// A result in the form of a worker's answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Success<T> {
    /// Always true.
    success: bool,
    result: T,
}

/// Installed passbands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Passbands {
    /// Full names, sorted.
    #[schema(example = json!(["Bolometric:900-40000", "Johnson:V"]))]
    passbands: Vec<String>,
    /// The names after the colon, by the name before it.
    #[schema(example = json!({"Bolometric": ["900-40000"], "Johnson": ["V"]}))]
    grouped: BTreeMap<String, Vec<String>>,
}

/// Versions and statistics.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SystemInfo {
    /// Version of this server.
    server_version: &'static str,
    /// Version of PHOEBE; null until it is imported.
    #[schema(example = "2.5.4")]
    phoebe_version: Option<String>,
    /// Version of Python; null until PHOEBE is imported.
    python_version: Option<String>,
    /// Version of NumPy; null until PHOEBE is imported.
    numpy_version: Option<String>,
    /// Versions of optional packages of some of PHOEBE's solvers, features and backends; null if a
    /// package is missing. Empty until PHOEBE is imported.
    #[schema(example = json!({"emcee": "3.1.6", "ellc": null}))]
    optional_packages: BTreeMap<String, Option<String>>,
    /// How users authenticate.
    auth_mode: &'static str,
    /// Current sessions of all users.
    sessions: usize,
    /// Seconds since the server has started to serve.
    uptime_seconds: f64,
}

/// Show name and version
#[utoipa::path(
    get, path = "/", tag = "system",
    responses((status = 200, description = "Name and version", body = Service))
)]
pub(super) async fn root() -> Json<Service> {
    let version = env!("CARGO_PKG_VERSION");
    Json(Service { service: "phoebe-server", version, status: "running" })
}

/// Check that the server answers
#[utoipa::path(
    get, path = "/health", tag = "system",
    responses((status = 200, description = "The server answers", body = Health))
)]
pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Check that the server can work
///
/// Checks the database, Python and the data directory.
#[utoipa::path(
    get, path = "/health/ready", tag = "system",
    responses(
        (status = 200, description = "The server can work", body = Readiness),
        (status = 503, description = "A check failed", body = Readiness),
    )
)]
pub(super) async fn ready(State(context): State<Shared>) -> (StatusCode, Json<Readiness>) {
    let late = |what: &str| format!("{what} did not answer within {} s", READY_TIMEOUT.as_secs());
    let database = async {
        match timeout(READY_TIMEOUT, context.app.store.check()).await {
            Ok(Ok(())) => "ok".to_owned(),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the database is not ready");
                "the database cannot be read and written; see the server's log".to_owned()
            }
            Err(_) => late("the database"),
        }
    };
    let python = async {
        match timeout(READY_TIMEOUT, context.app.sessions.python_info()).await {
            Ok(Ok(_)) => "ok".to_owned(),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the Python side is not ready");
                "PHOEBE could not be imported; see the server's log".to_owned()
            }
            Err(_) => late("PHOEBE"),
        }
    };
    let (database, python) = tokio::join!(database, python);
    let data = context.app.data.check().err().unwrap_or("ok").to_owned();
    let checks =
        BTreeMap::from([("data_directory", data), ("database", database), ("python", python)]);
    let (code, status) = if checks.values().all(|check| check == "ok") {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not_ready")
    };
    (code, Json(Readiness { status, checks }))
}

/// List installed passbands
///
/// Reflects files that were installed or removed while the server runs.
#[utoipa::path(
    get, path = "/system/passbands", tag = "system",
    responses(
        (status = 200, description = "The names", body = Success<Passbands>),
        (status = 503, description = "PHOEBE could not be imported", body = ErrorBody),
    )
)]
pub(super) async fn passbands(
    State(context): State<Shared>,
    _caller: Caller,
) -> Result<Json<Success<Passbands>>, HttpError> {
    let passbands = context.app.sessions.passbands().await?;
    let grouped = grouped(&passbands);
    Ok(Json(Success { success: true, result: Passbands { passbands, grouped } }))
}

fn grouped(passbands: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for passband in passbands {
        let (set, name) = passband.split_once(':').unwrap_or((passband, passband));
        groups.entry(set.to_owned()).or_default().push(name.to_owned());
    }
    groups
}

/// Show versions and statistics
#[utoipa::path(
    get, path = "/system/info", tag = "system",
    responses((status = 200, description = "Versions and statistics", body = Success<SystemInfo>))
)]
pub(super) async fn info(
    State(context): State<Shared>,
    _caller: Caller,
) -> Json<Success<SystemInfo>> {
    let app = &context.app;
    let python = timeout(READY_TIMEOUT, app.sessions.python_info()).await.ok().and_then(Result::ok);
    let python = python.as_ref();
    let result = SystemInfo {
        server_version: env!("CARGO_PKG_VERSION"),
        phoebe_version: python.map(|info| info.phoebe.clone()),
        python_version: python.map(|info| info.python.clone()),
        numpy_version: python.map(|info| info.numpy.clone()),
        optional_packages: python.map(|info| info.optional_packages.clone()).unwrap_or_default(),
        auth_mode: app.authenticator.mode_name(),
        sessions: app.sessions.list().len(),
        uptime_seconds: context.started.elapsed().as_secs_f64(),
    };
    Json(Success { success: true, result })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passbands_are_grouped_by_what_comes_before_the_colon() {
        let names = ["Bolometric:900-40000", "Johnson:B", "Johnson:V", "white"].map(str::to_owned);
        assert_eq!(
            serde_json::to_value(grouped(&names)).unwrap(),
            serde_json::json!({
                "Bolometric": ["900-40000"], "Johnson": ["B", "V"], "white": ["white"],
            })
        );
    }
}
