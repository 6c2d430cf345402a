//! Checkpoints that others may copy: beside such a checkpoint lies a file with the hash of the secret in its link. The secret
//! itself is nowhere.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::checkpoints::is_id;
use super::{Header, SessionFolder, SnapshotError};

impl SessionFolder {
    /// Lets whoever knows the secret with this hash copy a checkpoint; a secret from before is none any more. False if there is
    /// no such checkpoint.
    ///
    /// # Errors
    /// Then the secret from before stays.
    pub fn share(&self, checkpoint: &str, hash: &str) -> Result<bool, SnapshotError> {
        if self.checkpoint_header(checkpoint)?.is_none() {
            return Ok(false);
        }
        self.write_text(&self.share_path(checkpoint), hash.as_bytes())?;
        Ok(true)
    }

    /// Takes the link to a checkpoint back. False if there was none.
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

    /// Whether there is a link to a checkpoint.
    #[must_use]
    pub fn is_shared(&self, checkpoint: &str) -> bool {
        is_id(checkpoint) && self.share_path(checkpoint).exists()
    }

    /// What is known of the checkpoint that the secret with this hash opens.
    ///
    /// # Errors
    /// When it is damaged, or cannot be read.
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
