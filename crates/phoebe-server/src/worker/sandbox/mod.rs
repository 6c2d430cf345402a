//! What workers are told to shut themselves in with: the plan of the sandbox, made once at the
//! server's start.
//!
//! A Bundle can run code, so a worker is hostile by assumption. It applies the plan to itself,
//! after its fork and before it reads a byte of a user's (`worker/phoebe_worker/sandbox.py`);
//! nothing here is in force for the server. `docs/threat-model.md` says what holds whom.

mod account;
mod arguments;
mod calls;
mod deleted_files;
mod kernel;
mod limits;
mod monitor;
mod scratch;

use std::io;
use std::path::{Path, PathBuf};

use phoebe_protocol::packet::{Account, Info, Limits, RootFolder, Sandbox, SandboxLevel};
use thiserror::Error;
use tracing::{info, warn};

pub use account::AccountError;
pub use kernel::{Counting, Part, missing};
pub(in crate::worker) use limits::most_processes;
pub(super) use monitor::UsageMonitor;
pub(super) use scratch::Scratch;

use limits::{OPEN_FILES, SCRATCH_MB};
use scratch::ScratchSpace;

use crate::config;

/// What any program needs: libraries, the time zone, random numbers. The interpreter's own folders
/// the worker knows itself.
const READABLE: [&str; 9] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share/zoneinfo",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/urandom",
];

/// Why workers cannot be contained as the settings ask.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The kernel lacks parts.
    #[error(
        "this kernel cannot contain workers as [worker] sandbox = \"enforce\" asks: {} missing. \
         Use Linux 6.12 or newer with Landlock switched on (`lsm=landlock,…`) and a container \
         runtime that lets it through; or, if you trust everybody who may have a session with this \
         account, set sandbox = \"best-effort\" or \"off\"",
        needs(.0)
    )]
    Missing(Vec<Part>),
    /// The account that workers change to.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The folder of scratch directories.
    #[error("{}: {error}. Workers need it for their scratch directories", .folder.display())]
    Scratch {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// This processor.
    #[error("there are no seccomp filters for this processor: {0}; set [worker] sandbox = \"off\"")]
    Processor(#[from] seccompiler::BackendError),
}

fn needs(parts: &[Part]) -> String {
    let parts: Vec<&str> = parts.iter().map(|part| part.needs()).collect();
    format!("{} {}", parts.join(", "), if parts.len() == 1 { "is" } else { "are" })
}

/// How workers are contained.
#[derive(Debug)]
pub struct Containment {
    level: SandboxLevel,
    filters: Vec<String>,
    scratch: ScratchSpace,
    account: Option<Account>,
}

impl Containment {
    /// The plan that the settings ask for; `None` where they ask for none. `run` is the data
    /// directory's folder for what is running.
    ///
    /// # Errors
    /// What keeps workers from being contained so.
    pub fn plan(
        settings: &config::WorkerSettings,
        run: &Path,
        instance: &str,
    ) -> Result<Option<Self>, SandboxError> {
        // Another account cannot pass through the data directory.
        let folder = match settings.user.is_empty() {
            true => run.join("scratch"),
            false => std::env::temp_dir().join(format!("phoebe-server-{instance}")),
        };
        Self::plan_in(settings, &folder)
    }

    /// The same plan with scratch directories in `folder`, which is made or emptied.
    ///
    /// # Errors
    /// What keeps workers from being contained so.
    pub(super) fn plan_in(
        settings: &config::WorkerSettings,
        folder: &Path,
    ) -> Result<Option<Self>, SandboxError> {
        let missing = missing();
        let level = match settings.sandbox {
            config::Sandbox::Off => return Ok(None),
            config::Sandbox::BestEffort => SandboxLevel::BestEffort,
            config::Sandbox::Enforce if missing.is_empty() => SandboxLevel::Enforce,
            config::Sandbox::Enforce => return Err(SandboxError::Missing(missing)),
        };
        let account = account::find(&settings.user)?;
        let scratch = ScratchSpace::open(folder)
            .map_err(|error| SandboxError::Scratch { folder: folder.to_owned(), error })?;
        Ok(Some(Self { level, filters: calls::programs()?, scratch, account }))
    }

    /// What one worker is told, and its scratch directory.
    pub(super) fn for_worker(&self) -> io::Result<(Sandbox, Scratch)> {
        let scratch = self.scratch.make(self.account)?;
        let sandbox = Sandbox {
            level: self.level,
            filters: self.filters.clone(),
            readable: readable(),
            scratch: scratch.path().to_string_lossy().into_owned(),
            account: self.account,
        };
        Ok((sandbox, scratch))
    }

    /// What all workers find in their root folder.
    #[must_use]
    pub fn root_folder(&self) -> RootFolder {
        root_folder(self.scratch.folder())
    }

    /// Bounds of one worker, besides its memory.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            memory_mb: None,
            file_mb: Some(SCRATCH_MB),
            open_files: Some(OPEN_FILES),
            processes: Some(most_processes()),
        }
    }
}

