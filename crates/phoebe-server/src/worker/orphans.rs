//! What an earlier run of the server left behind: found, and ended if it is really ours.
//!
//! Every process that the server starts has a record in the data directory while it lives: a file
//! named by its process id and start time, in a folder that belongs to one boot of the machine. It
//! leads a process group, which none of its descendants can leave in the sandbox. A process is ours
//! if its environment carries our instance id, or if it is in the sandbox and a record names it or
//! its group: code of a user's can overwrite its environment, and can end before what it started
//! does. A name proves nothing. That orphans die by themselves, because their lifeline closes, is
//! not relied upon; one that is about to is waited for.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, unlinkat};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use tracing::{info, warn};

use super::census::{self, Environment, ProcessStat};
use super::process::Process;

/// How long to wait for killed processes to be gone, and for those that end by themselves.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before the next look.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Where records are kept.
#[derive(Debug, Clone)]
pub struct Records {
    folder: PathBuf,
    /// The same folder, wherever it is moved.
    opened: Arc<OwnedFd>,
}

/// The record of a living process; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Record {
    folder: Arc<OwnedFd>,
    name: String,
}

impl Records {
    /// Records below `run`, the data directory's folder for what is running.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(run: &Path) -> io::Result<Self> {
        let folder = run.join(boot_id()?);
        fs::create_dir_all(&folder)?;
        let opened = Arc::new(fs::File::open(&folder)?.into());
        Ok(Self { folder, opened })
    }

    /// Records a process of ours, with the program that it runs: in the sandbox nobody can start
    /// another.
    pub(crate) fn add(&self, process: &Process) -> io::Result<Record> {
        let name = format!("{}-{}", process.pid(), process.start_time());
        let program = census::program(process.pid()).unwrap_or_default();
        fs::write(self.folder.join(&name), program.as_os_str().as_bytes())?;
        Ok(Record { folder: Arc::clone(&self.opened), name })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // The next start removes a record that stays.
        let _ = unlinkat(&self.folder, &self.name, AtFlags::empty());
    }
}

/// A process of an earlier run that was ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Its process id.
    pub pid: i32,
}

/// Ends what earlier runs on this data directory left, and removes their records. No server may be
/// running on it.
///
/// # Errors
/// When the folder of records cannot be read.
pub fn clean(run: &Path, instance: &str) -> io::Result<Vec<Orphan>> {
    clean_within(run, instance, TIMEOUT)
}

fn clean_within(run: &Path, instance: &str, limit: Duration) -> io::Result<Vec<Orphan>> {
    let this_boot = run.join(boot_id()?);
    let records = entries(&this_boot)?;
    let known: Vec<Recorded> = records.iter().filter_map(|file| Recorded::read(file)).collect();
    let deadline = Instant::now() + limit;
    let mut ended = BTreeSet::new();
    // Again and again: what is being killed may have started others meanwhile.
    let left = loop {
        let found = find(&known, instance);
        for process in found.iter().filter(|process| process.verdict == Verdict::Ours) {
            process.kill();
            ended.insert(process.stat.pid);
        }
        let Some(waited_for) = found.first() else { break found };
        if Instant::now() >= deadline {
            break found;
        }
        waited_for.is_gone_within(POLL_INTERVAL);
    };
    report(&ended, &left);
    for file in records {
        if !left.iter().any(|process| process.record.as_ref() == Some(&file)) {
            fs::remove_file(&file)?;
        }
    }
    for folder in entries(run)?.into_iter().filter(|folder| *folder != this_boot) {
        // Of an earlier boot: its processes are gone, and their ids belong to others now. Or
        // scratch of workers, which are gone.
        fs::remove_dir_all(&folder)?;
    }
    Ok(ended.into_iter().map(|pid| Orphan { pid }).collect())
}

