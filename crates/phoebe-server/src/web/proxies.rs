//! The proxies whose word is believed: those of `[server] trusted_proxies`. What they say is read
//! elsewhere.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::Settings;

/// The ranges of addresses that proxies have; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Proxies(Arc<[IpNet]>);

impl Proxies {
    pub(super) fn of(settings: &Settings) -> Self {
        Self(settings.server.trusted_proxies.clone().into())
    }

    /// Whether what comes from this address is believed.
    pub(super) fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|range| range.contains(&address))
    }
}
