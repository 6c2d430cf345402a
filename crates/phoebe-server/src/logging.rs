//! The server's own log: set up once, written to standard error, as text or as JSON lines.
//!
//! Rules for whoever logs:
//!
//! - A message is a constant text; what varies goes into fields: `info!(session = %id, duration_ms,
//!   "session started")`.
//! - Names of fields are the same everywhere (`session`, `user`, `pid`, `port`, `command`, `error`,
//!   `path`) and end in their unit (`duration_ms`, `memory_mb`, `size_bytes`).
//! - Never log bodies, tokens, keys, passwords, query strings or the settings' secrets.
//! - `error`: somebody has to act. `warn`: something went wrong and was handled. `info`: one line
//!   for each request and each event in a session's life. `debug`: for whoever changes the server.
//!
//! `RUST_LOG`, where set, wins over `[logging] level`.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::{LogFormat, LoggingSettings};

/// The log that was set up: its level can be changed.
pub struct Log(Box<dyn Fn(EnvFilter) + Send + Sync>);

/// Sets the log up. What is logged before goes nowhere; a second call changes nothing.
pub fn start(settings: &LoggingSettings) -> Log {
    let (filter, complaint) = filter(settings, std::env::var("RUST_LOG").ok().as_deref());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that cannot be written, as where the terminal is closed, is lost and ends nothing.
        .log_internal_errors(false)
        .with_ansi(
            settings.format == LogFormat::Text
                && std::io::IsTerminal::is_terminal(&std::io::stderr()),
        );
    // What fails here fails only if a log is set up already, and then that one stays.
    let log = match settings.format {
        LogFormat::Text => {
            let builder = builder.with_target(false).with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Log(Box::new(move |filter| drop(handle.reload(filter))))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(false);
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Log(Box::new(move |filter| drop(handle.reload(filter))))
        }
    };
    if let Some(complaint) = complaint {
        tracing::warn!("{complaint}");
    }
    log
}

impl Log {
    /// Logs from the level of these settings on, unless `RUST_LOG` says otherwise.
    pub fn set_level(&self, settings: &LoggingSettings) {
        (self.0)(filter(settings, std::env::var("RUST_LOG").ok().as_deref()).0);
    }
}

/// The filter, and what to say where `RUST_LOG` cannot be understood.
fn filter(settings: &LoggingSettings, rust_log: Option<&str>) -> (EnvFilter, Option<String>) {
    let default = || EnvFilter::default().add_directive(level(&settings.level).into());
    match rust_log.filter(|text| !text.trim().is_empty()) {
        None => (default(), None),
        Some(text) => match EnvFilter::try_new(text) {
            Ok(filter) => (filter, None),
            Err(error) => (default(), Some(format!("RUST_LOG is ignored: {error}"))),
        },
    }
}

/// A level in Python's words or Rust's; the settings accept no other.
fn level(word: &str) -> LevelFilter {
    match word.to_ascii_uppercase().as_str() {
        "TRACE" => LevelFilter::TRACE,
        "DEBUG" => LevelFilter::DEBUG,
        "WARNING" | "WARN" => LevelFilter::WARN,
        "ERROR" | "CRITICAL" => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(level: &str) -> LoggingSettings {
        LoggingSettings { level: level.to_owned(), ..LoggingSettings::default() }
    }

    #[test]
    fn levels_are_understood_in_pythons_words() {
        let words = ["trace", "DEBUG", "info", "WARNING", "Critical"];
        let levels = words.map(|word| level(word).to_string());
        assert_eq!(levels, ["trace", "debug", "info", "warn", "error"]);
    }

    #[test]
    fn rust_log_wins_where_it_makes_sense() {
        let shown = |rust_log| filter(&settings("WARNING"), rust_log).0.to_string();
        assert_eq!(shown(None), "warn");
        assert_eq!(shown(Some(" ")), "warn");
        assert_eq!(shown(Some("debug")), "debug");
        let (used, complaint) = filter(&settings("WARNING"), Some("phoebe=loudest"));
        assert_eq!(used.to_string(), "warn");
        assert!(complaint.expect("a complaint").contains("RUST_LOG"));
    }
}
