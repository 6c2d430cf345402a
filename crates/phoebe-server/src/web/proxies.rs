//! The trusted proxies of `[server] trusted_proxies`.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::Settings;

/// Address ranges of the trusted proxies; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Proxies(Arc<[IpNet]>);

impl Proxies {
    pub(super) fn of(settings: &Settings) -> Self {
        Self(settings.server.trusted_proxies.clone().into())
    }

    /// Returns whether forwarded headers from this address are trusted.
    pub(super) fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|range| range.contains(&address))
    }
}
