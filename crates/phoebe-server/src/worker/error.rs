//! Errors of starting a worker.

use std::io;

use thiserror::Error;

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
