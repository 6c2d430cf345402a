//! Starting and holding workers: the seam behind which zygote, fresh interpreters and, one day, other machines stand.
//!
//! Contract of a [`Worker`]: its command socket is bound when [`Launcher::start`] returns it; [`Worker::ended`] resolves once when its process is
//! gone, whatever the cause; [`Worker::stop`] returns when it is gone. Dropping a worker ends it at once, for its lifeline closes.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use phoebe_protocol::packet::{FromWorker, Info, Limits, Start, StartFailure};
use phoebe_protocol::sign::Key;
use rustix::process::Signal;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::exits::Exit;
use super::interpreter::Interpreter;
use super::log_pipe;
use super::orphans::{Record, Records};
use super::packet_socket::{self, PacketSocket};
use super::process::Process;
use super::readiness::{self, Readiness};
use super::sandbox::{Containment, Scratch, Watch};
use super::usage;
use super::zygote::{ForkError, Zygote};

/// After SIGKILL the kernel needs a moment to tear a process down.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// What a worker is started with.
#[derive(Debug, Clone)]
pub struct WorkerSpec {
    /// The session's id.
    pub session: String,
    /// The loopback port it shall bind.
    pub port: u16,
    /// The key that signs its commands.
    pub key: Key,
    /// Memory of each of its processes in MiB; none for no limit.
    pub memory_mb: Option<u64>,
}

/// Why a worker could not be started.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// Something else holds the port.
    #[error("port {0} is held by another program")]
    AddressInUse(u16),
    /// Too many workers are being started at once.
    #[error("{0}")]
    Overloaded(String),
    /// It started and gave up, or could not be started.
    #[error("{0}")]
    Failed(String),
    /// The operating system refused something on the way.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Where workers come from.
pub struct Launcher {
    source: Source,
    records: Records,
    containment: Option<Containment>,
    watch: Watch,
    readiness: watch::Receiver<Readiness>,
    closing: CancellationToken,
}

enum Source {
    Zygote(Zygote),
    Spawn(Interpreter),
}

impl Launcher {
    /// Workers forked from a zygote, which starts at once.
    #[must_use]
    pub fn fork(
        interpreter: Interpreter,
        records: Records,
        containment: Option<Containment>,
    ) -> Self {
        let closing = CancellationToken::new();
        let zygote = Zygote::supervise(interpreter, records.clone(), closing.clone());
        let readiness = zygote.readiness();
        let watch = Watch::start(closing.clone());
        Self { source: Source::Zygote(zygote), records, containment, watch, readiness, closing }
    }

    /// A fresh interpreter for every worker: slow, and independent of how well a fork is supported.
    #[must_use]
    pub fn spawn(
        interpreter: Interpreter,
        records: Records,
        containment: Option<Containment>,
    ) -> Self {
        let closing = CancellationToken::new();
        let readiness = readiness::ask(interpreter.clone(), closing.clone());
        let watch = Watch::start(closing.clone());
        Self { source: Source::Spawn(interpreter), records, containment, watch, readiness, closing }
    }

    /// What the Python side says of itself. Waits until PHOEBE is imported.
    ///
    /// # Errors
    /// Says why PHOEBE cannot be imported.
    pub async fn info(&self) -> Result<Arc<Info>, LaunchError> {
        let mut readiness = self.readiness.clone();
        let settled = readiness.wait_for(|now| !matches!(now, Readiness::Starting)).await;
        match settled.as_deref() {
            Ok(Readiness::Ready(info)) => Ok(Arc::clone(info)),
            Ok(Readiness::Failed(reason)) => Err(LaunchError::Failed(reason.clone())),
            Ok(Readiness::Starting) | Err(_) => {
                Err(LaunchError::Failed("the server is stopping".to_owned()))
            }
        }
    }

    /// Ends what workers come from, and waits until it is gone. Workers are not touched.
    pub async fn shut_down(&self) {
        self.closing.cancel();
        match &self.source {
            Source::Zygote(zygote) => zygote.ended().await,
            Source::Spawn(_) => {}
        }
    }

    /// Starts a worker and waits until its command socket is bound. The caller bounds the time; giving up ends the worker.
    ///
    /// # Errors
    /// Nothing is left of the worker then.
    pub async fn start(&self, spec: &WorkerSpec) -> Result<Worker, LaunchError> {
        let (start, mut scratch) = self.start_packet(spec)?;
        loop {
            let (lifeline, process) = match &self.source {
                Source::Zygote(zygote) => {
                    let (lifeline, forked) = fork_from(zygote, &start).await?;
                    match forked {
                        Ok(process) => (lifeline, process),
                        Err(ForkError::Lost) => continue,
                        Err(error @ ForkError::Overloaded) => {
                            return Err(LaunchError::Overloaded(error.to_string()));
                        }
                        Err(ForkError::Refused(reason)) => return Err(LaunchError::Failed(reason)),
                        // What it said before it ended still waits in its lifeline.
                        Err(error @ ForkError::Ended) => {
                            let word = first_word(&lifeline, spec.port).await?;
                            let failure = word.and_then(Result::err);
                            return Err(failure.unwrap_or(LaunchError::Failed(error.to_string())));
                        }
                    }
                }
                Source::Spawn(interpreter) => spawn_from(interpreter, &start).await?,
            };
            let record = self.records.add(&process)?;
            let process = Arc::new(process);
            let address = format!("tcp://127.0.0.1:{}", spec.port);
            let scratch = scratch.take();
            if let Some(scratch) = &scratch {
                self.watch.add(&process, &spec.session, scratch.path());
            }
            let template = String::new();
            let worker = Worker { process, lifeline, address, template, scratch, _record: record };
            return worker.wait_until_bound(spec.port).await;
        }
    }

