//! What is measured: a session of the server, and stock PHOEBE in a process of its own. Both take
//! the same commands.

pub(crate) mod binary;
pub(crate) mod http;
pub(crate) mod memory;
pub(crate) mod server;
pub(crate) mod session;
pub(crate) mod stock;

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

pub(crate) use server::{Server, Settings};
pub(crate) use session::Session;
pub(crate) use stock::Stock;

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Answer {
    /// From asking to the whole answer.
    pub(crate) elapsed: Duration,
    /// The `result`.
    pub(crate) result: Value,
}

/// Something that takes commands.
pub(crate) enum Subject {
    /// A session, over HTTP.
    Session(Session),
    /// PHOEBE in-process.
    Stock(Box<Stock>),
}

impl Subject {
    /// Runs one command; a command that fails is an error.
    pub(crate) async fn send(&mut self, command: &Value) -> Result<Answer> {
        match self {
            Self::Session(session) => session.send(command).await,
            Self::Stock(stock) => stock.send(command).await,
        }
    }
}
