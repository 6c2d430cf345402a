//! The data directory: writable, free, with space.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statvfs};

use super::super::wiring;
use super::finding::Finding;
use crate::config::Settings;
use crate::store::snapshots::usage_by_user;

/// Below this, a warning: in MiB.
const LITTLE_SPACE: u64 = 1024;

pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    let folder = directory(&settings.database.path);
    vec![writable(&folder), space(&folder), sessions(settings, &folder), in_use(settings)]
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

/// What sessions take, and who takes the most.
fn sessions(settings: &Settings, folder: &Path) -> Finding {
    let subject = "disk of sessions";
    let Ok(users) = usage_by_user(folder) else {
        return Finding::warning(subject, "it is not known", "make the data directory yours");
    };
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    let (bytes, count) =
        users.values().fold((0, 0), |(all, sum), (bytes, count)| (all + bytes, sum + count));
    let mut text = format!("{count} sessions take {} MiB", mebibytes(bytes));
    let bound = settings.resources.max_disk_mb_per_user;
    let named = users.iter().filter_map(|(user, (bytes, _))| Some((user.as_ref()?, *bytes)));
    let Some((user, most)) = named.max_by_key(|(_, bytes)| *bytes) else {
        return Finding::ok(subject, text);
    };
    let most = mebibytes(most);
    text.push_str(&format!("; user {user} takes the most, {most} MiB"));
    if bound > 0 && most.saturating_mul(10) >= bound.saturating_mul(9) {
        let advice = "let them end sessions, or raise [resources] max_disk_mb_per_user";
        return Finding::warning(subject, format!("{text} of {bound} MiB"), advice);
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
    fn who_takes_the_most_is_told_near_the_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        for (id, user, bytes) in [("a", "7", 950 << 10), ("b", "8", 10)] {
            let session = folder.path().join("sessions").join(id);
            std::fs::create_dir_all(&session).expect("made");
            let record = format!(r#"{{"session_id":"{id}","user_id":"{user}"}}"#);
            std::fs::write(session.join("session.json"), record).expect("written");
            std::fs::write(session.join("0.snapshot"), vec![0; bytes]).expect("written");
        }
        let mut settings = Settings::default();
        let told = sessions(&settings, folder.path());
        assert_eq!((told.level, &told.text[..27]), (Level::Ok, "2 sessions take 1 MiB; user"));
        assert!(told.text.contains("user 7 takes the most, 1 MiB"), "{told:?}");
        settings.resources.max_disk_mb_per_user = 1;
        assert_eq!(sessions(&settings, folder.path()).level, Level::Warning);
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_told() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert_eq!(writable(&file.path().join("data")).level, Level::Failed);
    }
}
