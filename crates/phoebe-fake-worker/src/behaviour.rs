//! How it behaves while it starts, chosen by the program's name. Data only.

use std::path::Path;

/// What [`Behaviour::Fatal`] says, as Python would.
pub(crate) const FATAL_TEXT: &str = "ModuleNotFoundError: No module named 'phoebe'";

const PREFIX: &str = "phoebe-fake-worker";

/// The start-up behaviours. The word in the program's name is in the table below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// All is well.
    Good,
    /// A worker says nothing at all and stays.
    NeverReady,
    /// A worker reports ready, but its socket answers nothing.
    Mute,
    /// A worker exits with code 3 before it is ready.
    DiesEarly,
    /// A worker is ready after one second.
    SlowStart,
    /// A worker goes on at SIGTERM; the lifeline still ends it.
    IgnoresSigterm,
    /// A worker reports that its port is in use, whichever it is.
    BindFails,
    /// A worker reports that it cannot start.
    StartFails,
    /// A worker's first packet is no JSON.
    GarbageReady,
    /// The zygote or a spawned worker cannot import PHOEBE.
    Fatal,
    /// The zygote answers each fork request with a failure.
    ForkFails,
    /// The zygote never becomes ready.
    ZygoteHangs,
    /// The zygote exits without a word.
    ZygoteDies,
    /// The zygote's packets are no JSON.
    ZygoteGarbage,
}

const WORDS: [(&str, Behaviour); 13] = [
    ("never-ready", Behaviour::NeverReady),
    ("mute", Behaviour::Mute),
    ("dies-early", Behaviour::DiesEarly),
    ("slow-start", Behaviour::SlowStart),
    ("ignores-sigterm", Behaviour::IgnoresSigterm),
    ("bind-fails", Behaviour::BindFails),
    ("start-fails", Behaviour::StartFails),
    ("garbage-ready", Behaviour::GarbageReady),
    ("fatal", Behaviour::Fatal),
    ("fork-fails", Behaviour::ForkFails),
    ("zygote-hangs", Behaviour::ZygoteHangs),
    ("zygote-dies", Behaviour::ZygoteDies),
    ("zygote-garbage", Behaviour::ZygoteGarbage),
];

impl Behaviour {
    /// The behaviour that the program's file name asks for.
    ///
    /// # Errors
    /// A name with a word that is not in the table: a typing error in a test must not look like
    /// good behaviour.
    pub(crate) fn from_program(program: &str) -> Result<Self, String> {
        let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
        let Some(word) = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-')) else {
            return Ok(Self::Good);
        };
        WORDS
            .iter()
            .find(|(known, _)| *known == word)
            .map(|&(_, behaviour)| behaviour)
            .ok_or_else(|| format!("no start-up behaviour is called {word:?}"))
    }
}
