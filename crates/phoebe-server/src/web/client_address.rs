//! The client's address: the peer's, or the one that trusted proxies forward.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use super::proxies::Proxies;
use axum::extract::{FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;

/// The peer of a connection. Each request of the connection carries it as an extension.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// The client's address; `None` where the request came without a connection, as in tests.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub Option<IpAddr>);

impl<S: Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or(Self(None)))
    }
}

/// Middleware: adds the client's address to the request.
pub(super) async fn find(proxies: Proxies, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get().map(|Peer(address)| *address);
    let address = peer.map(|peer| client_behind_proxies(peer, request.headers(), &proxies));
    request.extensions_mut().insert(ClientAddress(address));
    next.run(request).await
}

/// Returns the last address that no trusted proxy has. Any client can forge the addresses before
/// it.
fn client_behind_proxies(peer: IpAddr, headers: &HeaderMap, proxies: &Proxies) -> IpAddr {
    let forwarded = headers.get_all("x-forwarded-for").iter();
    let mut addresses: Vec<&str> = forwarded
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    let mut address = peer.to_canonical();
    while proxies.trust(address) {
        match addresses.pop().and_then(parsed) {
            Some(before) => address = before.to_canonical(),
            None => break,
        }
    }
    address
}

/// Parses an address as proxies write it. Some proxies add the port.
fn parsed(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    text.parse::<IpAddr>().or_else(|_| with_port()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn client(peer: &str, forwarded: &'static str, proxies: &[&str]) -> String {
        let mut settings = Settings::default();
        settings.server.trusted_proxies =
            proxies.iter().map(|proxy| proxy.parse().unwrap()).collect();
        let headers = HeaderMap::from_iter([(
            axum::http::HeaderName::from_static("x-forwarded-for"),
            axum::http::HeaderValue::from_static(forwarded),
        )]);
        client_behind_proxies(peer.parse().unwrap(), &headers, &Proxies::of(&settings)).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_trusted() {
        assert_eq!(client("10.0.0.9", "1.2.3.4", &[]), "10.0.0.9");
        let proxy: &[&str] = &["10.0.0.1/32"];
        assert_eq!(client("10.0.0.1", "1.2.3.4", proxy), "1.2.3.4");
        assert_eq!(client("10.0.0.2", "1.2.3.4", proxy), "10.0.0.2");
        assert_eq!(client("::ffff:10.0.0.1", "1.2.3.4", proxy), "1.2.3.4");
        for proxies in [&["10.0.0.1/32", "10.0.0.2/32"][..], &["10.0.0.0/8"]] {
            assert_eq!(client("10.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.2", proxies), "1.2.3.4");
        }
        assert_eq!(client("fd00::1", "2001:db8::7", &["fd00::/8"]), "2001:db8::7");
        assert_eq!(client("10.0.0.1", "garbage", proxy), "10.0.0.1");
        assert_eq!(client("10.0.0.1", "6.6.6.6, garbage", proxy), "10.0.0.1");
        assert_eq!(client("10.0.0.1", "10.0.0.1", proxy), "10.0.0.1", "nobody before it");
    }

    #[test]
    fn a_port_after_an_address_is_ignored() {
        let proxy = &["10.0.0.1/32"];
        assert_eq!(client("10.0.0.1", "1.2.3.4:5678", proxy), "1.2.3.4");
        assert_eq!(client("10.0.0.1", "[2001:db8::7]:5678", proxy), "2001:db8::7");
    }
}
