//! A worker's life: start, announce, then answer commands as `docs/protocol.md` says.
//!
//! Requests of kind change and long run one after the other in the order of arrival; while a long
//! one runs, reads are answered at once.

use std::future::pending;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use phoebe_protocol::command::{Header, Kind, Message, SnapshotFormat, decode, encode};
use phoebe_protocol::kinds::CommandKind;
use phoebe_protocol::packet::{FromWorker, Info, Start, StartFailure};
use phoebe_protocol::sign::Key;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use zeromq::{RouterRecvHalf, RouterSendHalf, RouterSocket, Socket, SocketRecv, SocketSend};

use crate::behaviour::{Behaviour, FATAL_TEXT};
use crate::commands::{self, Answer, Bundle, Command};
use crate::misbehaviour::misbehave;
use crate::{Outcome, channel, lifeline};

/// A worker that the zygote started: standard input is its lifeline, the first packet its start.
pub(crate) fn run_forked(behaviour: Behaviour) -> Outcome {
    let (start, lifeline) = take_start()?;
    run(behaviour, &start, lifeline, commands::forked_info())
}

fn take_start() -> Outcome<(Start, OwnedFd)> {
    let lifeline = channel::standard_input()?;
    let (start, _) = channel::receive::<Start>(&lifeline)?.ok_or("the server has gone")?;
    Ok((start, lifeline))
}

/// A worker that the server started, in the same way.
pub(crate) fn run_spawned(behaviour: Behaviour) -> Outcome {
    let (start, lifeline) = take_start()?;
    if behaviour == Behaviour::Fatal {
        return report(&lifeline, failed(StartFailure::Error, FATAL_TEXT));
    }
    run(behaviour, &start, lifeline, commands::info())
}

fn run(behaviour: Behaviour, start: &Start, lifeline: OwnedFd, info: Info) -> Outcome {
    let lifeline = Arc::new(lifeline);
    lifeline::arm(Arc::clone(&lifeline));
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?
        .block_on(live(behaviour, start, &lifeline, info))
}

async fn live(behaviour: Behaviour, start: &Start, lifeline: &OwnedFd, info: Info) -> Outcome {
    let key = Key::from_hex(&start.key).ok_or("the key is not 64 hexadecimal digits")?;
    match behaviour {
        Behaviour::NeverReady => pending().await,
        Behaviour::DiesEarly => exit(3),
        Behaviour::SlowStart => tokio::time::sleep(Duration::from_secs(1)).await,
        Behaviour::BindFails => {
            return report(lifeline, failed(StartFailure::AddressInUse, "Address already in use"));
        }
        Behaviour::StartFails => {
            return report(lifeline, failed(StartFailure::Error, "no space left on device"));
        }
        Behaviour::GarbageReady => {
            channel::send_bytes(lifeline, b"\xff{garbage", &[])?;
            pending().await
        }
        Behaviour::IgnoresSigterm => {
            let mut signals = signal(SignalKind::terminate())?;
            tokio::spawn(async move { while signals.recv().await.is_some() {} });
        }
        _ => {}
    }
    let mut socket = RouterSocket::new();
    if let Err(error) = socket.bind(&format!("tcp://127.0.0.1:{}", start.port)).await {
        return report(lifeline, failed(StartFailure::AddressInUse, &error.to_string()));
    }
    report(lifeline, FromWorker::Ready { ready: info })?;
    if behaviour == Behaviour::Mute {
        pending().await
    }
    serve(socket, key, start.session.clone()).await?;
    pending().await
}

fn failed(failed: StartFailure, error: &str) -> FromWorker {
    FromWorker::Failed { failed, error: error.to_owned() }
}

fn report(lifeline: &OwnedFd, packet: FromWorker) -> Outcome {
    channel::send(lifeline, &packet, &[])
}

/// One request and the way to answer it.
pub(crate) struct Conversation {
    sender: RouterSendHalf,
    peer: Bytes,
    key: Key,
    session: String,
    seq: u64,
    /// Whether the answer to a change brings the map.
    snapshot: bool,
    /// On how many cores it may compute.
    cores: Option<usize>,
    /// Whether the answer also brings a map that came from outside, for scripts.
    base: bool,
}

impl Conversation {
    /// Sends frames as they are.
    pub(crate) async fn send(&mut self, frames: Vec<Bytes>) -> Outcome {
        let frames = [vec![self.peer.clone()], frames].concat();
        Ok(self.sender.send(frames.try_into().map_err(|_| "a message has frames")?).await?)
    }

    /// Answers the request, which left the map as it is.
    pub(crate) async fn answer(&mut self, answer: &Answer) -> Outcome {
        self.answer_with(answer, &[]).await
    }

