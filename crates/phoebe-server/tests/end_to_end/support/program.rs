//! The programs under test: the server's binary, the fake worker's, and the interpreter with
//! PHOEBE.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The server's binary.
pub(crate) const SERVER: &str = env!("CARGO_BIN_EXE_phoebe-server");

/// An interpreter with PHOEBE that is named from outside; without it the server sets its own up.
pub(crate) fn phoebe_python() -> Option<PathBuf> {
    let python = std::env::var_os("PHOEBE_TEST_PYTHON").filter(|python| !python.is_empty());
    python.map(PathBuf::from)
}

/// The fake worker's binary, built when it is not up to date: Cargo builds it for the whole
/// workspace only.
pub(crate) fn fake_worker() -> &'static Path {
    static FAKE_WORKER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(SERVER).parent().unwrap();
        let program = folder.join("phoebe-fake-worker");
        if !is_current(&program) {
            let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
            build.args(["build", "--quiet", "--package", "phoebe-fake-worker"]);
            build.current_dir(env!("CARGO_MANIFEST_DIR"));
            build.arg("--target-dir").arg(folder.parent().unwrap());
            if folder.ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().unwrap().success(), "the fake worker cannot be built");
        }
        program
    });
    &FAKE_WORKER
}

/// Whether `program` is there and newer than what it is made of: a test of the whole workspace has
/// built it already, and building it alone would build all it needs once more, with other features.
fn is_current(program: &Path) -> bool {
    let built = |path: &Path| std::fs::metadata(path).and_then(|found| found.modified()).ok();
    let Some(at) = built(program) else { return false };
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sources =
        ["phoebe-fake-worker/src", "phoebe-protocol/src"].into_iter().flat_map(|folder| {
            std::fs::read_dir(crates.join(folder)).unwrap().map(|entry| entry.unwrap().path())
        });
    sources.into_iter().all(|source| built(&source).is_some_and(|changed| changed <= at))
}

/// Runs a script with PHOEBE alone, in an interpreter in which the server's workers run, and
/// returns what it prints last, as JSON.
pub(crate) fn run_stock_phoebe(python: &str, script: &str, argument: &str) -> Value {
    let output = Command::new(python)
        .args(["-I", script, argument])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PHOEBE_ENABLE_ONLINE_PASSBANDS", "FALSE")
        .env("OPENBLAS_NUM_THREADS", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// A call of the server's binary that ends by itself.
#[derive(Debug)]
pub(crate) struct Program {
    command: Command,
    input: Vec<u8>,
    deadline: Duration,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Program {
    /// The binary with nothing of the caller's settings, in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { command: command(folder), input: Vec::new(), deadline: Duration::from_secs(60) }
    }

    pub(crate) fn arguments<I: AsRef<std::ffi::OsStr>>(
        mut self,
        arguments: impl IntoIterator<Item = I>,
    ) -> Self {
        self.command.args(arguments);
        self
    }

    pub(crate) fn environment(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// What it reads from standard input; nothing unless told.
    pub(crate) fn input(mut self, text: &str) -> Self {
        self.input = text.into();
        self
    }

    /// Gives it longer than a minute, where it imports PHOEBE.
    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs it and waits for its end.
    pub(crate) fn run(mut self) -> Finished {
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // What is not read is no matter.
        let _unread = child.stdin.take().unwrap().write_all(&self.input);
        let started = Instant::now();
        let deadline = self.deadline;
        // What these calls print fits into a pipe.
        while child.try_wait().unwrap().is_none() {
            if started.elapsed() > deadline {
                child.kill().unwrap();
                let finished = Finished::from(child.wait_with_output().unwrap());
                panic!("{:?} did not end within {deadline:?}: {finished:?}", self.command);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.wait_with_output().unwrap().into()
    }
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The server's binary, in `folder`, with as little of the caller's environment as it needs. The
/// cache stays the caller's: the private Python environment is made once.
pub(crate) fn command(folder: &Path) -> Command {
    surrounded(Command::new(SERVER), folder)
}

/// The same without the capability to mount, for root.
pub(crate) fn command_without_mounts(folder: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin", SERVER]);
    surrounded(command, folder)
}

fn surrounded(mut command: Command, folder: &Path) -> Command {
    command.current_dir(folder).env_clear();
    for name in ["PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}
