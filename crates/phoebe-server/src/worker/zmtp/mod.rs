//! The transport of ZeroMQ (ZMTP 3.0, no security mechanism) as one DEALER speaks it to one ROUTER.
//!
//! A worker is hostile by assumption, so what it sends is bounded before memory is taken for it: see
//! [`decoder`]. Larger frames also take their part of a [`Memory`] that all connections share. It
//! does not know what a message means.

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

/// Frames up to this size come out of the connection's own buffer.
const SMALL_FRAME: usize = 64 * 1024;
/// A message that has begun must be whole after so long, and a second more for each
/// [`BYTES_PER_SECOND`] that it announced. The time in which we read nothing does not count.
const MESSAGE_LIMIT: Duration = Duration::from_secs(30);
const BYTES_PER_SECOND: u64 = 1024 * 1024;
/// How long a frame waits for its part of the memory.
const MEMORY_PATIENCE: Duration = Duration::from_secs(60);
const KIBIBYTE: usize = 1024;

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
    /// Other messages occupy the memory.
    #[error("too many large answers are on their way from other workers")]
    NoMemory,
}

/// What large frames of all connections may occupy while they are being received.
#[derive(Debug, Clone)]
pub struct Memory {
    semaphore: Arc<Semaphore>,
    kibibytes: usize,
}

impl Memory {
    /// So many bytes for all, and so for each message at the most.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let kibibytes = (bytes / KIBIBYTE).clamp(1, Semaphore::MAX_PERMITS);
        Self { semaphore: Arc::new(Semaphore::new(kibibytes)), kibibytes }
    }

    /// The bound of a message.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.kibibytes * KIBIBYTE
    }
}

/// A connection to a ROUTER.
pub struct Dealer {
    stream: TcpStream,
    /// What is still to be written; sending never waits.
    outgoing: VecDeque<Bytes>,
    buffer: BytesMut,
    decoder: Decoder,
    memory: PollSemaphore,
    /// What the message under way, or the one that was given out last, occupies.
    taken: Vec<OwnedSemaphorePermit>,
    /// A frame's size in the shared memory that is not its own yet.
    wanted: Option<Wanted>,
    /// When the message under way must be whole.
    deadline: Option<Instant>,
}

/// A frame that waits for its part of the memory.
struct Wanted {
    kibibytes: u32,
    since: Instant,
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
            buffer: BytesMut::with_capacity(SMALL_FRAME),
            decoder: Decoder::new(bounds),
            memory: PollSemaphore::new(Arc::clone(&memory.semaphore)),
            taken: Vec::new(),
            wanted: None,
            deadline: None,
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
            if frame.len() <= SMALL_FRAME {
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
            self.taken.clear();
        }
        loop {
            match self.next_step().await? {
                Step::Message(frames) => return Ok(frames),
                // Of those that may follow READY there is none that a DEALER must answer in ZMTP 3.0.
                Step::Command(_) | Step::Announced(_) | Step::NeedsBytes { .. } => {}
            }
        }
    }

    /// Reads and writes until a command or message is whole.
    async fn next_step(&mut self) -> Result<Step, TransportError> {
        loop {
            self.write()?;
            self.take_memory().await?;
            match self.decoder.step(&mut self.buffer)? {
                Step::Announced(length) => self.announced(length),
                Step::NeedsBytes { missing, in_frame } => self.read(missing, in_frame).await?,
                step @ (Step::Command(_) | Step::Message(_)) => {
                    self.deadline = None;
                    self.forget_large_buffer();
                    return Ok(step);
                }
            }
        }
    }

    /// A frame begins: it has so long, and needs so much memory.
    fn announced(&mut self, length: usize) {
        let seconds = Duration::from_secs(length as u64 / BYTES_PER_SECOND);
        let begun = self.deadline.unwrap_or_else(|| Instant::now() + MESSAGE_LIMIT);
        self.deadline = Some(begun + seconds);
        if length > SMALL_FRAME {
            let kibibytes = u32::try_from(length.div_ceil(KIBIBYTE)).unwrap_or(u32::MAX);
            self.wanted = Some(Wanted { kibibytes, since: Instant::now() });
        }
    }

    /// Waits for the memory that the frame needs which was announced last.
    async fn take_memory(&mut self) -> Result<(), TransportError> {
        let Some(wanted) = &self.wanted else { return Ok(()) };
        let (kibibytes, since) = (wanted.kibibytes, wanted.since);
        let memory = &mut self.memory;
        let acquired = poll_fn(|context| memory.poll_acquire_many(context, kibibytes));
        match timeout_at(since + MEMORY_PATIENCE, acquired).await {
            Ok(Some(permit)) => {
                self.taken.push(permit);
                self.wanted = None;
                self.deadline = self.deadline.map(|deadline| deadline + since.elapsed());
                Ok(())
            }
            Ok(None) | Err(_) => Err(TransportError::NoMemory),
        }
    }

    /// After a large frame: its memory must not stay with the connection as the next buffer.
    fn forget_large_buffer(&mut self) {
        if !self.taken.is_empty() {
            let mut fresh = BytesMut::with_capacity(SMALL_FRAME);
            fresh.extend_from_slice(&self.buffer);
            self.buffer = fresh;
        }
    }

    /// Reads some of what is `missing`; writes meanwhile what waits to be written.
    async fn read(&mut self, missing: usize, in_frame: bool) -> Result<(), TransportError> {
        // Of a frame that has its memory, all at once: nothing is copied then.
        self.buffer.reserve(if in_frame { missing } else { missing.max(SMALL_FRAME) });
        let mut interest = Interest::READABLE;
        if !self.outgoing.is_empty() {
            interest |= Interest::WRITABLE;
        }
        let ready = self.stream.ready(interest);
        let ready = match self.deadline {
            Some(deadline) => {
                timeout_at(deadline, ready).await.map_err(|_| TransportError::TooSlow)??
            }
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

    /// Writes what the peer takes at once.
    fn write(&mut self) -> Result<(), TransportError> {
        while let Some(front) = self.outgoing.front_mut() {
            match self.stream.try_write(front) {
                Ok(written) => front.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if front.is_empty() {
                self.outgoing.pop_front();
            }
        }
        Ok(())
    }
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
