//! A process that waits to be told what worker to be: forked from the zygote, or a fresh
//! interpreter. Dropping it ends the process.

use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::timeout;

use super::error::LaunchError;
use super::exits::Exit;
use super::interpreter::Interpreter;
use super::log_pipe;
use super::packet_socket::{self, PacketSocket};
use super::process::Process;
use super::registry::{Entry, Registry};
use super::zygote::{ForkError, Zygote};

/// After SIGKILL the kernel needs a moment to tear a process down.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// A worker's process, whatever it has been told.
pub(super) struct Child {
    pub(super) process: Arc<Process>,
    pub(super) lifeline: PacketSocket,
    /// The id of its session, once it has one; the log names it.
    name: Arc<OnceLock<String>>,
    _entry: Entry,
}

impl Drop for Child {
    fn drop(&mut self) {
        // Its lifeline closes too, but a worker that never armed it, or was made to disarm it, must
        // not stay.
        self.kill();
    }
}

impl Child {
    /// Forks one.
    pub(super) async fn fork(zygote: &Zygote, registry: &Registry) -> Result<Self, LaunchError> {
        loop {
            let (lifeline, theirs) = packet_socket::pair()?;
            let name = Arc::default();
            let log = log_pipe::open(Arc::clone(&name))?;
            return match zygote.fork(theirs, log).await {
                Ok(process) => Self::register(process, lifeline, name, registry).await,
                Err(ForkError::Lost) => continue,
                Err(error @ ForkError::Overloaded) => {
                    Err(LaunchError::Overloaded(error.to_string()))
                }
                Err(ForkError::Refused(reason)) => Err(LaunchError::Failed(reason)),
                Err(error @ ForkError::Ended) => Err(LaunchError::Failed(error.to_string())),
            };
        }
    }

    /// Starts a fresh interpreter.
    pub(super) async fn spawn(
        interpreter: &Interpreter,
        registry: &Registry,
    ) -> Result<Self, LaunchError> {
        let (lifeline, theirs) = packet_socket::pair()?;
        let name = Arc::default();
        let output = log_pipe::open(Arc::clone(&name))?;
        let error = output.try_clone()?;
        let process = interpreter.start("spawn", Stdio::from(theirs), output, error)?;
        Self::register(process, lifeline, name, registry).await
    }

    async fn register(
        process: Process,
        lifeline: PacketSocket,
        name: Arc<OnceLock<String>>,
        registry: &Registry,
    ) -> Result<Self, LaunchError> {
        let entry = registry.enter(&process).await?;
        Ok(Self { process: Arc::new(process), lifeline, name, _entry: entry })
    }

    /// Sets the session under whose id the process logs.
    pub(super) fn assign_session(&self, session: &str) {
        // It is set once.
        let _ = self.name.set(session.to_owned());
    }

    /// Ends it and its runners at once.
    pub(super) fn kill(&self) {
        self.process.signal(Signal::KILL);
    }

    /// Ends it and waits until it is gone.
    pub(super) async fn end(self) {
        self.kill();
        self.killed().await;
    }

    /// How it ended, after it was killed.
    pub(super) async fn killed(&self) -> Exit {
        timeout(KILL_TIMEOUT, self.process.ended()).await.unwrap_or(Exit::Unknown)
    }
}
