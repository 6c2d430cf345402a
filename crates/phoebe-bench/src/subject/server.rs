//! A real server in a temporary data directory, on free ports. Dropped, it is ended, and nothing is
//! left of it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;
use tempfile::TempDir;

use super::http::Connection;
use super::{Session, memory};

/// The first start may have to make the Python environment.
const READY_WITHIN: Duration = Duration::from_secs(600);
/// The server bounds its shutdown itself; this is for one that does not.
const STOPPED_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks at a server that starts or stops.
const PAUSE: Duration = Duration::from_millis(50);
/// The data directory in the server's own folder.
const DATA: &str = "data";

/// In what one server differs from another.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The server's program.
    pub(crate) binary: PathBuf,
    /// The interpreter, if one is named.
    pub(crate) python: Option<PathBuf>,
    /// Ports for workers.
    pub(crate) ports: usize,
    /// Cores that it may use; all where `None`.
    pub(crate) cores: Option<usize>,
    /// Settings of its file that are not the default, such as `worker.start`.
    pub(crate) changed: BTreeMap<&'static str, Value>,
}

impl Settings {
    /// The same, but for one setting of its file.
    pub(crate) fn with(&self, name: &'static str, value: impl Into<Value>) -> Self {
        let mut settings = self.clone();
        settings.changed.insert(name, value.into());
        settings
    }
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Server {
    /// Starts a server and waits until it can start sessions.
    pub(crate) async fn start(settings: &Settings) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("phoebe-bench-").tempdir()?;
        let address = free_address()?;
        let file = directory.path().join("config.toml");
        fs::write(&file, configuration(settings, address.port(), directory.path())?)?;
        let log = fs::File::create(directory.path().join("server.log"))?;
        let mut command = Command::new(&settings.binary);
        command.arg("run").arg("--config").arg(&file).current_dir(directory.path());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PHOEBE_") {
                command.env_remove(name);
            }
        }
        let child = spawn_on_cores(&mut command, settings.cores)
            .with_context(|| format!("cannot run {}", settings.binary.display()))?;
        let mut server = Self { child, address, directory };
        server.wait_until_ready().await?;
        Ok(server)
    }

    /// A new connection to it.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        Connection::open(self.address).await.context("cannot connect to the server")
    }

    /// A new session on a connection of its own.
    pub(crate) async fn session(&self) -> Result<Session> {
        Ok(Session::start(self.connect().await?).await?.0)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Result<i32> {
        Ok(i32::try_from(self.child.id())?)
    }

    /// What `/system/info` says.
    pub(crate) async fn info(&self) -> Result<Value> {
        Ok(self.connect().await?.get("/system/info").await?.json()?["result"].take())
    }

    /// Where it keeps a session.
    pub(crate) fn folder_of(&self, session: &Session) -> PathBuf {
        self.directory.path().join(DATA).join("sessions").join(session.id())
    }

    /// The process that its workers are forked from; where they are spawned, one of them.
    pub(crate) fn zygote(&self) -> Result<i32> {
        let first = memory::descendants(self.pid()?).into_iter().next();
        first.context("the server has no Python process")
    }

    /// The interpreter that its Python processes run in. It must have one: a zygote or a session.
    pub(crate) fn python(&self) -> Result<PathBuf> {
        let line = fs::read(format!("/proc/{}/cmdline", self.zygote()?))?;
        let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
        ensure!(!program.is_empty(), "the server's Python process has ended");
        Ok(PathBuf::from(OsString::from_vec(program.to_vec())))
    }

    /// Waits until a session could be started and ended; the first one of a server is not what is
    /// measured.
    async fn wait_until_ready(&mut self) -> Result<()> {
        let end = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended at its start ({status}):\n{}", self.log_tail());
            }
            match self.start_and_end_session().await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > end => {
                    bail!("the server starts no session: {error:#}\n{}", self.log_tail())
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn start_and_end_session(&self) -> Result<()> {
        self.session().await?.end().await?;
        Ok(())
    }

    fn log_tail(&self) -> String {
        let path = self.directory.path().join("server.log");
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = Pid::from_raw(self.pid()?).context("no process id")?;
        kill_process(pid, Signal::TERM)?;
        let end = Instant::now() + STOPPED_WITHIN;
        while Instant::now() < end {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        eprintln!("the server did not stop in {STOPPED_WITHIN:?}; it is killed");
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("the server could not be stopped: {error:#}");
        }
    }
}

/// The settings file: defaults, but for where the server works and what is compared.
fn configuration(settings: &Settings, port: u16, directory: &Path) -> Result<String> {
    let text = |path: &Path| anyhow::Ok(Value::from(path.to_str().context("a path is no UTF-8")?));
    let (first, end) = port_range(settings.ports)?;
    let mut all = settings.changed.clone();
    all.insert("server.port", port.into());
    all.insert("port_pool.start", first.into());
    all.insert("port_pool.end", end.into());
    all.insert("database.path", text(&directory.join(DATA).join("sessions.db"))?);
    if let Some(python) = &settings.python {
        all.insert("worker.python", text(python)?);
    }
    // What is scalar is written in TOML as in JSON.
    Ok(all.iter().map(|(name, value)| format!("{name} = {value}\n")).collect())
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A range of ports below the ephemeral ones whose first and last are free; the server passes over
/// others that are not.
fn port_range(length: usize) -> Result<(u16, u16)> {
    const LOWEST: usize = 10_000;
    const EPHEMERAL: usize = 32_000;
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (LOWEST..EPHEMERAL - length)
        .step_by(length)
        .filter_map(|first| Some((u16::try_from(first).ok()?, u16::try_from(first + length).ok()?)))
        .find(|(first, end)| is_free(*first) && is_free(end - 1))
        .context("no range of free ports")
}

/// Starts a process that may use only the first `cores` of the cores that this one may use.
fn spawn_on_cores(command: &mut Command, cores: Option<usize>) -> Result<Child> {
    let Some(cores) = cores else { return Ok(command.spawn()?) };
    let all = sched_getaffinity(None)?;
    let mut some = CpuSet::new();
    (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).take(cores).for_each(|cpu| some.set(cpu));
    // A child inherits the affinity of the thread that starts it.
    sched_setaffinity(None, &some)?;
    let child = command.spawn();
    sched_setaffinity(None, &all)?;
    Ok(child?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_settings_are_lines_of_toml() {
        let settings = Settings {
            binary: PathBuf::from("phoebe-server"),
            python: Some(PathBuf::from("/opt/a \"b\"/python")),
            ports: 10,
            cores: None,
            changed: BTreeMap::new(),
        };
        let settings = settings.with("session.fsync", false).with("session.fsync", true);
        let settings = settings.with("session.durability", "off");
        let text = configuration(&settings, 8001, Path::new("/data")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], r#"database.path = "/data/data/sessions.db""#);
        assert_eq!(
            lines[3..],
            [
                "server.port = 8001",
                r#"session.durability = "off""#,
                "session.fsync = true",
                r#"worker.python = "/opt/a \"b\"/python""#,
            ]
        );
    }
}
