//! The settings: loaded once at the start, strictly checked, printable with their origins.
//!
//! The table in [`settings`] defines each key once: name, type, default, documentation, accepted
//! range and note. The parsing of files ([`file`]), variables and flags ([`load()`]), the printed
//! settings ([`print`]) and the reference ([`reference`]) are derived from it. An invalid file is
//! never replaced by defaults.

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
pub use load::{Flag, Resolved, Sources, load, load_lenient, load_values};
pub use origin::{Origin, Origins};
pub use problem::{ConfigError, Place, Problem};
pub use public_url::{PathPrefix, PublicUrl};
pub use settings::{
    AuthSettings, DatabaseSettings, Key, LoggingSettings, MetricsSettings, PortPoolSettings,
    ResourceSettings, Section, ServerSettings, SessionSettings, Settings, WorkerSettings,
};
pub use types::{
    AuthMode, Durability, LogFormat, OnIdle, RegistrationPolicy, Sandbox, Secret, WorkerStart,
};
pub use validate::is_loopback;
