//! Starting and holding workers: the seam behind which zygote, fresh interpreters and, one day,
//! other machines stand.
//!
//! Contract of a [`Worker`]: its command socket is bound when [`Launcher::start`] returns it;
//! [`Worker::ended`] resolves once when its process is gone, whatever the cause; [`Worker::stop`]
//! returns when it is gone. Dropping a worker ends it at once, for its lifeline closes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use phoebe_protocol::packet::{FromWorker, Info, Limits, Start, StartFailure};
use phoebe_protocol::sign::Key;
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::child::Child;
use super::error::LaunchError;
use super::exits::Exit;
use super::interpreter::Interpreter;
use super::packet_socket::PacketSocket;
use super::passbands::PassbandList;
use super::readiness::{self, Readiness};
use super::registry::Registry;
use super::sandbox::{Containment, Scratch, UsageMonitor};
use super::spares::Spares;
use super::usage;
use super::zygote::{ForkError, Generations, Zygote};

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

/// Where workers come from.
pub struct Launcher {
    source: Source,
    spares: Option<Spares>,
    registry: Registry,
    containment: Option<Containment>,
    monitor: UsageMonitor,
    readiness: watch::Receiver<Readiness>,
    closing: CancellationToken,
}

enum Source {
    Zygote(Zygote),
    Spawn(Interpreter, PassbandList),
}

impl Launcher {
    /// Workers forked from a zygote, which starts at once; `spares` of them before they are asked
    /// for.
    #[must_use]
    pub fn fork(
        interpreter: Interpreter,
        registry: Registry,
        containment: Option<Containment>,
        spares: usize,
    ) -> Self {
        let closing = CancellationToken::new();
        let zygote = Zygote::supervise(interpreter, registry.clone(), closing.clone());
        let readiness = zygote.readiness();
        let monitor = UsageMonitor::start(closing.clone());
        let spares = Spares::start(spares, zygote.clone(), registry.clone(), closing.clone());
        let (source, spares) = (Source::Zygote(zygote), Some(spares));
        Self { source, spares, registry, containment, monitor, readiness, closing }
    }

    /// A fresh interpreter for every worker: slow, and independent of how well a fork is supported.
    #[must_use]
    pub fn spawn(
        interpreter: Interpreter,
        registry: Registry,
        containment: Option<Containment>,
    ) -> Self {
        let closing = CancellationToken::new();
        let readiness = readiness::probe(interpreter.clone(), closing.clone());
        let monitor = UsageMonitor::start(closing.clone());
        let source = Source::Spawn(interpreter, PassbandList::default());
        Self { source, spares: None, registry, containment, monitor, readiness, closing }
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

    /// The passbands that sessions can use now, sorted by name. Waits until PHOEBE is imported.
    ///
    /// # Errors
    /// Says why PHOEBE cannot be imported, or be asked.
    pub async fn passbands(&self) -> Result<Vec<String>, LaunchError> {
        loop {
            let info = self.info().await?;
            match &self.source {
                Source::Spawn(interpreter, list) => return list.current(interpreter, &info).await,
                Source::Zygote(zygote) => match zygote.passbands().await {
                    Ok(names) => return Ok(names),
                    Err(ForkError::Lost) => {}
                    Err(error) => return Err(LaunchError::Failed(error.to_string())),
                },
            }
        }
    }

    /// The zygote's processes so far; `None` where workers are fresh interpreters.
    pub(crate) fn generations(&self) -> Option<Arc<Generations>> {
        match &self.source {
            Source::Zygote(zygote) => Some(zygote.generations()),
            Source::Spawn(..) => None,
        }
    }

    /// Ends what workers come from, and waits until it is gone. Workers are not touched.
    pub async fn shut_down(&self) {
        self.closing.cancel();
        if let Some(spares) = &self.spares {
            spares.end().await;
        }
        match &self.source {
            Source::Zygote(zygote) => zygote.ended().await,
            Source::Spawn(..) => {}
        }
        self.registry.is_empty().await;
    }

    /// Starts a worker and waits until its command socket is bound. The caller bounds the time;
    /// giving up ends the worker.
    ///
    /// # Errors
    /// Nothing is left of the worker then.
    pub async fn start(&self, spec: &WorkerSpec) -> Result<Worker, LaunchError> {
        let started = match self.spares.as_ref().and_then(Spares::take) {
            Some(spare) => match self.start_in(spare, spec).await {
                // It may have ended while nobody wanted it.
                Err(LaunchError::Failed(_) | LaunchError::System(_)) => {
                    self.start_in(self.new_child().await?, spec).await
                }
                outcome => outcome,
            },
            None => self.start_in(self.new_child().await?, spec).await,
        };
        if let Some(spares) = &self.spares {
            spares.refill();
        }
        started
    }

    async fn new_child(&self) -> Result<Child, LaunchError> {
        match &self.source {
            Source::Zygote(zygote) => Child::fork(zygote, &self.registry).await,
            Source::Spawn(interpreter, _) => Child::spawn(interpreter, &self.registry).await,
        }
    }

    /// Tells a process what worker to be, and waits until it is.
    async fn start_in(&self, child: Child, spec: &WorkerSpec) -> Result<Worker, LaunchError> {
        let (start, scratch) = self.start_packet(spec)?;
        child.assign_session(&spec.session);
        if let Some(scratch) = &scratch {
            self.monitor.add(&child.process, &spec.session, scratch.path());
        }
        // Where it is gone already, its last word or its exit code is the better explanation.
        let _ = child.lifeline.send(&start, &[]).await;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, spec.port));
        let worker = Worker { child, address, info: Info::default(), scratch };
        worker.wait_until_bound(spec.port).await
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
        let (sandbox, scratch) = containment.for_worker()?;
        start.limits = Limits { memory_mb: spec.memory_mb, ..containment.limits() };
        start.sandbox = Some(sandbox);
        Ok((start, Some(scratch)))
    }
}

