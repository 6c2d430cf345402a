//! Adds to the OpenAPI document the answers that many routes share.

use utoipa::openapi::path::Operation;
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
}

const COMMON: [(&str, &str, Routes); 8] = [
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
            Self::AllButHealth => !path.starts_with("/health"),
            Self::Protected => operation.security.is_some(),
            Self::WithBody => operation.request_body.is_some(),
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

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}
