//! A worker's scratch directory: the one place where it may write. Made empty at its start, removed
//! with what is in it at its end.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use phoebe_protocol::packet::Account;
use tracing::warn;
use uuid::Uuid;

/// Where scratch directories are made.
#[derive(Debug, Clone)]
pub(super) struct ScratchSpace {
    folder: PathBuf,
}

/// One worker's. Dropping it removes it; what a killed server leaves, its next start removes.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl ScratchSpace {
    /// A space in `folder`, which is made if it is missing, and emptied if not.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // Scratch directories may belong to another account, which must be able to pass through.
        // That it did not exist a moment ago and does now is an error: somebody else made it.
        DirBuilder::new().mode(0o711).create(folder)?;
        Ok(Self { folder: fs::canonicalize(folder)? })
    }

    /// Where they are made.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// An empty directory for one worker.
    pub(super) fn make(&self, owner: Option<Account>) -> io::Result<Scratch> {
        let scratch = Scratch { path: self.folder.join(Uuid::new_v4().to_string()) };
        DirBuilder::new().mode(0o700).create(&scratch.path)?;
        if let Some(owner) = owner {
            chown(&scratch.path, Some(owner.uid), Some(owner.gid))?;
        }
        Ok(scratch)
    }
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it, which takes its time where much was written. Its worker must be gone.
    pub(crate) async fn remove(self) {
        // The removal logs its own errors.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Its worker may have been killed just now, and write for another moment.
        for _attempt in 0..3 {
            match fs::remove_dir_all(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return warn!(%error, path = %self.path.display(), "a scratch directory stays");
                }
                Ok(()) | Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_directory_goes_with_what_is_in_it_and_follows_no_link() {
        let root = tempfile::tempdir().unwrap();
        let outside = root.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "kept").unwrap();
        let space = ScratchSpace::open(&root.path().join("scratch")).unwrap();
        let scratch = space.make(None).unwrap();
        let path = scratch.path().to_owned();
        fs::create_dir(path.join("folder")).unwrap();
        fs::write(path.join("folder/file"), "gone").unwrap();
        std::os::unix::fs::symlink(&outside, path.join("link")).unwrap();
        drop(scratch);
        assert!(!path.exists());
        assert!(outside.join("file").exists());
    }
}