/// What a starting worker says: that its socket is bound, or why it cannot be. `None` when it ends
/// without a word.
async fn startup_reply(
    lifeline: &PacketSocket,
    port: u16,
) -> io::Result<Option<Result<Info, LaunchError>>> {
    Ok(lifeline.receive().await?.map(|reply| match reply {
        FromWorker::Ready { ready } => Ok(ready),
        FromWorker::Failed { failed: StartFailure::AddressInUse, .. } => {
            Err(LaunchError::AddressInUse(port))
        }
        FromWorker::Failed { error, .. } => Err(LaunchError::Failed(error)),
    }))
}

/// A living worker process. Dropped, it ends at once.
pub struct Worker {
    child: Child,
    address: SocketAddr,
    info: Info,
    scratch: Option<Scratch>,
}

impl Worker {
    async fn wait_until_bound(mut self, port: u16) -> Result<Self, LaunchError> {
        match startup_reply(&self.child.lifeline, port).await? {
            Some(reply) => {
                self.info = reply?;
                Ok(self)
            }
            None => {
                let exit = self.ended().await;
                Err(LaunchError::Failed(format!("it ended before it was ready ({exit})")))
            }
        }
    }

    /// Where its command socket is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The versions that it runs, and the digest of the Bundle that it began with, which is the
    /// same for all workers of one origin.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Waits until the worker's process is gone.
    pub async fn ended(&self) -> Exit {
        self.child.process.ended().await
    }

    /// Asks the worker to end, and after `grace` makes it. Returns when it is gone.
    pub async fn stop(mut self, grace: Duration) -> Exit {
        self.child.process.signal(Signal::TERM);
        let in_time = timeout(grace, self.ended()).await;
        // Whatever else is left of its group goes too.
        self.child.kill();
        let exit = match in_time {
            Ok(exit) => exit,
            Err(_) => self.child.killed().await,
        };
        if let Some(scratch) = self.scratch.take() {
            scratch.remove().await;
        }
        exit
    }

    /// Measures what the worker and its runners cost in memory, in MiB. The measurement outlives
    /// the worker; `None` when it is gone.
    pub fn memory(&self) -> impl Future<Output = Option<f64>> + Send + 'static {
        let process = Arc::clone(&self.child.process);
        async move {
            let measured =
                tokio::task::spawn_blocking(move || usage::proportional_set_size(process.pid()));
            measured.await.ok().flatten()
        }
    }
}
