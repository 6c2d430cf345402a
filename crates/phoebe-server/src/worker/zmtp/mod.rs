//! The transport of ZeroMQ (ZMTP 3.0, no security mechanism) as one DEALER speaks it to one ROUTER.
//!
//! A worker is hostile by assumption, so what it sends is bounded before memory is taken for it:
//! see [`decoder`]. Large messages take turns, see [`Memory`]. It does not know what a message
//! means.

pub mod decoder;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::PollSemaphore;

use decoder::{Bounds, Decoder, Step, Violation, put_command, put_header};

const GREETING_BYTES: usize = 64;
/// Where the greeting names the mechanism, and what it is: none.
const MECHANISM: std::ops::Range<usize> = 12..32;
const NULL: &[u8; 20] = b"NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// The command that follows the greeting, with the type of our socket.
const READY: &[u8] = b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER";
/// A peer on this machine greets within so long, however busy the machine is.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// What is read at a time where no more is known to come.
const READ_BYTES: usize = 64 * 1024;
/// Larger messages come one after the other, whichever connection brings them.
const SMALL_MESSAGE: usize = 4 * 1024 * 1024;
/// A message that has begun must go on after so long at the most.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// Whoever has the turn has it for so long, and a second more for each [`BYTES_PER_SECOND`]: others
/// wait for it.
const TURN_LIMIT: Duration = Duration::from_secs(10);
const BYTES_PER_SECOND: u64 = 16 * 1024 * 1024;

/// Why a connection is of no more use.
#[derive(Debug, Error)]
pub enum TransportError {
    /// The system says so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other side closed it.
    #[error("it was closed")]
    Closed,
    /// The other side does not speak the protocol.
    #[error("{0}")]
    Violation(#[from] Violation),
    /// The other side is no ROUTER that speaks ZMTP 3 in the open.
    #[error("what listens there is no worker: {0}")]
    Handshake(&'static str),
    /// A message began and did not end.
    #[error("a message began and did not come to its end")]
    TooSlow,
}

/// The memory for messages on their way: so much for each, and one large message at a time. A peer
/// that has only announced one holds up nobody but those who wait for a large one themselves, and
/// these not for long.
#[derive(Debug, Clone)]
pub struct Memory {
    turn: Arc<Semaphore>,
    message_bytes: usize,
}

impl Memory {
    /// So many bytes for each message at the most.
    #[must_use]
    pub fn new(message_bytes: usize) -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), message_bytes }
    }

    /// The bound of a message.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        self.message_bytes
    }
}

/// A connection to a ROUTER.
pub struct Dealer {
    stream: TcpStream,
    /// What is still to be written; sending never waits.
    outgoing: VecDeque<Bytes>,
    buffer: BytesMut,
    decoder: Decoder,
    turns: PollSemaphore,
    /// Bytes of the largest frame of the message under way.
    largest_frame: usize,
    /// Whether the message under way is a large one.
    is_large: bool,
    /// The turn of a large message, until the next one is asked for.
    turn: Option<Turn>,
}

/// The right to bring a large message.
struct Turn {
    _permit: OwnedSemaphorePermit,
    until: Instant,
}

impl Dealer {
    /// Connects to a ROUTER, whose messages are bounded by `bounds` and `memory`.
    ///
    /// # Errors
    /// When nothing listens there, or something else.
    pub async fn connect(
        address: SocketAddr,
        bounds: Bounds,
        memory: &Memory,
    ) -> Result<Self, TransportError> {
        let greeted = timeout(HANDSHAKE_LIMIT, greet(address)).await;
        let stream = greeted.unwrap_or(Err(TransportError::Handshake("it says nothing")))?;
        let mut dealer = Self {
            stream,
            outgoing: VecDeque::new(),
            buffer: BytesMut::with_capacity(READ_BYTES),
            decoder: Decoder::new(bounds),
            turns: PollSemaphore::new(Arc::clone(&memory.turn)),
            largest_frame: 0,
            is_large: false,
            turn: None,
        };
        let ready = timeout(HANDSHAKE_LIMIT, dealer.ready()).await;
        ready.unwrap_or(Err(TransportError::Handshake("it does not get ready")))?;
        Ok(dealer)
    }

    async fn ready(&mut self) -> Result<(), TransportError> {
        let mut command = BytesMut::new();
        put_command(&mut command, READY);
        self.outgoing.push_back(command.freeze());
        match self.next_step().await? {
            Step::Command(command) if command.starts_with(b"\x05READY") => Ok(()),
            _ => Err(TransportError::Handshake("it does not say READY")),
        }
    }

