//! A cgroup (version 2) for each worker, where the system lets the server make some: the kernel
//! then bounds memory and processes of a session as a whole, and ends all of it at once.
//!
//! This makes, fills and removes cgroups; it knows nothing of what workers do. Where there are
//! none, the other bounds hold alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// How long killed processes may take to be gone.
const TIMEOUT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Of a session's processes two may be at their own bound at once, the worker and its runner.
/// Helpers share the runner's memory.
const PROCESSES_AT_THEIR_BOUND: u64 = 2;
/// The cgroup into which the server moves: one that has cgroups below it with controllers may hold
/// no process itself.
const OWN: &str = "server";
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// Why workers get no cgroups although the settings ask for them.
#[derive(Debug, Error)]
#[error(
    "[worker] cgroup: {}: {error}. Name a cgroup of version 2 that this account may change, or set \
     cgroup = \"off\"",
    .folder.display()
)]
pub struct CgroupError {
    folder: PathBuf,
    error: io::Error,
}

/// What bounds a session as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// MiB of memory.
    pub memory_mb: Option<u64>,
    /// Processes and threads.
    pub processes: u64,
}

impl Bounds {
    /// The bounds of a session whose processes may take so much memory each (0 for no bound).
    #[must_use]
    pub fn of(process_memory_mb: u64, processes: u64) -> Self {
        let memory_mb = process_memory_mb.checked_mul(PROCESSES_AT_THEIR_BOUND);
        Self { memory_mb: memory_mb.filter(|megabytes| *megabytes > 0), processes }
    }
}

/// What a place for cgroups offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The cgroup below which those of workers are.
    pub folder: PathBuf,
    /// Whether the kernel bounds memory there.
    pub memory: bool,
    /// Whether the kernel bounds processes there.
    pub processes: bool,
}

impl Place {
    /// The place that the setting names: a folder, `auto` for the server's own cgroup if that was
    /// delegated to it, or `off`. `None` where there is none. Changes nothing.
    ///
    /// # Errors
    /// When a folder is named that is no cgroup.
    pub fn find(setting: &str) -> Result<Option<Self>, CgroupError> {
        let folder = match setting {
            "off" => None,
            "auto" => delegated(),
            folder => Some(PathBuf::from(folder)),
        };
        folder.map(|folder| Self::read(&folder, "cgroup.controllers")).transpose()
    }

    /// `list` is the file that lists controllers.
    fn read(folder: &Path, list: &str) -> Result<Self, CgroupError> {
        let failed = |error| CgroupError { folder: folder.to_owned(), error };
        let names = fs::read_to_string(folder.join(list)).map_err(failed)?;
        let has = |name| names.split_ascii_whitespace().any(|one| one == name);
        Ok(Self { folder: folder.to_owned(), memory: has("memory"), processes: has("pids") })
    }
}

/// The server's own cgroup, or the one above it, whichever the service manager delegated.
fn delegated() -> Option<PathBuf> {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    let own = own_folder(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))?;
    own.ancestors().take(2).find(|folder| is_delegated(folder)).map(Path::to_owned)
}

/// The folder of this process's cgroup, from `/proc/self/mountinfo` and `/proc/self/cgroup`
/// (`cgroups(7)`).
fn own_folder(mounts: &str, cgroups: &str) -> Option<PathBuf> {
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, folder) = (fields.next()?, fields.next()?);
        let below = Path::new(path).strip_prefix(root).ok()?;
        kind.starts_with("cgroup2 ").then(|| Path::new(folder).join(below))
    })
}

/// systemd marks so what it leaves to a service (`Delegate=`).
fn is_delegated(folder: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 8];
        let length = rustix::fs::getxattr(folder, *name, &mut value[..]);
        length.is_ok_and(|length| value.get(..length) == Some(b"1"))
    })
}

/// The cgroups of one server's workers.
#[derive(Debug, Clone)]
pub struct Cgroups(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    place: Place,
    bounds: Bounds,
    /// What the names of all of this data directory's begin with.
    prefix: String,
    made: AtomicU64,
    removals: TaskTracker,
}

