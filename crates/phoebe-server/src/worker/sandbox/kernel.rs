//! What this kernel offers for containing workers. It asks; it puts nothing in force.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError,
    Scope,
};

/// A part of the sandbox that a kernel may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Landlock's rules for files and folders, truncation and devices included.
    Files,
    /// Landlock's rules for TCP ports.
    Ports,
    /// Landlock's bounds for signals and abstract Unix sockets.
    Signals,
    /// seccomp filters.
    Calls,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Files, Self::Ports, Self::Signals, Self::Calls];

    /// What it contains, in a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Ports => "network ports",
            Self::Signals => "signals",
            Self::Calls => "system calls",
        }
    }

    /// What a kernel needs to have for it.
    #[must_use]
    pub fn needs(self) -> &'static str {
        match self {
            Self::Files => "Landlock of Linux 6.10 for files",
            Self::Ports => "Landlock of Linux 6.7 for network ports",
            Self::Signals => "Landlock of Linux 6.12 for signals",
            Self::Calls => "seccomp filters (CONFIG_SECCOMP_FILTER)",
        }
    }

    /// Whether this kernel has it.
    #[must_use]
    pub fn is_offered(self) -> bool {
        let rules = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let made = |rules: Result<Ruleset, RulesetError>| rules.and_then(Ruleset::create).is_ok();
        match self {
            Self::Files => made(rules().handle_access(AccessFs::from_all(ABI::V5))),
            Self::Ports => made(rules().handle_access(AccessNet::from_all(ABI::V4))),
            Self::Signals => made(rules().scope(Scope::from_all(ABI::V6))),
            Self::Calls => filters_are_offered(),
        }
    }
}

/// What of the sandbox this kernel lacks.
#[must_use]
pub fn missing() -> Vec<Part> {
    Part::ALL.into_iter().filter(|part| !part.is_offered()).collect()
}

fn filters_are_offered() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let actions = || std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail");
    status.lines().any(|line| line.starts_with("Seccomp_filters:"))
        || actions().is_ok_and(|actions| actions.contains("errno"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_contains_nobody() {
        let _missing = missing();
        assert!(std::fs::read_dir("/").is_ok());
        assert!(std::net::TcpListener::bind("127.0.0.1:0").is_ok());
    }
}
