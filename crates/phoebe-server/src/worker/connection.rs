//! The signed connection to one worker. It numbers and signs what goes out and checks what comes
//! in; it does not know what a command means or in which order commands may run.

use std::net::SocketAddr;

use bytes::Bytes;
use phoebe_protocol::command::{self, DecodeError, Header, Kind, Message, SnapshotFormat};
use phoebe_protocol::sign::Key;
use thiserror::Error;

pub use super::zmtp::Memory;
use super::zmtp::decoder::Bounds;
use super::zmtp::{Dealer, TransportError};

/// A reply has four at the most: signature, header, body and a Bundle.
const FRAMES: usize = 8;
const SIGNATURE_BYTES: usize = 32;
/// A header holds numbers, names and two short texts.
const HEADER_BYTES: usize = 64 * 1024;
/// Commands of the transport tell the type of a socket.
const TRANSPORT_COMMAND_BYTES: usize = 1024;

/// Why the connection is of no more use.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// It broke, or the worker sent more than a worker may send.
    #[error("the connection to the worker broke: {0}")]
    Transport(#[from] TransportError),
    /// The worker sent what a worker may not send.
    #[error("the worker broke the protocol: {0}")]
    Protocol(#[from] DecodeError),
    /// The worker sent a message of a kind that goes the other way.
    #[error("the worker broke the protocol: it sent a {0:?}")]
    Kind(Kind),
}

/// A turn on the machine's cores.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// The cores that the command may compute on.
    pub cores: usize,
    /// Whether it gives way to all other work of the machine.
    pub background: bool,
}

/// What the reply to a change shall bring beside its answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// The Bundle, pickled.
    pub snapshot: bool,
    /// What a script can begin with, if a Bundle from outside took the place of the one before.
    pub base: bool,
}

impl Wanted {
    fn in_header(self, header: Header) -> Header {
        let asked = |wanted: bool| wanted.then_some(true);
        Header { snapshot: asked(self.snapshot), base: asked(self.base), ..header }
    }
}

/// A connection to a worker. Sending never waits; [`Self::next`] writes what is left.
pub struct Connection {
    dealer: Dealer,
    key: Key,
    session: String,
    last: u64,
}

impl Connection {
    /// Connects to the worker at `address`, whose answers are bounded by `memory`.
    ///
    /// # Errors
    /// When nothing listens there.
    pub async fn connect(
        address: SocketAddr,
        session: &str,
        key: &Key,
        memory: &Memory,
    ) -> Result<Self, ConnectionError> {
        let bounds = Bounds {
            frames: FRAMES,
            first_frames: &[SIGNATURE_BYTES, HEADER_BYTES],
            message_bytes: memory.message_bytes(),
            command_bytes: TRANSPORT_COMMAND_BYTES,
        };
        let dealer = Dealer::connect(address, bounds, memory).await?;
        Ok(Self { dealer, key: key.clone(), session: session.to_owned(), last: 0 })
    }

    /// Sends a command, with its turn on the cores, and returns the number under which its
    /// reply comes. That brings what is `wanted`, if the command changed the Bundle.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn request(
        &mut self,
        body: Bytes,
        turn: Option<Turn>,
        wanted: Wanted,
    ) -> Result<u64, ConnectionError> {
        let number = self.next_number();
        let header = Header {
            cores: turn.map(|turn| turn.cores),
            background: turn.and_then(|turn| turn.background.then_some(true)),
            ..Header::request(&self.session, number)
        };
        self.send(&wanted.in_header(header), body, &[])?;
        Ok(number)
    }

    /// Replaces the worker's Bundle by `bundle`, and returns the number under which the reply
    /// comes. That brings what is `wanted`.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn restore(
        &mut self,
        format: SnapshotFormat,
        bundle: Bytes,
        wanted: Wanted,
    ) -> Result<u64, ConnectionError> {
        let number = self.next_number();
        let header = wanted.in_header(Header::restore(&self.session, number, format));
        self.send(&header, Bytes::new(), &[bundle])?;
        Ok(number)
    }

    /// Asks for the worker's Bundle in some form, made with the help of `body` and what is
    /// attached, and returns the number under which the reply comes.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn export(
        &mut self,
        format: SnapshotFormat,
        body: Bytes,
        attachments: &[Bytes],
    ) -> Result<u64, ConnectionError> {
        let number = self.next_number();
        self.send(&Header::export(&self.session, number, format), body, attachments)?;
        Ok(number)
    }

    /// Asks the worker to end the runner of request `target`, whose answer will give `reason`.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn cancel(&mut self, target: u64, reason: &str) -> Result<(), ConnectionError> {
        let number = self.next_number();
        let header = Header::cancel(&self.session, number, target, reason);
        self.send(&header, Bytes::new(), &[])
    }

    /// The next reply or progress report. Cancel-safe.
    ///
    /// # Errors
    /// After an error the worker must not be used any more.
    pub async fn next(&mut self) -> Result<Message, ConnectionError> {
        let frames = self.dealer.receive().await?;
        let message = command::decode(&self.key, &self.session, frames)?;
        match message.header.kind {
            Kind::Reply | Kind::Progress => Ok(message),
            kind @ (Kind::Request | Kind::Cancel | Kind::Restore | Kind::Export) => {
                Err(ConnectionError::Kind(kind))
            }
        }
    }

    fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn send(
        &mut self,
        header: &Header,
        body: Bytes,
        attachments: &[Bytes],
    ) -> Result<(), ConnectionError> {
        Ok(self.dealer.send(command::encode(&self.key, header, body, attachments))?)
    }
}
