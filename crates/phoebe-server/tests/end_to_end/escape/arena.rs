//! Where payloads run: a server with an attacker's session and a neighbour's, which computes all
//! the time.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::geteuid;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::canary;
use super::delivery::{self, Delivery};
use crate::support::{Session, TestServer, until};

macro_rules! with_common {
    ($file:literal) => {
        concat!(include_str!("../escapes/common.py"), "\n\n", include_str!($file))
    };
}

/// Payloads that open nothing: only another root folder contains them.
pub(super) const METADATA: &str = with_common!("../escapes/metadata.py");
/// Payloads that take too much.
pub(super) const RESOURCES: &str = with_common!("../escapes/resources.py");
const SOURCES: [&str; 6] = [
    METADATA,
    with_common!("../escapes/files.py"),
    with_common!("../escapes/processes.py"),
    with_common!("../escapes/network.py"),
    with_common!("../escapes/kernel.py"),
    RESOURCES,
];

/// One function of those files.
#[derive(Debug)]
pub(super) struct Payload {
    pub(super) name: String,
    pub(super) source: &'static str,
}

/// All payloads that this server's user can carry out.
pub(super) fn payloads() -> Vec<Payload> {
    let mut found = Vec::new();
    for source in SOURCES {
        found.extend(functions(source));
    }
    assert!(found.len() > 60, "{} payloads", found.len());
    found.retain(|payload| geteuid().is_root() || !payload.name.starts_with("root_"));
    found
}

/// The payloads of one source: its functions that take what is around.
pub(super) fn functions(source: &'static str) -> impl Iterator<Item = Payload> {
    let functions =
        source.lines().filter_map(|line| line.strip_prefix("def ")?.split_once("(at):"));
    functions.map(move |(name, _)| Payload { name: name.to_owned(), source })
}

pub(super) fn payload(name: &str) -> Payload {
    payloads().into_iter().find(|payload| payload.name == name).unwrap()
}

/// What became of a payload.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It did what it wanted, and this is what it brought.
    Succeeded(String),
    /// It could not.
    Failed(String),
    /// It was ended, with its worker.
    Ended(String),
}

impl Outcome {
    fn of(answer: &Value) -> Self {
        let said = answer["error"].as_str().or(answer["detail"].as_str()).unwrap_or_default();
        if let Some((_, evidence)) = said.split_once("ESCAPED ") {
            return Self::Succeeded(evidence.to_owned());
        }
        match said.split_once("CONTAINED ") {
            Some((_, error)) => Self::Failed(error.to_owned()),
            None => Self::Ended(answer.to_string()),
        }
    }

    /// What it brought; else why it is no proof.
    pub(super) fn evidence(&self, name: &str) -> Result<&str, String> {
        match self {
            Self::Succeeded(evidence)
                if name.starts_with("reads_") && !evidence.contains(&canary()) =>
            {
                Err(format!("{name} brought no secret: {evidence}"))
            }
            Self::Succeeded(evidence) => Ok(evidence),
            Self::Failed(_) | Self::Ended(_) => Err(format!("{name} does not work: {self:?}")),
        }
    }

    /// Whether it was denied by the kernel, or stopped by a bound that the answer names.
    pub(super) fn is_contained(&self, name: &str) -> Result<(), String> {
        const DENIED: [&str; 7] = [
            "PermissionError",
            // What it may not see is not there. That it is there, the run without the sandbox
            // proves.
            "FileNotFoundError",
            "OSError",
            "BlockingIOError",
            "MemoryError",
            "RuntimeError: can't start new thread",
            "ValueError: not allowed to raise maximum limit",
        ];
        let contained = match self {
            Self::Succeeded(_) => false,
            Self::Failed(error) => DENIED.iter().any(|denied| error.starts_with(denied)),
            Self::Ended(answer) => answer.contains("killed by the server: more than"),
        };
        if contained { Ok(()) } else { Err(format!("{name} is not contained: {self:?}")) }
    }
}

/// Who would hear of a payload that reaches out.
struct Listeners {
    tcp: TcpListener,
    udp: UdpSocket,
    unix: UnixListener,
    abstract_unix: UnixListener,
}

pub(super) struct Arena {
    server: TestServer,
    attacker: Session,
    neighbour: Session,
    computes: Arc<AtomicU64>,
    computing: JoinHandle<()>,
    listeners: Listeners,
    at: Value,
}

impl Arena {
    pub(super) async fn prepare(server: TestServer, contained: bool) -> Self {
        let neighbour = server.start_session_with(&json!({"project_name": canary()})).await;
        let (computes, computing) = compute_without_end(neighbour.clone()).await;
        let workers = server.workers();
        let zygote = workers.iter().find(|process| process.parent == server.pid()).unwrap();
        let worker = workers.iter().find(|process| process.parent == zygote.pid).unwrap();
        let (decoy, victim) = (server.root().join("decoy"), server.root().join("victim"));
        fs::write(&decoy, canary()).unwrap();
        fs::write(&victim, "a file of the server's user").unwrap();
        let link = server.root().join("link-to-a-secret");
        symlink(server.root().join(canary()), &link).unwrap();
        let abstract_name = format!("escape-{}", server.instance());
        let listeners = Listeners::open(&server.root().join("unix"), &abstract_name);
        let package = zygote.command_line.split_ascii_whitespace().nth_back(1).unwrap();
        let at = json!({
            "contained": contained,
            "config": server.config(), "database": server.data().join("sessions.db"),
            "data": server.data(), "decoy": decoy, "victim": victim, "link": link,
            "package": package,
            "instance": server.instance(),
            "server": server.pid(), "zygote": zygote.pid, "neighbour": worker.pid,
            "http_port": server.address().rsplit_once(':').unwrap().1.parse::<u16>().unwrap(),
            "tcp": listeners.tcp.local_addr().unwrap().port(),
            "udp": listeners.udp.local_addr().unwrap().port(),
            "unix": server.root().join("unix"), "abstract": abstract_name,
        });
        let attacker = attacker(&server).await;
        Self { server, attacker, neighbour, computes, computing, listeners, at }
    }

