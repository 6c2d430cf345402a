//! The zygote and its supervisor: one Python process that has imported PHOEBE and is asked to
//! fork workers.
//!
//! ```text
//!   started ──ready──► serving ──died or silent──► replaced (growing pause after failures)
//! ```
//!
//! The supervisor task owns the process and its control channel. A request that was under way when
//! the zygote died fails with [`ForkError::Lost`]; the caller may ask again. The zygote's death
//! ends no worker.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use phoebe_protocol::packet::{FromZygote, Info, ToZygote};
use rustix::process::Signal;
use thiserror::Error;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::exits::{self, Exit};
use super::interpreter::Interpreter;
use super::log_pipe;
use super::packet_socket::{self, PacketSocket};
use super::process::Process;
use super::readiness::{IMPORT_TIMEOUT, RETRY_PAUSE, RETRY_PAUSE_MAXIMUM, Readiness};
use super::registry::Registry;
use super::sandbox;
use super::usage;

/// Forks that the zygote works on at a time; the others wait in the server, where they can still be
/// given up.
const IN_FLIGHT: usize = 8;
/// Forks that may wait; beyond, a rush is turned away at once instead of after its patience.
const QUEUE: usize = 512;
/// A zygote runs nothing of a user's. One that grows by so many MiB all the same is replaced.
const GROWTH_MAXIMUM: f64 = 64.0;
/// How often its size is looked at.
const SIZE_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// A zygote that has forks to do and says nothing for so long is wedged.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no worker.
#[derive(Debug, Error)]
pub(crate) enum ForkError {
    /// The zygote died meanwhile. Asking again is worth it.
    #[error("the zygote died")]
    Lost,
    /// Too many forks wait already.
    #[error("{QUEUE} workers are being started already")]
    Overloaded,
    /// The worker was gone before the server could take hold of it.
    #[error("it ended before it was ready")]
    Ended,
    /// It could not, and said why.
    #[error("{0}")]
    Refused(String),
}

/// A request to the zygote, with the channel for its answer.
enum Request {
    Worker { lifeline: OwnedFd, log: OwnedFd, answer: Answer<Process> },
    Passbands { answer: Answer<Vec<String>> },
}

type Answer<T> = oneshot::Sender<Result<T, ForkError>>;

/// A request that was sent to the zygote.
enum PendingRequest {
    Worker(Answer<Process>),
    Passbands(Answer<Vec<String>>),
}

impl Request {
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Worker { answer, .. } => answer.is_closed(),
            Self::Passbands { answer } => answer.is_closed(),
        }
    }

    fn refuse(self, reason: String) {
        match self {
            Self::Worker { answer, .. } => PendingRequest::Worker(answer),
            Self::Passbands { answer } => PendingRequest::Passbands(answer),
        }
        .refuse(reason);
    }
}

impl PendingRequest {
    fn refuse(self, reason: String) {
        // The caller may have given up.
        match self {
            Self::Worker(answer) => drop(answer.send(Err(ForkError::Refused(reason)))),
            Self::Passbands(answer) => drop(answer.send(Err(ForkError::Refused(reason)))),
        }
    }
}

/// The zygote's processes, for whoever watches the server.
#[derive(Debug, Default)]
pub(crate) struct Generations {
    started: AtomicU64,
    /// The process that lives; 0 if none does.
    pid: AtomicI32,
}

impl Generations {
    /// How often the zygote was started again.
    pub(crate) fn restarts(&self) -> u64 {
        self.started.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// MiB of the zygote's own memory. `None` while there is no zygote. Blocks for microseconds.
    pub(crate) fn memory(&self) -> Option<f64> {
        let pid = self.pid.load(Ordering::Relaxed);
        (pid > 0).then(|| usage::anonymous_memory(pid)).flatten()
    }
}

/// Handle to the zygote, whichever generation lives.
#[derive(Clone)]
pub(crate) struct Zygote {
    generations: Arc<Generations>,
    requests: mpsc::Sender<Request>,
    readiness: watch::Receiver<Readiness>,
    supervisor: TaskTracker,
}

impl Zygote {
    /// Starts the zygote and its supervisor, until `closing`.
    pub(crate) fn supervise(
        interpreter: Interpreter,
        registry: Registry,
        closing: CancellationToken,
    ) -> Self {
        let (requests, waiting) = mpsc::channel(QUEUE);
        let (publish, readiness) = watch::channel(Readiness::Starting);
        let supervisor = TaskTracker::new();
        let generations = Arc::<Generations>::default();
        let work = Supervisor {
            interpreter,
            registry,
            waiting,
            publish,
            closing,
            generations: Arc::clone(&generations),
        };
        supervisor.spawn(work.run());
        supervisor.close();
        Self { generations, requests, readiness, supervisor }
    }

