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
    /// Where and how HTTP is served.
    server: ServerSettings {
        /// Address to listen on.
        host: String = "127.0.0.1".to_owned(), check(value::not_blank);
        /// Port to listen on; 0 lets the system choose.
        port: u16 = 8001;
        /// Processes that serve: one serves all requests.
        workers: u64 = 1, note("is accepted for existing files and ignored");
        /// Proxies whose `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Prefix` are
        /// believed: IP addresses, or ranges such as `10.0.0.0/8`.
        trusted_proxies: Vec<IpNet> = Vec::new();
        /// Where clients reach the server from outside, for example
        /// `https://uni.example.org/phoebe/`: links begin with it, and its pages may use the API.
        /// Where it is empty, links begin as the request and a trusted proxy say.
        public_url: Option<PublicUrl> = None;
        /// Largest request body in MiB.
        max_body_mb: u64 = 64, check(within(1, 65_536));
        /// What the bodies of all requests in flight may occupy in MiB; a body of less than 64 KiB is not counted. More get
        /// a 503.
        max_bodies_mb: u64 = 1024, check(within(1, 16_777_216));
        /// Requests that may be in flight at a time, those that wait for a computation included. More get a 503.
        max_requests_in_flight: usize = 4096, check(at_least(1));
        /// Requests of one caller that may be in flight: of a user, or of an address where users are not known.
        /// More get a 429.
        max_requests_per_caller: usize = 512, check(at_least(1));
        /// Connections that one address may have open; 0 for no limit of its own. This machine and `trusted_proxies`
        /// have none. More get a 503.
        max_connections_per_address: usize = 1024;
        /// Origins whose pages may use the API from a browser, for example `https://app.example.org` or, with any
        /// port, `http://localhost:*`; `*` for any. Where none are set: any, if requests need a token or
        /// a key; else those of this machine.
        cors_origins: Vec<String> = Vec::new();
        /// Serve without authentication on an address that is not loopback.
        allow_unauthenticated_network: bool = false;
        /// Certificate chain for HTTPS (PEM: the server's own certificate first, then its issuers'); none for
        /// plain HTTP. A renewed file is taken within a minute, or at SIGHUP.
        tls_cert: Option<PathBuf> = None;
        /// Private key of the certificate (PEM), which others may not read.
        tls_key: Option<PathBuf> = None;
    }
    /// Who may use the server.
    auth: AuthSettings {
        /// How users prove who they are. `internal` is an older word for `jwt`.
        mode: AuthMode = AuthMode::None;
        /// The password of mode `password`.
        password: Secret = Secret::default(), live(true);
        /// The secret that signs tokens in modes `jwt` and `external`. `$PHOEBE_JWT_SECRET_KEY`
        /// sets it too.
        jwt_secret_key: Secret = Secret::default();
        /// How tokens may be signed, out of `HS256`, `HS384`, `HS512`, `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`,
        /// `ES256`, `ES384`, `EdDSA`. Where none is named: `HS256` with a secret, else what the public key's type allows. Mode
        /// `jwt` signs with `HS256`.
        jwt_algorithm: Vec<String> = Vec::new(), check(jwt_algorithms);
        /// Life of a token in minutes.
        jwt_expire_minutes: u64 = 1440, check(within(1, 5_256_000));
        /// Expected and written issuer (`iss`) of tokens; none where empty.
        jwt_issuer: String = String::new();
        /// Mode `external`: the public key of the service that signs tokens, a PEM file, instead of a secret. A new
        /// file is taken within a minute, or at SIGHUP.
        jwt_public_key: Option<PathBuf> = None;
        /// Mode `external`: the keys of the service that signs tokens, a JSON Web Key Set, instead of a secret: its file or its
        /// `https://` URL, which is asked every quarter of an hour and when a token names a new key.
        jwks: String = String::new();
        /// Mode `external`: for whom a token must be meant (`aud`), one of these; anybody where none is named.
        jwt_audience: Vec<String> = Vec::new();
        /// Mode `external`: by how many seconds clocks may differ where a token begins (`nbf`) or ends (`exp`).
        jwt_leeway_seconds: u64 = 30, check(within(0, 600));
        /// Mode `external`: the claim that holds the user's role or roles; with dots it is a path, such as
        /// `realm_access.roles`. A role other than `student`, `instructor` and `admin` is `student`.
        jwt_role_claim: String = "role".to_owned(), check(value::not_blank);
        /// Who may make an account for themself in mode `jwt`: everybody (`open`) or nobody (`closed`).
        registration: RegistrationPolicy = RegistrationPolicy::Open, live(true);
        /// If not empty: only e-mail addresses of these domains may register, for example `uni.edu`. Nobody checks
        /// that an address is its user's own.
        registration_domains: Vec<String> = Vec::new(), live(true);
        /// Least number of characters of a new password. Clients in use take short ones; 10 is better.
        min_password_length: usize = 1, check(within(1, 128)), live(true);
        /// Ask for an API key in the header `X-API-Key`.
        enabled: bool = false;
        /// The API keys that are accepted; `phoebe-server generate-key` makes one.
        api_keys: Vec<Secret> = Vec::new(), live(true);
    }
    /// Loopback ports for workers.
    port_pool: PortPoolSettings {
        /// First port.
        start: u16 = 6560, check(within(1, u16::MAX));
        /// One past the last port.
        end: u16 = 7560, check(within(1, u16::MAX));
    }
    /// The life of a session.
    session: SessionSettings {
        /// Seconds without activity after which a session is idle; 0 for never.
        idle_timeout_seconds: f64 = 1800.0, check(within(0.0, 1e9));
        /// What happens to an idle session: it goes to sleep (`hibernate`) or ends (`terminate`).
        on_idle: OnIdle = OnIdle::Hibernate;
        /// Seconds for which a sleeping session that nobody uses is kept; 0 for ever.
        retention_seconds: f64 = 0.0, check(within(0.0, 1e10));
        /// So many seconds before a session's end its `expires_at` is shown.
        retention_warning_seconds: f64 = 604_800.0, check(within(0.0, 1e10));
        /// Seconds in which a worker must be ready.
        start_timeout_seconds: f64 = 30.0, check(within(0.1, 3600.0));
        /// When a change is kept on disk: before each `command` is answered, when the session is `idle` for
        /// some seconds, or never (`off`): then a session ends with its worker, and idle ones end.
        durability: Durability = Durability::Command;
        /// Wait until the disk itself has a change, not just the system: then it survives the loss of power
        /// too, and commands that change something take as long as the disk does.
        fsync: bool = false;
        /// Changes of a session that can be undone.
        undo_depth: usize = 10, check(within(1, 1000));
        /// Checkpoints that one session may have; each takes as much room as its Bundle.
        max_checkpoints: usize = 50, check(within(0, 10_000));
    }
    /// The log of sessions and commands.
    database: DatabaseSettings {
        /// The SQLite file; its folder is the data directory.
        path: PathBuf = PathBuf::from("data/sessions.db");
        /// Commands that are not logged: a list, or text with commas.
        log_exclude_commands: Vec<String> = vec!["ping".to_owned()];
        /// If not empty: the only commands that are logged.
        log_include_commands: Vec<String> = Vec::new();
    }
    /// What users may take.
    resources: ResourceSettings {
        /// Sessions one user may have awake; 0 for no limit.
        max_workers_per_user: usize = 0;
        /// Sessions one user may have, awake or asleep; 0 for no limit.
        max_sessions_per_user: usize = 0;
        /// Disk in MiB that one session may take; 0 for no limit. Beyond it changes are refused, and
        /// reading, undo, export and the session's end go on.
        max_disk_mb_per_session: u64 = 1024, check(within(0, 1_073_741_824));
        /// Disk in MiB that the sessions of one user may take together; 0 for no limit. Beyond it their
        /// changes and new sessions are refused.
        max_disk_mb_per_user: u64 = 4096, check(within(0, 1_073_741_824));
        /// Memory in MiB that each process of a worker may take besides what all workers share; 0 for no
        /// limit.
        worker_memory_mb: u64 = 4096, check(within(0, 16_777_216));
        /// Where less memory than this many MiB is free, sessions that are not in use go to sleep; 0 for never.
        memory_reserve_mb: u64 = 512, check(within(0, 16_777_216));
        /// Computations that run at the same time; 0 for one a core.
        max_concurrent_computes: usize = 0;
        /// Seconds a command may take; 0 for no limit.
        command_timeout_seconds: f64 = 0.0, check(within(0.0, 1e9));
        /// Largest answer of a worker in MiB, its Bundle included. Answers of more than 4 MiB come from
        /// their workers one after the other. A worker that sends more is ended; its session goes on as it
        /// was before.
        max_answer_mb: u64 = 256, check(within(16, 16_777_216));
        /// Commands that may wait in one session.
        queue_depth: usize = 64, check(at_least(1));
    }
    /// The Python processes that hold the sessions.
    worker: WorkerSettings {
        /// An interpreter that has PHOEBE; a private environment is made where none is named.
        python: Option<PathBuf> = None;
        /// Where workers come from: forked from a prepared process, or a fresh interpreter each.
        start: WorkerStart = WorkerStart::Fork;
        /// Workers that are forked before anybody asks for them: so many sessions that start or wake at
        /// once need not wait for their fork. Each takes about 3 MiB.
        spares: usize = 1, check(within(0, 64));
        /// Contain workers by the kernel: `enforce` (no start where the kernel cannot), `best-effort` or
        /// `off`.
        sandbox: Sandbox = Sandbox::default();
        /// The user, by name or number, to whom workers change where the server is root; empty to stay.
        user: String = String::new();
        /// A cgroup (version 2) below which each worker gets one of its own, by which the kernel bounds
        /// memory and processes of a session: a folder, `auto` for the server's own cgroup where
        /// systemd delegated it (`Delegate=`), or `off`.
        cgroup: String = "auto".to_owned(), check(cgroup);
        /// Use faster equivalents of some of PHOEBE's functions.
        accelerate: bool = true;
        /// Folder of the passbands that `phoebe-server passbands install` adds to PHOEBE's own. Where none is named: that of
        /// `$PHOEBE_PBDIR`, else `passbands` in the data directory, if workers can read that.
        passband_dir: Option<PathBuf> = None;
    }
    /// The server's own log, on standard error.
    logging: LoggingSettings {
        /// Least severity that is logged: `TRACE`, `DEBUG`, `INFO`, `WARNING`, `ERROR` or
        /// `CRITICAL`.
        level: String = "INFO".to_owned(), check(log_level), live(true);
        /// How log lines look: `text` or `json`; a Python format string is read as `text`.
        format: LogFormat = LogFormat::Text;
    }
}

impl Settings {
    /// The key `name` of `section`.
    pub(super) fn key(section: &str, name: &str) -> Option<&'static Key> {
        let section = Self::SECTIONS.iter().find(|candidate| candidate.name == section)?;
        section.keys.iter().find(|key| key.name == name)
    }
}

impl AuthSettings {
    /// Whether whoever reaches the server may use it.
    #[must_use]
    pub fn asks_nobody(&self) -> bool {
        self.mode == AuthMode::None && !self.enabled
    }
}