    /// Runs a payload in the attacker's session, which is begun anew if it did not survive that.
    pub(super) async fn run(&mut self, delivery: Delivery, payload: &Payload) -> Outcome {
        let program = format!(
            "import builtins, json, types\n{}\nat = types.SimpleNamespace(**json.loads({:?}))\n\
             try:\n    builtins.outcome = f'ESCAPED {{{name}(at)}}'\n\
             except BaseException as error:\n    builtins.outcome = f'CONTAINED \
             {{type(error).__name__}}: {{error}}'\n",
            payload.source,
            self.at.to_string(),
            name = payload.name,
        );
        let outcome = Outcome::of(&delivery.deliver(&self.attacker, &program).await);
        if matches!(outcome, Outcome::Ended(_)) {
            self.attacker.end().await;
            self.attacker = attacker(&self.server).await;
        }
        outcome
    }

    /// Asks PHOEBE to compute in a job of its own, which is an option of `run_compute`: a script is
    /// written and a shell started.
    pub(super) async fn compute_in_a_job(&self) -> Value {
        let session = self.server.start_session().await;
        let dataset = json!({"command": "add_dataset", "kind": "lc", "compute_phases": [0.25]});
        session.result(dataset).await;
        let job = json!({"command": "run_compute", "detach": true, "model": "job"});
        let answer = session.command(job).await;
        session.end().await.expect(200);
        answer
    }

    /// Whether PHOEBE's jobs left anything beside the data.
    pub(super) fn has_jobs(&self) -> bool {
        self.server.root().join("phoebe_crimpl_jobs").exists()
    }

    /// What the server itself occupies, in MiB.
    pub(super) fn server_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kibibytes = line.trim().trim_end_matches(" kB").trim();
        kibibytes.parse::<u64>().unwrap() / 1024
    }

    /// Whether the neighbour gets a further result.
    pub(super) async fn assert_neighbour_computes(&self) {
        let before = self.computes.load(Ordering::Relaxed);
        until("a result of the neighbour's", Duration::from_secs(30), async || {
            assert!(!self.computing.is_finished(), "the neighbour was disturbed");
            (self.computes.load(Ordering::Relaxed) > before).then_some(())
        })
        .await;
    }

    pub(super) async fn start_session(&self) -> Session {
        self.server.start_session().await
    }

    /// How long the server's log is, in bytes.
    pub(super) fn log_length(&self) -> u64 {
        fs::metadata(self.server.log().path()).unwrap().len()
    }

    /// Which listeners were reached, and how often.
    pub(super) fn heard(&self) -> Vec<&'static str> {
        self.listeners.heard()
    }

    /// The files around the data, with what is in them.
    pub(super) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(self.server.root()).unwrap().map(|entry| entry.unwrap().path());
        let ours = entries.filter(|path| path.extension().is_none_or(|it| it != "log"));
        ours.map(|path| (path.clone(), fs::read(&path).unwrap_or_default())).collect()
    }

    pub(super) async fn finish(self) {
        self.assert_neighbour_computes().await;
        self.computing.abort();
        self.neighbour.ping().await;
        self.server.get("/health").await.expect(200);
        self.server.finish().await;
    }
}

async fn attacker(server: &TestServer) -> Session {
    let attacker = server.start_session().await;
    delivery::prepare(&attacker).await;
    attacker
}

/// A session that computes the same again and again, and fails if a result differs.
async fn compute_without_end(session: Session) -> (Arc<AtomicU64>, JoinHandle<()>) {
    let dataset = json!({
        "command": "add_dataset", "kind": "lc", "dataset": "lc01",
        "compute_phases": [0.0, 0.1, 0.25]
    });
    session.result(dataset).await;
    let secret = json!({"ptype": "string", "qualifier": "secret", "value": canary()});
    session.result(json!({"command": "attach_parameters", "parameters": [secret]})).await;
    let compute = json!({"command": "run_compute"});
    let first = session.result(compute.clone()).await;
    let count = Arc::new(AtomicU64::new(1));
    let counted = Arc::clone(&count);
    let computing = tokio::spawn(async move {
        loop {
            assert_eq!(session.result(compute.clone()).await, first, "another result");
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (count, computing)
}

impl Listeners {
    fn open(path: &std::path::Path, abstract_name: &str) -> Self {
        let address = SocketAddr::from_abstract_name(abstract_name).unwrap();
        let listeners = Self {
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
            unix: UnixListener::bind(path).unwrap(),
            abstract_unix: UnixListener::bind_addr(&address).unwrap(),
        };
        listeners.tcp.set_nonblocking(true).unwrap();
        listeners.udp.set_nonblocking(true).unwrap();
        listeners.unix.set_nonblocking(true).unwrap();
        listeners.abstract_unix.set_nonblocking(true).unwrap();
        listeners
    }

    fn heard(&self) -> Vec<&'static str> {
        let mut heard = Vec::new();
        while self.abstract_unix.accept().is_ok() {
            heard.push("abstract");
        }
        while self.tcp.accept().is_ok() {
            heard.push("tcp");
        }
        while self.udp.recv(&mut [0; 10]).is_ok() {
            heard.push("udp");
        }
        while self.unix.accept().is_ok() {
            heard.push("unix");
        }
        heard
    }
}
