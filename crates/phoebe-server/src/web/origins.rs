//! Checks which pages of other origins may use the API. Browsers send a page's requests without
//! asking their user.
//!
//! Other pages can neither read answers (CORS) nor change anything. Browsers send a simple POST
//! without a preflight, so the server refuses such a request by its `Origin`. Programs other than
//! browsers send no `Origin` and are not affected.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

use crate::config::{PublicUrl, Settings};
use crate::error::HttpError;

/// Pages served by this machine, on any port.
const THIS_MACHINE: [&str; 3] = ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"];

/// Origins whose pages may use the API.
#[derive(Debug, Clone)]
pub(super) struct Origins(Arc<[Rule]>);

#[derive(Debug, PartialEq, Eq)]
enum Rule {
    Any,
    Exact(String),
    /// The origin up to the port's colon; any port, or none.
    AnyPort(String),
}

impl Origins {
    /// Reads the origins from the settings. Without any: all origins if requests need a token or a
    /// key, which a foreign page lacks; otherwise the origins of this machine. Pages of
    /// `public_url` are always allowed.
    pub(super) fn of(settings: &Settings) -> Self {
        let own = settings.server.public_url.as_ref().map(PublicUrl::origin);
        let set: Vec<&str> = settings.server.cors_origins.iter().map(String::as_str).collect();
        let others = match (&set[..], settings.auth.is_off()) {
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

    /// Returns whether an origin has this host, on any port.
    pub(super) fn has_host(&self, host: &str) -> bool {
        self.0.iter().any(|rule| rule.has_host(host))
    }

    /// Returns the CORS layer. Tokens are sent in a header, so credentials (cookies) are never
    /// allowed.
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

    /// Middleware: refuses a request of a foreign page that may change something.
    pub(super) async fn guard(self, request: Request, next: Next) -> Response {
        match foreign_origin(request.headers()) {
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

    fn has_host(&self, host: &str) -> bool {
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

/// Returns the origin of the page that sent the request, unless it is the server's own.
fn foreign_origin(headers: &HeaderMap) -> Option<&str> {
    let origin = headers.get(header::ORIGIN)?.to_str().unwrap_or("an unreadable origin");
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    // Behind a proxy that terminates TLS the schemes differ.
    let host = origin.split_once("://").map(|(_, host)| host);
    (host.is_none() || host != own).then_some(origin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AuthMode;

    #[test]
    fn a_rule_allows_no_similar_origins() {
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
    fn without_settings_foreign_pages_need_authentication() {
        let mut settings = Settings::default();
        assert!(!Origins::of(&settings).allow("https://x.org"));
        assert!(Origins::of(&settings).allow("http://localhost:3000"));
        settings.server.public_url = PublicUrl::parse("https://uni.example.org/phoebe/");
        assert!(Origins::of(&settings).allow("https://uni.example.org"), "its own pages");
        assert!(Origins::of(&settings).has_host("uni.example.org"));
        assert!(!Origins::of(&settings).allow("https://x.org"));
        settings.auth.mode = AuthMode::Jwt;
        assert!(Origins::of(&settings).allow("https://x.org"));
        settings.server.cors_origins = vec!["https://y.org".to_owned()];
        assert!(!Origins::of(&settings).allow("https://x.org"));
    }

    #[test]
    fn a_page_of_the_server_itself_is_not_foreign() {
        let headers = |origin: &'static str| {
            HeaderMap::from_iter([
                (header::ORIGIN, HeaderValue::from_static(origin)),
                (header::HOST, HeaderValue::from_static("127.0.0.1:8001")),
            ])
        };
        assert_eq!(foreign_origin(&headers("http://127.0.0.1:8001")), None);
        assert_eq!(foreign_origin(&headers("https://127.0.0.1:8001")), None);
        assert_eq!(
            foreign_origin(&headers("http://127.0.0.1:8002")),
            Some("http://127.0.0.1:8002")
        );
        assert_eq!(foreign_origin(&headers("null")), Some("null"));
        assert_eq!(foreign_origin(&HeaderMap::new()), None);
    }
}
