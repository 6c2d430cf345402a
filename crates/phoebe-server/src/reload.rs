//! What SIGHUP does while the server serves: settings are read again; what a running server can
//! take is applied, and the rest is named. Certificates and the keys of other services have watches
//! of their own, which look at SIGHUP too.

use std::path::PathBuf;

use tracing::{error, info, warn};

use crate::auth::{AuthSetupError, Authenticator};
use crate::config::{self, Change, ConfigError, Key, Resolved, Settings, Sources};
use crate::logging::Log;

/// Where settings are read again, and who takes them.
pub struct Reload {
    sources: Sources,
    log: Log,
    in_force: Settings,
    /// The file that was read at the start, if there was one.
    file: Option<PathBuf>,
}

impl Reload {
    /// `resolved`, now in force, was read from `sources`; `log` is the server's.
    #[must_use]
    pub fn new(sources: Sources, log: Log, resolved: &Resolved) -> Self {
        let (in_force, file) = (resolved.settings.clone(), resolved.file.clone());
        Self { sources, log, in_force, file }
    }

    /// Reads the settings again and takes what can be applied. What is wrong is logged and changes
    /// nothing.
    pub fn run(&mut self, authenticator: &Authenticator) {
        let change = config::load(&self.sources)
            .and_then(|wanted| Change::between(&self.in_force, self.file.as_deref(), &wanted))
            .map_err(Refused::from)
            .and_then(|change| {
                authenticator.reload(&self.in_force.auth, &change.settings.auth)?;
                Ok(change)
            });
        let change = match change {
            Ok(change) => change,
            Err(error) => {
                error!(%error, "the settings cannot be reloaded; those in force stay");
                return;
            }
        };
        // Before a level that would hide it.
        info!(changed = titles(&change.applied), "settings reloaded");
        self.log.set_level(&change.settings.logging);
        self.in_force = change.settings;
        if !change.needs_restart.is_empty() {
            warn!(changed = titles(&change.needs_restart), "changed settings need a restart");
        }
    }
}

/// Why settings are not applied.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Auth(#[from] AuthSetupError),
}

fn titles(keys: &[&Key]) -> String {
    keys.iter().map(|key| key.title()).collect::<Vec<_>>().join(", ")
}
