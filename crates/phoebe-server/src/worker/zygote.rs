//! The zygote and who looks after it: one Python process that has imported PHOEBE and is asked to
//! fork workers.
//!
//! ```text
//!   started ──ready──► serving ──died, or silent too long──► replaced (started again, with a growing pause after failures)
//! ```
//!
//! The supervisor task owns the process and its control channel. A request that was under way when
//! the zygote died fails with [`ForkError::Lost`]; whoever asked may ask again. The zygote's death
//! ends no worker.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;
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

use super::child;
use super::exits::{self, Exit};
use super::interpreter::Interpreter;
use super::log_pipe;
use super::packet_socket::{self, PacketSocket};
use super::process::Process;
use super::readiness::{IMPORT_LIMIT, PAUSE, PAUSE_MAXIMUM, Readiness};
use super::registry::Registry;
use super::sandbox;
use super::usage;

/// Forks asked for and not answered at once; the others wait in the server, where they can still be
/// given up.
const IN_FLIGHT: usize = 8;
/// Forks that may wait; beyond, a rush is turned away at once instead of after its patience.
const QUEUE: usize = 512;
/// A zygote runs nothing of a user's. One that grows by so many MiB all the same is replaced.
const GROWTH_MAXIMUM: f64 = 64.0;
/// How often its size is looked at.
const SIZE_INTERVAL: Duration = Duration::from_secs(10);
/// A zygote that has forks to do and says nothing for so long is wedged.
const SILENCE: Duration = Duration::from_secs(5);

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

/// A wish, and where its answer goes.
enum Wish {
    Worker { lifeline: OwnedFd, log: OwnedFd, answer: Answer<Process> },
    Passbands { answer: Answer<Vec<String>> },
}

type Answer<T> = oneshot::Sender<Result<T, ForkError>>;

/// A wish that the zygote was told of.
enum Asked {
    Worker(Answer<Process>),
    Passbands(Answer<Vec<String>>),
}

impl Wish {
    fn is_given_up(&self) -> bool {
        match self {
            Self::Worker { answer, .. } => answer.is_closed(),
            Self::Passbands { answer } => answer.is_closed(),
        }
    }

    fn refuse(self, reason: String) {
        match self {
            Self::Worker { answer, .. } => Asked::Worker(answer),
            Self::Passbands { answer } => Asked::Passbands(answer),
        }
        .refuse(reason);
    }
}

impl Asked {
    fn refuse(self, reason: String) {
        // Whoever asked may have given up.
        match self {
            Self::Worker(answer) => drop(answer.send(Err(ForkError::Refused(reason)))),
            Self::Passbands(answer) => drop(answer.send(Err(ForkError::Refused(reason)))),
        }
    }
}

/// Handle to the zygote, whichever generation lives.
#[derive(Clone)]
pub(crate) struct Zygote {
    wishes: mpsc::Sender<Wish>,
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
        let (wishes, waiting) = mpsc::channel(QUEUE);
        let (publish, readiness) = watch::channel(Readiness::Starting);
        let supervisor = TaskTracker::new();
        let work = Supervisor { interpreter, registry, waiting, publish, closing }.run();
        supervisor.spawn(work);
        supervisor.close();
        Self { wishes, readiness, supervisor }
    }

    /// Whether forks are served, and a way to wait for a change of it.
    pub(crate) fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.clone()
    }

    /// Waits until the zygote is gone for good.
    pub(crate) async fn ended(&self) {
        self.supervisor.wait().await;
    }

    /// Asks for a worker that gets these two descriptors, and waits for its start in the lifeline.
    pub(crate) async fn fork(&self, lifeline: OwnedFd, log: OwnedFd) -> Result<Process, ForkError> {
        self.ask(|answer| Wish::Worker { lifeline, log, answer }).await
    }

    /// Asks which passbands there are now.
    pub(crate) async fn passbands(&self) -> Result<Vec<String>, ForkError> {
        self.ask(|answer| Wish::Passbands { answer }).await
    }

    async fn ask<T>(&self, wish: impl FnOnce(Answer<T>) -> Wish) -> Result<T, ForkError> {
        let (answer, answered) = oneshot::channel();
        self.wishes.try_send(wish(answer)).map_err(|error| match error {
            TrySendError::Full(_) => ForkError::Overloaded,
            TrySendError::Closed(_) => ForkError::Refused("the server is stopping".to_owned()),
        })?;
        answered.await.map_err(|_| ForkError::Lost)?
    }
}

struct Supervisor {
    interpreter: Interpreter,
    registry: Registry,
    waiting: mpsc::Receiver<Wish>,
    publish: watch::Sender<Readiness>,
    closing: CancellationToken,
}

/// Why a generation is over.
enum Over {
    /// Nobody needs a zygote any more.
    NotNeeded,
    /// It never became ready.
    NeverReady(String),
    /// It served, and died or was ended.
    Died(String),
}

impl Supervisor {
    async fn run(mut self) {
        let mut pause = PAUSE;
        loop {
            self.publish.send_replace(Readiness::Starting);
            match self.generation().await {
                Ok(Over::NotNeeded) => return,
                Ok(Over::Died(reason)) => {
                    warn!(reason, "the zygote is replaced");
                    pause = PAUSE;
                    continue;
                }
                Ok(Over::NeverReady(reason)) => {
                    self.publish.send_replace(Readiness::Failed(reason))
                }
                Err(error) => self.publish.send_replace(Readiness::Failed(error.to_string())),
            };
            if let Readiness::Failed(reason) = &*self.publish.borrow() {
                error!(reason, retry_in_seconds = pause.as_secs_f64(), "no zygote");
            }
            if self.refuse_for(pause).await.is_none() {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAXIMUM);
        }
    }

