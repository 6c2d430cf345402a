//! What this kernel offers for containing workers. It asks; it puts nothing in force.

use std::fmt;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError,
    Scope,
};
use phoebe_protocol::packet::Account;

use crate::worker::exits::pause_reaping;

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

/// Whether the kernel counts the processes of each worker by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// It does: each worker may have a user namespace of its own.
    Offered,
    /// It counts nobody's who is root.
    Root,
    /// It refuses a user namespace, with this error number.
    Refused(i32),
}

impl fmt::Display for Counting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offered => formatter.write_str("the kernel counts them"),
            Self::Root => formatter
                .write_str("the kernel does not count the processes of root; name a [worker] user"),
            Self::Refused(number) => write!(
                formatter,
                "this kernel or container refuses a worker a user namespace ({})",
                io::Error::from_raw_os_error(*number)
            ),
        }
    }
}

/// Whether the kernel counts the processes of a worker that runs as this account, the server's own
/// where there is none. A child tries it.
#[must_use]
pub(super) fn counting(account: Option<Account>) -> Counting {
    let uid = account.map_or_else(|| rustix::process::geteuid().as_raw(), |account| account.uid);
    if uid == 0 {
        return Counting::Root;
    }
    // No program is there: that it was looked for shows that the namespace was made.
    let mut child = Command::new("/dev/null/none");
    if let Some(account) = account {
        child.uid(account.uid).gid(account.gid);
    }
    make_a_user_namespace_in(&mut child);
    // A child that fails is reaped by whoever started it.
    let _guard = pause_reaping();
    match child.spawn().map_err(|error| error.raw_os_error()) {
        Err(Some(libc::ENOTDIR)) | Ok(_) => Counting::Offered,
        Err(number) => Counting::Refused(number.unwrap_or_default()),
    }
}

/// Lets the child of a program's start make a user namespace before it looks for the program.
#[allow(unsafe_code, reason = "between fork and exec a child may call few functions")]
fn make_a_user_namespace_in(program: &mut Command) {
    // SAFETY: the closure makes one system call and reads `errno`: it allocates nothing and takes
    // no lock.
    unsafe {
        program.pre_exec(|| match libc::unshare(libc::CLONE_NEWUSER) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        })
    };
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
        let namespace = || std::fs::read_link("/proc/self/ns/user").unwrap();
        let before = namespace();
        let nobody = Account { uid: 65534, gid: 65534 };
        let root = rustix::process::geteuid().is_root();
        let _counting = counting(root.then_some(nobody));
        assert_eq!(counting(None) == Counting::Root, root);
        assert_eq!(namespace(), before);
        assert!(std::fs::read_dir("/").is_ok());
        assert!(std::net::TcpListener::bind("127.0.0.1:0").is_ok());
    }
}