    /// Answers the request; if it changed the map and that is wanted, with the map.
    async fn answer_about(&mut self, answer: &Answer, bundle: Bytes) -> Outcome {
        let attached = answer.changed && self.snapshot;
        self.answer_with(answer, if attached { std::slice::from_ref(&bundle) } else { &[] }).await
    }

    /// Answers a request that brought the map from outside.
    async fn answer_about_new(&mut self, answer: &Answer, bundle: Bytes) -> Outcome {
        let base = answer.changed && self.base;
        let wanted = [answer.changed && self.snapshot, base];
        let attached: Vec<Bytes> =
            wanted.into_iter().filter(|wanted| *wanted).map(|_| bundle.clone()).collect();
        let mut header = self.header_of(answer);
        header.base = base.then_some(true);
        self.send_answer(&header, answer, &attached).await
    }

    /// Answers an export.
    async fn give(&mut self, export: Bytes) -> Outcome {
        self.answer_with(&Answer::success(&json!({}), false), &[export]).await
    }

    async fn answer_with(&mut self, answer: &Answer, attachments: &[Bytes]) -> Outcome {
        let header = self.header_of(answer);
        self.send_answer(&header, answer, attachments).await
    }

    fn header_of(&self, answer: &Answer) -> Header {
        let mut header =
            Header::reply(&self.session, self.seq, answer.error().is_none(), answer.changed);
        header.reason = answer.error().map(|_| "ValueError".to_owned());
        header.error = answer.error().map(|error| error.chars().take(500).collect());
        header
    }

    async fn send_answer(
        &mut self,
        header: &Header,
        answer: &Answer,
        attachments: &[Bytes],
    ) -> Outcome {
        let body = serde_json::to_vec(&answer.body)?;
        self.send(encode(&self.key, header, body.into(), attachments)).await
    }

    /// Answers successfully with a body of any bytes.
    pub(crate) async fn answer_bytes(&mut self, body: Bytes) -> Outcome {
        let header = Header::reply(&self.session, self.seq, true, false);
        self.send(encode(&self.key, &header, body, &[])).await
    }

    /// A signed answer that belongs to another request or session.
    pub(crate) async fn answer_for(&mut self, session: Option<&str>, seq: u64) -> Outcome {
        let header = Header::reply(session.unwrap_or(&self.session), seq, true, false);
        let body = json!({"success": true, "result": "for somebody else"}).to_string();
        self.send(encode(&self.key, &header, body.into(), &[])).await
    }

    /// An answer to this request that another key signed.
    pub(crate) async fn answer_unsigned(&mut self) -> Outcome {
        let header = Header::reply(&self.session, self.seq, true, false);
        let body = json!({"success": true, "result": "forged"}).to_string();
        self.send(encode(&Key::new([7; 32]), &header, body.into(), &[])).await
    }

    async fn progress(&mut self, fraction: f64) -> Outcome {
        let header = Header { kind: Kind::Progress, ..Header::request(&self.session, self.seq) };
        let body = json!({"fraction": fraction, "stage": "computing"}).to_string();
        self.send(encode(&self.key, &header, body.into(), &[])).await
    }
}

type Request = (Task, Conversation);

/// What is to be done in its turn.
enum Task {
    Command(Command),
    /// The attachment becomes the map.
    Restore(Bytes),
    /// The map is wanted, or these bytes back.
    Export(Option<Bytes>),
}

/// What the receiving and the executing side share.
struct Shared {
    bundle: Mutex<Bundle>,
    running: AtomicBool,
    /// The last cancel: its target and its reason.
    cancelled: watch::Sender<(u64, String)>,
}

impl Shared {
    fn bundle(&self) -> MutexGuard<'_, Bundle> {
        self.bundle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bundle_bytes(&self) -> Bytes {
        commands::to_bytes(&self.bundle())
    }
}

/// Serves until a command closes the socket.
async fn serve(socket: RouterSocket, key: Key, session: String) -> Outcome {
    let (sender, receiver) = socket.split();
    let shared = Arc::new(Shared {
        bundle: Mutex::default(),
        running: AtomicBool::new(false),
        cancelled: watch::Sender::new((0, String::new())),
    });
    let (queue, requests) = mpsc::unbounded_channel();
    tokio::select! {
        outcome = receive_all(receiver, sender, key, session, queue, shared.clone()) => outcome,
        outcome = execute_all(requests, shared) => outcome,
    }
}

const GONE: &str = "the executor has ended";

