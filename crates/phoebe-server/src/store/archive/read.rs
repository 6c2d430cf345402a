//! Unpacks an archive into an empty folder and checks all of it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::read::GzDecoder;
use rustix::fs::statvfs;
use sha2::{Digest, Sha256};

use super::format::{ArchiveError, DATABASE, FORMAT, FileEntry, MANIFEST, Manifest, SESSIONS, at};
use super::write::HashingReader;
use crate::store::data_directory::create_private_folder;
use crate::store::snapshots::names::{BASES, CHECKPOINTS};

/// The most bytes of the manifest, and of tar headers and padding beside files.
const MANIFEST_BYTES: u64 = 64 << 20;

/// Disk space that stays free.
const RESERVE: u64 = 64 << 20;

/// Unpacks `archive` into the folder `into` and checks it against its manifest, which is returned.
/// Writes at most `limit` bytes.
pub(super) fn unpack(
    archive: &Path,
    into: &Path,
    limit: SizeLimit,
) -> Result<Manifest, ArchiveError> {
    let unusable =
        |why: &str| ArchiveError::Unusable(archive.display().to_string(), why.to_owned());
    let broken =
        |error: io::Error| unusable(&format!("it is not an archive, or is truncated: {error}"));
    let file = File::open(archive).map_err(at(archive))?;
    let decompressed = GzDecoder::new(BufReader::new(file));
    let mut tar = tar::Archive::new(decompressed.take(limit.bytes.saturating_add(MANIFEST_BYTES)));
    let mut left = limit.bytes;
    let mut found = BTreeMap::new();
    let mut manifest: Option<Manifest> = None;
    for entry in tar.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        if !entry.header().entry_type().is_file() {
            return Err(unusable("it holds an entry that is not a file"));
        }
        let name = String::from_utf8(entry.path_bytes().into_owned());
        let name = name.map_err(|_| unusable("it holds a name that is not UTF-8"))?;
        if name == MANIFEST {
            let mut text = Vec::new();
            entry.take(MANIFEST_BYTES).read_to_end(&mut text).map_err(broken)?;
            let read = serde_json::from_slice(&text);
            manifest = Some(read.map_err(|_| unusable("its manifest is of another version"))?);
            continue;
        }
        if !is_known_name(&name) {
            return Err(unusable(&format!("it holds {name:?}, which is not a file of a server")));
        }
        left = left.checked_sub(entry.size()).ok_or_else(|| {
            unusable(&format!("it unpacks to more than {} MiB, {}", limit.bytes >> 20, limit.why))
        })?;
        let listed = write(&mut entry, &into.join(&name))?;
        found.insert(name, listed);
    }
    // Reads to the end, where gzip has its checksum.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(broken)?;
    let manifest =
        manifest.ok_or_else(|| unusable("it is truncated, or was made by another program"))?;
    if manifest.format != FORMAT {
        return Err(unusable("it is of a later version of this program"));
    }
    if manifest.files != found {
        return Err(unusable("its files do not match its manifest"));
    }
    Ok(manifest)
}

/// The most bytes to unpack.
#[derive(Debug, Clone, Copy)]
pub(super) struct SizeLimit {
    bytes: u64,
    /// The reason for the limit, as the end of a sentence.
    why: &'static str,
}

impl SizeLimit {
    /// Returns the smaller of `bytes`, if set, and the free space in `folder`.
    pub(super) fn within(bytes: Option<u64>, folder: &Path) -> Result<Self, ArchiveError> {
        let disk = statvfs(folder).map_err(|error| at(folder)(error.into()))?;
        let room = disk.f_bavail.saturating_mul(disk.f_frsize).saturating_sub(RESERVE);
        Ok(match bytes {
            Some(bytes) if bytes <= room => Self {
                bytes,
                why: "which is what a session may take: see [resources] max_disk_mb_per_session",
            },
            _ => Self { bytes: room, why: "and the disk has no more room" },
        })
    }
}

