//! The answers of jobs, one file each. They are kept within bounds and are in no backup: a job can
//! be run again.

use std::fs;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;

use super::SessionFolder;
use crate::store::data_directory::{create_private_folder_in_place, names_in};
use crate::store::snapshots::names::RESULTS;

/// The most bytes of one result.
const RESULT_BYTES: usize = 16 << 20;
/// The most bytes of all results of a session; the oldest are removed.
const ALL_BYTES: u64 = 64 << 20;

impl SessionFolder {
    /// Returns the step that a job made, if its Bundle is on disk.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn step_of_job(&self, job: &str) -> io::Result<Option<u64>> {
        let Some(step) = self.journal.step_of_job(job)? else { return Ok(None) };
        // The journal may have a change whose Bundle was to be written later.
        Ok(self.numbers()?.iter().any(|number| *number >= step).then_some(step))
    }

    /// Stores the answer of a job.
    ///
    /// # Errors
    /// If it is too large, or cannot be written.
    pub fn write_result(&self, job: &str, answer: &[u8]) -> io::Result<()> {
        if answer.len() > RESULT_BYTES {
            return Err(io::Error::other("it is larger than 16 MiB"));
        }
        let folder = self.path.join(RESULTS);
        create_private_folder_in_place(&folder)?;
        self.write_text(&self.result_path(job)?, answer)?;
        // Later jobs have greater ids.
        let mut names = names_in(&folder)?;
        names.sort_unstable_by(|left, right| right.cmp(left));
        let mut total = 0;
        for name in names {
            let path = folder.join(&name);
            total += fs::metadata(&path).map_or(0, |file| file.len());
            if total > ALL_BYTES {
                self.remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Returns the answer of a job, if it is kept.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn result(&self, job: &str) -> io::Result<Option<Bytes>> {
        match fs::read(self.result_path(job)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            answer => answer.map(|answer| Some(answer.into())),
        }
    }

    /// Removes the answer of a job.
    ///
    /// # Errors
    /// Then it stays.
    pub fn remove_result(&self, job: &str) -> io::Result<()> {
        self.remove_file(&self.result_path(job)?)
    }

    fn result_path(&self, job: &str) -> io::Result<PathBuf> {
        // Ids come from a path of a request, too.
        let id = uuid::Uuid::try_parse(job).map_err(io::Error::other)?;
        Ok(self.path.join(RESULTS).join(format!("{id}.json")))
    }
}