async fn receive_all(
    mut receiver: RouterRecvHalf,
    sender: RouterSendHalf,
    key: Key,
    session: String,
    queue: mpsc::UnboundedSender<Request>,
    shared: Arc<Shared>,
) -> Outcome {
    let mut last = 0;
    loop {
        let mut frames = receiver.recv().await?.into_vec();
        let peer = frames.remove(0);
        let Ok(Message { header, body, attachments }) = decode(&key, &session, frames) else {
            continue;
        };
        if header.seq <= last {
            continue;
        }
        last = header.seq;
        let mut conversation = Conversation {
            sender: sender.clone(),
            peer,
            key: key.clone(),
            session: session.clone(),
            seq: header.seq,
            snapshot: header.snapshot.unwrap_or(false),
            cores: header.cores,
            base: header.base.unwrap_or(false),
        };
        match header.kind {
            Kind::Cancel => {
                let reason = header.reason.unwrap_or_default();
                shared.cancelled.send_replace((header.target.unwrap_or_default(), reason));
            }
            Kind::Request => match Command::parse(&body) {
                Ok(command) => dispatch(command, conversation, &queue, &shared).await?,
                Err(error) => conversation.answer(&Answer::failure(&error.to_string())).await?,
            },
            Kind::Restore => {
                let bundle = attachments.into_iter().next().unwrap_or_default();
                queue.send((Task::Restore(bundle), conversation)).map_err(|_| GONE)?;
            }
            Kind::Export => {
                // What stands for a script is the journal it is to be made from, with the map that
                // it begins with.
                let script = (header.format == Some(SnapshotFormat::Script))
                    .then(|| commands::script(&body, &attachments));
                if shared.running.load(Ordering::Acquire) {
                    conversation.give(script.unwrap_or_else(|| shared.bundle_bytes())).await?;
                } else {
                    queue.send((Task::Export(script), conversation)).map_err(|_| GONE)?;
                }
            }
            Kind::Reply | Kind::Progress => {}
        }
    }
}

async fn dispatch(
    command: Command,
    mut conversation: Conversation,
    queue: &mpsc::UnboundedSender<Request>,
    shared: &Shared,
) -> Outcome {
    match commands::kind(command.name()) {
        CommandKind::Read if shared.running.load(Ordering::Acquire) => {
            let answer = commands::execute(&command, &mut shared.bundle());
            return conversation.answer(&answer).await;
        }
        // From here on, not from when the executor comes to it: the next message may be a read.
        CommandKind::Long => shared.running.store(true, Ordering::Release),
        CommandKind::Read | CommandKind::Change => {}
    }
    queue.send((Task::Command(command), conversation)).map_err(|_| GONE.into())
}

async fn execute_all(
    mut requests: mpsc::UnboundedReceiver<Request>,
    shared: Arc<Shared>,
) -> Outcome {
    while let Some((task, mut conversation)) = requests.recv().await {
        let command = match task {
            Task::Command(command) => command,
            Task::Restore(bytes) => {
                let answer = commands::restore(&bytes, &mut shared.bundle());
                conversation.answer_about_new(&answer, shared.bundle_bytes()).await?;
                continue;
            }
            Task::Export(script) => {
                conversation.give(script.unwrap_or_else(|| shared.bundle_bytes())).await?;
                continue;
            }
        };
        if command.misbehaves() {
            if let ControlFlow::Break(()) = misbehave(&command, &mut conversation).await? {
                return Ok(());
            }
            shared.running.store(false, Ordering::Release);
            continue;
        }
        if command.name() == "load_bundle" {
            let text = command.text("bundle").to_owned();
            let answer = commands::restore(text.as_bytes(), &mut shared.bundle());
            conversation.answer_about_new(&answer, shared.bundle_bytes()).await?;
            continue;
        }
        match commands::kind(command.name()) {
            CommandKind::Long => compute(&command, &mut conversation, &shared).await?,
            CommandKind::Read | CommandKind::Change => {
                let answer = commands::execute(&command, &mut shared.bundle());
                conversation.answer_about(&answer, shared.bundle_bytes()).await?;
            }
        }
    }
    Ok(())
}

/// `{"command": "run_compute", "seconds": 0.05, "steps": 5}`, or another long command: a
/// transaction with progress that can be cancelled.
async fn compute(command: &Command, conversation: &mut Conversation, shared: &Shared) -> Outcome {
    let steps = command.number("steps", 5).max(1);
    let pause = command.seconds("seconds", 0.05).div_f64(steps as f64);
    let mut cancelled = shared.cancelled.subscribe();
    let seq = conversation.seq;
    shared.running.store(true, Ordering::Release);
    let cancel = cancelled.wait_for(|(target, _)| *target == seq);
    let compute = async {
        for step in 1..=steps {
            tokio::time::sleep(pause).await;
            conversation.progress(step as f64 / steps as f64).await?;
        }
        Outcome::Ok(())
    };
    let reason = tokio::select! {
        done = compute => { done?; None }
        reason = cancel => Some(reason?.1.clone()),
    };
    shared.running.store(false, Ordering::Release);
    let answer = match reason {
        None => commands::adopt_model(steps, conversation.cores, &mut shared.bundle()),
        Some(reason) => Answer::failure(&format!("Cancelled: {reason}")),
    };
    conversation.answer_about(&answer, shared.bundle_bytes()).await
}
