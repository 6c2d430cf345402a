//! The settings, resolved once at the start: typed, strict, printable with their origin.
//!
//! Nothing here opens sockets or databases; it must not fall back to defaults when a file is wrong.

use std::net::IpAddr;
use std::path::PathBuf;

/// All settings, after defaults, file, environment and flags.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `[server]`
    pub server: ServerSettings,
    /// `[auth]`
    pub auth: AuthSettings,
    /// `[port_pool]`
    pub port_pool: PortPoolSettings,
    /// `[session]`
    pub session: SessionSettings,
    /// `[database]`
    pub database: DatabaseSettings,
    /// `[resources]`
    pub resources: ResourceSettings,
    /// `[worker]`
    pub worker: WorkerSettings,
    /// `[logging]`
    pub logging: LoggingSettings,
}

/// `[server]`: where and how HTTP is served.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on; 0 lets the system choose.
    pub port: u16,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Largest request body in MiB.
    pub max_body_mb: u64,
    /// Origins for CORS; `*` for any.
    pub cors_origins: Vec<String>,
    /// Serve without authentication on an address that is not loopback.
    pub allow_unauthenticated_network: bool,
}

/// How users prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthMode {
    /// Nobody is asked.
    #[default]
    None,
    /// One password for all.
    Password,
    /// Local users with tokens.
    Jwt,
    /// Tokens of somebody else.
    External,
}

/// A text that must not be printed: `Debug` and `Display` mask it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.0.is_empty() { "\"\"" } else { "\"********\"" })
    }
}

/// `[auth]`
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// How users prove who they are.
    pub mode: AuthMode,
    /// The gate's password in mode `password`.
    pub password: Secret,
    /// The secret that signs tokens.
    pub jwt_secret_key: Secret,
    /// `HS256`.
    pub jwt_algorithm: String,
    /// Life of a token in minutes.
    pub jwt_expire_minutes: u64,
    /// Expected and written `iss`; none where empty.
    pub jwt_issuer: String,
    /// Whether `X-API-Key` is asked for.
    pub enabled: bool,
    /// The keys that are accepted.
    pub api_keys: Vec<Secret>,
}

/// `[port_pool]`: loopback ports for workers, `start..end`.
#[derive(Debug, Clone)]
pub struct PortPoolSettings {
    /// First port.
    pub start: u16,
    /// One past the last port.
    pub end: u16,
}

/// What happens to an idle session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnIdle {
    /// It goes to sleep.
    #[default]
    Hibernate,
    /// It ends.
    Terminate,
}

/// `[session]`
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// Seconds without activity after which a session is idle; 0 for never.
    pub idle_timeout_seconds: f64,
    /// What happens then.
    pub on_idle: OnIdle,
    /// Seconds in which a worker must be ready.
    pub start_timeout_seconds: f64,
}

/// `[database]`
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// The SQLite file; its folder is the data directory.
    pub path: PathBuf,
    /// Commands that are not logged.
    pub log_exclude_commands: Vec<String>,
    /// If not empty: the only commands that are logged.
    pub log_include_commands: Vec<String>,
}

/// `[resources]`
#[derive(Debug, Clone)]
pub struct ResourceSettings {
    /// Sessions one user may have; 0 for no limit.
    pub max_workers_per_user: usize,
    /// Memory of one worker in MiB; 0 for no limit.
    pub worker_memory_mb: u64,
    /// Long commands that may compute at once; 0 for as many as there are cores.
    pub max_concurrent_computes: usize,
    /// Seconds a command may take; 0 for no limit.
    pub command_timeout_seconds: f64,
    /// Commands that may wait in one session.
    pub queue_depth: usize,
}

/// Where workers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorkerStart {
    /// Forked from the zygote.
    #[default]
    Fork,
    /// A fresh interpreter each.
    Spawn,
}

/// `[worker]`
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// An interpreter that has PHOEBE; the private environment where none is named.
    pub python: Option<PathBuf>,
    /// Where workers come from.
    pub start: WorkerStart,
    /// Additional folder of passbands.
    pub passband_dir: Option<PathBuf>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// `[logging]`
#[derive(Debug, Clone)]
pub struct LoggingSettings {
    /// `TRACE`, `DEBUG`, `INFO`, `WARNING`, `ERROR`.
    pub level: String,
    /// How log lines look.
    pub format: LogFormat,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 8001,
            trusted_proxies: Vec::new(),
            max_body_mb: 64,
            cors_origins: vec!["*".to_owned()],
            allow_unauthenticated_network: false,
        }
    }
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            mode: AuthMode::None,
            password: Secret::default(),
            jwt_secret_key: Secret::default(),
            jwt_algorithm: "HS256".to_owned(),
            jwt_expire_minutes: 1440,
            jwt_issuer: String::new(),
            enabled: false,
            api_keys: Vec::new(),
        }
    }
}

impl Default for PortPoolSettings {
    fn default() -> Self {
        Self { start: 6560, end: 7560 }
    }
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            idle_timeout_seconds: 1800.0,
            on_idle: OnIdle::default(),
            start_timeout_seconds: 30.0,
        }
    }
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            path: PathBuf::from("data/sessions.db"),
            log_exclude_commands: vec!["ping".to_owned()],
            log_include_commands: Vec::new(),
        }
    }
}

impl Default for ResourceSettings {
    fn default() -> Self {
        Self {
            max_workers_per_user: 0,
            worker_memory_mb: 0,
            max_concurrent_computes: 0,
            command_timeout_seconds: 0.0,
            queue_depth: 64,
        }
    }
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self { python: None, start: WorkerStart::Fork, passband_dir: None }
    }
}

impl Default for LoggingSettings {
    fn default() -> Self {
        Self { level: "INFO".to_owned(), format: LogFormat::Text }
    }
}
