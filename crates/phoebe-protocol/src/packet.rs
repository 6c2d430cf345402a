//! Packets over the Unix sockets: the zygote's control channel and a worker's lifeline. One packet is one JSON object.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The largest packet in bytes.
pub const MAXIMUM_LENGTH: usize = 64 * 1024;

/// How a command touches the Bundle, told by the worker's own command table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandKind {
    /// Leaves the Bundle as it is; may be answered while a runner works.
    Read,
    /// Alters the Bundle, in the worker itself.
    Change,
    /// Runs in a runner, as a transaction.
    Long,
}

/// What a Python process says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    /// Version of Python.
    pub python: String,
    /// Version of PHOEBE.
    pub phoebe: String,
    /// Version of NumPy.
    pub numpy: String,
    /// Installed passbands, sorted by name.
    pub passbands: Vec<String>,
    /// Every command the worker knows.
    pub commands: BTreeMap<String, CommandKind>,
    /// SHA-256, in hexadecimal, of the pickled Bundle that a fresh session begins with.
    pub template: String,
}

/// Bounds that a worker sets on itself before it reads user input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of the worker in MiB; none where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
}

/// What a worker needs to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The session's id.
    pub session: String,
    /// The loopback port to bind.
    pub port: u16,
    /// The session's key as 64 hexadecimal digits.
    pub key: String,
    /// Bounds to set before user input.
    #[serde(default)]
    pub limits: Limits,
}

/// Server → zygote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkRequest {
    /// Names the request in the answer.
    pub fork: u64,
    /// What the worker is told.
    pub start: Start,
}

/// Zygote → server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FromZygote {
    /// PHOEBE is imported, forks are served from now on.
    Ready {
        /// What was imported.
        ready: Info,
    },
    /// The fork of request `forked` has this process id.
    Forked {
        /// The request.
        forked: u64,
        /// The worker's process id.
        pid: i32,
    },
    /// A request could not be served.
    Failed {
        /// The request.
        failed: u64,
        /// Why.
        error: String,
    },
    /// A child ended.
    Exited {
        /// The child's process id.
        exited: i32,
        /// Its exit code, if it exited.
        code: Option<i32>,
        /// The signal that ended it, if one did.
        signal: Option<i32>,
    },
    /// PHOEBE could not be imported.
    Fatal {
        /// Why.
        fatal: String,
    },
}

/// Worker → server, over its lifeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FromWorker {
    /// The command socket is bound.
    Ready {
        /// From a forked worker only the template.
        ready: Info,
    },
    /// It cannot start.
    Failed {
        /// Which kind of failure.
        failed: StartFailure,
        /// The failure in words.
        #[serde(default)]
        error: String,
    },
}

/// Why a worker could not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartFailure {
    /// Something else holds the port.
    AddressInUse,
    /// Anything else.
    Error,
}
