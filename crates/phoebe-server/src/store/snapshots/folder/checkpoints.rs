//! States that a user gave a name. Each lies in the session's folder in the forms that there were of it: `<id>.snapshot`, exact,
//! and `<id>.portable.snapshot`, which survives an upgrade.

use std::io;
use std::path::{Path, PathBuf};

use tracing::error;

use super::{Format, Header, SessionFolder, Snapshot, SnapshotError, Versions, best_first, file};
use crate::store::data_directory::{create_private_folder_in_place, names_in};
use crate::store::snapshots::names::CHECKPOINTS;

/// A state that its user gave a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Names it in the session.
    pub id: String,
    /// What is known of it.
    pub header: Header,
}

impl SessionFolder {
    /// Gives the state that counts a name. The id is new.
    ///
    /// # Errors
    /// Then there is no such checkpoint.
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
        // The exact one, or what stands for it, last: with it there is a checkpoint.
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

    /// All checkpoints, oldest first; a damaged one is reported and left out.
    ///
    /// # Errors
    /// When the folder cannot be read.
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

    /// One checkpoint, in the form that is best for `versions`. `None` if there is none with this id.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn checkpoint(
        &self,
        id: &str,
        versions: &Versions,
    ) -> Result<Option<Snapshot>, SnapshotError> {
        let mut forms = self.checkpoint_forms(id)?;
        best_first(&mut forms, versions);
        Ok(forms.into_iter().next())
    }

    /// The whole forms of a checkpoint, the exact one first; none if there is none with this id.
    ///
    /// # Errors
    /// When there is one and no form of it is whole.
    pub(super) fn checkpoint_forms(&self, id: &str) -> Result<Vec<Snapshot>, SnapshotError> {
        let Some(first) = self.whole_checkpoint(id)? else { return Ok(Vec::new()) };
        let is_exact = first.header.format == Format::Pickle;
        let portable = is_exact.then(|| file::read(&self.checkpoint_path(id, Format::Portable)));
        Ok([first].into_iter().chain(portable.and_then(Result::ok)).collect())
    }

    /// A checkpoint, exact, or where that is damaged in its other form. `None` if there is none with this id.
    ///
    /// # Errors
    /// When there is one and no form of it is whole.
    fn whole_checkpoint(&self, id: &str) -> Result<Option<Snapshot>, SnapshotError> {
        self.checkpoint_by(id, file::read)
    }

    /// What is known of a checkpoint, of which one form is whole.
    ///
    /// # Errors
    /// When there is one and no form of it is whole.
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
            // Written last and removed first: without it there is no checkpoint.
            Err(SnapshotError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(problem) => {
                let portable = read(&self.checkpoint_path(id, Format::Portable));
                portable.map(Some).map_err(|_| problem)
            }
            exact => exact.map(Some),
        }
    }

    /// Removes a checkpoint. False if there is none with this id.
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

    /// A file that belongs to a checkpoint.
    pub(super) fn beside_checkpoint(&self, id: &str, what: &str) -> PathBuf {
        self.path.join(CHECKPOINTS).join(format!("{id}.{what}"))
    }
}

/// Whether this can be the id of a checkpoint, and is not a way out of the folder.
pub(super) fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}
