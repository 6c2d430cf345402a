//! One session's folder: its snapshots, which of them counts, its journal, and what is known of the session.
//!
//! A session's state is counted in steps: 0 is the Bundle it began with, each change makes the next. Not every step needs a
//! snapshot; undoing goes from one that has one to another.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use super::file::{
    self, Format, Header, OnDisk, Snapshot, SnapshotError, Versions, write_atomically,
};
use super::journal::{Interrupted, Journal, Origin, Step};
use super::names::{HEAD, JOURNAL, PORTABLE, RECORD, head_step, snapshot_step};
use super::usage::DiskUse;
use crate::store::data_directory::{create_private_folder_in_place, names_in};

/// How snapshots are kept.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Whether a snapshot must have reached the disk, not just the kernel, before a command is acknowledged.
    pub fsync: bool,
    /// How many changes can be undone.
    pub history: usize,
}

/// What must be known of a session to show it and to give it back to its owner.
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
    /// What the user told of themself.
    pub first_name: Option<String>,
    /// What the user told of themself.
    pub last_name: Option<String>,
    /// What the user told of themself.
    pub email: Option<String>,
    /// Other metadata given at the start.
    pub metadata: BTreeMap<String, serde_json::Value>,
}

/// A change of the Bundle that is to be kept.
#[derive(Debug, Clone)]
pub struct Change {
    /// Unix seconds.
    pub at: f64,
    /// Whether the command succeeded.
    pub success: bool,
    /// What changed the Bundle.
    pub changed: Changed,
    /// The step whose state was brought back, if that is not the one before.
    pub parent: Option<u64>,
}

impl Change {
    /// A command that changed the Bundle.
    #[must_use]
    pub fn command(at: f64, success: bool, command: Bytes) -> Self {
        Self { at, success, changed: Changed::Command { command, parameter: None }, parent: None }
    }
}

/// What changed the Bundle.
#[derive(Debug, Clone)]
pub enum Changed {
    /// A command.
    Command {
        /// As its user sent it.
        command: Bytes,
        /// The tags of the parameter that it names by its unique id.
        parameter: Option<serde_json::Map<String, serde_json::Value>>,
    },
    /// The state of the parent was brought back.
    Returned,
    /// A Bundle from outside took its place.
    Replaced(Imported),
}

/// A Bundle from outside.
#[derive(Debug, Clone)]
pub struct Imported {
    /// Where it came from.
    pub origin: Origin,
    /// The version of PHOEBE that it is of now.
    pub phoebe: String,
    /// What a script can begin with, or why there is nothing.
    pub bytes: Result<Bytes, String>,
}

/// A Bundle as bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Payload {
    /// How they are written down.
    pub format: Format,
    /// What wrote them.
    pub versions: Versions,
    /// The bytes.
    pub bytes: Bytes,
}

/// What could be brought back.
#[derive(Debug)]
pub struct Recovered {
    /// The state that counts, in the forms there are, the best first. Empty if nothing was ever kept.
    pub forms: Vec<Snapshot>,
    /// What had to be passed over, and why, in words for the user.
    pub notice: Option<String>,
}

/// One session's folder.
#[derive(Debug)]
pub struct SessionFolder {
    path: PathBuf,
    id: String,
    rules: Rules,
    journal: Journal,
    /// The step that counts and the last that there was, once they are known.
    steps: Option<Steps>,
    usage: Arc<DiskUse>,
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

    /// Counts what it takes in `usage`.
    #[must_use]
    pub fn counted_in(self, usage: Arc<DiskUse>) -> Self {
        Self { usage, ..self }
    }

    /// What it takes, as far as it was written or measured by this.
    #[must_use]
    pub fn usage(&self) -> &DiskUse {
        &self.usage
    }

    /// Counts all files anew.
    pub fn measure(&self) {
        self.usage.measure(&self.path);
    }

