//! `phoebe-server run`: starts the server.

use super::Failure;
use super::wiring::{self, Prepared};
use crate::config::{Flag, Sources};
use crate::exposure::exposed;
use crate::reload::Reload;
use crate::{environment, logging};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  phoebe-server run
  phoebe-server run --port 9000 --log-level debug
  phoebe-server run --config class.toml --host 0.0.0.0
  phoebe-server run --python ~/phoebe/bin/python
  PHOEBE_SERVER__AUTH__MODE=jwt PHOEBE_JWT_SECRET_KEY=... phoebe-server run")]
pub(super) struct Arguments {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// Port to listen on; 0 lets the system choose
    #[arg(long)]
    port: Option<String>,
    /// SQLite file; its folder is the data directory
    #[arg(long, value_name = "FILE")]
    database: Option<String>,
    /// Interpreter that has PHOEBE, instead of the private environment
    #[arg(long, value_name = "FILE")]
    python: Option<String>,
    /// Least severity that is logged: trace, debug, info, warning, error
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How log lines look: text, json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl Arguments {
    /// The settings that the flags give.
    pub(super) fn flags(&self) -> Vec<Flag> {
        [
            ("--host", ("server", "host"), &self.host),
            ("--port", ("server", "port"), &self.port),
            ("--database", ("database", "path"), &self.database),
            ("--python", ("worker", "python"), &self.python),
            ("--log-level", ("logging", "level"), &self.log_level),
            ("--log-format", ("logging", "format"), &self.log_format),
        ]
        .into_iter()
        .filter_map(|(name, key, text)| Some(Flag { name, key, text: text.clone()? }))
        .collect()
    }
}

/// Starts the server and returns when it has stopped.
pub(super) fn execute(sources: Sources) -> Result<(), Failure> {
    let resolved = crate::config::load(&sources)?;
    let log = logging::start(&resolved.settings.logging);
    for path in &resolved.passed_over {
        let first = resolved.file.as_deref().map(|file| file.display().to_string());
        let path = path.display();
        tracing::info!(%path, first, "a settings file is not read: another comes first");
    }
    for note in resolved.notes() {
        tracing::warn!("{note}");
    }
    for exposed in exposed(&resolved) {
        tracing::warn!("{exposed}; `{}` closes it", exposed.way_out());
    }
    let reload = Reload::new(sources, log, &resolved);
    wiring::serve(resolved, reload, |settings| {
        let python = environment::python(settings, &environment::Progress::new());
        Ok(Prepared {
            python: python.map_err(Failure::failed)?,
            package: environment::package_directory().map_err(Failure::failed)?,
        })
    })
}
