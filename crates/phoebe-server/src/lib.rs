//! PHOEBE sessions over HTTP.
//!
//! Data flows one way: [`api`] turns HTTP into calls and delegates to [`session`], whose drivers
//! talk to Python processes through [`worker`]; [`store`] keeps what must outlive a process,
//! [`auth`] says who is asking, [`config`] holds the settings and [`cli`] the command line. Only
//! [`api`] and [`error`] know HTTP, only [`worker`] knows process ids, sockets and PHOEBE's
//! interpreter.

pub mod api;
pub mod auth;
pub mod cli;
pub mod config;
pub mod environment;
pub mod error;
mod exposure;
pub mod logging;
mod metrics;
pub mod passbands;
mod reload;
pub mod serve;
pub mod session;
pub mod signals;
pub mod store;
pub mod web;
pub mod worker;