fn report(ended: &BTreeSet<i32>, left: &[Found]) {
    if !ended.is_empty() {
        let pids = ended.iter().take(10).collect::<Vec<_>>();
        info!(count = ended.len(), ?pids, "ended processes that an earlier run left");
    }
    let those = |verdict| -> Vec<i32> {
        let found = left.iter().filter(|process| process.verdict == verdict);
        found.map(|process| process.stat.pid).collect()
    };
    let (surviving, unclear) = (those(Verdict::Ours), those(Verdict::Unclear));
    if !surviving.is_empty() {
        warn!(processes = ?surviving, "killed processes did not end in time");
    }
    if !unclear.is_empty() {
        warn!(
            processes = ?unclear,
            "processes that may be this server's cannot be examined; they are left running"
        );
    }
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// What a record says.
#[derive(Debug, Clone)]
struct Recorded {
    file: PathBuf,
    pid: i32,
    started: u64,
    program: Option<PathBuf>,
}

impl Recorded {
    fn read(file: &Path) -> Option<Self> {
        let (pid, started) = file.file_name()?.to_str()?.split_once('-')?;
        let program = fs::read(file).ok().filter(|text| !text.is_empty());
        Some(Self {
            file: file.to_owned(),
            pid: pid.parse().ok()?,
            started: started.parse().ok()?,
            program: program.map(|text| PathBuf::from(OsString::from_vec(text))),
        })
    }

    fn names(&self, process: &ProcessStat) -> bool {
        self.pid == process.pid && self.started == process.started
    }

    /// Whether a process is in the group that the recorded one led. `leader` is who has its id now:
    /// if that is another process, the group is that one's.
    fn led(&self, process: &ProcessStat, leader: Option<&ProcessStat>) -> bool {
        self.pid == process.group
            && self.started <= process.started
            && leader.is_none_or(|leader| leader.started == self.started)
    }
}

/// Whether a process is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ours,
    NotOurs,
    /// A record speaks for it, and it cannot be examined.
    Unclear,
}

/// What speaks for a process.
#[derive(Debug, Clone, Copy)]
struct Evidence {
    environment: Environment,
    is_sandboxed: bool,
    /// A record names this very process.
    is_named: bool,
    /// It is in the group of a process that a record names.
    is_in_group: bool,
    /// It runs the recorded program; none where that cannot be read.
    runs_the_program: Option<bool>,
}

/// In the sandbox the environment decides nothing, for code of a user's may have overwritten it.
/// Outside, it decides all.
fn judge(evidence: &Evidence) -> Verdict {
    let is_recorded = evidence.is_named || evidence.is_in_group;
    match evidence {
        Evidence { environment: Environment::Ours, .. } => Verdict::Ours,
        _ if !is_recorded => Verdict::NotOurs,
        Evidence { is_sandboxed: true, is_named: true, .. }
        | Evidence { is_sandboxed: true, runs_the_program: Some(true), .. } => Verdict::Ours,
        Evidence { environment: Environment::Unreadable, .. }
        | Evidence { is_sandboxed: true, runs_the_program: None, .. } => Verdict::Unclear,
        _ => Verdict::NotOurs,
    }
}

/// A living process that is ours or may be, held so that its id cannot be mistaken for a later
/// process's.
struct Found {
    stat: ProcessStat,
    verdict: Verdict,
    /// The record that speaks for it.
    record: Option<PathBuf>,
    /// The group that is ours with it.
    group: Option<i32>,
    descriptor: OwnedFd,
}

/// All living processes that are ours or may be.
fn find(known: &[Recorded], instance: &str) -> Vec<Found> {
    let own = std::process::id().cast_signed();
    let all = census::processes();
    let by_id: HashMap<i32, &ProcessStat> =
        all.iter().map(|process| (process.pid, process)).collect();
    let others = all.iter().filter(|process| process.pid != own);
    others
        .filter_map(|process| {
            let leader = by_id.get(&process.group).copied();
            let record =
                known.iter().find(|record| record.names(process) || record.led(process, leader));
            Found::examine(process, record, instance)
        })
        .collect()
}

