//! What an earlier run of the server left behind: found, and ended if it is really ours.
//!
//! Every process of ours has a record in the data directory while it lives: a file named by its process id and start time, in a
//! folder that belongs to one boot of the machine. A process is ours if id *and* start time *and* the instance id in its environment
//! agree; a name proves nothing. That orphans die by themselves, because their lifeline closes, is not relied upon.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use tracing::{info, warn};

use super::interpreter::INSTANCE_VARIABLE;
use super::process::{Process, start_time};

/// How long to wait for a killed process to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where records are kept.
#[derive(Debug, Clone)]
pub struct Records {
    folder: PathBuf,
}

/// The record of a living process; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Record {
    file: PathBuf,
}

impl Records {
    /// Records below `run`, the data directory's folder for what is running.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(run: &Path) -> io::Result<Self> {
        let folder = run.join(boot_id()?);
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// Records a process of ours.
    pub(crate) fn add(&self, process: &Process) -> io::Result<Record> {
        let name = format!("{}-{}", process.pid(), process.start_time());
        let file = self.folder.join(name);
        fs::write(&file, [])?;
        Ok(Record { file })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // A record that stays is looked at in the next start, and found to be of a process that is gone.
        let _stays = fs::remove_file(&self.file);
    }
}

/// A process of an earlier run that was ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Its process id.
    pub pid: i32,
}

/// Ends what earlier runs on this data directory left, and removes their records. No server may be running on it.
///
/// # Errors
/// When the folder of records cannot be read.
pub fn clean(run: &Path, instance: &str) -> io::Result<Vec<Orphan>> {
    let boot = boot_id()?;
    let mut ended = Vec::new();
    for folder in entries(run)? {
        if folder.file_name().is_some_and(|name| name == boot.as_str()) {
            for record in entries(&folder)? {
                if let Some(pid) = ours(&record, instance) {
                    end(pid);
                    info!(pid, "ended a process that an earlier run left");
                    ended.push(Orphan { pid });
                }
                fs::remove_file(&record)?;
            }
        } else {
            // Of an earlier boot: its processes are gone, and their ids belong to others now. Or scratch of workers, which are gone.
            fs::remove_dir_all(&folder)?;
        }
    }
    Ok(ended)
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The id of the process that a record speaks of, if that very process still lives and carries our instance id.
fn ours(record: &Path, instance: &str) -> Option<i32> {
    let (pid, started) = record.file_name()?.to_str()?.split_once('-')?;
    let (pid, started): (i32, u64) = (pid.parse().ok()?, started.parse().ok()?);
    if start_time(pid) != Some(started) {
        return None;
    }
    let environment = match fs::read(format!("/proc/{pid}/environ")) {
        Ok(environment) => environment,
        // It ended just now, or has ended and is not yet reaped.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => return None,
        Err(error) => {
            warn!(pid, %error, "a process looks like ours but cannot be examined; it is left alone");
            return None;
        }
    };
    let expected = format!("{INSTANCE_VARIABLE}={instance}");
    environment.split(|byte| *byte == 0).any(|entry| entry == expected.as_bytes()).then_some(pid)
}

fn end(pid: i32) {
    let Some(pid) = Pid::from_raw(pid) else { return };
    let descriptor = pidfd_open(pid, PidfdFlags::empty());
    // Gone between the look and the blow: as good.
    let _gone = kill_process_group(pid, Signal::KILL);
    let Ok(descriptor) = descriptor else { return };
    let _gone = pidfd_send_signal(&descriptor, Signal::KILL);
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let mut waits = [rustix::event::PollFd::new(&descriptor, rustix::event::PollFlags::IN)];
        let slice = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        if rustix::event::poll(&mut waits, Some(&slice)).is_ok_and(|ready| ready > 0) {
            return;
        }
    }
    warn!(pid = pid.as_raw_nonzero().get(), "a killed process does not go away");
}

/// The id of this boot of the machine: process ids and start times mean nothing beyond it.
fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    use super::*;

    fn sleeper(instance: &str) -> Child {
        let mut command = Command::new("sleep");
        command.arg("600").env(INSTANCE_VARIABLE, instance).process_group(0).spawn().unwrap()
    }

    fn record(run: &Path, pid: u32, started: u64) {
        let records = Records::open(run).unwrap();
        fs::write(records.folder.join(format!("{pid}-{started}")), []).unwrap();
    }

    fn started(child: &Child) -> u64 {
        start_time(i32::try_from(child.id()).unwrap()).unwrap()
    }

    #[test]
    fn ends_only_what_agrees_in_id_start_time_and_instance() {
        let run = tempfile::tempdir().unwrap();
        let mut ours = sleeper("this");
        let mut other_instance = sleeper("other");
        let mut reused_id = sleeper("this");
        // Between fork and exec a child still has its parent's environment.
        for child in [&ours, &other_instance, &reused_id] {
            while !fs::read_to_string(format!("/proc/{}/cmdline", child.id()))
                .unwrap()
                .starts_with("sleep")
            {
                std::thread::yield_now();
            }
        }
        record(run.path(), ours.id(), started(&ours));
        record(run.path(), other_instance.id(), started(&other_instance));
        record(run.path(), reused_id.id(), started(&reused_id) - 1);
        fs::create_dir(run.path().join("another-boot")).unwrap();

        let ended = clean(run.path(), "this").unwrap();

        assert_eq!(ended, [Orphan { pid: i32::try_from(ours.id()).unwrap() }]);
        assert!(!ours.wait().unwrap().success());
        for child in [&mut other_instance, &mut reused_id] {
            assert!(child.try_wait().unwrap().is_none(), "a stranger was ended");
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(clean(run.path(), "this").unwrap(), []);
        assert!(!run.path().join("another-boot").exists());
    }
}
