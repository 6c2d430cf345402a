//! Where workers come from and how they are reached: the launcher seam.
//!
//! A [`Launcher`] starts a [`Worker`] for a session: from the zygote, or as a fresh interpreter. A
//! worker offers an address, an end to wait for, a way to end it, and its memory; a [`connection`]
//! to that address carries commands. Process ids, descriptors, loopback and signals stay inside
//! this module: nothing outside may assume them.

pub mod bounds;
mod census;
pub mod cgroup;
mod child;
pub mod connection;
mod descriptor;
mod error;
mod exits;
mod interpreter;
mod launcher;
mod log_pipe;
pub mod orphans;
mod packet_socket;
mod passbands;
mod process;
mod readiness;
mod registry;
pub mod sandbox;
mod spares;
mod usage;
#[doc(hidden)] // its decoder is for the fuzzer
pub mod zmtp;
mod zygote;

pub use error::LaunchError;
pub(crate) use exits::signal_name;
pub use exits::{Bound, Exit, reap_children};
pub use interpreter::Interpreter;
pub(crate) use interpreter::{BOOTSTRAP, ROOT_FOLDER_VARIABLE};
pub use launcher::{Launcher, Worker, WorkerSpec};
pub use passbands::{PassbandError, inspect_passbands};
pub use registry::Registry;
