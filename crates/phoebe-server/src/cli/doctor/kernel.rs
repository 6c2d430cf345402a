//! What the kernel offers for watching and containing workers, and the limit of open files.

use rustix::process::{PidfdFlags, Resource, getpid, getrlimit, pidfd_open};

use super::finding::Finding;
use crate::config::{Sandbox, Settings};
use crate::worker::bounds::{MemoryBound, ProcessBound};
use crate::worker::cgroup::Place;
use crate::worker::sandbox::{Counting, Part, counting, missing};

/// Descriptors that the server holds for one worker: lifeline, log, connection; and its user's.
const FILES_PER_WORKER: u64 = 4;
/// Descriptors that it holds besides.
const FILES_OF_SERVER: u64 = 256;

pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![pidfd(), sandbox(settings)];
    findings.extend(bounds(settings));
    findings
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
        let advice = "set [worker] sandbox to \"enforce\", unless you trust everybody who \
                      may have a session with this account";
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
            "{advice}, or set [worker] sandbox = \"best-effort\" and give sessions to \
             people you trust"
        );
        return Finding::failed(subject, text, advice);
    }
    Finding::warning(subject, text, format!("{advice}; else give sessions to people you trust"))
}

/// What bounds memory and processes of a session. A service may have a cgroup that this shell has
/// not.
fn bounds(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let place = match Place::find(&settings.worker.cgroup) {
        Ok(place) => place,
        Err(error) => {
            let advice =
                "name a cgroup of version 2, or set [worker] cgroup to \"auto\" or \"off\"";
            findings.push(Finding::failed("cgroup", error.to_string(), advice));
            None
        }
    };
    if place.is_none() && settings.worker.cgroup == "auto" {
        let text =
            "none is delegated to a server that is started here; the other bounds hold alone";
        findings.push(Finding::ok("cgroup", text));
    }
    let memory = MemoryBound::of(settings, place.as_ref());
    let processes = ProcessBound::of(settings, place.as_ref(), counting(&settings.worker));
    findings.push(memory_bound(memory));
    findings.push(process_bound(processes));
    findings
}

fn memory_bound(memory: MemoryBound) -> Finding {
    match memory {
        MemoryBound::None => Finding::warning(
            "memory",
            format!("bound: {memory}"),
            "set [resources] worker_memory_mb",
        ),
        _ => Finding::ok("memory", format!("bound: {memory}")),
    }
}

fn process_bound(processes: ProcessBound) -> Finding {
    let text = format!("bound: {processes}");
    let advice = match processes {
        ProcessBound::Polling(_, Counting::Refused(_)) => {
            "allow user namespaces, or give the server a cgroup (`Delegate=` in a systemd unit)"
        }
        ProcessBound::Polling(..) => {
            "name a [worker] user, or give the server a cgroup (`Delegate=` in a systemd unit)"
        }
        ProcessBound::None => "set [worker] sandbox to \"enforce\", or give the server a cgroup",
        _ => return Finding::ok("processes", text),
    };
    Finding::warning("processes", text, advice)
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
    fn processes_that_the_kernel_does_not_count_are_told() {
        let level = |bound| process_bound(bound).level;
        assert_eq!(level(ProcessBound::Cgroup(66)), Level::Ok);
        assert_eq!(level(ProcessBound::Namespace(66)), Level::Ok);
        for reason in [Counting::Root, Counting::Refused(1)] {
            assert_eq!(level(ProcessBound::Polling(66, reason)), Level::Warning);
        }
        assert_eq!(level(ProcessBound::None), Level::Warning);
        assert_eq!(memory_bound(MemoryBound::None).level, Level::Warning);
    }

    #[test]
    fn a_cgroup_that_is_none_is_told() {
        let mut settings = Settings::default();
        settings.worker.cgroup = "/dev/null".to_owned();
        assert_eq!(bounds(&settings)[0].level, Level::Failed);
    }

    #[test]
    fn a_sandbox_that_is_off_is_told() {
        let mut settings = Settings::default();
        settings.worker.sandbox = Sandbox::Off;
        assert_eq!(sandbox(&settings).level, Level::Warning);
    }
}
