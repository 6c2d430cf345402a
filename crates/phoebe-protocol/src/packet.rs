//! Packets over the Unix sockets: the zygote's control channel and a worker's lifeline. One packet
//! is one JSON object.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The largest packet in bytes.
pub const MAXIMUM_LENGTH: usize = 64 * 1024;

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
    /// Versions of the packages that some of PHOEBE's solvers, features and backends need, by
    /// name; none of those that are absent.
    pub optional_packages: BTreeMap<String, Option<String>>,
    /// Installed passbands, sorted by name.
    pub passbands: Vec<String>,
    /// SHA-256, in hexadecimal, of the pickled Bundle that a fresh session begins with.
    pub template: String,
    /// Why code in workers can see the metadata (size, owner, times) of files that it may not
    /// read; none where it cannot, or where nobody asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata_problem: Option<String>,
}

/// What workers find in their root folder, each at its own path, besides what the interpreter
/// needs. A zygote or probe is told so in a variable, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFolder {
    /// Files and folders that may be read.
    pub readable: Vec<String>,
    /// The folder of all scratch directories.
    pub scratch: String,
}

/// Bounds that a worker sets on itself before it reads user input; none where absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of each of its processes in MiB, beyond what it shares with the zygote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Size of a file in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mb: Option<u64>,
    /// Open files of each of its processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Its processes and their threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
}

/// What a worker does where the kernel cannot do a part of its sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxLevel {
    /// It does not start.
    Enforce,
    /// It goes on without.
    BestEffort,
}

/// How a worker shuts itself in before it reads user input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// What to do where the kernel cannot.
    pub level: SandboxLevel,
    /// seccomp programs: arrays of `struct sock_filter` in base64, installed in this order.
    pub filters: Vec<String>,
    /// Files and folders that may be read, besides those of the interpreter.
    pub readable: Vec<String>,
    /// The one folder that may be written: the worker's own, empty.
    pub scratch: String,
    /// The account to change to, where the server may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
}

/// A user of the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What a worker needs to start: the one packet that the server writes to its lifeline.
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
    /// How to shut itself in; not at all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
}

/// Server → zygote. What a worker is told waits in its lifeline: the zygote, of which every worker
/// is a copy, must not see keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ToZygote {
    /// Fork a worker.
    Fork {
        /// Names the request in the answer.
        fork: u64,
    },
    /// Look at the passband files and say which passbands there are.
    Passbands {
        /// Names the request in the answer.
        passbands: u64,
    },
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
    /// The answer to request `passbands`.
    Passbands {
        /// The request.
        passbands: u64,
        /// Installed passbands, sorted by name.
        names: Vec<String>,
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
        /// From a forked worker the versions of Python and PHOEBE and the template only.
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

/// Command line → a process that looks at passband files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassbandRequest {
    /// How to shut itself in. Session, port and key mean nothing.
    pub start: Start,
    /// The folder of installed files besides PHOEBE's own, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// The one file to check; absent to list those that are installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
}

/// The answer to a [`PassbandRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PassbandAnswer {
    /// The files that are installed, in the order of PHOEBE's folders.
    Files(Vec<PassbandFile>),
    /// The checked file is a passband that sessions can use.
    Accepted(PassbandFile),
    /// It is not, and why.
    Refused(String),
}

/// A passband file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PassbandFile {
    /// Its path.
    pub file: String,
    /// Why PHOEBE cannot use it; empty if it can.
    pub problem: String,
    /// The passband's name, as `Johnson:V`.
    pub name: String,
    /// Whether sessions get the passband from this file: of two of one name, a later folder's
    /// counts.
    pub in_force: bool,
    /// The file's version.
    pub version: String,
    /// When it was made, as it says.
    pub made: String,
    /// Where the transmission is from.
    pub reference: String,
    /// The atmospheres that it has tables for.
    pub atmospheres: Vec<String>,
    /// The tables themselves, as `ck2004:ld`.
    pub content: Vec<String>,
}