/// The root folder of workers whose scratch directories are in `scratch`.
pub(crate) fn root_folder(scratch: &Path) -> RootFolder {
    RootFolder { readable: readable(), scratch: scratch.to_string_lossy().into_owned() }
}

fn readable() -> Vec<String> {
    READABLE.map(str::to_owned).into()
}

/// Whether the kernel counts the processes of each worker by itself, for the account to which
/// workers change.
#[must_use]
pub fn counting(settings: &config::WorkerSettings) -> Counting {
    // An account that is not there is told where it is needed.
    kernel::counting(account::find(&settings.user).unwrap_or_default())
}

/// Says in the log what holds workers, and what does not.
pub fn announce(containment: Option<&Containment>) {
    let Some(containment) = containment else {
        return warn!(
            "workers are not contained ([worker] sandbox = \"off\"): whoever has a \
             session can do what this account can"
        );
    };
    let missing = missing();
    let names = |parts: &mut dyn Iterator<Item = Part>| {
        parts.map(Part::name).collect::<Vec<_>>().join(", ")
    };
    let contained = names(&mut Part::ALL.into_iter().filter(|part| !missing.contains(part)));
    let uid = containment.account.map(|account| account.uid);
    match missing.is_empty() {
        true => info!(contained, uid, "workers are contained by the kernel"),
        false => warn!(
            contained,
            missing = names(&mut missing.iter().copied()),
            uid,
            "workers are contained in part only: give sessions to people you trust"
        ),
    }
}

/// Says in the log, where a look at Python found it, that the metadata of files is not contained.
pub(super) fn announce_metadata(info: &Info) {
    if let Some(reason) = &info.metadata_problem {
        warn!(
            reason,
            "workers can see the metadata of files that they cannot read (size, owner, times), and \
             which processes there are; `phoebe-server doctor` says what to do"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_what_is_missing_and_the_way_out() {
        let text = SandboxError::Missing(vec![Part::Signals, Part::Calls]).to_string();
        assert!(text.contains("Linux 6.12 for signals, seccomp filters"), "{text}");
        assert!(text.contains("are missing") && text.contains("best-effort"), "{text}");
    }

    #[test]
    fn every_worker_has_a_scratch_directory_of_its_own() {
        let run = tempfile::tempdir().unwrap();
        let settings = config::WorkerSettings {
            sandbox: config::Sandbox::BestEffort,
            ..config::WorkerSettings::default()
        };
        let plan = Containment::plan(&settings, run.path(), "instance").unwrap().unwrap();
        let (first, first_scratch) = plan.for_worker().unwrap();
        let (second, _second_scratch) = plan.for_worker().unwrap();
        assert_ne!(first.scratch, second.scratch);
        assert!(Path::new(&first.scratch).is_dir());
        drop(first_scratch);
        assert!(!Path::new(&first.scratch).exists());
        assert!(Path::new(&second.scratch).is_dir());
    }

    #[test]
    fn no_plan_is_made_where_the_sandbox_is_off() {
        let run = tempfile::tempdir().unwrap();
        let settings = config::WorkerSettings {
            sandbox: config::Sandbox::Off,
            ..config::WorkerSettings::default()
        };
        assert!(Containment::plan(&settings, run.path(), "instance").unwrap().is_none());
    }
}
