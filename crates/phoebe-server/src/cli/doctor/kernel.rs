//! What the kernel offers for watching and containing workers, and the limit of open files.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope,
};
use rustix::process::{PidfdFlags, Resource, getpid, getrlimit, pidfd_open};

use super::finding::Finding;
use crate::config::Settings;

/// Descriptors that the server holds for one worker: lifeline, log, connection; and its user's.
const FILES_PER_WORKER: u64 = 4;
/// Descriptors that it holds besides.
const FILES_OF_SERVER: u64 = 256;

pub(super) fn check(_settings: &Settings) -> Vec<Finding> {
    vec![pidfd(), landlock(), seccomp()]
}

fn pidfd() -> Finding {
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Ok(_) => Finding::ok("pidfd", "available"),
        Err(error) => Finding::failed(
            "pidfd",
            format!("not available: {error}"),
            "use Linux 5.4 or newer, and a container runtime that allows pidfd_open",
        ),
    }
}

/// Asks the kernel for rules without putting them in force.
fn landlock() -> Finding {
    let rules = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let files = rules().handle_access(AccessFs::from_all(ABI::V1)).and_then(Ruleset::create);
    let network = rules().handle_access(AccessNet::from_all(ABI::V4)).and_then(Ruleset::create);
    let signals = rules().scope(Scope::from_all(ABI::V6)).and_then(Ruleset::create);
    let offered: Vec<&str> =
        [("files", files.is_ok()), ("network", network.is_ok()), ("signals", signals.is_ok())]
            .into_iter()
            .filter_map(|(name, offered)| offered.then_some(name))
            .collect();
    let advice = "use Linux 6.12 or newer with Landlock switched on (`lsm=landlock,…`); else \
                  workers are contained less, and only people you trust should have sessions";
    match offered.len() {
        3 => Finding::ok("Landlock", "files, network and signals"),
        0 => Finding::warning("Landlock", "not available", advice),
        _ => Finding::warning("Landlock", format!("only for {}", offered.join(", ")), advice),
    }
}

fn seccomp() -> Finding {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let known = status.lines().any(|line| line.starts_with("Seccomp_filters:"));
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail");
    if known || actions.is_ok_and(|actions| actions.contains("errno")) {
        return Finding::ok("seccomp", "filters are available");
    }
    Finding::warning(
        "seccomp",
        "filters are not available",
        "use a kernel with CONFIG_SECCOMP_FILTER; else workers are contained less",
    )
}

/// The limit of open files against the size of the port pool.
pub(super) fn check_limits(settings: &Settings) -> Vec<Finding> {
    let workers = u64::from(settings.port_pool.end.saturating_sub(settings.port_pool.start));
    let limit = getrlimit(Resource::Nofile);
    vec![open_files(workers, limit.maximum)]
}

/// `maximum` is the hard limit, up to which a program raises its own; none where there is no limit.
fn open_files(workers: u64, maximum: Option<u64>) -> Finding {
    let needed = workers * FILES_PER_WORKER + FILES_OF_SERVER;
    let subject = "open files";
    match maximum {
        Some(maximum) if maximum < needed => Finding::warning(
            subject,
            format!("at most {maximum} are allowed, and {workers} workers need about {needed}"),
            "raise the limit (`ulimit -Hn`, LimitNOFILE= in a systemd unit) or make [port_pool] \
             smaller",
        ),
        Some(maximum) => Finding::ok(subject, format!("{maximum} allowed, about {needed} needed")),
        None => Finding::ok(subject, "no limit"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_low_limit_of_open_files_is_told() {
        assert_eq!(open_files(1000, Some(1024)).level, Level::Warning);
        assert_eq!(open_files(100, Some(1024)).level, Level::Ok);
        assert_eq!(open_files(100, None).level, Level::Ok);
    }

    #[test]
    fn asking_for_landlock_contains_nobody() {
        landlock();
        assert!(std::fs::read_dir("/").is_ok());
        assert!(std::net::TcpListener::bind("127.0.0.1:0").is_ok());
    }
}