impl Cgroups {
    /// Prepares the place for them, and ends what an earlier run left there. No other server may
    /// run on this data directory.
    ///
    /// # Errors
    /// When a place is named where none can be made.
    pub fn open(
        setting: &str,
        instance: &str,
        bounds: Bounds,
    ) -> Result<Option<Self>, CgroupError> {
        let opened = Self::open_place(Place::find(setting)?, instance, bounds);
        match opened {
            // What is not asked for by name is done without.
            Err(error) if setting == "auto" => {
                warn!(%error, "workers get no cgroups");
                Ok(None)
            }
            opened => opened,
        }
    }

    fn open_place(
        place: Option<Place>,
        instance: &str,
        bounds: Bounds,
    ) -> Result<Option<Self>, CgroupError> {
        let Some(place) = place else { return Ok(None) };
        let failed = |error| CgroupError { folder: place.folder.clone(), error };
        let prefix = format!("phoebe-{instance}-");
        remove_stale(&place.folder, &prefix).map_err(failed)?;
        leave_place(&place.folder).map_err(failed)?;
        for (name, _) in CONTROLLERS.iter().zip([place.memory, place.processes]).filter(|it| it.1) {
            let file = place.folder.join("cgroup.subtree_control");
            if let Err(error) = fs::write(file, format!("+{name}")) {
                warn!(controller = name, %error, "a controller of the cgroup cannot be used");
            }
        }
        let place = Place::read(&place.folder, "cgroup.subtree_control")?;
        let (made, removals) = (AtomicU64::default(), TaskTracker::new());
        Ok(Some(Self(Arc::new(Shared { place, bounds, prefix, made, removals }))))
    }

    /// What the place bounds.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.0.place
    }

    /// Moves a process into a cgroup of its own. The kernel takes some milliseconds for that.
    pub(super) fn enclose(&self, pid: i32) -> io::Result<Cgroup> {
        let Shared { place, bounds, prefix, made, .. } = &*self.0;
        let number = made.fetch_add(1, Ordering::Relaxed);
        let folder = place.folder.join(format!("{prefix}{number}"));
        fs::create_dir(&folder)?;
        let cgroup = Cgroup { folder, all: self.clone() };
        let write = |file: &str, value: String| fs::write(cgroup.folder.join(file), value);
        if let (true, Some(megabytes)) = (place.memory, bounds.memory_mb) {
            write("memory.max", (u128::from(megabytes) << 20).to_string())?;
            // A kernel without swap has no such file.
            let _ = write("memory.swap.max", "0".to_owned());
        }
        if place.processes {
            write("pids.max", bounds.processes.to_string())?;
        }
        write("cgroup.procs", pid.to_string())?;
        Ok(cgroup)
    }

    /// Waits until those that were dropped are removed.
    pub(super) async fn removed(&self) {
        self.0.removals.close();
        // The next start removes what is left.
        let _ = timeout(TIMEOUT, self.0.removals.wait()).await;
    }
}

/// The cgroup of one worker. Dropped, it ends all that is in it.
#[derive(Debug)]
pub(super) struct Cgroup {
    folder: PathBuf,
    all: Cgroups,
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Kernels before 5.14 cannot; the process group is killed all the same.
        let _ = kill(&self.folder);
        let folder = std::mem::take(&mut self.folder);
        if let Ok(runtime) = Handle::try_current() {
            self.all.0.removals.spawn_blocking_on(move || remove(&folder), &runtime);
        }
    }
}

fn kill(folder: &Path) -> io::Result<()> {
    // Not created where it is not there: no file of a cgroup can be.
    fs::OpenOptions::new()
        .write(true)
        .open(folder.join("cgroup.kill"))
        .and_then(|mut file| io::Write::write_all(&mut file, b"1"))
}

