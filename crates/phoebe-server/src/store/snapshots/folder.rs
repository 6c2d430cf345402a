//! A session's folder: its record, snapshots and journal.
//!
//! A session's states are numbered in steps: 0 is the initial Bundle, and each change makes the
//! next step. Not every step has a snapshot; undo goes from one with a snapshot to the one before.
//! The current step is the head.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use super::file::{
    self, Format, Header, Snapshot, SnapshotError, SnapshotFile, Versions, write_atomically,
};
use super::journal::{Interrupted, Journal, Origin, Step};
use super::names::{HEAD, JOURNAL, PORTABLE, RECORD, head_step, snapshot_step};
use super::usage::DiskUsage;
use crate::store::data_directory::{create_private_folder_in_place, names_in};

/// How snapshots are stored.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Whether a snapshot is flushed to disk before its command is answered.
    pub fsync: bool,
    /// The number of changes that can be undone.
    pub history: usize,
}

/// The stored record of a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionRecord {
    /// UUID v4.
    pub session_id: String,
    /// Unix seconds.
    pub created_at: f64,
    /// Unix seconds.
    pub last_activity: f64,
    /// The owner's id, if there is an owner.
    pub user_id: Option<String>,
    /// The owner's name.
    pub full_name: Option<String>,
    /// The name of the user's project.
    pub project_name: Option<String>,
    /// Entered by the user.
    pub first_name: Option<String>,
    /// Entered by the user.
    pub last_name: Option<String>,
    /// Entered by the user.
    pub email: Option<String>,
    /// Other metadata given at the start.
    pub metadata: BTreeMap<String, serde_json::Value>,
}

/// A change of the Bundle.
#[derive(Debug, Clone)]
pub struct Change {
    /// Unix seconds.
    pub at: f64,
    /// Whether the command succeeded.
    pub success: bool,
    /// The kind of change.
    pub changed: ChangeKind,
    /// The step whose state was restored, if it is not the one before.
    pub parent: Option<u64>,
    /// The job that made the change.
    pub job: Option<String>,
}

impl Change {
    /// A command that changed the Bundle.
    #[must_use]
    pub fn command(at: f64, success: bool, command: Bytes) -> Self {
        Self {
            at,
            success,
            changed: ChangeKind::Command { command, parameter: None },
            parent: None,
            job: None,
        }
    }
}

/// What changed the Bundle.
#[derive(Debug, Clone)]
pub enum ChangeKind {
    /// A command.
    Command {
        /// The command as the user sent it.
        command: Bytes,
        /// The tags of the parameter that the command names by its unique id.
        parameter: Option<serde_json::Map<String, serde_json::Value>>,
    },
    /// The state of the parent was restored.
    Returned,
    /// An imported Bundle replaced it.
    Replaced(Imported),
}

/// An imported Bundle.
#[derive(Debug, Clone)]
pub struct Imported {
    /// Its origin.
    pub origin: Origin,
    /// The version of PHOEBE that has read it.
    pub phoebe: String,
    /// The Bundle for scripts, or the reason why there is none.
    pub bytes: Result<Bytes, String>,
}

/// An encoded Bundle.
#[derive(Debug, Clone, PartialEq)]
pub struct Payload {
    /// The encoding.
    pub format: Format,
    /// The versions that wrote it.
    pub versions: Versions,
    /// The bytes.
    pub bytes: Bytes,
}

/// The result of a recovery.
#[derive(Debug)]
pub struct Recovered {
    /// The recovered state in all its valid forms, best first. Empty if nothing was stored.
    pub forms: Vec<Snapshot>,
    /// Why an earlier state was used, for the user.
    pub notice: Option<String>,
}

/// A session's folder.
#[derive(Debug)]
pub struct SessionFolder {
    path: PathBuf,
    id: String,
    rules: Rules,
    journal: Journal,
    /// The head and the last step, once known.
    steps: Option<Steps>,
    usage: Arc<DiskUsage>,
}

#[derive(Debug, Clone, Copy)]
struct Steps {
    head: u64,
    last: u64,
}

impl SessionFolder {
    pub(super) fn new(path: PathBuf, id: &str, rules: Rules) -> Self {
        let journal = Journal::new(path.join(JOURNAL));
        let usage = Arc::default();
        Self { path, id: id.to_owned(), rules, journal, steps: None, usage }
    }

    /// Counts its files in `usage`.
    #[must_use]
    pub fn counted_in(self, usage: Arc<DiskUsage>) -> Self {
        Self { usage, ..self }
    }