    /// Whether forks are served, and a way to wait for a change of it.
    pub(crate) fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.clone()
    }

    /// Its processes so far.
    pub(crate) fn generations(&self) -> Arc<Generations> {
        Arc::clone(&self.generations)
    }

    /// Waits until the zygote is gone for good.
    pub(crate) async fn ended(&self) {
        self.supervisor.wait().await;
    }

    /// Asks for a worker that gets these two descriptors, and waits for its start in the lifeline.
    pub(crate) async fn fork(&self, lifeline: OwnedFd, log: OwnedFd) -> Result<Process, ForkError> {
        self.ask(|answer| Request::Worker { lifeline, log, answer }).await
    }

    /// Asks which passbands there are now.
    pub(crate) async fn passbands(&self) -> Result<Vec<String>, ForkError> {
        self.ask(|answer| Request::Passbands { answer }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, ForkError> {
        let (answer, answered) = oneshot::channel();
        self.requests.try_send(request(answer)).map_err(|error| match error {
            TrySendError::Full(_) => ForkError::Overloaded,
            TrySendError::Closed(_) => ForkError::Refused("the server is stopping".to_owned()),
        })?;
        answered.await.map_err(|_| ForkError::Lost)?
    }
}

struct Supervisor {
    interpreter: Interpreter,
    registry: Registry,
    waiting: mpsc::Receiver<Request>,
    publish: watch::Sender<Readiness>,
    closing: CancellationToken,
    generations: Arc<Generations>,
}

/// Why a process of the zygote ended.
enum GenerationEnd {
    /// Nobody needs a zygote any more.
    Closed,
    /// It never became ready.
    NeverReady(String),
    /// It served, and died or was ended.
    Died(String),
}

impl Supervisor {
    async fn run(mut self) {
        let mut pause = RETRY_PAUSE;
        loop {
            self.publish.send_replace(Readiness::Starting);
            match self.run_generation().await {
                Ok(GenerationEnd::Closed) => return,
                Ok(GenerationEnd::Died(reason)) => {
                    warn!(reason, "the zygote is replaced");
                    pause = RETRY_PAUSE;
                    continue;
                }
                Ok(GenerationEnd::NeverReady(reason)) => {
                    self.publish.send_replace(Readiness::Failed(reason))
                }
                Err(error) => self.publish.send_replace(Readiness::Failed(error.to_string())),
            };
            if let Readiness::Failed(reason) = &*self.publish.borrow() {
                error!(reason, retry_in_seconds = pause.as_secs_f64(), "no zygote");
            }
            if self.refuse_requests_for(pause).await.is_none() {
                return;
            }
            pause = (pause * 2).min(RETRY_PAUSE_MAXIMUM);
        }
    }

    /// Answers every request with the failure until the pause is over. `None` when nobody can ask
    /// any more.
    async fn refuse_requests_for(&mut self, pause: Duration) -> Option<()> {
        let Readiness::Failed(reason) = self.publish.borrow().clone() else { return Some(()) };
        let end = sleep(pause);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return Some(()),
                () = self.closing.cancelled() => return None,
                request = self.waiting.recv() => request?.refuse(reason.clone()),
            }
        }
    }

    async fn run_generation(&mut self) -> io::Result<GenerationEnd> {
        let (control, theirs) = packet_socket::pair()?;
        let output = log_pipe::open(log_pipe::fixed_source("zygote"))?;
        let error = output.try_clone()?;
        let process = self.interpreter.start("zygote", Stdio::from(theirs), output, error)?;
        let record = self.registry.record(&process)?;
        self.generations.started.fetch_add(1, Ordering::Relaxed);
        self.generations.pid.store(process.pid(), Ordering::Relaxed);
        let closing = self.closing.clone();
        let end = tokio::select! {
            end = self.load_and_serve(&control, &process) => end,
            () = closing.cancelled() => GenerationEnd::Closed,
        };
        self.generations.pid.store(0, Ordering::Relaxed);
        // It ends by itself when its channel closes; it is not waited for longer than a moment.
        drop(control);
        if timeout(Duration::from_millis(500), process.ended()).await.is_err() {
            process.signal(Signal::KILL);
            // The next start ends a process that is left.
            let _ = timeout(Duration::from_secs(2), process.ended()).await;
        }
        drop(record);
        Ok(end)
    }

    /// From its start to its end.
    async fn load_and_serve(&mut self, control: &PacketSocket, process: &Process) -> GenerationEnd {
        let started = Instant::now();
        info!(pid = process.pid(), "loading PHOEBE; sessions that are asked for meanwhile wait");
        match self.wait_until_ready(control, process).await {
            Ok(info) => {
                info!(
                    pid = process.pid(),
                    phoebe = info.phoebe,
                    python = info.python,
                    duration_ms = started.elapsed().as_secs_f64() * 1000.0,
                    "the zygote is ready"
                );
                sandbox::announce_metadata(&info);
                self.publish.send_replace(Readiness::Ready(Arc::new(info)));
                self.serve(control, process).await
            }
            Err(reason) => GenerationEnd::NeverReady(reason),
        }
    }

