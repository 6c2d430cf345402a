//! The wire contract between the server and its Python processes, free of any transport.
//!
//! [`command`] holds what travels over ZeroMQ between server and worker, [`sign`] how it is signed,
//! and [`packet`] what travels over the Unix sockets between server, zygote and a starting worker.
//! [`kinds`] says how each command touches the Bundle, which both ends know. `docs/protocol.md` is
//! the prose of it; `protocol/fixtures/` are golden messages that the Rust and the Python tests
//! both read. This crate opens no socket and knows no session's state.

pub mod command;
pub mod kinds;
pub mod packet;
pub mod sign;

/// Version of the command protocol, in every header.
pub const VERSION: u32 = 1;