    /// Returns the disk usage.
    #[must_use]
    pub fn usage(&self) -> &DiskUsage {
        &self.usage
    }

    /// Measures the disk usage again.
    pub fn measure(&self) {
        self.usage.measure(&self.path);
    }

    /// Returns the journal's path.
    #[must_use]
    pub fn journal_path(&self) -> &Path {
        self.journal.path()
    }

    /// Returns the folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the session's record.
    ///
    /// # Errors
    /// If the record is missing or damaged.
    pub fn record(&self) -> io::Result<SessionRecord> {
        let record: SessionRecord = serde_json::from_slice(&fs::read(self.path.join(RECORD))?)?;
        if record.session_id == self.id {
            Ok(record)
        } else {
            Err(io::Error::other("its record has the id of another session"))
        }
    }

    /// Writes the session's record, and creates the folder if needed.
    ///
    /// # Errors
    /// Then the earlier record stays.
    pub fn write_record(&self, record: &SessionRecord) -> io::Result<()> {
        create_private_folder_in_place(&self.path)?;
        let text = serde_json::to_vec_pretty(record)?;
        self.write_text(&self.path.join(RECORD), &text)
    }

    /// Returns the time of the last change of the journal, in Unix seconds.
    #[must_use]
    pub fn last_change(&self) -> Option<f64> {
        let modified = fs::metadata(self.path.join(JOURNAL)).and_then(|file| file.modified());
        let since = modified.ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(since.as_secs_f64())
    }

    /// Stores the initial Bundle as hard links to the templates, which sessions share.
    ///
    /// # Errors
    /// `NotFound` if a template is missing.
    pub fn link_templates(&self, exact: &Path, portable: &Path) -> io::Result<()> {
        create_private_folder_in_place(&self.path)?;
        for (from, to) in [(exact, self.snapshot_path(0)), (portable, self.path.join(PORTABLE))] {
            link(from, &to)?;
            self.usage.note(&to);
        }
        Ok(())
    }

    /// Writes to the journal that a command goes to the worker.
    ///
    /// # Errors
    /// If the write fails; it is repeated later.
    pub fn begin(&mut self, command: &str, at: f64) -> io::Result<()> {
        let written = self.journal.begin(command, at);
        self.counted(written)
    }

    /// Writes to the journal that a command has ended without a change.
    ///
    /// # Errors
    /// If the write fails; it is repeated later.
    pub fn end(&mut self, command: &str, at: f64) -> io::Result<()> {
        let written = self.journal.end(command, at);
        self.counted(written)
    }

    /// Writes a change to the journal, and the Bundle after it if there is a payload. The change
    /// becomes the head, and undone changes are discarded. Without a payload, the next
    /// [`Self::save`] stores the Bundle.
    ///
    /// # Errors
    /// Then the head on disk is unchanged; [`Self::save`] tries again.
    pub fn commit(&mut self, change: Change, payload: Option<&Payload>) -> io::Result<u64> {
        let steps = self.steps()?;
        let step = steps.last + 1;
        self.steps = Some(Steps { head: step, last: step });
        let Change { at, success, changed, parent, job } = change;
        let is_import = matches!(changed, ChangeKind::Replaced(_));
        let parent = parent.unwrap_or(steps.head);
        let action = self.action(changed);
        let written = self.journal.step(Step { step, parent, at, success, action, job });
        let written = self.counted(written);
        if let Some(payload) = payload {
            self.write_step(step, steps.head, payload, at)?;
        }
        if is_import {
            self.remove_unused_bases();
        }
        written.map(|()| step)
    }

