//! Adds to the OpenAPI document what many routes share: answers, and the ways to authenticate.

use utoipa::openapi::path::Operation;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ContentBuilder, OpenApi, PathItem, Ref, ResponseBuilder};

/// The routes that have an answer.
#[derive(Clone, Copy)]
enum Routes {
    All,
    AllButHealth,
    /// Routes that need authentication.
    Protected,
    /// Routes that read a body.
    WithBody,
    /// Routes with a session in their path.
    WithSession,
}

const COMMON: [(&str, &str, Routes); 10] = [
    ("403", "The session belongs to another user", Routes::WithSession),
    ("404", "The session does not exist", Routes::WithSession),
    ("400", "The request body is incomplete", Routes::WithBody),
    ("401", "The token or key is missing or not valid", Routes::Protected),
    (
        "403",
        "The API key is not valid, or the request comes from a page of another origin",
        Routes::Protected,
    ),
    ("408", "The request body arrived too slowly", Routes::WithBody),
    ("413", "The request body is too large", Routes::WithBody),
    ("421", "The `Host` header names another server", Routes::All),
    ("429", "You have too many requests in flight", Routes::Protected),
    ("503", "The server has too many requests in flight", Routes::AllButHealth),
];

impl Routes {
    fn have(self, path: &str, operation: &Operation) -> bool {
        match self {
            Self::All => true,
            Self::AllButHealth => !path.starts_with("/health") && path != "/metrics",
            Self::Protected => operation.security.is_some(),
            Self::WithBody => operation.request_body.is_some(),
            Self::WithSession => path.contains("{session_id}"),
        }
    }
}

/// Adds the shared answers. An answer that the handler documents itself takes precedence.
pub(super) fn add(mut document: OpenApi) -> OpenApi {
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            for (status, description, routes) in COMMON {
                if !routes.have(path, operation) {
                    continue;
                }
                let schema = Some(Ref::from_schema_name("ErrorBody"));
                let content = ContentBuilder::new().schema(schema).build();
                let response = ResponseBuilder::new()
                    .description(description)
                    .content("application/json", content);
                let responses = &mut operation.responses.responses;
                responses.entry(status.to_owned()).or_insert_with(|| response.build().into());
            }
        }
    }
    document
}

/// Marks routes as open to a token or an API key, unless the handler says otherwise. Mode `none`
/// needs neither.
pub(super) fn add_security(document: &mut OpenApi) {
    let scheme = |name| SecurityRequirement::new::<&str, [&str; 0], &str>(name, []);
    let all = [SecurityRequirement::default(), scheme("token"), scheme("api_key")];
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        operation.security.get_or_insert_with(|| all.to_vec());
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}