    /// Where its journal is.
    #[must_use]
    pub fn journal_path(&self) -> &Path {
        self.journal.path()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is known of the session.
    ///
    /// # Errors
    /// When it is not kept, or its record is damaged.
    pub fn record(&self) -> io::Result<SessionRecord> {
        let record: SessionRecord = serde_json::from_slice(&fs::read(self.path.join(RECORD))?)?;
        if record.session_id == self.id {
            Ok(record)
        } else {
            Err(io::Error::other("its record speaks of another session"))
        }
    }

    /// Keeps what is known of the session, and makes its folder if there is none.
    ///
    /// # Errors
    /// Then what was kept before stays.
    pub fn write_record(&self, record: &SessionRecord) -> io::Result<()> {
        create_private_folder_in_place(&self.path)?;
        let text = serde_json::to_vec_pretty(record)?;
        self.write_text(&self.path.join(RECORD), &text)
    }

    /// Unix seconds of the last sign of life that the files give.
    #[must_use]
    pub fn last_change(&self) -> Option<f64> {
        let modified = fs::metadata(self.path.join(JOURNAL)).and_then(|file| file.modified());
        let since = modified.ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(since.as_secs_f64())
    }

    /// Keeps the Bundle that the session began with, as links to the forms of it that all sessions of its worker's origin share.
    ///
    /// # Errors
    /// `NotFound` if one of them is missing.
    pub fn begin_with(&self, exact: &Path, portable: &Path) -> io::Result<()> {
        create_private_folder_in_place(&self.path)?;
        for (from, to) in [(exact, self.snapshot_path(0)), (portable, self.path.join(PORTABLE))] {
            link(from, &to)?;
            self.usage.note(&to);
        }
        Ok(())
    }

    /// Notes that a command goes to the worker.
    ///
    /// # Errors
    /// When it cannot be noted now; it is noted later.
    pub fn begin(&mut self, command: &str, at: f64) -> io::Result<()> {
        let noted = self.journal.begin(command, at);
        self.counted(noted)
    }

    /// Notes that a command is over and changed nothing.
    ///
    /// # Errors
    /// When it cannot be noted now; it is noted later.
    pub fn end(&mut self, command: &str, at: f64) -> io::Result<()> {
        let noted = self.journal.end(command, at);
        self.counted(noted)
    }

    /// Notes a change, and keeps the Bundle after it if there is a payload: it counts from now on, and what was undone before
    /// is forgotten. Without a payload the change is kept with the next [`Self::save`].
    ///
    /// # Errors
    /// Then what counted on disk before still counts there; [`Self::save`] tries again.
    pub fn commit(&mut self, change: Change, payload: Option<&Payload>) -> io::Result<u64> {
        let steps = self.steps()?;
        let step = steps.last + 1;
        self.steps = Some(Steps { head: step, last: step });
        let Change { at, success, changed, parent } = change;
        let begins = matches!(changed, Changed::Replaced(_));
        let parent = parent.unwrap_or(steps.head);
        let act = self.act(changed);
        let noted = self.journal.step(Step { step, parent, at, success, act });
        let noted = self.counted(noted);
        if let Some(payload) = payload {
            self.write_step(step, steps.head, payload, at)?;
        }
        if begins {
            self.remove_unused_bases();
        }
        noted.map(|()| step)
    }

    /// Keeps the Bundle as it is after the last change.
    ///
    /// # Errors
    /// Then what counted on disk before still counts there.
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
        // Undone ones first; then the oldest, but for so many as can be undone.
        let (kept, undone): (Vec<u64>, Vec<u64>) =
            numbers.iter().filter(|other| **other != step).partition(|other| **other <= before);
        let excess = kept.len().saturating_sub(self.rules.history.max(1));
        for old in undone.iter().chain(&kept[..excess]) {
            if let Err(error) = self.remove_file(&self.snapshot_path(*old)) {
                warn!(session = self.id, step = old, %error, "an old snapshot stays");
            }
        }
        Ok(())
    }

    /// Keeps the Bundle in the form that survives an upgrade.
    ///
    /// # Errors
    /// Then the portable copy that was kept before stays.
    pub fn save_portable(&mut self, payload: &Payload, at: f64) -> io::Result<()> {
        let snapshot = payload.snapshot(self.steps()?.head, at);
        self.write_snapshot(&self.path.join(PORTABLE), &snapshot)
    }

    fn portable(&self) -> Result<Snapshot, SnapshotError> {
        file::read(&self.path.join(PORTABLE))
    }