    /// Returns the step of the head.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn head(&mut self) -> io::Result<u64> {
        Ok(self.steps()?.head)
    }

    /// Stores the Bundle of the head.
    ///
    /// # Errors
    /// Then the head on disk is unchanged.
    pub fn save(&mut self, payload: &Payload, at: f64) -> io::Result<()> {
        let step = self.steps()?.head;
        let before = self.head_among(&self.numbers()?).unwrap_or(step);
        let flushed = self.journal.flush();
        self.counted(flushed)?;
        self.write_step(step, before, payload, at)
    }

    fn write_step(
        &self,
        step: u64,
        before: u64,
        payload: &Payload,
        taken_at: f64,
    ) -> io::Result<()> {
        create_private_folder_in_place(&self.path)?;
        let numbers = self.numbers()?;
        let snapshot = payload.snapshot(step, taken_at);
        self.write_snapshot(&self.snapshot_path(step), &snapshot)?;
        self.remove_file(&self.path.join(HEAD))?;
        // Removes the undone snapshots, then the oldest ones beyond the undo depth.
        let (kept, undone): (Vec<u64>, Vec<u64>) =
            numbers.iter().filter(|other| **other != step).partition(|other| **other <= before);
        let excess = kept.len().saturating_sub(self.rules.history.max(1));
        for old in undone.iter().chain(&kept[..excess]) {
            if let Err(error) = self.remove_file(&self.snapshot_path(*old)) {
                warn!(session = self.id, step = old, %error, "an old snapshot stays on disk");
            }
        }
        Ok(())
    }

    /// Stores the portable copy of the Bundle.
    ///
    /// # Errors
    /// Then the earlier portable copy stays.
    pub fn save_portable(&mut self, payload: &Payload, at: f64) -> io::Result<()> {
        let snapshot = payload.snapshot(self.steps()?.head, at);
        self.write_snapshot(&self.path.join(PORTABLE), &snapshot)
    }

    fn portable(&self) -> Result<Snapshot, SnapshotError> {
        file::read(&self.path.join(PORTABLE))
    }

    /// Reads the state of the head in all its valid forms: the exact form first if `versions` can
    /// load it, else the portable one. If the head has no valid form, reads the newest state before
    /// it.
    ///
    /// # Errors
    /// If no snapshot is valid, or the folder cannot be read.
    pub fn recover(&mut self, versions: &Versions) -> Result<Recovered, SnapshotError> {
        let mut recovered = self.whole_forms()?;
        sort_by_preference(&mut recovered.forms, versions);
        Ok(recovered)
    }

    /// The same, with the exact form first if it is valid.
    fn whole_forms(&mut self) -> Result<Recovered, SnapshotError> {
        let numbers = self.numbers()?;
        let Some(head) = self.head_among(&numbers) else {
            return Ok(Recovered { forms: Vec::new(), notice: None });
        };
        let portable = self.portable();
        let mut damaged = Vec::new();
        for step in numbers.into_iter().rev().filter(|step| *step <= head) {
            let mut forms = Vec::new();
            match file::read(&self.snapshot_path(step)) {
                Ok(snapshot) => forms.push(snapshot),
                Err(problem) => {
                    error!(session = self.id, step, %problem, "a snapshot is damaged");
                    damaged.push(format!("snapshot {step}: {problem}"));
                }
            }
            forms.extend(portable.as_ref().ok().filter(|copy| copy.header.step == step).cloned());
            if forms.is_empty() {
                continue;
            }
            let notice = (step != head).then(|| {
                let damaged = damaged.join("; ");
                format!(
                    "The last change is lost: it could not be read from disk ({damaged}). The \
                     state before it is used."
                )
            });
            let last = self.steps().map_or(head, |steps| steps.last);
            self.steps = Some(Steps { head: step, last });
            return Ok(Recovered { forms, notice });
        }
        Err(SnapshotError::NoneWhole(damaged.join("; ")))
    }

    /// Reads the snapshot before the head, for undo. `None` if there is none.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn before(&mut self) -> Result<Option<Snapshot>, SnapshotError> {
        let head = self.steps()?.head;
        let before = self.numbers()?.into_iter().rev().find(|step| *step < head);
        before.map(|step| file::read(&self.snapshot_path(step))).transpose()
    }

    /// Reads the snapshot after the head, for redo. `None` if there is none.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn after(&mut self) -> Result<Option<Snapshot>, SnapshotError> {
        let head = self.steps()?.head;
        let after = self.numbers()?.into_iter().find(|step| *step > head);
        after.map(|step| file::read(&self.snapshot_path(step))).transpose()
    }

    /// Returns how many changes can be undone and redone.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn history(&mut self) -> io::Result<(usize, usize)> {
        let head = self.steps()?.head;
        let numbers = self.numbers()?;
        let before = numbers.iter().filter(|step| **step < head).count();
        Ok((before, numbers.iter().filter(|step| **step > head).count()))
    }

    /// Makes `step` the head.
    ///
    /// # Errors
    /// Then nothing has changed.
    pub fn set_head(&mut self, step: u64) -> io::Result<()> {
        let steps = self.steps()?;
        let text = step.to_string();
        self.write_text(&self.path.join(HEAD), text.as_bytes())?;
        self.steps = Some(Steps { head: step, last: steps.last });
        Ok(())
    }

    /// Returns the command that ran when the server ended.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub fn interrupted(&self) -> io::Result<Option<Interrupted>> {
        self.journal.interrupted()
    }

    /// Copies the head's state, or a checkpoint's, and its lineage into `other`, which must be new.
    /// Returns false if the checkpoint does not exist. Checkpoints and undone changes are not
    /// copied.
    ///
    /// # Errors
    /// Then `other` may be incomplete.
    pub fn copy_to(&mut self, other: &mut Self, checkpoint: Option<&str>) -> io::Result<bool> {
        create_private_folder_in_place(&other.path)?;
        let forms = match checkpoint {
            Some(id) => self.checkpoint_forms(id),
            None => self.whole_forms().map(|recovered| recovered.forms),
        };
        let mut forms = forms.map_err(io::Error::other)?;
        for form in &mut forms {
            (form.header.name, form.header.note) = (None, None);
        }
        let Some(first) = forms.first() else { return Ok(checkpoint.is_none()) };
        let step = first.header.step;
        other.write_snapshot(&other.snapshot_path(step), first)?;
        if let Some(portable) = forms.get(1) {
            other.write_snapshot(&other.path.join(PORTABLE), portable)?;
        }
        self.copy_lineage(step, other)?;
        Ok(true)
    }

    /// Reads the snapshot of the head in one form.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn raw(&mut self, format: Format) -> Result<Snapshot, SnapshotError> {
        match format {
            Format::Portable => self.portable(),
            Format::Pickle => {
                let head = self.head_among(&self.numbers()?).unwrap_or(0);
                file::read(&self.snapshot_path(head))
            }
        }
    }

    /// Opens the snapshot of the head in one form.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn raw_on_disk(&mut self, format: Format) -> Result<SnapshotFile, SnapshotError> {
        match format {
            Format::Portable => file::open(&self.path.join(PORTABLE)),
            Format::Pickle => {
                let head = self.head_among(&self.numbers()?).unwrap_or(0);
                file::open(&self.snapshot_path(head))
            }
        }
    }

    /// Removes the session's folder.
    ///
    /// # Errors
    /// Then files may remain, but not the record, so that the session is not found again.
    pub fn remove(&self) -> io::Result<()> {
        remove_if_there(&self.path.join(RECORD))?;
        let removed = fs::remove_dir_all(&self.path);
        self.measure();
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn steps(&mut self) -> io::Result<Steps> {
        if let Some(steps) = self.steps {
            return Ok(steps);
        }
        let numbers = self.numbers()?;
        let head = self.head_among(&numbers).unwrap_or(0);
        let last = numbers.last().copied().unwrap_or(0).max(self.journal.last_step()?);
        let steps = Steps { head, last };
        self.steps = Some(steps);
        Ok(steps)
    }

    /// Returns the head on disk.
    fn head_among(&self, numbers: &[u64]) -> Option<u64> {
        head_step(fs::read(self.path.join(HEAD)).ok().as_deref(), numbers)
    }

    /// Returns the steps that have a snapshot, ascending.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let names = names_in(&self.path)?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| snapshot_step(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn write_snapshot(&self, path: &Path, snapshot: &Snapshot) -> io::Result<()> {
        let written = file::write(path, snapshot, self.rules.fsync);
        self.usage.note(path);
        written
    }

    fn write_text(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        let written = write_atomically(path, &[text], self.rules.fsync);
        self.usage.note(path);
        written
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let removed = remove_if_there(path);
        self.usage.note(path);
        removed
    }

    /// Counts the journal's size after a write.
    fn counted<T>(&self, outcome: T) -> T {
        self.usage.note(self.journal.path());
        outcome
    }

    fn snapshot_path(&self, step: u64) -> PathBuf {
        self.path.join(format!("{step}.snapshot"))
    }
}

impl Payload {
    fn snapshot(&self, step: u64, taken_at: f64) -> Snapshot {
        let versions = self.versions.clone();
        let header =
            Header { format: self.format, step, taken_at, versions, name: None, note: None };
        Snapshot { header, payload: self.bytes.clone() }
    }
}

impl From<Snapshot> for Payload {
    fn from(snapshot: Snapshot) -> Self {
        let Header { format, versions, .. } = snapshot.header;
        Self { format, versions, bytes: snapshot.payload }
    }
}

fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // The file system has no hard links.
        Err(error) if error.kind() != io::ErrorKind::NotFound => fs::copy(from, to).map(drop),
        linked => linked,
    }
}

/// Sorts the forms of a state: the exact one first if `versions` can load it, else the portable
/// one.
fn sort_by_preference(forms: &mut [Snapshot], versions: &Versions) {
    forms.sort_by_key(|form| {
        form.header.format == Format::Pickle && !form.header.versions.work_in(versions)
    });
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) mod bases;
pub(super) mod checkpoints;
mod results;
mod shares;
#[cfg(test)]
mod tests;
