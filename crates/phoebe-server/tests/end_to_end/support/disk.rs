//! A small disk where the server keeps its data, to be filled or to lose its power. Only root can
//! mount one.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::ioctl::{Setter, ioctl, opcode};

/// What kind of disk, of so many MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// In memory.
    Memory(u32),
    /// A file system with a journal, ext4, on a disk that is a file.
    Journaled(u32),
}

/// A mounted file system; it is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
    /// What it is on, unless it is in memory.
    image: Option<PathBuf>,
}

impl Disk {
    /// Mounts one at `folder`. `None` where this process may not, or cannot.
    pub(super) fn mount(folder: &Path, kind: Kind) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let mut image = None;
        let mounted = match kind {
            Kind::Memory(mebibytes) => {
                let options = format!("size={mebibytes}m,mode=700");
                let mount = ["-t", "tmpfs", "-o", &options, "phoebe-server-test"];
                succeeds("mount", mount.map(OsStr::new).into_iter().chain([folder.as_os_str()]))
            }
            Kind::Journaled(mebibytes) => {
                let file = image.insert(folder.with_extension("image"));
                File::create(&*file).unwrap().set_len(u64::from(mebibytes) << 20).unwrap();
                succeeds("mkfs.ext4", [OsStr::new("-q"), file.as_os_str()])
                    && mount_image(file, folder)
                    // Nothing but the server's files is to be there.
                    && fs::remove_dir(folder.join("lost+found")).is_ok()
            }
        };
        mounted.then(|| Self { folder: folder.to_owned(), image })
    }

    /// From now on nothing reaches the disk, and what the kernel holds back for it is lost.
    #[allow(unsafe_code, reason = "no crate has this call")]
    pub(super) fn cut_power(&self) {
        // From the kernel's include/uapi/linux/ext4.h: EXT4_IOC_SHUTDOWN,
        // EXT4_GOING_FLAGS_NOLOGFLUSH.
        const SHUTDOWN: u32 = opcode::read::<u32>(b'X', 125);
        const WITHOUT_ITS_LOG: u32 = 2;
        let root = File::open(&self.folder).unwrap();
        // SAFETY: the call reads one u32, and the file system that it ends is this test's own.
        unsafe { ioctl(&root, Setter::<SHUTDOWN, u32>::new(WITHOUT_ITS_LOG)) }.unwrap();
    }

    /// Mounts it again after its power was cut. False as long as somebody has files on it open.
    pub(super) fn mount_again(&self) -> bool {
        succeeds("umount", [&self.folder]) && {
            let image = self.image.as_ref().expect("a disk that is a file");
            assert!(mount_image(image, &self.folder), "{:?} cannot be mounted again", self.folder);
            true
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a server that was just killed may still hold it.
        let unmounted = succeeds("umount", [OsStr::new("-l"), self.folder.as_os_str()]);
        assert!(unmounted || std::thread::panicking(), "{:?} stays", self.folder);
    }
}

fn mount_image(image: &Path, folder: &Path) -> bool {
    succeeds("mount", [OsStr::new("-o"), OsStr::new("loop"), image.as_os_str(), folder.as_os_str()])
}

fn succeeds<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> bool {
    let run =
        Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}
