//! What the kernel offers for watching and containing workers, and the limit of open files.

use rustix::process::{PidfdFlags, Resource, getpid, getrlimit, pidfd_open};

use super::finding::Finding;
use crate::config::{Sandbox, Settings};
use crate::worker::sandbox::{Part, missing};

/// Descriptors that the server holds for one worker: lifeline, log, connection; and its user's.
const FILES_PER_WORKER: u64 = 4;
/// Descriptors that it holds besides.
const FILES_OF_SERVER: u64 = 256;

pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    vec![pidfd(), sandbox(settings)]
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

/// What contains workers, against what the settings ask for.
fn sandbox(settings: &Settings) -> Finding {
    let subject = "sandbox";
    if settings.worker.sandbox == Sandbox::Off {
        let advice = "set [worker] sandbox to \"enforce\", unless you trust everybody who may have a session with this account";
        return Finding::warning(subject, "off: workers are not contained", advice);
    }
    let missing = missing();
    let names = |wanted: fn(&[Part], Part) -> bool| {
        let parts = Part::ALL.into_iter().filter(|part| wanted(&missing, *part));
        parts.map(Part::name).collect::<Vec<_>>().join(", ")
    };
    let contained = names(|missing, part| !missing.contains(&part));
    if missing.is_empty() {
        return Finding::ok(subject, format!("workers are contained: {contained}"));
    }
    let lacking = names(|missing, part| missing.contains(&part));
    let text = format!("this kernel cannot contain: {lacking}; it can: {contained}");
    let advice = "use Linux 6.12 or newer with Landlock switched on (`lsm=landlock,…`)";
    if settings.worker.sandbox == Sandbox::Enforce {
        let advice = format!(
            "{advice}, or set [worker] sandbox = \"best-effort\" and give sessions to people you trust"
        );
        return Finding::failed(subject, text, advice);
    }
    Finding::warning(subject, text, format!("{advice}; else give sessions to people you trust"))
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
    fn a_sandbox_that_is_off_is_told() {
        let mut settings = Settings::default();
        settings.worker.sandbox = Sandbox::Off;
        assert_eq!(sandbox(&settings).level, Level::Warning);
    }
}
