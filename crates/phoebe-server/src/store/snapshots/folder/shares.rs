//! Shared checkpoints. A file beside a shared checkpoint has the hash of its link's secret; the
//! secret itself is not stored.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::checkpoints::is_id;
use super::{Header, SessionFolder, SnapshotError};

impl SessionFolder {
    /// Shares a checkpoint by a secret with this hash. Replaces an earlier secret. Returns false if
    /// the checkpoint does not exist.
    ///
    /// # Errors
    /// Then the earlier secret stays.
    pub fn share(&self, checkpoint: &str, hash: &str) -> Result<bool, SnapshotError> {
        if self.checkpoint_header(checkpoint)?.is_none() {
            return Ok(false);
        }
        self.write_text(&self.share_path(checkpoint), hash.as_bytes())?;
        Ok(true)
    }

    /// Removes the share of a checkpoint. Returns false if there was none.
    ///
    /// # Errors
    /// Then it stays.
    pub fn unshare(&self, checkpoint: &str) -> io::Result<bool> {
        let shared = self.is_shared(checkpoint);
        if shared {
            self.remove_file(&self.share_path(checkpoint))?;
        }
        Ok(shared)
    }

    /// Returns whether a checkpoint is shared.
    #[must_use]
    pub fn is_shared(&self, checkpoint: &str) -> bool {
        is_id(checkpoint) && self.share_path(checkpoint).exists()
    }

    /// Returns the header of a checkpoint if it is shared by a secret with this hash.
    ///
    /// # Errors
    /// If the checkpoint is damaged or cannot be read.
    pub fn shared(&self, checkpoint: &str, hash: &str) -> Result<Option<Header>, SnapshotError> {
        if !is_id(checkpoint) {
            return Ok(None);
        }
        match fs::read_to_string(self.share_path(checkpoint)) {
            Ok(kept) if kept == hash => self.checkpoint_header(checkpoint),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn share_path(&self, checkpoint: &str) -> PathBuf {
        self.beside_checkpoint(checkpoint, "share")
    }
}