    /// The state that counts, in all forms that are whole: the exact one first where `versions` wrote it, else the portable
    /// one. If no form of it is whole, the newest state before it.
    ///
    /// # Errors
    /// When there are snapshots and none of them is whole, or the folder cannot be read.
    pub fn recover(&mut self, versions: &Versions) -> Result<Recovered, SnapshotError> {
        let mut recovered = self.whole_forms()?;
        best_first(&mut recovered.forms, versions);
        Ok(recovered)
    }

    /// The same, the exact form first where it is whole.
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
                format!("The last change is lost: it could not be read from disk ({damaged}). The state before it is used.")
            });
            let last = self.steps().map_or(head, |steps| steps.last);
            self.steps = Some(Steps { head: step, last });
            return Ok(Recovered { forms, notice });
        }
        Err(SnapshotError::NoneWhole(damaged.join("; ")))
    }

    /// The snapshot before the one that counts. `None` if there is none to go back to.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn before(&mut self) -> Result<Option<Snapshot>, SnapshotError> {
        let head = self.steps()?.head;
        let before = self.numbers()?.into_iter().rev().find(|step| *step < head);
        before.map(|step| file::read(&self.snapshot_path(step))).transpose()
    }

    /// The snapshot that an undo went back from. `None` if nothing was undone.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn after(&mut self) -> Result<Option<Snapshot>, SnapshotError> {
        let head = self.steps()?.head;
        let after = self.numbers()?.into_iter().find(|step| *step > head);
        after.map(|step| file::read(&self.snapshot_path(step))).transpose()
    }

    /// How many changes can be undone, and how many undone ones can be made again.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn history(&mut self) -> io::Result<(usize, usize)> {
        let head = self.steps()?.head;
        let numbers = self.numbers()?;
        let before = numbers.iter().filter(|step| **step < head).count();
        Ok((before, numbers.iter().filter(|step| **step > head).count()))
    }

    /// Makes the snapshot of `step` count.
    ///
    /// # Errors
    /// Then nothing has changed.
    pub fn go_to(&mut self, step: u64) -> io::Result<()> {
        let steps = self.steps()?;
        let text = step.to_string();
        self.write_text(&self.path.join(HEAD), text.as_bytes())?;
        self.steps = Some(Steps { head: step, last: steps.last });
        Ok(())
    }

    /// The command that had begun when the server ended.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn interrupted(&self) -> io::Result<Option<Interrupted>> {
        self.journal.interrupted()
    }

    /// Copies a state and the way to it into `other`, which must be new: the state that counts, or
    /// that of a checkpoint. False if there is no such checkpoint. Checkpoints, and what did not
    /// lead to the state, stay behind.
    ///
    /// # Errors
    /// Then `other` may hold a part.
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
        self.copy_way(step, other)?;
        Ok(true)
    }

    /// The file of the state that counts in one form, as it is on disk, for its owner to take away.
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

    /// The same, with the payload still in the file.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn raw_on_disk(&mut self, format: Format) -> Result<OnDisk, SnapshotError> {
        match format {
            Format::Portable => file::open(&self.path.join(PORTABLE)),
            Format::Pickle => {
                let head = self.head_among(&self.numbers()?).unwrap_or(0);
                file::open(&self.snapshot_path(head))
            }
        }
    }

    /// Removes everything that is kept of the session.
    ///
    /// # Errors
    /// Then some of it may stay, but not its record: the session is not found again.
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

    /// The step that counts on disk: what `head` names, else the greatest.
    fn head_among(&self, numbers: &[u64]) -> Option<u64> {
        head_step(fs::read(self.path.join(HEAD)).ok().as_deref(), numbers)
    }

    /// The steps that have a snapshot, ascending.
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

    /// Counts what was just done to the journal.
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
        // File systems without links.
        Err(error) if error.kind() != io::ErrorKind::NotFound => fs::copy(from, to).map(drop),
        linked => linked,
    }
}

/// Of a state's forms the exact one first where `versions` wrote it, else the portable one.
fn best_first(forms: &mut [Snapshot], versions: &Versions) {
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
mod shares;
#[cfg(test)]
mod tests;
