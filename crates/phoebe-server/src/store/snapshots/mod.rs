//! Snapshots of sessions on disk: one folder per session, one file per snapshot.
//!
//! ```text
//! data/sessions/<session id>/
//!   session.json         the record: owner, names, times
//!   <step>.snapshot      the Bundle after so many changes; the last few, for undo
//!   head                 the current step, if it is not the greatest (after an undo)
//!   portable.snapshot    the Bundle in PHOEBE's own JSON, for another version of PHOEBE or Python
//!   journal.jsonl        the commands that changed it
//!   bases/<SHA-256>      imported Bundles that the journal refers to
//!   checkpoints/         named states
//! data/templates/<digest>.snapshot, <digest>.portable.snapshot
//!                        the default Bundle, linked into the folders of new sessions
//! ```
//!
//! Each file is replaced atomically, so that a crash leaves a complete state. Calls block; run them
//! on a blocking thread. Payloads are never interpreted, because they may be code.

mod file;
mod folder;
mod journal;
pub(super) mod names;
mod usage;

pub use file::{Format, Header, Snapshot, SnapshotError, SnapshotFile, Versions, verify};
pub use folder::bases::{ScriptSource, compact_length};
pub use folder::checkpoints::Checkpoint;
pub use folder::{
    Change, ChangeKind, Imported, Payload, Recovered, Rules, SessionFolder, SessionRecord,
};
pub use journal::{
    Action, Base, COMMAND_BYTES, FILE_BYTES, Interrupted, LineageError, Origin, ReplayableCommand,
    Step,
};
pub use usage::{DiskLimitExceeded, DiskLimits, DiskUsage};

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::data_directory::{create_private_folder, names_in};

const SESSIONS: &str = "sessions";
const TEMPLATES: &str = "templates";

/// The stored sessions.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    root: PathBuf,
    rules: Rules,
}

/// Returns the disk usage in bytes and the number of sessions per user in the data directory
/// `root`. Sessions without an owner are under `None`.
///
/// # Errors
/// If the folder of sessions cannot be read.
pub fn usage_by_user(root: &Path) -> io::Result<HashMap<Option<String>, (u64, usize)>> {
    let mut users: HashMap<_, (u64, usize)> = HashMap::new();
    let sessions = root.join(SESSIONS);
    let rules = Rules { fsync: false, history: 1 };
    for id in names_in(&sessions)? {
        let folder = SessionFolder::new(sessions.join(&id), &id, rules);
        folder.measure();
        let user = folder.record().ok().and_then(|record| record.user_id);
        let (bytes, sessions) = users.entry(user).or_default();
        (*bytes, *sessions) = (*bytes + folder.usage().bytes(), *sessions + 1);
    }
    Ok(users)
}

impl SnapshotStore {
    /// Opens the sessions in the data directory `root`. Removes templates that no session uses.
    ///
    /// # Errors
    /// If the folders cannot be created.
    pub fn open(root: &Path, rules: Rules) -> io::Result<Self> {
        let store = Self { root: root.to_owned(), rules };
        create_private_folder(&root.join(SESSIONS))?;
        create_private_folder(&root.join(TEMPLATES))?;
        for template in fs::read_dir(root.join(TEMPLATES))? {
            let template = template?;
            if template.metadata()?.nlink() == 1 {
                fs::remove_file(template.path())?;
            }
        }
        Ok(store)
    }

    /// Returns the folder of one session, whether it exists or not.
    #[must_use]
    pub fn session(&self, id: &str) -> SessionFolder {
        SessionFolder::new(self.root.join(SESSIONS).join(id), id, self.rules)
    }

    /// Returns the records of all sessions, oldest first. Logs and skips damaged ones.
    ///
    /// # Errors
    /// If the folder of sessions cannot be read.
    pub fn sessions(&self) -> io::Result<Vec<SessionRecord>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(self.root.join(SESSIONS))? {
            let name = entry?.file_name();
            let Some(id) = name.to_str() else { continue };
            match self.session(id).record() {
                Ok(record) => records.push(record),
                Err(error) => warn!(session = id, %error, "a stored session cannot be read"),
            }
        }
        records.sort_by(|left, right| left.created_at.total_cmp(&right.created_at));
        Ok(records)
    }

    /// Returns the path of the template with this digest in one form.
    #[must_use]
    pub fn template(&self, digest: &str, format: Format) -> PathBuf {
        // The digest comes from a worker: only hexadecimal digits go into the name.
        let name: String = digest.chars().filter(char::is_ascii_hexdigit).collect();
        let name = match format {
            Format::Pickle => format!("{name}.snapshot"),
            Format::Portable => format!("{name}.portable.snapshot"),
        };
        self.root.join(TEMPLATES).join(name)
    }

    /// Stores a template in one form.
    ///
    /// # Errors
    /// Then no file is created.
    pub fn write_template(&self, digest: &str, payload: Payload, taken_at: f64) -> io::Result<()> {
        let Payload { format, versions, bytes } = payload;
        let header = Header { format, step: 0, taken_at, versions, name: None, note: None };
        let path = self.template(digest, format);
        file::write(&path, &Snapshot { header, payload: bytes }, self.rules.fsync)
    }
}