    /// What a worker is told, and the scratch directory that it is told of.
    fn start_packet(&self, spec: &WorkerSpec) -> io::Result<(Start, Option<Scratch>)> {
        let mut start = Start {
            session: spec.session.clone(),
            port: spec.port,
            key: spec.key.to_hex(),
            limits: Limits { memory_mb: spec.memory_mb, ..Limits::default() },
            sandbox: None,
        };
        let Some(containment) = &self.containment else { return Ok((start, None)) };
        let (sandbox, scratch) = containment.for_one()?;
        start.limits = Limits { memory_mb: spec.memory_mb, ..containment.limits() };
        start.sandbox = Some(sandbox);
        Ok((start, Some(scratch)))
    }
}

async fn fork_from(
    zygote: &Zygote,
    start: &Start,
) -> io::Result<(PacketSocket, Result<Process, ForkError>)> {
    let (lifeline, theirs) = packet_socket::pair()?;
    let log = log_pipe::open(start.session.clone())?;
    lifeline.send(start, &[]).await?;
    Ok((lifeline, zygote.fork(theirs, log).await))
}

async fn spawn_from(
    interpreter: &Interpreter,
    start: &Start,
) -> io::Result<(PacketSocket, Process)> {
    let (lifeline, theirs) = packet_socket::pair()?;
    let output = log_pipe::open(start.session.clone())?;
    let error = output.try_clone()?;
    let process = interpreter.start("spawn", Stdio::from(theirs), output, error)?;
    // Where it is gone already, its last word or its exit code is the better explanation.
    let _gone = lifeline.send(start, &[]).await;
    Ok((lifeline, process))
}

/// What a starting worker says: that its socket is bound, or why it cannot be. `None` when it ends without a word.
async fn first_word(
    lifeline: &PacketSocket,
    port: u16,
) -> io::Result<Option<Result<Info, LaunchError>>> {
    Ok(lifeline.receive().await?.map(|word| match word {
        FromWorker::Ready { ready } => Ok(ready),
        FromWorker::Failed { failed: StartFailure::AddressInUse, .. } => {
            Err(LaunchError::AddressInUse(port))
        }
        FromWorker::Failed { error, .. } => Err(LaunchError::Failed(error)),
    }))
}

/// A living worker process.
pub struct Worker {
    process: Arc<Process>,
    lifeline: PacketSocket,
    address: String,
    template: String,
    scratch: Option<Scratch>,
    _record: Record,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Its lifeline closes too, but a worker that never armed it, or was made to disarm it, must not stay.
        self.kill();
    }
}

impl Worker {
    async fn wait_until_bound(mut self, port: u16) -> Result<Self, LaunchError> {
        match first_word(&self.lifeline, port).await? {
            Some(word) => {
                self.template = word?.template;
                Ok(self)
            }
            None => {
                let exit = self.process.ended().await;
                Err(LaunchError::Failed(format!("it ended before it was ready ({exit})")))
            }
        }
    }

    /// Where its command socket is, for ZeroMQ.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The digest of the Bundle it began with: the same for all workers of one origin.
    #[must_use]
    pub fn template(&self) -> &str {
        &self.template
    }

    /// Waits until the worker's process is gone.
    pub async fn ended(&self) -> Exit {
        self.process.ended().await
    }

    /// Asks the worker to end, and after `grace` makes it. Returns when it is gone.
    pub async fn stop(mut self, grace: Duration) -> Exit {
        self.process.signal(Signal::TERM);
        let in_time = timeout(grace, self.process.ended()).await;
        // Whatever else is left of its group goes too.
        self.kill();
        let exit = match in_time {
            Ok(exit) => exit,
            Err(_) => timeout(KILL_PATIENCE, self.process.ended()).await.unwrap_or(Exit::Unknown),
        };
        if let Some(scratch) = self.scratch.take() {
            scratch.remove().await;
        }
        exit
    }

    /// Ends the worker and its runners at once.
    pub fn kill(&self) {
        self.process.signal(Signal::KILL);
    }

    /// Measures what the worker and its runners cost in memory, in MiB. The measurement outlives the worker; `None` when it is gone.
    pub fn memory(&self) -> impl Future<Output = Option<f64>> + Send + 'static {
        let process = Arc::clone(&self.process);
        async move {
            let measured =
                tokio::task::spawn_blocking(move || usage::proportional_set_size(process.pid()));
            measured.await.ok().flatten()
        }
    }
}