    async fn wait_until_ready(
        &self,
        control: &PacketSocket,
        process: &Process,
    ) -> Result<Info, String> {
        match timeout(IMPORT_TIMEOUT, control.receive()).await {
            Err(_) => Err(format!("PHOEBE was not imported within {} s", IMPORT_TIMEOUT.as_secs())),
            Ok(Ok(Some(FromZygote::Ready { ready }))) => Ok(ready),
            Ok(Ok(Some(FromZygote::Fatal { fatal }))) => Err(fatal),
            Ok(Ok(Some(other))) => Err(format!("it sent {other:?} before it was ready")),
            Ok(Ok(None)) => {
                Err(format!("it ended while importing PHOEBE ({})", process.ended().await))
            }
            Ok(Err(error)) => Err(format!("its control channel broke: {error}")),
        }
    }

    async fn serve(&mut self, control: &PacketSocket, process: &Process) -> GenerationEnd {
        let mut number = 0;
        let mut pending: HashMap<u64, PendingRequest> = HashMap::new();
        let mut last_packet = Instant::now();
        let size = usage::anonymous_memory(process.pid()).unwrap_or_default();
        let mut size_check = interval(SIZE_CHECK_INTERVAL);
        loop {
            tokio::select! {
                request = self.waiting.recv(), if pending.len() < IN_FLIGHT => {
                    let Some(request) = request else { return GenerationEnd::Closed };
                    if request.is_abandoned() {
                        continue;
                    }
                    if pending.is_empty() {
                        last_packet = Instant::now();
                    }
                    number += 1;
                    let sent = match request {
                        Request::Worker { lifeline, log, answer } => {
                            pending.insert(number, PendingRequest::Worker(answer));
                            let descriptors = [lifeline.as_fd(), log.as_fd()];
                            control.send(&ToZygote::Fork { fork: number }, &descriptors).await
                        }
                        Request::Passbands { answer } => {
                            pending.insert(number, PendingRequest::Passbands(answer));
                            control.send(&ToZygote::Passbands { passbands: number }, &[]).await
                        }
                    };
                    if let Err(error) = sent {
                        return GenerationEnd::Died(format!("its control channel broke: {error}"));
                    }
                }
                packet = control.receive() => {
                    last_packet = Instant::now();
                    match packet {
                        Ok(Some(packet)) => Self::handle_packet(packet, &mut pending),
                        Ok(None) => {
                            let exit = process.ended().await;
                            return GenerationEnd::Died(format!("it ended ({exit})"));
                        }
                        Err(error) => {
                            let reason = format!("its control channel broke: {error}");
                            return GenerationEnd::Died(reason);
                        }
                    }
                }
                _ = size_check.tick(), if pending.is_empty() => {
                    let grown = usage::anonymous_memory(process.pid()).unwrap_or_default() - size;
                    if grown > GROWTH_MAXIMUM {
                        return GenerationEnd::Died(format!("it grew by {grown:.0} MiB"));
                    }
                }
                () = sleep_until(last_packet + RESPONSE_TIMEOUT), if !pending.is_empty() => {
                    process.signal(Signal::KILL);
                    let seconds = RESPONSE_TIMEOUT.as_secs();
                    return GenerationEnd::Died(format!("it forked nothing for {seconds} s"));
                }
            }
        }
    }

    fn handle_packet(packet: FromZygote, pending: &mut HashMap<u64, PendingRequest>) {
        // The caller may have given up; then the worker's lifeline is closed and it dies of
        // that.
        match packet {
            FromZygote::Forked { forked, pid } => {
                exits::forget(pid);
                let watched = Process::watch(pid);
                if let Some(PendingRequest::Worker(answer)) = pending.remove(&forked) {
                    drop(answer.send(watched.map_err(|_| ForkError::Ended)));
                }
            }
            FromZygote::Passbands { passbands, names } => {
                if let Some(PendingRequest::Passbands(answer)) = pending.remove(&passbands) {
                    drop(answer.send(Ok(names)));
                }
            }
            FromZygote::Failed { failed, error } => {
                if let Some(request) = pending.remove(&failed) {
                    request.refuse(error);
                }
            }
            FromZygote::Exited { exited, code, signal } => {
                exits::report(exited, Exit::from_parts(code, signal));
            }
            FromZygote::Ready { .. } | FromZygote::Fatal { .. } => {
                warn!(?packet, "the zygote sent a packet out of turn");
            }
        }
    }
}
