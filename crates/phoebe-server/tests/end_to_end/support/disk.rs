//! A disk of a few MiB, to be filled: a file system in memory that is mounted where the server keeps its data.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mounted file system; it is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounts one of so many MiB at `folder`. `None` where this process may not mount anything.
    pub(super) fn mount(folder: &Path, mebibytes: u32) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let options = format!("size={mebibytes}m,mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "phoebe-server-test"])
            .arg(folder)
            .stderr(Stdio::null())
            .status();
        let mounted = mounted.is_ok_and(|status| status.success());
        mounted.then(|| Self { folder: folder.to_owned() })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a server that was just killed may still hold it.
        let unmounted = Command::new("umount").arg("-l").arg(&self.folder).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{:?} stays", self.folder);
    }
}
