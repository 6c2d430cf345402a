//! Checkpoints: named states. Each is in the session's folder in up to two forms: `<id>.snapshot`,
//! exact, and `<id>.portable.snapshot`, which any version of PHOEBE can read.

use std::io;
use std::path::{Path, PathBuf};

use tracing::error;

use super::{
    Format, Header, SessionFolder, Snapshot, SnapshotError, Versions, file, sort_by_preference,
};
use crate::store::data_directory::{create_private_folder_in_place, names_in};
use crate::store::snapshots::names::CHECKPOINTS;

/// A named state.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Unique in the session.
    pub id: String,
    /// The header of its snapshot.
    pub header: Header,
}

impl SessionFolder {
    /// Stores the head's state as a checkpoint with a new id.
    ///
    /// # Errors
    /// Then no checkpoint is created.
    pub fn write_checkpoint(
        &mut self,
        at: f64,
        name: String,
        note: Option<String>,
    ) -> Result<Checkpoint, SnapshotError> {
        create_private_folder_in_place(&self.path.join(CHECKPOINTS))?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let forms = self.whole_forms()?.forms.into_iter();
        let nothing = || SnapshotError::Damaged("there is no state of the session");
        let mut header = None;
        // The main form is written last: it makes the checkpoint exist.
        for (form, mut snapshot) in [Format::Pickle, Format::Portable].into_iter().zip(forms).rev()
        {
            snapshot.header.taken_at = at;
            snapshot.header.name = Some(name.clone());
            snapshot.header.note.clone_from(&note);
            self.write_snapshot(&self.checkpoint_path(&id, form), &snapshot)?;
            header = Some(snapshot.header);
        }
        Ok(Checkpoint { id, header: header.ok_or_else(nothing)? })
    }

    /// Returns all checkpoints, oldest first. Logs and skips damaged ones.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn checkpoints(&self) -> io::Result<Vec<Checkpoint>> {
        let mut checkpoints = Vec::new();
        for name in names_in(&self.path.join(CHECKPOINTS))? {
            let Some(id) = name.strip_suffix(".snapshot").filter(|id| is_id(id)) else { continue };
            match self.checkpoint_header(id) {
                Ok(header) => checkpoints
                    .extend(header.map(|header| Checkpoint { id: id.to_owned(), header })),
                Err(problem) => {
                    error!(session = self.id, checkpoint = id, %problem, "a checkpoint is damaged");
                }
            }
        }
        checkpoints.sort_by(|left, right| left.header.taken_at.total_cmp(&right.header.taken_at));
        Ok(checkpoints)
    }

    /// Reads a checkpoint in the best form for `versions`. `None` if it does not exist.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn checkpoint(
        &self,
        id: &str,
        versions: &Versions,
    ) -> Result<Option<Snapshot>, SnapshotError> {
        let mut forms = self.checkpoint_forms(id)?;
        sort_by_preference(&mut forms, versions);
        Ok(forms.into_iter().next())
    }

    /// Reads the valid forms of a checkpoint, the exact one first; none if it does not exist.
    ///
    /// # Errors
    /// If it exists without a valid form.
    pub(super) fn checkpoint_forms(&self, id: &str) -> Result<Vec<Snapshot>, SnapshotError> {
        let Some(first) = self.whole_checkpoint(id)? else { return Ok(Vec::new()) };
        let is_exact = first.header.format == Format::Pickle;
        let portable = is_exact.then(|| file::read(&self.checkpoint_path(id, Format::Portable)));
        Ok([first].into_iter().chain(portable.and_then(Result::ok)).collect())
    }

    /// Reads a checkpoint in its exact form, or in the portable form if that is damaged. `None` if
    /// it does not exist.
    ///
    /// # Errors
    /// If it exists without a valid form.
    fn whole_checkpoint(&self, id: &str) -> Result<Option<Snapshot>, SnapshotError> {
        self.checkpoint_by(id, file::read)
    }

    /// Reads the header of a checkpoint. `None` if it does not exist.
    ///
    /// # Errors
    /// If it exists without a valid form.
    pub(super) fn checkpoint_header(&self, id: &str) -> Result<Option<Header>, SnapshotError> {
        self.checkpoint_by(id, |path| file::open(path).map(|form| form.header))
    }

    fn checkpoint_by<T>(
        &self,
        id: &str,
        read: impl Fn(&Path) -> Result<T, SnapshotError>,
    ) -> Result<Option<T>, SnapshotError> {
        if !is_id(id) {
            return Ok(None);
        }
        match read(&self.checkpoint_path(id, Format::Pickle)) {
            // Written last and removed first: without it the checkpoint does not exist.
            Err(SnapshotError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(problem) => {
                let portable = read(&self.checkpoint_path(id, Format::Portable));
                portable.map(Some).map_err(|_| problem)
            }
            exact => exact.map(Some),
        }
    }

    /// Removes a checkpoint. Returns false if it does not exist.
    ///
    /// # Errors
    /// Then it stays.
    pub fn remove_checkpoint(&self, id: &str) -> io::Result<bool> {
        if !is_id(id) {
            return Ok(false);
        }
        self.unshare(id)?;
        let exact = self.checkpoint_path(id, Format::Pickle);
        if !exact.try_exists()? {
            return Ok(false);
        }
        self.remove_file(&exact)?;
        self.remove_file(&self.checkpoint_path(id, Format::Portable))?;
        Ok(true)
    }

    fn checkpoint_path(&self, id: &str, form: Format) -> PathBuf {
        let form = match form {
            Format::Pickle => "snapshot",
            Format::Portable => "portable.snapshot",
        };
        self.beside_checkpoint(id, form)
    }

    /// Returns the path of a checkpoint's file.
    pub(super) fn beside_checkpoint(&self, id: &str, what: &str) -> PathBuf {
        self.path.join(CHECKPOINTS).join(format!("{id}.{what}"))
    }
}

/// Returns whether this has the form of a checkpoint's id, so that it cannot lead out of the
/// folder.
pub(super) fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}