    /// Sends a message. What the peer does not take now goes out in [`Self::receive`].
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&mut self, frames: Vec<Bytes>) -> Result<(), TransportError> {
        let count = frames.len();
        let mut small = BytesMut::new();
        for (place, frame) in frames.into_iter().enumerate() {
            put_header(&mut small, frame.len(), place + 1 < count);
            if frame.len() <= READ_BYTES {
                small.extend_from_slice(&frame);
            } else {
                self.outgoing.push_back(small.split().freeze());
                self.outgoing.push_back(frame);
            }
        }
        if !small.is_empty() {
            self.outgoing.push_back(small.freeze());
        }
        self.write()
    }

    /// The next message. Cancel-safe.
    ///
    /// # Errors
    /// After an error the connection must not be used any more.
    pub async fn receive(&mut self) -> Result<Vec<Bytes>, TransportError> {
        if !self.decoder.is_inside_message() {
            self.turn = None;
            self.is_large = false;
        }
        loop {
            match self.next_step().await? {
                Step::Message(frames) => return Ok(frames),
                // Of those that may follow READY there is none that a DEALER must answer in ZMTP
                // 3.0.
                Step::Command(_) | Step::Announced(_) | Step::NeedsBytes { .. } => {}
            }
        }
    }

    /// Reads and writes until a command or message is whole.
    async fn next_step(&mut self) -> Result<Step, TransportError> {
        loop {
            // Where nothing can be written any more, what has arrived is still read, to its end.
            let _ = self.write();
            match self.decoder.step(&mut self.buffer)? {
                Step::Announced(length) => self.announced(length),
                Step::NeedsBytes { missing, in_frame } => {
                    self.take_turn().await;
                    self.read(missing, in_frame).await?;
                }
                step @ (Step::Command(_) | Step::Message(_)) => {
                    self.release_large_buffer();
                    return Ok(step);
                }
            }
        }
    }

    /// A frame begins, which may make the message a large one.
    fn announced(&mut self, length: usize) {
        self.largest_frame = self.largest_frame.max(length);
        self.is_large |= self.decoder.announced() > SMALL_MESSAGE;
        if let Some(turn) = &mut self.turn {
            turn.until += transfer_time(length);
        }
    }

    /// Waits for the turn that a large message needs. Others have it for a bounded time.
    async fn take_turn(&mut self) {
        if !self.is_large || self.turn.is_some() {
            return;
        }
        // The semaphore is never closed.
        if let Some(permit) = poll_fn(|context| self.turns.poll_acquire(context)).await {
            let until = Instant::now() + TURN_LIMIT + transfer_time(self.decoder.announced());
            self.turn = Some(Turn { _permit: permit, until });
        }
    }

    /// After a large frame: its memory must not stay with the connection as the next buffer.
    fn release_large_buffer(&mut self) {
        if std::mem::take(&mut self.largest_frame) > READ_BYTES {
            let mut fresh = BytesMut::with_capacity(READ_BYTES);
            fresh.extend_from_slice(&self.buffer);
            self.buffer = fresh;
        }
    }

    /// Reads some of what is `missing`; writes meanwhile what waits to be written.
    async fn read(&mut self, missing: usize, in_frame: bool) -> Result<(), TransportError> {
        // Of a frame that may come, all at once: nothing is copied then.
        self.buffer.reserve(if in_frame { missing } else { missing.max(READ_BYTES) });
        let mut interest = Interest::READABLE;
        if !self.outgoing.is_empty() {
            interest |= Interest::WRITABLE;
        }
        let ready = self.stream.ready(interest);
        let ready = match self.give_up_at() {
            Some(at) => timeout_at(at, ready).await.map_err(|_| TransportError::TooSlow)??,
            None => ready.await?,
        };
        if ready.is_readable() || ready.is_read_closed() {
            match self.stream.try_read_buf(&mut self.buffer) {
                Ok(0) => return Err(TransportError::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// When a message that has begun does not go on, or has had its turn.
    fn give_up_at(&self) -> Option<Instant> {
        let idle = self.decoder.is_inside_message().then(|| Instant::now() + IDLE_LIMIT)?;
        Some(self.turn.as_ref().map_or(idle, |turn| idle.min(turn.until)))
    }

    /// Writes what the peer takes at once.
    fn write(&mut self) -> Result<(), TransportError> {
        while let Some(front) = self.outgoing.front_mut() {
            match self.stream.try_write(front) {
                Ok(written) => front.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    self.outgoing.clear();
                    return Err(error.into());
                }
            }
            if front.is_empty() {
                self.outgoing.pop_front();
            }
        }
        Ok(())
    }
}

fn transfer_time(length: usize) -> Duration {
    Duration::from_secs(length as u64 / BYTES_PER_SECOND)
}

/// Connects and exchanges greetings.
async fn greet(address: SocketAddr) -> Result<TcpStream, TransportError> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut ours = [0; GREETING_BYTES];
    (ours[0], ours[9], ours[10]) = (0xff, 0x7f, 3);
    ours[MECHANISM].copy_from_slice(NULL);
    stream.write_all(&ours).await?;
    let mut theirs = [0; GREETING_BYTES];
    stream.read_exact(&mut theirs).await?;
    if theirs[0] != 0xff || theirs[9] & 1 == 0 || theirs[10] < 3 {
        return Err(TransportError::Handshake("it does not speak ZMTP 3"));
    }
    if &theirs[MECHANISM] != NULL {
        return Err(TransportError::Handshake("it asks for a security mechanism"));
    }
    Ok(stream)
}

#[cfg(test)]
mod tests;
