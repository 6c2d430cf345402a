//! The table of all settings. Each key has a name, a type, a default, a documentation and, where
//! needed, an accepted range and a note.

use std::path::PathBuf;

use ipnet::IpNet;

use super::public_url::PublicUrl;
use super::table;
use super::types::{
    AuthMode, Durability, LogFormat, OnIdle, RegistrationPolicy, Sandbox, Secret, WorkerStart,
};
use super::value::{self, at_least, cgroup, jwt_algorithms, log_level, within};

/// One `[section]` of [`Settings`].
pub type Section = table::Section<Settings>;
/// One key of [`Settings`].
pub type Key = table::Key<Settings>;

table::settings! {
    /// The HTTP server.
    server: ServerSettings {
        /// Address to listen on.
        host: String = "127.0.0.1".to_owned(), check(value::not_blank);
        /// Port to listen on; 0 lets the system choose.
        port: u16 = 8001;
        /// Number of serving processes: one process serves all requests.
        workers: u64 = 1, note("is accepted for existing files and ignored");
        /// Proxies whose `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Prefix` are
        /// trusted: IP addresses, or ranges such as `10.0.0.0/8`.
        trusted_proxies: Vec<IpNet> = Vec::new();
        /// The public address of the server, for example `https://uni.example.org/phoebe/`. Links
        /// begin with it, and its pages may use the API. If it is empty, links are made from the
        /// request and the headers of trusted proxies.
        public_url: Option<PublicUrl> = None;
        /// Largest request body in MiB.
        max_body_mb: u64 = 64, check(within(1, 65_536));
        /// Memory in MiB for the bodies of all requests in flight. Bodies below 64 KiB are not
        /// counted. Further requests get a 503.
        max_bodies_mb: u64 = 1024, check(within(1, 16_777_216));
        /// Requests in flight, including those that wait for a computation. Further requests get a
        /// 503.
        max_requests_in_flight: usize = 4096, check(at_least(1));
        /// Requests in flight per caller: per user, or per address on a server without users.
        /// Further requests get a 429.
        max_requests_per_caller: usize = 512, check(at_least(1));
        /// Open connections per address; 0 for no limit. This machine and `trusted_proxies` have no
        /// limit. Further connections get a 503.
        max_connections_per_address: usize = 1024;
        /// Origins whose pages may use the API from a browser, for example
        /// `https://app.example.org`, `http://localhost:*` for any port, or `*` for any origin. If
        /// the list is empty: any origin if requests need a token or a key, otherwise the origins
        /// of this machine.
        cors_origins: Vec<String> = Vec::new();
        /// Serve without authentication on an address other than loopback.
        allow_unauthenticated_network: bool = false;
        /// Certificate chain for HTTPS (PEM: the server's certificate first, then those of its
        /// issuers); empty for plain HTTP. A renewed file is loaded within a minute, or on SIGHUP.
        tls_cert: Option<PathBuf> = None;
        /// Private key of the certificate (PEM). Other users must not be able to read it.
        tls_key: Option<PathBuf> = None;
    }
    /// Authentication.
    auth: AuthSettings {
        /// How users authenticate. `internal` is an old name of `jwt`.
        mode: AuthMode = AuthMode::None;
        /// The password of mode `password`.
        password: Secret = Secret::default(), live(true);
        /// The secret that signs tokens in modes `jwt` and `external`. `$PHOEBE_JWT_SECRET_KEY`
        /// sets it too.
        jwt_secret_key: Secret = Secret::default();
        /// Signature algorithms of tokens, out of `HS256`, `HS384`, `HS512`, `RS256`, `RS384`,
        /// `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `EdDSA`. If the list is empty:
        /// `HS256` with a secret, otherwise the algorithms of the public key's type. Mode `jwt`
        /// signs with `HS256`.
        jwt_algorithm: Vec<String> = Vec::new(), check(jwt_algorithms);
        /// Lifetime of a token in minutes.
        jwt_expire_minutes: u64 = 1440, check(within(1, 5_256_000));
        /// Issuer (`iss`) of tokens, written and required; empty for none.
        jwt_issuer: String = String::new();
        /// Mode `external`: the public key of the service that signs tokens (PEM), instead of a
        /// secret. A renewed file is loaded within a minute, or on SIGHUP.
        jwt_public_key: Option<PathBuf> = None;
        /// Mode `external`: the JSON Web Key Set of the service that signs tokens, instead of a
        /// secret: a file, or an `https://` URL. The URL is fetched every 15 minutes, and when a
        /// token names an unknown key.
        jwks: String = String::new();
        /// Mode `external`: accepted audiences (`aud`) of tokens; empty for any.
        jwt_audience: Vec<String> = Vec::new();
        /// Mode `external`: tolerated clock difference in seconds for `nbf` and `exp`.
        jwt_leeway_seconds: u64 = 30, check(within(0, 600));
        /// Mode `external`: the claim with the user's role or roles. A name with dots is a path,
        /// such as `realm_access.roles`. Roles other than `student`, `instructor` and `admin` count
        /// as `student`.
        jwt_role_claim: String = "role".to_owned(), check(value::not_blank);
        /// Whether users can register in mode `jwt`: `open` or `closed`.
        registration: RegistrationPolicy = RegistrationPolicy::Open, live(true);
        /// If not empty, only e-mail addresses of these domains can register, for example
        /// `uni.edu`. The server does not verify that the address belongs to the user.
        registration_domains: Vec<String> = Vec::new(), live(true);
        /// Minimum length of a new password. Existing clients use short ones; 10 is better.
        min_password_length: usize = 1, check(within(1, 128)), live(true);
        /// Require an API key in the header `X-API-Key`.
        enabled: bool = false;
        /// Accepted API keys; `phoebe-server generate-key` makes one.
        api_keys: Vec<Secret> = Vec::new(), live(true);
    }
    /// Loopback ports of workers.
    port_pool: PortPoolSettings {
        /// First port.
        start: u16 = 6560, check(within(1, u16::MAX));
        /// One past the last port.
        end: u16 = 7560, check(within(1, u16::MAX));
    }
    /// Sessions.
    session: SessionSettings {
        /// Seconds without activity after which a session is idle; 0 for never.
        idle_timeout_seconds: f64 = 1800.0, check(within(0.0, 1e9));
        /// What happens to an idle session: it sleeps (`hibernate`) or ends (`terminate`).
        on_idle: OnIdle = OnIdle::Hibernate;
        /// Seconds after which an unused sleeping session ends; 0 for never.
        retention_seconds: f64 = 0.0, check(within(0.0, 1e10));
        /// How many seconds before its end a session shows `expires_at`.
        retention_warning_seconds: f64 = 604_800.0, check(within(0.0, 1e10));
        /// Seconds within which a worker must be ready.
        start_timeout_seconds: f64 = 30.0, check(within(0.1, 3600.0));
        /// When a change is stored on disk: before each `command` is answered, after some `idle`
        /// seconds, or never (`off`). With `off` a session ends with its worker, and idle sessions
        /// end.
        durability: Durability = Durability::Command;
        /// Flush each change to disk before the command is answered. Changes then survive a power
        /// failure, and such commands take as long as the disk.
        fsync: bool = false;
        /// Changes of a session that can be undone.
        undo_depth: usize = 10, check(within(1, 1000));
        /// Checkpoints per session. Each takes as much disk as its Bundle.
        max_checkpoints: usize = 50, check(within(0, 10_000));
    }
    /// The log of sessions and commands.
    database: DatabaseSettings {
        /// The SQLite file; its folder is the data directory.
        path: PathBuf = PathBuf::from("data/sessions.db");
        /// Commands that are not logged: a list, or text with commas.
        log_exclude_commands: Vec<String> = vec!["ping".to_owned()];
        /// If not empty, only these commands are logged.
        log_include_commands: Vec<String> = Vec::new();
    }
    /// Long commands as jobs.
    jobs: JobSettings {
        /// How often a job may begin, the first time included: a job that the end of the server
        /// interrupted begins again.
        attempts: u64 = 3, check(within(1, 100));
        /// Seconds for which a job and its result are kept after its end.
        retention_seconds: f64 = 604_800.0, check(within(600.0, 1e9));
        /// Jobs of a session that are kept. A job is kept for ten minutes in any case.
        per_session: usize = 200, check(within(1, 100_000));
    }
    /// Resource limits.
    resources: ResourceSettings {
        /// Awake sessions per user; 0 for no limit.
        max_workers_per_user: usize = 0;
        /// Sessions per user, awake or asleep; 0 for no limit.
        max_sessions_per_user: usize = 0;
        /// Disk in MiB per session; 0 for no limit. Above it, changes are refused; reading, undo,
        /// export and ending the session still work.
        max_disk_mb_per_session: u64 = 1024, check(within(0, 1_073_741_824));
        /// Disk in MiB for all sessions of a user; 0 for no limit. Above it, changes and new
        /// sessions are refused.
        max_disk_mb_per_user: u64 = 4096, check(within(0, 1_073_741_824));
        /// Memory in MiB per process of a worker, without the memory that all workers share; 0 for
        /// no limit.
        worker_memory_mb: u64 = 4096, check(within(0, 16_777_216));
        /// Free memory in MiB below which unused sessions go to sleep; 0 for never.
        memory_reserve_mb: u64 = 512, check(within(0, 16_777_216));
        /// Computations at once, of interactive and of background ones each; 0 for one per core.
        max_concurrent_computes: usize = 0;
        /// Seconds that a command may take; 0 for no limit.
        command_timeout_seconds: f64 = 0.0, check(within(0.0, 1e9));
        /// Largest answer of a worker in MiB, including its Bundle. Answers above 4 MiB are
        /// received one at a time. A worker with a larger answer is killed, and its session
        /// continues with the state before the command.
        max_answer_mb: u64 = 256, check(within(16, 16_777_216));
        /// Commands that can wait in one session.
        queue_depth: usize = 64, check(at_least(1));
    }
    /// Worker processes.
    worker: WorkerSettings {
        /// A Python interpreter with PHOEBE. If it is empty, the server makes a private
        /// environment.
        python: Option<PathBuf> = None;
        /// How workers start: by a fork of a prepared process, or as a fresh interpreter.
        start: WorkerStart = WorkerStart::Fork;
        /// Workers that are forked in advance. So many sessions can start or wake at once without
        /// waiting for a fork. Each takes about 3 MiB.
        spares: usize = 1, check(within(0, 64));
        /// Sandbox workers by the kernel: `enforce` (the server does not start on a kernel without
        /// support), `best-effort` or `off`.
        sandbox: Sandbox = Sandbox::default();
        /// The user (name or number) that workers run as if the server runs as root; empty for the
        /// server's user.
        user: String = String::new();
        /// The cgroup (version 2) below which each worker gets its own, with limits on memory and
        /// processes: a folder, `auto` for the server's own cgroup if systemd delegated it
        /// (`Delegate=`), or `off`.
        cgroup: String = "auto".to_owned(), check(cgroup);
        /// Use faster equivalents of some of PHOEBE's functions.
        accelerate: bool = true;
        /// Folder for passbands from `phoebe-server passbands install`. If it is empty:
        /// `$PHOEBE_PBDIR`, else `passbands` in the data directory if workers can read it.
        passband_dir: Option<PathBuf> = None;
    }
    /// `GET /metrics`, for Prometheus.
    metrics: MetricsSettings {
        /// A bearer token that may read the metrics, and nothing else; empty for none.
        /// Administrators may read them too, and on a server without users everybody whom it lets
        /// in.
        token: Secret = Secret::default();
    }
    /// The server's log on standard error.
    logging: LoggingSettings {
        /// Lowest level that is logged: `TRACE`, `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`.
        level: String = "INFO".to_owned(), check(log_level), live(true);
        /// Format of log lines: `text` or `json`. A Python format string counts as `text`.
        format: LogFormat = LogFormat::Text;
    }
}

impl Settings {
    /// Returns the key `name` of `section`.
    pub(super) fn key(section: &str, name: &str) -> Option<&'static Key> {
        let section = Self::SECTIONS.iter().find(|candidate| candidate.name == section)?;
        section.keys.iter().find(|key| key.name == name)
    }
}

impl AuthSettings {
    /// Returns whether the server has no authentication.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.mode == AuthMode::None && !self.enabled
    }
}
