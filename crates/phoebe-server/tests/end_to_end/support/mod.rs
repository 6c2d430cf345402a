//! The harness: starts the real server on free ports in a temporary data directory and, at the end,
//! fails if anything is left behind.
//!
//! ```ignore
//! let builder = TestServer::builder().fake().set("session.idle_timeout_seconds", 1.0);
//! let server = builder.start().await;
//! let session = server.start_session().await;
//! assert_eq!(session.command(json!({"command": "ping"})).await["success"], true);
//! server.finish().await;
//! ```
//!
//! One test holds at most one [`TestServer`]; [`Builder::alone`] keeps other tests from running
//! beside it.

mod builder;
mod client;
mod database;
mod disk;
pub(crate) mod kept;
mod leaks;
mod log;
mod machine;
mod ports;
mod process;
mod program;
mod random;
mod server;
mod trusting;
mod wait;

pub(crate) use builder::Builder;
pub(crate) use client::{Client, Reply, Session};
pub(crate) use disk::Kind as DiskKind;
pub(crate) use log::Log;
pub(crate) use ports::PortRange;
pub(crate) use process::{ProcessInfo, processes_of_instance};
pub(crate) use program::{Finished, Program, SERVER, fake_worker, phoebe_python, run_stock_phoebe};
pub(crate) use random::{Random, number};
pub(crate) use server::TestServer;
pub(crate) use trusting::{Pair, Trusting, make_pair};
pub(crate) use wait::{stays, until};
