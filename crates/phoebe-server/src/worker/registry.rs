//! Where every process of ours is entered as long as it lives: with a record on disk, by which the
//! next start knows it, and with a cgroup where the system lets the server make some.

use std::io;

use super::cgroup::{Cgroup, Cgroups};
use super::orphans::{Record, Records};
use super::process::Process;

/// The records and cgroups of a server's processes.
#[derive(Debug, Clone)]
pub struct Registry {
    records: Records,
    cgroups: Option<Cgroups>,
}

/// The entry of a living worker. Dropped, it ends what is in the worker's cgroup and removes the
/// record.
#[derive(Debug)]
pub(super) struct Entry {
    _cgroup: Option<Cgroup>,
    _record: Record,
}

impl Registry {
    /// A registry of records, and of cgroups where there are some.
    #[must_use]
    pub fn new(records: Records, cgroups: Option<Cgroups>) -> Self {
        Self { records, cgroups }
    }

    /// Enters a process that runs nothing of a user's.
    pub(super) fn record(&self, process: &Process) -> io::Result<Record> {
        self.records.add(process)
    }

    /// Enters the process of a worker that runs nothing of a user's yet.
    pub(super) async fn enter(&self, process: &Process) -> io::Result<Entry> {
        let _record = self.records.add(process)?;
        let pid = process.pid();
        let _cgroup = match self.cgroups.clone() {
            None => None,
            Some(cgroups) => {
                let enclosed = tokio::task::spawn_blocking(move || cgroups.enclose(pid)).await;
                Some(enclosed.map_err(io::Error::other)??)
            }
        };
        Ok(Entry { _cgroup, _record })
    }

    /// Waits until nothing is left of the workers that have ended.
    pub(super) async fn is_empty(&self) {
        if let Some(cgroups) = &self.cgroups {
            cgroups.removed().await;
        }
    }
}
