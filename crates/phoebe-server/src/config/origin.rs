//! The origin of each value.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use super::problem::Place;
use super::settings::Key;

/// The origin of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(pub Place);

impl Display for Origin {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::File { path, line, .. } => write!(formatter, "{}:{line}", path.display()),
            Place::Variable(name) => write!(formatter, "environment {name}"),
            Place::Flag(name) => write!(formatter, "{name}"),
            Place::Default => formatter.write_str("default"),
        }
    }
}

/// The origins of all values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<(&'static str, &'static str), Origin>);

impl Origins {
    /// Returns the origin of a key.
    #[must_use]
    pub fn of(&self, key: &Key) -> Origin {
        self.get(key.section, key.name)
    }

    /// Returns the origin of the key `name` of `section`.
    #[must_use]
    pub fn get(&self, section: &'static str, name: &'static str) -> Origin {
        self.0.get(&(section, name)).cloned().unwrap_or(Origin(Place::Default))
    }

    pub(super) fn set(&mut self, key: &Key, origin: Origin) {
        self.0.insert((key.section, key.name), origin);
    }
}
