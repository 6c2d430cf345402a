//! Checks the `Host` header where the server has no authentication.
//!
//! A web page can point its own name to 127.0.0.1 after it is loaded (DNS rebinding). Its requests
//! then reach a server on loopback without a foreign `Origin`, but with the page's name in `Host`.

use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::origins::Origins;
use crate::config::{Settings, is_loopback};
use crate::error::HttpError;

/// The accepted host names.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    /// Accepts any name: requests need a token or key, or the whole network may use the server.
    any: bool,
    own: String,
    origins: Origins,
}

impl Hosts {
    pub(super) fn of(settings: &Settings, origins: &Origins) -> Self {
        let own = settings.server.host.to_ascii_lowercase();
        let is_restricted = settings.auth.is_off() && is_loopback(&own);
        Self { any: !is_restricted, own, origins: origins.clone() }
    }

    /// Middleware: refuses a request whose `Host` names another server.
    pub(super) async fn guard(self, request: Request, next: Next) -> Response {
        match host(request.headers()) {
            Some(host) if !self.allow(&host) => {
                let text = format!(
                    "This server is not called {host}: use localhost or 127.0.0.1. If a proxy uses \
                     that name, the operator can allow it with [server] public_url, e.g. \
                     \"https://{host}\""
                );
                HttpError::new(StatusCode::MISDIRECTED_REQUEST, text).into_response()
            }
            _ => next.run(request).await,
        }
    }

    fn allow(&self, host: &str) -> bool {
        self.any || is_loopback(host) || host == self.own || self.origins.has_host(host)
    }
}

/// Returns the name in `Host`, without port. Browsers always send one.
fn host(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(HOST)?.to_str().unwrap_or("an unreadable name");
    let name = text.parse::<Authority>().map_or(text.to_owned(), |host| host.host().to_owned());
    Some(name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AuthMode;
    use axum::http::HeaderValue;

    fn allows(settings: &Settings, name: &'static str) -> bool {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(name))]);
        Hosts::of(settings, &Origins::of(settings)).allow(&host(&headers).unwrap())
    }

    #[test]
    fn on_loopback_only_names_of_this_machine_are_accepted() {
        let settings = Settings::default();
        for own in
            ["localhost:8001", "LocalHost", "127.0.0.1:8001", "127.1.2.3", "[::1]:8001", "[::1]"]
        {
            assert!(allows(&settings, own), "{own}");
        }
        for foreign in [
            "evil.org:8001",
            "localhost.evil.org",
            "127.0.0.1.evil.org",
            "10.0.0.1:8001",
            "localhost@evil.org",
            "evil.org:80:localhost",
            "",
        ] {
            assert!(!allows(&settings, foreign), "{foreign}");
        }
    }

    #[test]
    fn any_name_is_accepted_with_authentication() {
        let mut settings = Settings::default();
        settings.server.cors_origins =
            vec!["https://x.org:8443".to_owned(), "http://y.org:*".to_owned()];
        assert!(
            allows(&settings, "x.org")
                && allows(&settings, "y.org:9")
                && !allows(&settings, "z.org")
        );
        settings.server.cors_origins.clear();
        settings.auth.mode = AuthMode::Jwt;
        assert!(allows(&settings, "x.org"));
        settings.auth.mode = AuthMode::None;
        settings.server.host = "0.0.0.0".to_owned();
        assert!(allows(&settings, "x.org"));
    }
}