/// Removes a cgroup as soon as nothing lives in it.
fn remove(folder: &Path) {
    let deadline = Instant::now() + TIMEOUT;
    while let Err(error) = fs::remove_dir(folder) {
        if error.kind() == io::ErrorKind::NotFound {
            return;
        }
        if Instant::now() >= deadline {
            return warn!(folder = %folder.display(), %error, "a cgroup cannot be removed");
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Ends and removes the cgroups of an earlier run.
fn remove_stale(place: &Path, prefix: &str) -> io::Result<()> {
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let processes = fs::read_to_string(entry.path().join("cgroup.procs")).unwrap_or_default();
        let count = processes.lines().count();
        if count > 0 {
            info!(count, cgroup = %entry.path().display(), "ending what an earlier run left");
        }
        let _ = kill(&entry.path());
        remove(&entry.path());
    }
    Ok(())
}

/// Moves the processes that are in the place itself, which are this server and what started it,
/// into a cgroup below.
fn leave_place(place: &Path) -> io::Result<()> {
    let processes = fs::read_to_string(place.join("cgroup.procs"))?;
    let own = std::process::id().to_string();
    if !processes.lines().any(|pid| pid == own) {
        return Ok(());
    }
    let folder = place.join(OWN);
    match fs::create_dir(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for pid in processes.lines() {
        match fs::write(folder.join("cgroup.procs"), pid) {
            Err(error) if pid == own => return Err(error),
            // Gone, or not ours to move; if it stays, the controllers say so.
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_found_among_mounts_of_both_versions() {
        let mounts = "\
            30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
            31 25 0:27 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let cgroups = "4:memory:/elsewhere\n0::/system.slice/phoebe-server.service\n";
        let own = "/sys/fs/cgroup/unified/system.slice/phoebe-server.service";
        assert_eq!(own_folder(mounts, cgroups), Some(own.into()));
        let part = "31 25 0:27 /system.slice /cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(own_folder(part, cgroups), Some("/cgroup/phoebe-server.service".into()));
        let other = "31 25 0:27 /user.slice /cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(own_folder(other, cgroups), None);
        assert_eq!(own_folder(mounts, "4:memory:/\n"), None);
        assert_eq!(own_folder("", cgroups), None);
    }

    #[test]
    fn the_memory_limit_of_a_session_is_that_of_two_processes() {
        assert_eq!(Bounds::of(1024, 66), Bounds { memory_mb: Some(2048), processes: 66 });
        assert_eq!(Bounds::of(0, 66).memory_mb, None);
        assert_eq!(Bounds::of(u64::MAX, 66).memory_mb, None);
    }

    /// A folder with the files that this reads of a cgroup.
    fn cgroup(controllers: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("cgroup.controllers", controllers),
            ("cgroup.procs", ""),
            ("cgroup.subtree_control", ""),
        ] {
            fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    #[test]
    fn a_place_offers_the_controllers_that_it_lists_and_off_is_none() {
        let folder = cgroup("cpu memory\n");
        let place = Place::find(folder.path().to_str().unwrap()).unwrap().unwrap();
        assert!(place.memory && !place.processes);
        assert_eq!(Place::find("off").unwrap(), None);
        let error = Place::find("/nowhere").unwrap_err().to_string();
        assert!(error.contains("[worker] cgroup: /nowhere"), "{error}");
    }

    #[test]
    fn a_worker_gets_its_bounds_before_its_process_comes() {
        let folder = cgroup("memory pids\n");
        let path = folder.path().to_str().unwrap();
        let cgroups = Cgroups::open(path, "i", Bounds::of(512, 66)).unwrap().unwrap();
        // The kernel would add to the list what is written.
        let shared = Shared {
            place: Place { memory: true, processes: true, ..cgroups.place().clone() },
            bounds: cgroups.0.bounds,
            prefix: cgroups.0.prefix.clone(),
            made: AtomicU64::new(7),
            removals: TaskTracker::new(),
        };
        let cgroup = Cgroups(Arc::new(shared)).enclose(123).unwrap();
        let read = |name: &str| fs::read_to_string(cgroup.folder.join(name)).unwrap();
        assert_eq!(cgroup.folder, folder.path().join("phoebe-i-7"));
        assert_eq!(read("memory.max"), (1u64 << 30).to_string());
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("pids.max"), "66");
        assert_eq!(read("cgroup.procs"), "123");
    }

    #[test]
    fn only_what_this_data_directory_left_is_removed() {
        let folder = cgroup("");
        for name in ["phoebe-a-0", "phoebe-a-12", "phoebe-b-0", "server"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let path = folder.path().to_str().unwrap();
        Cgroups::open(path, "a", Bounds::of(0, 66)).unwrap().unwrap();
        let left = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut left: Vec<_> =
            left.filter(|name| !name.to_string_lossy().contains("cgroup.")).collect();
        left.sort();
        assert_eq!(left, ["phoebe-b-0", "server"]);
    }
}
