//! What a test wants of its server, before it starts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use toml::{Table, Value};

use super::disk::{self, Disk};
use super::log::Log;
use super::machine::Place;
use super::ports::PortRange;
use super::program;
use super::server::{Setup, TestServer};

/// Chooses a server's settings; [`Builder::start`] starts it.
#[derive(Debug)]
pub(crate) struct Builder {
    settings: Table,
    environment: Vec<(&'static str, String)>,
    python: Python,
    ports: u16,
    disk: Option<disk::Kind>,
    alone: bool,
    may_mount: bool,
}

#[derive(Debug)]
enum Python {
    /// The fake worker, with the word for its start-up behaviour.
    Fake(Option<&'static str>),
    Real,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            settings: Table::new(),
            environment: Vec::new(),
            python: Python::Fake(None),
            ports: 10,
            disk: None,
            alone: false,
            may_mount: true,
        }
    }

    /// Workers without Python that behave well until they are told otherwise. The default.
    pub(crate) fn fake(mut self) -> Self {
        self.python = Python::Fake(None);
        self
    }

    /// Workers without Python that misbehave while they start; `word` is one of the fake worker's.
    pub(crate) fn fake_that(mut self, word: &'static str) -> Self {
        self.python = Python::Fake(Some(word));
        self
    }

    /// Real PHOEBE.
    pub(crate) fn python(mut self) -> Self {
        self.python = Python::Real;
        self
    }

    /// How many ports the pool has (10).
    pub(crate) fn ports(mut self, count: u16) -> Self {
        self.ports = count;
        self
    }

    /// Keeps the data on a disk of its own. Where the test may not mount one,
    /// [`TestServer::has_disk`] says so.
    pub(crate) fn disk(mut self, kind: disk::Kind) -> Self {
        self.disk = Some(kind);
        self
    }

    /// Keeps other tests from running beside this one.
    pub(crate) fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Takes from a server of root's the right to mount, as most containers do.
    pub(crate) fn without_mounts(mut self) -> Self {
        self.may_mount = false;
        self
    }

    /// One setting, as `section.key`.
    pub(crate) fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        set(&mut self.settings, key, value);
        self
    }

    /// One variable of the server's environment.
    pub(crate) fn environment(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Starts the server and waits until it answers.
    pub(crate) async fn start(self) -> TestServer {
        let place = Place::take(self.alone).await;
        let root = tempfile::Builder::new().prefix("phoebe-server-test-").tempdir().unwrap();
        let data = root.path().join("data");
        let disk = self.disk.and_then(|kind| Disk::mount(&data, kind));
        let ports = PortRange::claim(self.ports);
        let python = self.interpreter(root.path());
        // Without a named interpreter the first start of all downloads PHOEBE.
        let start_deadline = Duration::from_secs(if python.is_some() { 60 } else { 900 });
        let config = self.write_config(&root, &ports, python.as_deref());
        let log = Log::new(root.path().join("server.log"));
        let wait_for_python = matches!(self.python, Python::Real);
        let is_https =
            self.settings.get("server").is_some_and(|server| server.get("tls_cert").is_some());
        let environment = self.environment;
        let may_mount = self.may_mount;
        let setup = Setup {
            config,
            may_mount,
            environment,
            log,
            ports,
            start_deadline,
            wait_for_python,
            is_https,
            disk,
            root,
            _place: place,
        };
        TestServer::start(setup).await
    }

    fn interpreter(&self, root: &Path) -> Option<PathBuf> {
        match self.python {
            Python::Real => program::phoebe_python(),
            Python::Fake(None) => Some(program::fake_worker().to_owned()),
            Python::Fake(Some(word)) => {
                let link = root.join(format!("phoebe-fake-worker-{word}"));
                symlink(program::fake_worker(), &link).unwrap();
                Some(link)
            }
        }
    }

    fn write_config(&self, root: &TempDir, ports: &PortRange, python: Option<&Path>) -> PathBuf {
        let mut settings = self.settings.clone();
        set(&mut settings, "port_pool.start", i64::from(ports.range().start));
        set(&mut settings, "port_pool.end", i64::from(ports.range().end));
        set(&mut settings, "logging.format", "json");
        set(&mut settings, "database.path", text(&root.path().join("data/sessions.db")));
        if let Some(python) = python {
            set(&mut settings, "worker.python", text(python));
        }
        let path = root.path().join("config.toml");
        fs::write(&path, settings.to_string()).unwrap();
        path
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

fn set(settings: &mut Table, key: &str, value: impl Into<Value>) {
    let (section, key) = key.split_once('.').expect("a setting is called section.key");
    let section = settings.entry(section).or_insert_with(|| Table::new().into());
    section.as_table_mut().unwrap().insert(key.to_owned(), value.into());
}