fn write(content: &mut impl Read, path: &Path) -> Result<FileEntry, ArchiveError> {
    if let Some(folder) = path.parent() {
        create_private_folder(folder).map_err(at(folder))?;
    }
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(at(path))?;
    let mut hashing = HashingReader { inner: content, hash: Sha256::new() };
    let size = io::copy(&mut hashing, &mut file).map_err(at(path))?;
    file.sync_all().map_err(at(path))?;
    Ok(FileEntry { size, sha256: hex::encode(hashing.hash.finalize()) })
}

/// Returns whether an archive of ours can have a file of this name. Such a name never leads out of
/// the folder.
fn is_known_name(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let is_id = |id: &str| uuid::Uuid::parse_str(id).is_ok_and(|uuid| uuid.to_string() == id);
    match parts[..] {
        [file] => file == DATABASE,
        [SESSIONS, id, file] => is_id(id) && is_plain(file),
        [SESSIONS, id, CHECKPOINTS | BASES, file] => is_id(id) && is_plain(file),
        _ => false,
    }
}

fn is_plain(file: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !file.is_empty() && !file.starts_with('.') && file.bytes().all(allowed)
}

/// Flushes a folder's entries to disk.
pub(super) fn sync_folder(folder: &Path) -> Result<(), ArchiveError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
}

/// Moves a file or folder.
pub(super) fn move_to(from: &Path, to: &Path) -> Result<(), ArchiveError> {
    fs::rename(from, to).map_err(at(to))
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn unpacking_stops_at_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("archive");
        let gz = GzEncoder::new(File::create(&archive).unwrap(), Compression::best());
        let mut tar = tar::Builder::new(gz);
        for step in 0..40 {
            let mut header = tar::Header::new_gnu();
            header.set_size(5 << 20);
            let name = format!("sessions/7d0a3f0e-0f6a-4b5e-9a55-3a4c7d5a1c11/{step}.snapshot");
            tar.append_data(&mut header, name, io::repeat(0).take(5 << 20)).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        assert!(archive.metadata().unwrap().len() < 1 << 20);
        let into = folder.path().join("into");
        let limit = SizeLimit { bytes: 12 << 20, why: "as a test wants it" };
        let refused = unpack(&archive, &into, limit).unwrap_err().to_string();
        assert!(refused.contains("more than 12 MiB, as a test wants it"), "{refused}");
        let staged = into.join("sessions/7d0a3f0e-0f6a-4b5e-9a55-3a4c7d5a1c11");
        let sizes = fs::read_dir(staged).unwrap().map(|file| file.unwrap().metadata().unwrap());
        assert_eq!(sizes.map(|file| file.len()).sum::<u64>(), 10 << 20);
    }

    #[test]
    fn only_names_of_a_servers_files_are_accepted() {
        let id = "7d0a3f0e-0f6a-4b5e-9a55-3a4c7d5a1c11";
        for ours in ["session.json", "12.snapshot", "checkpoints/a.share", "bases/0af3"] {
            assert!(is_known_name(&format!("sessions/{id}/{ours}")), "{ours}");
        }
        assert!(is_known_name("sessions.db"));
        let long = format!("sessions/{id}/../../x");
        let twice = format!("sessions/{}/session.json", id.to_uppercase());
        for other in [
            "",
            "/etc/passwd",
            "../x",
            "sessions",
            "sessions/x/session.json",
            "sessions.db/x",
            "sessions//x",
            "server.lock",
            "run/1/2",
            &long,
            &twice,
            &format!("sessions/{id}/.."),
            &format!("sessions/{id}/."),
            &format!("sessions/{id}/"),
            &format!("sessions/{id}/checkpoints/../session.json"),
            &format!("/sessions/{id}/head"),
            &format!("sessions/{id}/a/b"),
            &format!("sessions/{id}/a\0b"),
        ] {
            assert!(!is_known_name(other), "{other:?}");
        }
    }
}