impl Found {
    fn examine(process: &ProcessStat, record: Option<&Recorded>, instance: &str) -> Option<Self> {
        let environment = census::environment(process.pid, instance);
        if record.is_none() && environment != Environment::Ours {
            return None;
        }
        let program = record.and_then(|record| record.program.as_ref());
        let evidence = Evidence {
            environment,
            is_sandboxed: census::is_sandboxed(process.pid),
            is_named: record.is_some_and(|record| record.names(process)),
            is_in_group: record.is_some(),
            runs_the_program: match program {
                Some(program) => census::program(process.pid).map(|found| found == *program),
                None => Some(false),
            },
        };
        let verdict = judge(&evidence);
        let descriptor = pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::empty()).ok()?;
        // Read again, now that a pidfd holds it: what was read is of this very process.
        let now = ProcessStat::read(process.pid)?;
        let is_it = now.started == process.started && now.group == process.group;
        let group = record.filter(|record| record.pid == process.group).map(|record| record.pid);
        let record = record.map(|record| record.file.clone());
        let found = Self { stat: *process, verdict, record, group, descriptor };
        let lives = verdict != Verdict::NotOurs && is_it && !found.is_gone_within(Duration::ZERO);
        lives.then_some(found)
    }

    /// Kills it, and the group that is ours with it: all at once, so that nothing in that can start
    /// others in time.
    fn kill(&self) {
        // The processes may have ended meanwhile.
        if let Some(group) = self.group.and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = pidfd_send_signal(&self.descriptor, Signal::KILL);
    }

    /// Waits so long for its end, and returns whether it came. One that nobody has reaped is gone.
    fn is_gone_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
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

    use super::super::census::INSTANCE_VARIABLE;
    use super::super::process::start_time;
    use super::*;

    /// Longer than anything takes; no test waits for it to pass.
    const TEST_TIMEOUT: Duration = Duration::from_secs(60);

    #[test]
    fn the_verdict_follows_from_record_sandbox_and_environment() {
        let evidence = |environment, is_sandboxed, is_named, is_in_group, runs_the_program| {
            judge(&Evidence { environment, is_sandboxed, is_named, is_in_group, runs_the_program })
        };
        let (ours, other, hidden) =
            (Environment::Ours, Environment::Other, Environment::Unreadable);
        let is = Some(true);
        for (found, verdict) in [
            (evidence(ours, false, false, false, None), Verdict::Ours),
            (evidence(other, true, true, true, is), Verdict::Ours),
            (evidence(hidden, true, false, true, is), Verdict::Ours),
            (evidence(other, true, false, true, Some(false)), Verdict::NotOurs),
            (evidence(other, true, false, true, None), Verdict::Unclear),
            (evidence(other, false, true, true, is), Verdict::NotOurs),
            (evidence(other, true, false, false, is), Verdict::NotOurs),
            (evidence(hidden, false, true, true, None), Verdict::Unclear),
            (evidence(hidden, false, false, false, is), Verdict::NotOurs),
        ] {
            assert_eq!(found, verdict);
        }
    }

    /// An instance id of one test: another's processes are not its own.
    fn instance(test: &str) -> String {
        format!("{test}-{}", std::process::id())
    }

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

    #[tokio::test]
    async fn a_record_is_removed_also_where_its_folder_was_moved() {
        let root = tempfile::tempdir().unwrap();
        let (run, moved) = (root.path().join("run"), root.path().join("moved"));
        let mut child = sleeper(&instance("moved"));
        let process = Process::watch(i32::try_from(child.id()).unwrap()).unwrap();
        let record = Records::open(&run).unwrap().add(&process).unwrap();
        fs::rename(&run, &moved).unwrap();
        let records = || entries(&entries(&moved).unwrap()[0]).unwrap().len();
        assert_eq!(records(), 1);
        drop(record);
        assert_eq!(records(), 0);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn ends_only_what_agrees_in_id_start_time_and_instance() {
        let (run, this) = (tempfile::tempdir().unwrap(), instance("agrees"));
        let mut ours = sleeper(&this);
        let mut other_instance = sleeper("other");
        let mut reused_id = sleeper("other");
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

        let ended = clean(run.path(), &this).unwrap();

        assert_eq!(ended, [Orphan { pid: i32::try_from(ours.id()).unwrap() }]);
        assert!(!ours.wait().unwrap().success());
        for child in [&mut other_instance, &mut reused_id] {
            assert!(child.try_wait().unwrap().is_none(), "a stranger was ended");
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(clean(run.path(), &this).unwrap(), []);
        assert!(!run.path().join("another-boot").exists());
    }

    /// A process that has no environment, as in the moment before its end. It goes on until its
    /// input ends.
    fn process_without_environment() -> Child {
        let mut program = Command::new("cat");
        program.env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let child = program.spawn().unwrap();
        let environment = format!("/proc/{}/environ", child.id());
        while !fs::read(&environment).unwrap().is_empty() {
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
        let mut ending = process_without_environment();
        record(run.path(), ending.id(), started(&ending));
        let input = ending.stdin.take();
        let folder = run.path().to_owned();
        let cleaning =
            std::thread::spawn(move || clean_within(&folder, &instance("ends"), TEST_TIMEOUT));
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
        let (run, this) = (tempfile::tempdir().unwrap(), instance("unreadable"));
        let mut unreadable = process_without_environment();
        record(run.path(), unreadable.id(), started(&unreadable));
        let records = Records::open(run.path()).unwrap().folder;

        assert_eq!(clean_within(run.path(), &this, Duration::ZERO).unwrap(), []);

        assert!(unreadable.try_wait().unwrap().is_none(), "it was ended");
        assert_eq!(entries(&records).unwrap().len(), 1);
        drop(unreadable.stdin.take());
        assert_eq!(clean_within(run.path(), &this, TEST_TIMEOUT).unwrap(), []);
        assert!(entries(&records).unwrap().is_empty());
        unreadable.wait().unwrap();
    }
}
