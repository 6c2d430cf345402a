//! Which pages of other origins may use the API: a browser sends a page's requests whether its user wants that or not.
//!
//! Pages that are not allowed can neither read answers (CORS) nor change anything: a browser asks no leave for a plain POST, so
//! such a request is refused by its `Origin`. Programs send no `Origin` and are not concerned.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

use crate::config::{PublicUrl, Settings};
use crate::error::HttpError;

/// Pages that are served by this machine, on any port.
const THIS_MACHINE: [&str; 3] = ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"];

/// Origins whose pages may use the API.
#[derive(Debug, Clone)]
pub(super) struct Origins(Arc<[Rule]>);

#[derive(Debug, PartialEq, Eq)]
enum Rule {
    Any,
    Exact(String),
    /// Everything up to the port's colon, for any port or none.
    AnyPort(String),
}

impl Origins {
    /// Those of the settings. Where none are set: any if requests need a token or a key, which a
    /// strange page does not have; else those of this machine, for whoever reaches the server may use
    /// it. Pages of `public_url` always may.
    pub(super) fn of(settings: &Settings) -> Self {
        let own = settings.server.public_url.as_ref().map(PublicUrl::origin);
        let set: Vec<&str> = settings.server.cors_origins.iter().map(String::as_str).collect();
        let others = match (&set[..], settings.auth.asks_nobody()) {
            ([], true) => &THIS_MACHINE,
            ([], false) => &["*"][..],
            (set, _) => set,
        };
        Self::new(others.iter().copied().chain(own))
    }

    fn new<'a>(origins: impl IntoIterator<Item = &'a str>) -> Self {
        Self(origins.into_iter().map(Rule::parse).collect())
    }

    fn allow(&self, origin: &str) -> bool {
        self.0.iter().any(|rule| rule.allows(origin))
    }

    /// Whether one of them is a page of this host, on whatever port.
    pub(super) fn name(&self, host: &str) -> bool {
        self.0.iter().any(|rule| rule.names(host))
    }

    /// What browsers are told. Tokens travel in a header, so cookies are never allowed.
    pub(super) fn cors(&self) -> CorsLayer {
        let allowed = if self.0.contains(&Rule::Any) {
            AllowOrigin::any()
        } else {
            let origins = self.clone();
            let allow = move |origin: &HeaderValue| {
                origin.to_str().is_ok_and(|origin| origins.allow(origin))
            };
            AllowOrigin::predicate(move |origin, _| allow(origin))
        };
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods(AllowMethods::mirror_request())
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers([header::RETRY_AFTER, HeaderName::from_static("www-authenticate")])
    }

    /// Refuses what a page of another origin may not change.
    pub(super) async fn guard(self, request: Request, next: Next) -> Response {
        match stranger(request.headers()) {
            Some(origin) if !request.method().is_safe() && !self.allow(origin) => {
                let text = format!(
                    "Pages of {origin} may not use this server. Its operator can allow them with \
                     [server] cors_origins"
                );
                HttpError::new(StatusCode::FORBIDDEN, text).into_response()
            }
            _ => next.run(request).await,
        }
    }
}

impl Rule {
    fn parse(text: &str) -> Self {
        let text = text.trim_end_matches('/');
        match text.strip_suffix(":*") {
            _ if text == "*" => Self::Any,
            Some(host) => Self::AnyPort(host.to_owned()),
            None => Self::Exact(text.to_owned()),
        }
    }

    fn names(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(origin) | Self::AnyPort(origin) => {
                origin.parse::<Uri>().is_ok_and(|origin| origin.host() == Some(host))
            }
        }
    }

    fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => origin == exact,
            Self::AnyPort(host) => match origin.strip_prefix(host.as_str()) {
                Some("") => true,
                Some(rest) => {
                    rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
                }
                None => false,
            },
        }
    }
}

/// The origin of the page that sends the request, if it is not the server's own.
fn stranger(headers: &HeaderMap) -> Option<&str> {
    let origin = headers.get(header::ORIGIN)?.to_str().unwrap_or("an unreadable origin");
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    // Behind a proxy that ends TLS the schemes differ.
    let host = origin.split_once("://").map(|(_, host)| host);
    (host.is_none() || host != own).then_some(origin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AuthMode;

    #[test]
    fn a_rule_allows_what_it_says_and_nothing_that_looks_like_it() {
        let origins = Origins::new(["http://localhost:*", "https://x.org/"]);
        for allowed in ["http://localhost", "http://localhost:3000", "https://x.org"] {
            assert!(origins.allow(allowed), "{allowed}");
        }
        for refused in [
            "https://localhost:3000",
            "http://localhost.evil.org",
            "http://localhost:3000.evil.org",
            "http://localhost:",
            "https://x.org:8443",
            "https://x.org.evil.org",
            "null",
            "",
        ] {
            assert!(!origins.allow(refused), "{refused}");
        }
    }

    #[test]
    fn where_none_are_set_strange_pages_need_what_they_do_not_have() {
        let mut settings = Settings::default();
        assert!(!Origins::of(&settings).allow("https://x.org"));
        assert!(Origins::of(&settings).allow("http://localhost:3000"));
        settings.server.public_url = PublicUrl::parse("https://uni.example.org/phoebe/");
        assert!(Origins::of(&settings).allow("https://uni.example.org"), "its own pages");
        assert!(Origins::of(&settings).name("uni.example.org"));
        assert!(!Origins::of(&settings).allow("https://x.org"));
        settings.auth.mode = AuthMode::Jwt;
        assert!(Origins::of(&settings).allow("https://x.org"));
        settings.server.cors_origins = vec!["https://y.org".to_owned()];
        assert!(!Origins::of(&settings).allow("https://x.org"));
    }

    #[test]
    fn a_page_of_the_server_itself_is_no_stranger() {
        let headers = |origin: &'static str| {
            HeaderMap::from_iter([
                (header::ORIGIN, HeaderValue::from_static(origin)),
                (header::HOST, HeaderValue::from_static("127.0.0.1:8001")),
            ])
        };
        assert_eq!(stranger(&headers("http://127.0.0.1:8001")), None);
        assert_eq!(stranger(&headers("https://127.0.0.1:8001")), None);
        assert_eq!(stranger(&headers("http://127.0.0.1:8002")), Some("http://127.0.0.1:8002"));
        assert_eq!(stranger(&headers("null")), Some("null"));
        assert_eq!(stranger(&HeaderMap::new()), None);
    }
}
