//! The routes: each handler converts the request, makes one call and converts the result. Handlers
//! keep no state.

mod accounts;
mod api_keys;
mod body;
mod caller;
mod common_answers;
mod json;
mod metrics;
mod pages;
mod send;
mod sessions;
mod state;
mod system;
mod v1;
mod view;

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::MetricsToken;
use crate::config::PublicUrl;
use crate::error::HttpError;
use crate::web::CallerLimit;

use caller::Access;
// For the benchmarks.
#[doc(hidden)]
pub use json::command_name;
pub use state::App;
use state::{Context, Shared};

/// The streams of events that a caller may follow at once.
const STREAMS_PER_CALLER: usize = 16;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "phoebe-server",
        description = "PHOEBE sessions over HTTP: each user has isolated Bundles and sends \
                       commands as JSON.",
        license(name = "GPL-3.0-or-later", identifier = "GPL-3.0-or-later")
    ),
    servers((url = ".", description = "The folder of this document, under any path prefix")),
    tags(
        (name = "sessions", description = "Start, list, measure and end sessions."),
        (name = "commands", description = "Send commands to a session's Bundle."),
        (name = "jobs", description = "Follow, cancel and find long commands."),
        (name = "history", description = "Undo, redo, checkpoints, share links."),
        (name = "files", description = "Bundles and scripts as files."),
        (name = "accounts", description = "Accounts, tokens and API keys."),
        (name = "system", description = "Health and versions of the server.")
    ),
    modifiers(&Schemes)
)]
struct Document;

/// The security schemes of the document.
struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key")));
        components.add_security_scheme("token", token);
        components.add_security_scheme("api_key", key);
    }
}

/// Routes without authentication.
fn open_routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(system::root))
        .routes(routes!(system::health))
        .routes(routes!(system::ready))
        .routes(routes!(accounts::config))
        .routes(routes!(accounts::register))
        .routes(routes!(accounts::login))
}

/// Routes behind the guard. Where the path has `{session_id}`, only the session's owner and
/// administrators pass, and the handler takes the session as [`caller::OwnedSession`].
fn protected_routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(accounts::me))
        .routes(routes!(api_keys::create, api_keys::list))
        .routes(routes!(api_keys::revoke))
        .routes(routes!(system::passbands))
        .routes(routes!(system::info))
        .routes(routes!(sessions::start))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::memory_of_all))
        .routes(routes!(sessions::port_status))
        .routes(routes!(sessions::update_user_info))
        .routes(routes!(send::send))
        .routes(routes!(send::send_batch))
        .merge(v1::routes())
}

/// Routes behind the guard that instructors may also use for sessions of their students. They must
/// not read or change a Bundle.
fn supervised_routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(sessions::end))
        .routes(routes!(sessions::memory))
        .merge(v1::supervised_routes())
}

/// The route for monitoring systems, behind the guard.
fn monitoring_routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(metrics::metrics))
}

fn documented_routes() -> OpenApiRouter<Shared> {
    let mut guarded = protected_routes().merge(supervised_routes()).merge(monitoring_routes());
    common_answers::add_security(guarded.get_openapi_mut());
    OpenApiRouter::with_openapi(Document::openapi()).merge(open_routes()).merge(guarded)
}

/// Returns the OpenAPI document of all routes as formatted JSON.
///
/// # Errors
/// Never in practice: the document is plain data.
pub fn openapi_json() -> Result<String, serde_json::Error> {
    common_answers::add(documented_routes().into_openapi()).to_pretty_json()
}

