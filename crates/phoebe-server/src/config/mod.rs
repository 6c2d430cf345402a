//! The settings, resolved once at the start: typed, strict, printable with their origin.
//!
//! The table in [`settings`] defines each key once: name, type, default, documentation, accepted range, and a
//! note where the key does not do what its name says. Parsing of files ([`file`]), the environment
//! and flags ([`load()`]), the printed settings ([`print`]) and the reference ([`reference`]) all
//! come from it. Nothing here opens sockets or databases; a wrong file is never replaced by defaults.

mod change;
pub mod file;
mod load;
mod origin;
pub mod print;
mod problem;
mod public_url;
pub mod reference;
mod settings;
mod suggest;
mod table;
#[cfg(test)]
mod tests;
mod types;
mod validate;
mod value;

pub use change::Change;
pub use load::{Flag, Resolved, Sources, load, load_values, load_what_can_be};
pub use origin::{Origin, Origins};
pub use problem::{ConfigError, Place, Problem};
pub use public_url::{PathPrefix, PublicUrl};
pub use settings::{
    AuthSettings, DatabaseSettings, Key, LoggingSettings, PortPoolSettings, ResourceSettings,
    Section, ServerSettings, SessionSettings, Settings, WorkerSettings,
};
pub use types::{
    AuthMode, Durability, LogFormat, OnIdle, RegistrationPolicy, Sandbox, Secret, WorkerStart,
};
pub use validate::is_loopback;
