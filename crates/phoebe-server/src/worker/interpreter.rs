//! How a Python process of ours is started: which interpreter, which package, which environment.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use phoebe_protocol::packet::{Info, PassbandAnswer, PassbandRequest, RootFolder};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::census::INSTANCE_VARIABLE;
use super::process::Process;
use super::{exits, log_pipe, packet_socket};

/// The variable by which a zygote or probe is told of the root folder for workers, as JSON.
pub(crate) const ROOT_FOLDER_VARIABLE: &str = "PHOEBE_SERVER_ROOT_FOLDER";

/// Puts the package's folder on the path of an interpreter that is isolated from the user's own
/// settings, and runs it.
pub(crate) const BOOTSTRAP: &str = "import sys, runpy; sys.path.insert(0, sys.argv.pop(1)); \
     runpy.run_module('phoebe_worker', run_name='__main__', alter_sys=True)";

/// Variables of the server's own environment that a Python process gets; all others may hold
/// secrets.
const INHERITED: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LANG", "TZ"];

/// What a process that answers once may print, in bytes.
const ANSWER_MAXIMUM: u64 = 8 * 1024 * 1024;

/// A Python that has PHOEBE, and our package for it.
#[derive(Debug, Clone)]
pub struct Interpreter {
    /// The interpreter's path.
    pub python: PathBuf,
    /// The folder that holds the package `phoebe_worker`.
    pub package: PathBuf,
    /// The data directory's instance id.
    pub instance: String,
    /// Whether PHOEBE is accelerated.
    pub accelerate: bool,
    /// A folder of passbands besides PHOEBE's own.
    pub passband_dir: Option<PathBuf>,
    /// What workers find in their root folder, if they have one of their own.
    pub root_folder: Option<RootFolder>,
}

impl Interpreter {
    /// Starts a process in `mode` (`zygote`, `spawn`, `probe`) with these standard streams.
    pub(crate) fn start(
        &self,
        mode: &str,
        input: Stdio,
        output: OwnedFd,
        error: OwnedFd,
    ) -> io::Result<Process> {
        let mut command = Command::new(&self.python);
        command.args(["-I", "-c", BOOTSTRAP]).arg(&self.package).arg(mode);
        command.env_clear().env(INSTANCE_VARIABLE, &self.instance);
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("PHOEBE_SERVER_ACCELERATE", if self.accelerate { "1" } else { "0" });
        if let Some(folder) = &self.passband_dir {
            command.env("PHOEBE_SERVER_PASSBANDS", folder);
        }
        if let Some(root_folder) = &self.root_folder {
            let told = serde_json::to_string(root_folder).map_err(io::Error::other)?;
            command.env(ROOT_FOLDER_VARIABLE, told);
        }
        // Its own group: a Ctrl-C at the server's terminal is the server's to handle.
        command.process_group(0);
        let _guard = exits::pause_reaping();
        let child = command.stdin(input).stdout(output).stderr(error).spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot run {}: {error}", self.python.display()))
        })?;
        // Reaped by `exits::reap_children`, like every child.
        Process::watch(i32::try_from(child.id()).map_err(io::Error::other)?)
    }

    /// Asks a fresh interpreter what it has. Giving up ends it.
    ///
    /// # Errors
    /// When it cannot be run or says nothing that can be read.
    pub(crate) async fn probe(&self) -> io::Result<Info> {
        self.answer("probe", None::<&()>).await?.ok_or_else(|| {
            let python = self.python.display();
            io::Error::other(format!("{python} cannot import PHOEBE; the log says why"))
        })
    }

    /// What a fresh interpreter says of passband files; `None` when it ends without an answer.
    /// Giving up ends it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub(crate) async fn inspect_passbands(
        &self,
        request: &PassbandRequest,
    ) -> io::Result<Option<PassbandAnswer>> {
        self.answer("passbands", Some(request)).await
    }

    /// Starts a process in `mode`, sends it `request`, and reads the one line of JSON that it
    /// prints, up to a bound.
    async fn answer<T: DeserializeOwned>(
        &self,
        mode: &str,
        request: Option<&impl Serialize>,
    ) -> io::Result<Option<T>> {
        let (lifeline, theirs) = packet_socket::pair()?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        let answer = pipe::Receiver::from_owned_fd(read)?;
        let log = log_pipe::open(log_pipe::fixed_source(mode))?;
        let process = self.start(mode, Stdio::from(theirs), write, log)?;
        if let Some(request) = request {
            // Where it is gone already there is no answer.
            let _ = lifeline.send(request, &[]).await;
        }
        let mut text = Vec::new();
        answer.take(ANSWER_MAXIMUM).read_to_end(&mut text).await?;
        process.signal(Signal::KILL);
        Ok(serde_json::from_slice(&text).ok())
    }
}