    /// Answers every wish with the failure until the pause is over. `None` when nobody can wish any
    /// more.
    async fn refuse_for(&mut self, pause: Duration) -> Option<()> {
        let Readiness::Failed(reason) = self.publish.borrow().clone() else { return Some(()) };
        let end = sleep(pause);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return Some(()),
                () = self.closing.cancelled() => return None,
                wish = self.waiting.recv() => wish?.refuse(reason.clone()),
            }
        }
    }

    async fn generation(&mut self) -> io::Result<Over> {
        let (control, theirs) = packet_socket::pair()?;
        let output = log_pipe::open(child::always("zygote"))?;
        let error = output.try_clone()?;
        let process = self.interpreter.start("zygote", Stdio::from(theirs), output, error)?;
        let record = self.registry.record(&process)?;
        let closing = self.closing.clone();
        let over = tokio::select! {
            over = self.life(&control, &process) => over,
            () = closing.cancelled() => Over::NotNeeded,
        };
        // It ends by itself when its channel closes; it is not waited for longer than a moment.
        drop(control);
        if timeout(Duration::from_millis(500), process.ended()).await.is_err() {
            process.signal(Signal::KILL);
            let _exit = timeout(Duration::from_secs(2), process.ended()).await;
        }
        drop(record);
        Ok(over)
    }

    /// From its start to its end.
    async fn life(&mut self, control: &PacketSocket, process: &Process) -> Over {
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
            Err(reason) => Over::NeverReady(reason),
        }
    }

    async fn wait_until_ready(
        &self,
        control: &PacketSocket,
        process: &Process,
    ) -> Result<Info, String> {
        match timeout(IMPORT_LIMIT, control.receive()).await {
            Err(_) => Err(format!("PHOEBE was not imported within {} s", IMPORT_LIMIT.as_secs())),
            Ok(Ok(Some(FromZygote::Ready { ready }))) => Ok(ready),
            Ok(Ok(Some(FromZygote::Fatal { fatal }))) => Err(fatal),
            Ok(Ok(Some(other))) => Err(format!("it sent {other:?} before it was ready")),
            Ok(Ok(None)) => {
                Err(format!("it ended while importing PHOEBE ({})", process.ended().await))
            }
            Ok(Err(error)) => Err(format!("its control channel broke: {error}")),
        }
    }

    async fn serve(&mut self, control: &PacketSocket, process: &Process) -> Over {
        let mut number = 0;
        let mut asked: HashMap<u64, Asked> = HashMap::new();
        let mut heard = Instant::now();
        let size = usage::anonymous_memory(process.pid()).unwrap_or_default();
        let mut look = interval(SIZE_INTERVAL);
        loop {
            tokio::select! {
                wish = self.waiting.recv(), if asked.len() < IN_FLIGHT => {
                    let Some(wish) = wish else { return Over::NotNeeded };
                    if wish.is_given_up() {
                        continue;
                    }
                    if asked.is_empty() {
                        heard = Instant::now();
                    }
                    number += 1;
                    let sent = match wish {
                        Wish::Worker { lifeline, log, answer } => {
                            asked.insert(number, Asked::Worker(answer));
                            let descriptors = [lifeline.as_fd(), log.as_fd()];
                            control.send(&ToZygote::Fork { fork: number }, &descriptors).await
                        }
                        Wish::Passbands { answer } => {
                            asked.insert(number, Asked::Passbands(answer));
                            control.send(&ToZygote::Passbands { passbands: number }, &[]).await
                        }
                    };
                    if let Err(error) = sent {
                        return Over::Died(format!("its control channel broke: {error}"));
                    }
                }
                packet = control.receive() => {
                    heard = Instant::now();
                    match packet {
                        Ok(Some(packet)) => Self::note(packet, &mut asked),
                        Ok(None) => return Over::Died(format!("it ended ({})", process.ended().await)),
                        Err(error) => return Over::Died(format!("its control channel broke: {error}")),
                    }
                }
                _ = look.tick(), if asked.is_empty() => {
                    let grown = usage::anonymous_memory(process.pid()).unwrap_or_default() - size;
                    if grown > GROWTH_MAXIMUM {
                        return Over::Died(format!("it grew by {grown:.0} MiB"));
                    }
                }
                () = sleep_until(heard + SILENCE), if !asked.is_empty() => {
                    process.signal(Signal::KILL);
                    return Over::Died(format!("it forked nothing for {} s", SILENCE.as_secs()));
                }
            }
        }
    }

    fn note(packet: FromZygote, asked: &mut HashMap<u64, Asked>) {
        // Whoever asked may have given up; then the worker's lifeline is closed and it dies of
        // that.
        match packet {
            FromZygote::Forked { forked, pid } => {
                exits::forget(pid);
                let watched = Process::watch(pid);
                if let Some(Asked::Worker(answer)) = asked.remove(&forked) {
                    drop(answer.send(watched.map_err(|_| ForkError::Ended)));
                }
            }
            FromZygote::Passbands { passbands, names } => {
                if let Some(Asked::Passbands(answer)) = asked.remove(&passbands) {
                    drop(answer.send(Ok(names)));
                }
            }
            FromZygote::Failed { failed, error } => {
                if let Some(wish) = asked.remove(&failed) {
                    wish.refuse(error);
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
