//! A running server and its end.

use std::fs::{self, OpenOptions};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::builder::Builder;
use super::client::{Client, Reply};
use super::database::Database;
use super::disk::Disk;
use super::leaks;
use super::log::Log;
use super::machine::Place;
use super::ports::PortRange;
use super::process::{ProcessInfo, processes_of_instance};
use super::program;
use super::wait::until;

/// The bound on an orderly end that the harness grants: what the server promises is 5 s.
const END_DEADLINE: Duration = Duration::from_secs(15);

/// What stays the same over a server's restarts.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) config: PathBuf,
    pub(super) may_mount: bool,
    pub(super) environment: Vec<(&'static str, String)>,
    pub(super) log: Log,
    pub(super) ports: PortRange,
    pub(super) start_deadline: Duration,
    pub(super) wait_for_python: bool,
    /// Inside TLS only the test knows whom to trust: it is not asked whether it is ready.
    pub(super) is_https: bool,
    /// Before the folder that it is in, for the order in which they go.
    pub(super) disk: Option<Disk>,
    pub(super) root: TempDir,
    pub(super) _place: Place,
}

/// A running server. It must be ended with [`TestServer::finish`], which looks for leaks.
///
/// It dereferences to a [`Client`] without authentication.
#[derive(Debug)]
pub(crate) struct TestServer {
    process: Option<Child>,
    client: Client,
    setup: Setup,
}

impl TestServer {
    pub(crate) fn builder() -> Builder {
        Builder::new()
    }

    pub(super) async fn start(setup: Setup) -> Self {
        let client = Client::new(String::new());
        let mut server = Self { process: None, client, setup };
        server.start_again().await;
        server
    }

    /// A client without authentication, for a task of its own.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The folder in which the server runs; its data is below it.
    pub(crate) fn root(&self) -> &Path {
        self.setup.root.path()
    }

    pub(crate) fn config(&self) -> &Path {
        &self.setup.config
    }

    pub(crate) fn log(&self) -> &Log {
        &self.setup.log
    }

    pub(crate) fn port_pool(&self) -> Range<u16> {
        self.setup.ports.range()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.root().join("data")
    }

    /// Whether its data is on the disk that was wanted.
    pub(crate) fn has_disk(&self) -> bool {
        self.setup.disk.is_some()
    }

    /// The folders of sessions that outlive the server.
    pub(crate) fn kept_sessions(&self) -> Vec<PathBuf> {
        let folders = fs::read_dir(self.data().join("sessions")).into_iter().flatten();
        folders.map(|folder| folder.unwrap().path()).collect()
    }

    pub(crate) fn database(&self) -> Database {
        Database::new(self.data().join("sessions.db"))
    }

    /// The id that the Python processes of this data directory carry.
    pub(crate) fn instance(&self) -> String {
        fs::read_to_string(self.data().join("instance")).unwrap().trim().to_owned()
    }

    /// The Python processes of this server that live now.
    pub(crate) fn workers(&self) -> Vec<ProcessInfo> {
        processes_of_instance(&self.instance())
    }

    /// The interpreter in which workers run; real PHOEBE's, if the server has real PHOEBE.
    pub(crate) fn interpreter(&self) -> String {
        let zygote =
            self.workers().into_iter().find(|process| process.parent == self.pid()).unwrap();
        zygote.command_line.split_ascii_whitespace().next().unwrap().to_owned()
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child().id().cast_signed()
    }

    fn child(&self) -> &Child {
        self.process.as_ref().expect("the server runs")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child()), signal).unwrap();
    }

    /// Waits until the server's process is gone.
    pub(crate) async fn wait_for_exit(&mut self, deadline: Duration) -> ExitStatus {
        let process = self.process.as_mut().expect("the server runs");
        let status =
            until("the server's end", deadline, async || process.try_wait().unwrap()).await;
        self.process = None;
        status
    }

    /// SIGTERM, and the wait for an orderly end. Returns how long it took.
    pub(crate) async fn stop(&mut self) -> Duration {
        self.signal(Signal::TERM);
        let started = Instant::now();
        let status = self.wait_for_exit(END_DEADLINE).await;
        assert!(status.success(), "the server ended with {status}\n{}", self.log().tail());
        started.elapsed()
    }

    /// SIGKILL: nothing of the server can tidy up.
    pub(crate) async fn kill_nine(&mut self) {
        self.signal(Signal::KILL);
        self.wait_for_exit(END_DEADLINE).await;
    }

    /// The whole machine loses its power: the server is gone, and what has not reached the disk.
    pub(crate) async fn lose_power(&mut self) {
        let disk = self.setup.disk.as_ref().expect("data on a disk of its own");
        disk.cut_power();
        self.kill_nine().await;
        let disk = self.setup.disk.as_ref().expect("data on a disk of its own");
        // Workers end soon after their server.
        until("the disk is free", END_DEADLINE, async || disk.mount_again().then_some(())).await;
    }

    /// Starts the server again, after it ended, on the same data directory.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.process.is_none(), "the server still runs");
        let seen = self.log().entries().len();
        self.process = Some(self.setup.launch());
        let address = until("the server listens", self.setup.start_deadline, async || {
            self.assert_runs();
            self.log().entries().into_iter().skip(seen).find_map(|entry| {
                let listening = entry["message"].as_str()?.contains("listening");
                listening.then(|| entry["address"].as_str().map(str::to_owned))?
            })
        })
        .await;
        if self.setup.is_https {
            self.client = Client::new(format!("https://{address}"));
            return;
        }
        self.client = Client::new(format!("http://{address}"));
        let path = if self.setup.wait_for_python { "/health/ready" } else { "/health" };
        until(path, Duration::from_secs(120), async || {
            self.assert_runs();
            let reply = Reply::try_of(self.request(Method::GET, path)).await.ok()?;
            if reply.status != 200 {
                tokio::time::sleep(Duration::from_millis(200)).await;
                return None;
            }
            Some(())
        })
        .await;
    }

    fn assert_runs(&mut self) {
        let ended = self.process.as_mut().and_then(|process| process.try_wait().unwrap());
        if let Some(status) = ended {
            panic!("the server ended with {status}");
        }
    }

    /// [`Self::finish`], with a look at what the stopped server leaves on disk.
    pub(crate) async fn finish_keeping(mut self, look: impl FnOnce(&Self)) {
        self.stop().await;
        look(&self);
        self.finish().await;
    }

    /// Stops the server in order, if it runs, and asserts that nothing of it is left: no process,
    /// port, file or `active` row.
    pub(crate) async fn finish(mut self) {
        let descendants = match &self.process {
            Some(_) => super::process::descendants(self.pid()),
            None => Vec::new(),
        };
        if self.process.is_some() {
            self.stop().await;
        }
        leaks::assert_none(&self, &descendants).await;
    }
}

impl Deref for TestServer {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // SIGTERM would be kinder, but a failed test is about to remove the data directory.
        let _gone = process.kill();
        let _gone = process.wait();
        assert!(std::thread::panicking(), "a TestServer must be ended with finish()");
        eprintln!("--- the server's log\n{}\n---", self.log().tail());
    }
}

impl Setup {
    fn launch(&self) -> Child {
        let output = OpenOptions::new().create(true).append(true).open(self.log.path()).unwrap();
        let mut command = match self.may_mount {
            true => program::command(self.root.path()),
            false => program::command_without_mounts(self.root.path()),
        };
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg("run").arg("--config").arg(&self.config).args(["--port", "0"]);
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        command.spawn().unwrap()
    }
}
