//! What an earlier run of the server left behind: found, and ended if it is really ours.
//!
//! Every process of ours has a record in the data directory while it lives: a file named by its process id and start time, in a
//! folder that belongs to one boot of the machine. A process is ours if id *and* start time *and* the instance id in its environment
//! agree; a name proves nothing. That orphans die by themselves, because their lifeline closes, is
//! not relied upon; one that is about to is waited for.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use tracing::{info, warn};

use super::interpreter::INSTANCE_VARIABLE;
use super::process::{Process, start_time};

/// How long to wait for a killed process to be gone, and for one that ends by itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before a process is looked at again that could not be examined.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

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
    clean_within(run, instance, PATIENCE)
}

fn clean_within(run: &Path, instance: &str, patience: Duration) -> io::Result<Vec<Orphan>> {
    let this_boot = run.join(boot_id()?);
    let deadline = Instant::now() + patience;
    let (mut ended, mut unknown) = (Vec::new(), Vec::new());
    for record in entries(&this_boot)? {
        match look_until_clear(&record, instance, deadline) {
            Finding::Ours(process) => {
                process.end();
                info!(pid = process.pid(), "ended a process that an earlier run left");
                ended.push(Orphan { pid: process.pid() });
            }
            Finding::NotOurs => {}
            Finding::Unknown(process, error) => {
                unknown.push((process.pid(), error.to_string()));
                continue;
            }
        }
        fs::remove_file(&record)?;
    }
    if !unknown.is_empty() {
        warn!(
            processes = ?unknown,
            "these look like ours but cannot be examined; they are left alone"
        );
    }
    for folder in entries(run)?.into_iter().filter(|folder| *folder != this_boot) {
        // Of an earlier boot: its processes are gone, and their ids belong to others now. Or scratch
        // of workers, which are gone.
        fs::remove_dir_all(&folder)?;
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

/// What became of the process of which a record speaks.
enum Finding {
    /// It lives and carries our instance id.
    Ours(Recorded),
    /// It is gone, or its process id belongs to another one.
    NotOurs,
    /// It lives, and cannot be examined.
    Unknown(Recorded, io::Error),
}

/// The living process that has the id and the start time of a record.
struct Recorded {
    pid: Pid,
    descriptor: OwnedFd,
}

/// Looks at the process of a record, and again until `deadline` while it cannot be examined: a
/// process that is about to end has no environment any more, for a moment.
fn look_until_clear(record: &Path, instance: &str, deadline: Instant) -> Finding {
    loop {
        match look(record, instance) {
            Finding::Unknown(process, _) if Instant::now() < deadline => {
                process.is_gone_within(LOOK_AGAIN);
            }
            clear => return clear,
        }
    }
}

fn look(record: &Path, instance: &str) -> Finding {
    let Some(process) = Recorded::find(record) else { return Finding::NotOurs };
    match process.environment() {
        // Some kernels say so of a process that is about to end.
        Ok(environment) if environment.is_empty() => {
            Finding::Unknown(process, io::Error::other("it has no environment"))
        }
        Ok(environment) => {
            let expected = format!("{INSTANCE_VARIABLE}={instance}");
            let mut entries = environment.split(|byte| *byte == 0);
            match entries.any(|entry| entry == expected.as_bytes()) {
                true => Finding::Ours(process),
                false => Finding::NotOurs,
            }
        }
        Err(error) => Finding::Unknown(process, error),
    }
}

impl Recorded {
    /// The process of which a record speaks, if that very process still lives.
    fn find(record: &Path) -> Option<Self> {
        let (pid, started) = record.file_name()?.to_str()?.split_once('-')?;
        let (pid, started): (i32, u64) = (pid.parse().ok()?, started.parse().ok()?);
        let pid = Pid::from_raw(pid)?;
        let descriptor = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let process = Self { pid, descriptor };
        let lives =
            start_time(process.pid()) == Some(started) && !process.is_gone_within(Duration::ZERO);
        lives.then_some(process)
    }

    fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    fn environment(&self) -> io::Result<Vec<u8>> {
        fs::read(format!("/proc/{}/environ", self.pid()))
    }

    /// Kills it and its group, and waits until it is gone.
    fn end(&self) {
        // Gone between the look and the blow: as good.
        let _gone = kill_process_group(self.pid, Signal::KILL);
        let _gone = pidfd_send_signal(&self.descriptor, Signal::KILL);
        if !self.is_gone_within(PATIENCE) {
            warn!(pid = self.pid(), "a killed process does not go away");
        }
    }

    /// Waits so long for its end, and returns whether it came. One that nobody has reaped is gone.
    fn is_gone_within(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut waits = [PollFd::new(&self.descriptor, PollFlags::IN)];
            let left_to_wait = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            match poll(&mut waits, Some(&left_to_wait)) {
                Ok(ready) => return ready > 0,
                // A signal came meanwhile.
                Err(_) if !left.is_zero() => {}
                Err(_) => return false,
            }
        }
    }
}

/// The id of this boot of the machine: process ids and start times mean nothing beyond it.
fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Longer than anything takes; no test waits for it to pass.
    const A_MINUTE: Duration = Duration::from_secs(60);

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

    /// A process whose first thread has ended, so that it cannot be examined, as in the moment
    /// before its end. It goes on until its input ends.
    fn unexaminable() -> Child {
        let script = "import ctypes, os, sys, threading\n\
             threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()\n\
             libc = ctypes.CDLL(None)\n\
             libc.syscall.restype = ctypes.c_long\n\
             libc.syscall(ctypes.c_long(EXIT), ctypes.c_long(0))";
        let script = script.replace("EXIT", &libc::SYS_exit.to_string());
        let child = Command::new("python3")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let stat = format!("/proc/{}/stat", child.id());
        while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
            std::thread::yield_now();
        }
        child
    }

    /// Whether this program has a pidfd of the process.
    fn is_held(pid: u32) -> bool {
        let descriptors = fs::read_dir("/proc/self/fdinfo").unwrap();
        let line = format!("Pid:\t{pid}\n");
        descriptors
            // Descriptors come and go.
            .filter_map(|descriptor| fs::read_to_string(descriptor.ok()?.path()).ok())
            .any(|text| text.contains(&line))
    }

    #[test]
    fn a_process_that_ends_by_itself_is_waited_for() {
        let run = tempfile::tempdir().unwrap();
        let mut ending = unexaminable();
        record(run.path(), ending.id(), started(&ending));
        let input = ending.stdin.take();
        let folder = run.path().to_owned();
        let cleaning = std::thread::spawn(move || clean_within(&folder, "this", A_MINUTE));
        while !cleaning.is_finished() && !is_held(ending.id()) {
            std::thread::yield_now();
        }
        drop(input);

        assert_eq!(cleaning.join().unwrap().unwrap(), []);

        assert!(ending.try_wait().unwrap().is_some(), "it was not waited for");
        assert!(entries(&Records::open(run.path()).unwrap().folder).unwrap().is_empty());
    }

    #[test]
    fn a_process_that_cannot_be_examined_is_left_alone_and_looked_at_again_later() {
        let run = tempfile::tempdir().unwrap();
        let mut stuck = unexaminable();
        record(run.path(), stuck.id(), started(&stuck));
        let records = Records::open(run.path()).unwrap().folder;

        assert_eq!(clean_within(run.path(), "this", Duration::ZERO).unwrap(), []);

        assert!(stuck.try_wait().unwrap().is_none(), "it was ended");
        assert_eq!(entries(&records).unwrap().len(), 1);
        drop(stuck.stdin.take());
        assert_eq!(clean_within(run.path(), "this", A_MINUTE).unwrap(), []);
        assert!(entries(&records).unwrap().is_empty());
        stuck.wait().unwrap();
    }
}
