//! Files of a scratch directory that have lost their name, and are kept by who holds them open or
//! mapped: they fill the disk, and no folder shows them. It looks, and decides nothing.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the kernel appends to the name of a mapped file that has none any more
/// (`proc_pid_maps(5)`).
const DELETED: &str = " (deleted)";

/// Bytes on disk of the nameless files of `scratch` that these processes hold, or `unknown` for
/// each that is only mapped: who sees a mapping does not see how much is behind it.
pub(super) fn bytes(processes: &[i32], scratch: &Path, unknown: u64) -> u64 {
    let Ok(folder) = fs::metadata(scratch) else { return 0 };
    let mut files = HashMap::new();
    for process in processes {
        open(*process, folder.dev(), &mut files);
    }
    for process in processes {
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
        for inode in mapped(&maps, scratch) {
            files.entry(inode).or_insert(unknown);
        }
    }
    files.into_values().fold(0, u64::saturating_add)
}

/// Notes the nameless files on a device that a process has open, by inode, with their bytes on
/// disk.
fn open(process: i32, device: u64, files: &mut HashMap<u64, u64>) {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    for descriptor in descriptors {
        let Ok(file) = fs::metadata(descriptor.path()) else { continue };
        if file.is_file() && file.nlink() == 0 && file.dev() == device {
            files.insert(file.ino(), on_disk(&file));
        }
    }
}

/// The inodes of the nameless files of `scratch` in the text of `/proc/PID/maps`.
fn mapped(maps: &str, scratch: &Path) -> Vec<u64> {
    let Some(folder) = scratch.to_str() else { return Vec::new() };
    let inode = |line: &str| {
        let (fields, path) = line.split_once(folder)?;
        if !path.starts_with('/') || !path.ends_with(DELETED) {
            return None;
        }
        fields.split_ascii_whitespace().nth(4)?.parse().ok()
    };
    maps.lines().filter_map(inode).collect()
}

/// The bytes that a file takes on its disk, which may be more or fewer than its length.
pub(super) fn on_disk(file: &fs::Metadata) -> u64 {
    file.blocks() * 512 // `stat(2)` counts in 512 bytes, whatever the file system does
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::{FallocateFlags, fallocate};

    use super::*;

    #[test]
    fn open_deleted_files_are_counted_once_with_all_their_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let own = [std::process::id().cast_signed()];
        let path = folder.path().join("file");
        let file = File::create(&path).unwrap();
        fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
        assert_eq!(bytes(&own, folder.path(), 7), 0, "it has a name");
        fs::remove_file(&path).unwrap();
        let _second_descriptor = file.try_clone().unwrap();
        assert!(bytes(&own, folder.path(), 7) >= 1 << 20);
        assert!(bytes(&own, folder.path(), 7) < 2 << 20);
    }

    #[test]
    fn only_deleted_mapped_files_are_found() {
        let maps = "\
            7f00-7f01 rw-s 00000000 08:01 42                 /run/scratch/one/a (deleted)\n\
            7f02-7f03 rw-s 00000000 08:01 42                 /run/scratch/one/a (deleted)\n\
            7f04-7f05 rw-s 00000000 08:01 43                 /run/scratch/one/b\n\
            7f06-7f07 rw-s 00000000 08:01 44                 /run/scratch/other/c (deleted)\n\
            7f08-7f09 rw-s 00000000 00:01 45                 /dev/zero (deleted)\n";
        assert_eq!(mapped(maps, Path::new("/run/scratch/one")), [42, 42]);
    }
}
