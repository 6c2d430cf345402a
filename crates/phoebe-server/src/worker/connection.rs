//! The signed ZeroMQ connection to one worker. It numbers and signs what goes out and checks what comes in; it does not know what a
//! command means or in which order commands may run.

use bytes::Bytes;
use phoebe_protocol::command::{self, DecodeError, Header, Kind, Message, SnapshotFormat};
use phoebe_protocol::sign::Key;
use thiserror::Error;
use zeromq::{
    DealerRecvHalf, DealerSendHalf, DealerSocket, Socket, SocketRecv, SocketSend, ZmqError,
    ZmqMessage,
};

/// Why the connection is of no more use.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// ZeroMQ says so.
    #[error("the connection to the worker broke: {0}")]
    Transport(#[from] ZmqError),
    /// The worker sent what a worker may not send.
    #[error("the worker broke the protocol: {0}")]
    Protocol(#[from] DecodeError),
    /// The worker sent a message of a kind that goes the other way.
    #[error("the worker broke the protocol: it sent a {0:?}")]
    Kind(Kind),
}

/// What the reply to a change shall bring beside its answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// The Bundle, pickled.
    pub snapshot: bool,
    /// What a script can begin with, if a Bundle from outside took the place of the one before.
    pub base: bool,
}

/// The half that sends.
pub struct Commands {
    socket: DealerSendHalf,
    key: Key,
    session: String,
    last: u64,
}

/// The half that receives.
pub struct Replies {
    socket: DealerRecvHalf,
    key: Key,
    session: String,
}

/// Connects to the worker at `address`.
///
/// # Errors
/// When nothing listens there.
pub async fn connect(
    address: &str,
    session: &str,
    key: &Key,
) -> Result<(Commands, Replies), ConnectionError> {
    let mut socket = DealerSocket::new();
    socket.connect(address).await?;
    let (send, receive) = socket.split();
    let session = session.to_owned();
    Ok((
        Commands { socket: send, key: key.clone(), session: session.clone(), last: 0 },
        Replies { socket: receive, key: key.clone(), session },
    ))
}

impl Wanted {
    fn in_header(self, header: Header) -> Header {
        let asked = |wanted: bool| wanted.then_some(true);
        Header { snapshot: asked(self.snapshot), base: asked(self.base), ..header }
    }
}

impl Commands {
    /// Sends a command, with the cores it may compute on, and returns the number under which its
    /// reply comes. That brings what is `wanted`, if the command changed the Bundle.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn request(
        &mut self,
        body: Bytes,
        cores: Option<usize>,
        wanted: Wanted,
    ) -> Result<u64, ConnectionError> {
        let number = self.next();
        let header = Header { cores, ..Header::request(&self.session, number) };
        let header = wanted.in_header(header);
        self.send(&header, body, &[]).await?;
        Ok(number)
    }

    /// Replaces the worker's Bundle by `bundle`, and returns the number under which the reply
    /// comes. That brings what is `wanted`.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn restore(
        &mut self,
        format: SnapshotFormat,
        bundle: Bytes,
        wanted: Wanted,
    ) -> Result<u64, ConnectionError> {
        let number = self.next();
        let header = wanted.in_header(Header::restore(&self.session, number, format));
        self.send(&header, Bytes::new(), &[bundle]).await?;
        Ok(number)
    }

    /// Asks for the worker's Bundle in some form, made with the help of `body` and what is
    /// attached, and returns the number under which the reply comes.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn export(
        &mut self,
        format: SnapshotFormat,
        body: Bytes,
        attachments: &[Bytes],
    ) -> Result<u64, ConnectionError> {
        let number = self.next();
        self.send(&Header::export(&self.session, number, format), body, attachments).await?;
        Ok(number)
    }

    /// Asks the worker to end the runner of request `target`, whose answer will give `reason`.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn cancel(&mut self, target: u64, reason: &str) -> Result<(), ConnectionError> {
        let number = self.next();
        let header = Header::cancel(&self.session, number, target, reason);
        self.send(&header, Bytes::new(), &[]).await
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    async fn send(
        &mut self,
        header: &Header,
        body: Bytes,
        attachments: &[Bytes],
    ) -> Result<(), ConnectionError> {
        let mut frames = command::encode(&self.key, header, body, attachments).into_iter();
        let mut message = ZmqMessage::from(frames.next().unwrap_or_default());
        for frame in frames {
            message.push_back(frame);
        }
        Ok(self.socket.send(message).await?)
    }
}

impl Replies {
    /// The next reply or progress report. Cancel-safe.
    ///
    /// # Errors
    /// After an error the worker must not be used any more.
    pub async fn next(&mut self) -> Result<Message, ConnectionError> {
        let frames = self.socket.recv().await?.into_vec();
        let message = command::decode(&self.key, &self.session, frames)?;
        match message.header.kind {
            Kind::Reply | Kind::Progress => Ok(message),
            kind @ (Kind::Request | Kind::Cancel | Kind::Restore | Kind::Export) => {
                Err(ConnectionError::Kind(kind))
            }
        }
    }
}
