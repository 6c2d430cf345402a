//! The whole server from outside: real processes, real sockets, real signals, real SQLite; with the
//! fake worker where PHOEBE does not matter, and with real PHOEBE where it does
//! (`PHOEBE_TEST_PYTHON`, or what the server sets up by itself).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod accounts;
mod accuracy;
mod backup;
mod checkpoints;
mod cli;
mod contract;
mod death;
mod disk;
mod durability;
mod escape;
mod events;
mod files;
mod harness;
mod jobs;
mod lifecycle;
mod load;
mod metrics;
mod misbehaviour;
mod passbands;
mod proxy;
mod readme;
mod restart;
mod script;
mod secrets;
mod signals;
mod start_failure;
mod support;
mod tls;
mod torture;
