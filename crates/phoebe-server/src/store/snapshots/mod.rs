//! What a session's Bundle was after each of its last changes, on disk: one folder a session, one file a snapshot.
//!
//! ```text
//! data/sessions/<session id>/
//!   session.json         who it belongs to, names, times
//!   <step>.snapshot      the Bundle after that many changes; the last few, for undo
//!   head                 the step that counts, if it is not the greatest (after an undo)
//!   portable.snapshot    the Bundle in PHOEBE's own JSON, for another version of PHOEBE or Python
//!   journal.jsonl        the commands that changed it
//!   bases/<SHA-256>      Bundles from outside that the journal begins with
//!   checkpoints/         states that got a name
//! data/templates/<digest>.snapshot   the Bundle that fresh sessions begin with, linked into their folders;
//!                <digest>.portable.snapshot likewise
//! ```
//!
//! Each file is replaced whole or not at all, so that a crash at any moment leaves a state that was once complete. Calls
//! block; they belong on a blocking thread. Payloads are never interpreted here: they may be code.

mod file;
mod folder;
mod journal;
pub(super) mod names;
mod usage;

pub use file::{Format, Header, OnDisk, Snapshot, SnapshotError, Versions, verify};
pub use folder::bases::{ScriptSource, compact_length};
pub use folder::checkpoints::Checkpoint;
pub use folder::{
    Change, Changed, Imported, Payload, Recovered, Rules, SessionFolder, SessionRecord,
};
pub use journal::{
    Act, Base, COMMAND_BYTES, FILE_BYTES, Interrupted, Origin, Repeatable, Step, WayError,
};
pub use usage::{DiskBounds, DiskUse, OverBound};

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::data_directory::{create_private_folder, names_in};

const SESSIONS: &str = "sessions";
const TEMPLATES: &str = "templates";

/// All sessions that are kept.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    root: PathBuf,
    rules: Rules,
}

/// Bytes that the sessions of each user take in the data directory `root`, and how many sessions;
/// `None` is nobody.
///
/// # Errors
/// When the folder of sessions cannot be read.
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
    /// Sessions in the data directory `root`. What no session begins with any more is removed.
    ///
    /// # Errors
    /// When its folders cannot be made.
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

    /// The folder of one session, whether it exists or not.
    #[must_use]
    pub fn session(&self, id: &str) -> SessionFolder {
        SessionFolder::new(self.root.join(SESSIONS).join(id), id, self.rules)
    }

    /// Every session that is kept, oldest first. A folder that tells nothing is reported and left alone.
    ///
    /// # Errors
    /// When the root cannot be read.
    pub fn sessions(&self) -> io::Result<Vec<SessionRecord>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(self.root.join(SESSIONS))? {
            let name = entry?.file_name();
            let Some(id) = name.to_str() else { continue };
            match self.session(id).record() {
                Ok(record) => records.push(record),
                Err(error) => warn!(session = id, %error, "a kept session cannot be read"),
            }
        }
        records.sort_by(|left, right| left.created_at.total_cmp(&right.created_at));
        Ok(records)
    }

    /// The file of the Bundle with this digest that fresh sessions begin with, in one form, whether it exists or not.
    #[must_use]
    pub fn template(&self, digest: &str, format: Format) -> PathBuf {
        // The digest comes from a worker: nothing but hexadecimal digits becomes a name.
        let name: String = digest.chars().filter(char::is_ascii_hexdigit).collect();
        let name = match format {
            Format::Pickle => format!("{name}.snapshot"),
            Format::Portable => format!("{name}.portable.snapshot"),
        };
        self.root.join(TEMPLATES).join(name)
    }

    /// Keeps the Bundle that fresh sessions begin with, in one form.
    ///
    /// # Errors
    /// Then there is no such file.
    pub fn write_template(&self, digest: &str, payload: Payload, taken_at: f64) -> io::Result<()> {
        let Payload { format, versions, bytes } = payload;
        let header = Header { format, step: 0, taken_at, versions, name: None, note: None };
        let path = self.template(digest, format);
        file::write(&path, &Snapshot { header, payload: bytes }, self.rules.fsync)
    }
}