/// Returns the router of all routes, with JSON answers for unknown paths and methods.
pub(crate) fn routes(app: App) -> Router {
    let caller_limit = CallerLimit::new(app.settings.server.max_requests_per_caller);
    let body_memory = body::memory_limit(&app.settings.server);
    let metrics = app.settings.metrics.clone();
    let context = Arc::new(Context {
        app,
        started: Instant::now(),
        caller_limit,
        stream_limit: CallerLimit::new(STREAMS_PER_CALLER),
        epoch: uuid::Uuid::new_v4().simple().to_string(),
        body_memory,
        metrics_token: MetricsToken::new(&metrics),
    });
    let limit = middleware::from_fn_with_state(Arc::clone(&context), caller::limit);
    let guarded = |routes: OpenApiRouter<Shared>, access| {
        let guard = caller::Guard { context: Arc::clone(&context), access };
        let (routes, _) = routes.split_for_parts();
        let routes = routes.route_layer(limit.clone());
        routes.route_layer(middleware::from_fn_with_state(guard, caller::guard))
    };
    let (open, _) = open_routes().split_for_parts();
    Router::new()
        .merge(open)
        .merge(guarded(protected_routes(), Access::Use))
        .merge(guarded(supervised_routes(), Access::Supervise))
        .merge(guarded(monitoring_routes(), Access::Monitor))
        .route("/openapi.json", get(openapi))
        .route("/docs", get(pages::swagger_ui))
        .route("/docs/", get(pages::swagger_ui_in_folder))
        .route("/redoc", get(pages::redoc))
        .route("/redoc/", get(pages::redoc_in_folder))
        .route("/docs/{file}", get(pages::asset))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(context)
}

/// `/openapi.json`
async fn openapi() -> Response {
    // The routes do not change while the server runs.
    static DOCUMENT: LazyLock<Result<String, serde_json::Error>> = LazyLock::new(openapi_json);
    match &*DOCUMENT {
        Ok(document) => ([(CONTENT_TYPE, "application/json")], document.as_str()).into_response(),
        Err(error) => {
            tracing::error!(%error, "the OpenAPI document could not be written");
            HttpError::internal().into_response()
        }
    }
}

async fn not_found(State(context): State<Shared>, uri: Uri) -> HttpError {
    let public = context.app.settings.server.public_url.as_ref();
    match public.map(PublicUrl::prefix).filter(|prefix| prefix.leads_to(uri.path())) {
        Some(prefix) => HttpError::not_found(format!(
            "Not Found: the proxy in front of this server must strip {prefix} from the path"
        )),
        None => HttpError::not_found("Not Found"),
    }
}

async fn method_not_allowed() -> HttpError {
    HttpError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The environment variable that makes the test rewrite the document.
    const REWRITE: &str = "REWRITE_OPENAPI";

    #[test]
    fn the_checked_in_document_is_the_servers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let document = openapi_json().unwrap() + "\n";
        if std::env::var_os(REWRITE).is_some() {
            std::fs::write(path, &document).unwrap();
        }
        let checked_in = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            checked_in == document,
            "docs/openapi.json is not current: run this test with {REWRITE}=1 and review the diff"
        );
    }

    /// The guard checks sessions by the name of the path parameter. A path with another parameter
    /// needs a check of its own.
    #[test]
    fn path_parameters_are_checked_by_the_guard() {
        let names = |routes: OpenApiRouter<Shared>| {
            let document = serde_json::to_value(routes.into_openapi()).unwrap();
            let paths: Vec<String> =
                document["paths"].as_object().unwrap().keys().cloned().collect();
            // Parameters after a session name a part of it.
            let names = paths.iter().filter_map(|path| path.split('{').nth(1));
            names.map(|rest| rest.split('}').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(open_routes()), [""; 0], "nothing is named without a guard");
        for name in names(protected_routes()).into_iter().chain(names(supervised_routes())) {
            // A share token grants access by itself, and `api_keys` looks at the caller's own keys
            // only.
            assert!([caller::SESSION, "token", "key_id"].contains(&name.as_str()), "{name}");
        }
    }

    #[test]
    fn every_operation_is_described() {
        let document: serde_json::Value = serde_json::from_str(&openapi_json().unwrap()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let mut ids = std::collections::BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let has =
                    |field: &str| operation[field].as_str().is_some_and(|text| !text.is_empty());
                assert!(has("summary"), "{method} {path} has no doc comment");
                let id = operation["operationId"].as_str().unwrap().to_owned();
                assert!(ids.insert(id), "{method} {path} has another operation's id");
                assert!(operation["tags"].is_array(), "{method} {path} has no tag");
                let answers = &operation["responses"];
                let succeeds = ["200", "204"].iter().any(|status| answers[status].is_object());
                assert!(succeeds, "{method} {path} has no answer");
            }
        }
    }
}
