//! How each command touches the Bundle.
//!
//! The table is generated from the worker package's own; a test of the package compares them. With
//! it the server knows a command's kind before any worker runs.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// How a command touches the Bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandKind {
    /// Leaves the Bundle as it is; may be answered while a runner works.
    Read,
    /// Alters the Bundle, in the worker itself.
    Change,
    /// Runs in a runner, as a transaction.
    Long,
}

static KINDS: LazyLock<BTreeMap<&'static str, CommandKind>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../protocol/command_kinds.json"))
        .expect("the table is part of the program, and a test reads it")
});

/// The kind of the command that is called `name`; `None` where workers know no such command.
#[must_use]
pub fn kind_of(name: &str) -> Option<CommandKind> {
    KINDS.get(name).copied()
}

/// Every command that workers know, by name.
pub fn all() -> impl Iterator<Item = (&'static str, CommandKind)> {
    KINDS.iter().map(|(name, kind)| (*name, *kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_can_be_read_and_has_commands_of_every_kind() {
        assert_eq!(kind_of("get_value"), Some(CommandKind::Read));
        assert_eq!(kind_of("set_value"), Some(CommandKind::Change));
        assert_eq!(kind_of("run_compute"), Some(CommandKind::Long));
        assert_eq!(kind_of("no_such_command"), None);
        assert!(all().all(|(name, kind)| kind_of(name) == Some(kind)));
    }
}
