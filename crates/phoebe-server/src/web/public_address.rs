//! The public address of the server, for links. It is the one in the settings, else the request's
//! `Host` with the scheme and path that a trusted proxy forwards. Malformed headers are ignored.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::HOST;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;

use super::client_address::Peer;
use super::proxies::Proxies;
use crate::config::{PathPrefix, PublicUrl, Settings};

const PREFIX: &str = "x-forwarded-prefix";
const SCHEME: &str = "x-forwarded-proto";

/// The part of a link before its route. Without a known host it has no scheme and host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PublicAddress(String);

impl PublicAddress {
    /// Returns the link to a route of this server.
    pub(crate) fn link(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl<S: Sync> FromRequestParts<S> for PublicAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

/// How the public address is found.
#[derive(Debug, Clone)]
pub(super) struct PublicAddresses {
    fixed: Option<PublicUrl>,
    proxies: Proxies,
    /// Of the server itself.
    scheme: &'static str,
}

impl PublicAddresses {
    pub(super) fn of(settings: &Settings) -> Self {
        let server = &settings.server;
        Self {
            fixed: server.public_url.clone(),
            proxies: Proxies::of(settings),
            scheme: if server.tls_cert.is_some() { "https" } else { "http" },
        }
    }

    /// Middleware: adds the public address to the request.
    pub(super) async fn find(self, mut request: Request, next: Next) -> Response {
        let peer = request.extensions().get().copied();
        let address = self.address(peer, request.headers());
        request.extensions_mut().insert(address);
        next.run(request).await
    }

    fn address(&self, peer: Option<Peer>, headers: &HeaderMap) -> PublicAddress {
        if let Some(url) = &self.fixed {
            return PublicAddress(url.to_string());
        }
        let is_trusted = peer.is_some_and(|Peer(address)| self.proxies.trust(address));
        let forwarded = |name| only(headers, name).filter(|_| is_trusted);
        let prefix = forwarded(PREFIX).and_then(PathPrefix::parse).unwrap_or_default();
        let scheme = forwarded(SCHEME).map(str::to_ascii_lowercase);
        let scheme = scheme.filter(|scheme| ["http", "https"].contains(&scheme.as_str()));
        let scheme = scheme.as_deref().unwrap_or(self.scheme);
        let url = only(headers, HOST.as_str())
            .and_then(|host| PublicUrl::of(scheme, host, prefix.clone()));
        PublicAddress(url.map_or_else(|| prefix.to_string(), |url| url.to_string()))
    }
}

/// Returns the value of a header that occurs exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then(|| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    const PROXY: &str = "10.0.0.1";
    const HERE: (&str, &str) = ("host", "uni.example.org");

    fn settings() -> Settings {
        let mut settings = Settings::default();
        settings.server.trusted_proxies = vec!["10.0.0.1/32".parse().unwrap()];
        settings
    }

    fn link(settings: &Settings, peer: &str, headers: &[(&str, &str)]) -> String {
        let headers = headers.iter().map(|(name, value)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
        });
        let mut all = HeaderMap::new();
        headers.for_each(|(name, value)| {
            all.append(name, value);
        });
        let peer = Some(Peer(peer.parse().unwrap()));
        PublicAddresses::of(settings).address(peer, &all).link("/v1")
    }

    #[test]
    fn a_trusted_proxy_sets_scheme_and_prefix() {
        let headers = [HERE, (PREFIX, "/phoebe/"), (SCHEME, "https")];
        assert_eq!(link(&settings(), PROXY, &headers), "https://uni.example.org/phoebe/v1");
        let mapped = format!("::ffff:{PROXY}");
        assert_eq!(link(&settings(), &mapped, &headers), "https://uni.example.org/phoebe/v1");
        assert_eq!(
            link(&settings(), "10.0.0.2", &headers),
            "http://uni.example.org/v1",
            "a foreign_origin"
        );
        assert_eq!(link(&settings(), PROXY, &headers[1..]), "/phoebe/v1", "no host is known");
    }

    #[test]
    fn malformed_headers_are_ignored() {
        for prefix in ["phoebe", "//evil.org", "/a/../b", "/a b", "/\"><script>", "/a, /b"] {
            let headers = [HERE, (PREFIX, prefix)];
            assert_eq!(link(&settings(), PROXY, &headers), "http://uni.example.org/v1", "{prefix}");
        }
        for scheme in ["javascript", "https, http", ""] {
            let headers = [HERE, (SCHEME, scheme)];
            assert_eq!(link(&settings(), PROXY, &headers), "http://uni.example.org/v1", "{scheme}");
        }
        for host in ["a@evil.org", "evil.org/x", "a b", ""] {
            assert_eq!(link(&settings(), PROXY, &[("host", host)]), "/v1", "{host}");
        }
        let twice = [HERE, (PREFIX, "/a"), (PREFIX, "/b")];
        assert_eq!(link(&settings(), PROXY, &twice), "http://uni.example.org/v1");
    }

    #[test]
    fn the_settings_win() {
        let mut settings = settings();
        settings.server.public_url = PublicUrl::parse("https://uni.example.org/phoebe/");
        let headers = [("host", "other.example.org"), (PREFIX, "/other"), (SCHEME, "http")];
        assert_eq!(link(&settings, PROXY, &headers), "https://uni.example.org/phoebe/v1");
    }

    #[test]
    fn without_a_proxy_the_host_is_the_clients() {
        let mut settings = settings();
        let own = [("host", "127.0.0.1:8001")];
        assert_eq!(link(&settings, "127.0.0.1", &own), "http://127.0.0.1:8001/v1");
        settings.server.tls_cert = Some("cert.pem".into());
        assert_eq!(link(&settings, "127.0.0.1", &own), "https://127.0.0.1:8001/v1");
    }
}
