//! The data directory: writable, free, with space.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statvfs};

use super::super::wiring;
use super::finding::Finding;
use crate::config::Settings;

/// Below this, a warning: in MiB.
const LITTLE_SPACE: u64 = 1024;

pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    let folder = directory(&settings.database.path);
    vec![writable(&folder), space(&folder), in_use(settings)]
}

/// The folder of the database, in full.
fn directory(database: &Path) -> PathBuf {
    let parent = database.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = parent.unwrap_or(Path::new("."));
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())
}

/// The nearest folder above that exists.
fn existing(folder: &Path) -> &Path {
    folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"))
}

fn writable(folder: &Path) -> Finding {
    let subject = "data directory";
    let there = existing(folder);
    if !there.is_dir() || access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Finding::failed(
            subject,
            format!("{} cannot be written", there.display()),
            "make it yours, or choose another with [database] path",
        );
    }
    match there == folder {
        true => Finding::ok(subject, folder.display().to_string()),
        false => Finding::ok(subject, format!("{} (will be made)", folder.display())),
    }
}

fn space(folder: &Path) -> Finding {
    let subject = "free space";
    let Ok(found) = statvfs(existing(folder)) else {
        return Finding::warning(subject, "it is not known", "look at it with `df`");
    };
    let free_mib = found.f_bavail.saturating_mul(found.f_frsize) / (1 << 20);
    let text = format!("{free_mib} MiB on the data directory's disk");
    if free_mib < LITTLE_SPACE {
        let advice = "free some: without it, log rows and snapshots of sessions cannot be written";
        return Finding::warning(subject, text, advice);
    }
    Finding::ok(subject, text)
}

fn in_use(settings: &Settings) -> Finding {
    let subject = "running server";
    match wiring::data_directory_holder(settings) {
        Ok(None) => Finding::ok(subject, "none uses this data directory"),
        Ok(Some(holder)) => Finding::ok(subject, format!("{holder} uses this data directory")),
        Err(failure) => Finding::failed(
            subject,
            format!("the data directory cannot be read: {failure}"),
            "make it yours, or choose another with [database] path",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_can_be_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let wanted = folder.path().join("a/b");
        let finding = writable(&wanted);
        assert_eq!(finding.level, Level::Ok);
        assert!(finding.text.ends_with("(will be made)"), "{finding:?}");
        assert!(space(&wanted).text.contains("MiB"));
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_told() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert_eq!(writable(&file.path().join("data")).level, Level::Failed);
    }
}
