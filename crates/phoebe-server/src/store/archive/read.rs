//! An archive as it is read: into an empty folder, and checked to the last byte before anybody uses it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::read::GzDecoder;
use rustix::fs::statvfs;
use sha2::{Digest, Sha256};

use super::format::{ArchiveError, DATABASE, FORMAT, Listed, MANIFEST, Manifest, SESSIONS, at};
use super::write::Hashed;
use crate::store::data_directory::create_private_folder;
use crate::store::snapshots::names::{BASES, CHECKPOINTS};

/// A list of files longer than this is none of ours. Beside files an archive holds names and blanks
/// of this many bytes at the most, too.
const MANIFEST_BYTES: u64 = 64 << 20;

/// So many bytes of a disk stay free.
const RESERVE: u64 = 64 << 20;

/// Unpacks `archive` into the folder `into`, and returns its list of files, with which what was unpacked agrees. Never more than
/// `most` bytes are written.
pub(super) fn unpack(archive: &Path, into: &Path, most: Most) -> Result<Manifest, ArchiveError> {
    let unusable =
        |why: &str| ArchiveError::Unusable(archive.display().to_string(), why.to_owned());
    let broken = |error: io::Error| unusable(&format!("it is no archive, or is cut: {error}"));
    let file = File::open(archive).map_err(at(archive))?;
    let decompressed = GzDecoder::new(BufReader::new(file));
    let mut tar = tar::Archive::new(decompressed.take(most.bytes.saturating_add(MANIFEST_BYTES)));
    let mut left = most.bytes;
    let mut found = BTreeMap::new();
    let mut manifest: Option<Manifest> = None;
    for entry in tar.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        if !entry.header().entry_type().is_file() {
            return Err(unusable("it holds something that is no file"));
        }
        let name = String::from_utf8(entry.path_bytes().into_owned());
        let name = name.map_err(|_| unusable("it holds a name that is no text"))?;
        if name == MANIFEST {
            let mut text = Vec::new();
            entry.take(MANIFEST_BYTES).read_to_end(&mut text).map_err(broken)?;
            let read = serde_json::from_slice(&text);
            manifest = Some(read.map_err(|_| unusable("its list of files is of another version"))?);
            continue;
        }
        if !is_ours(&name) {
            return Err(unusable(&format!("it holds {name:?}, which is no file of a server")));
        }
        left = left.checked_sub(entry.size()).ok_or_else(|| {
            unusable(&format!("it unpacks to more than {} MiB, {}", most.bytes >> 20, most.why))
        })?;
        let listed = write(&mut entry, &into.join(&name))?;
        found.insert(name, listed);
    }
    // To the end of the file: there is the checksum of it all.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(broken)?;
    let manifest = manifest.ok_or_else(|| unusable("it is cut, or of another program"))?;
    if manifest.format != FORMAT {
        return Err(unusable("it is of a later version of this program"));
    }
    if manifest.files != found {
        return Err(unusable("its files are not those that were put in"));
    }
    Ok(manifest)
}

/// What may be unpacked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Most {
    bytes: u64,
    /// Why no more, as the end of a sentence.
    why: &'static str,
}

impl Most {
    /// So many bytes at the most where that is set, and no more than there is room for in `folder`.
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

fn write(content: &mut impl Read, path: &Path) -> Result<Listed, ArchiveError> {
    if let Some(folder) = path.parent() {
        create_private_folder(folder).map_err(at(folder))?;
    }
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(at(path))?;
    let mut hashed = Hashed { inner: content, hash: Sha256::new() };
    let size = io::copy(&mut hashed, &mut file).map_err(at(path))?;
    file.sync_all().map_err(at(path))?;
    Ok(Listed { size, sha256: hex::encode(hashed.hash.finalize()) })
}

/// Whether this is the name of a file that an archive of ours holds: nothing that leads out of a folder can be.
fn is_ours(name: &str) -> bool {
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

/// Makes sure that a folder's entries have reached the disk.
pub(super) fn sync_folder(folder: &Path) -> Result<(), ArchiveError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
}

/// Moves a file or folder to a place where nothing is.
pub(super) fn move_to(from: &Path, to: &Path) -> Result<(), ArchiveError> {
    fs::rename(from, to).map_err(at(to))
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn no_more_is_unpacked_than_is_allowed() {
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
        let most = Most { bytes: 12 << 20, why: "as a test wants it" };
        let refused = unpack(&archive, &into, most).unwrap_err().to_string();
        assert!(refused.contains("more than 12 MiB, as a test wants it"), "{refused}");
        let staged = into.join("sessions/7d0a3f0e-0f6a-4b5e-9a55-3a4c7d5a1c11");
        let sizes = fs::read_dir(staged).unwrap().map(|file| file.unwrap().metadata().unwrap());
        assert_eq!(sizes.map(|file| file.len()).sum::<u64>(), 10 << 20);
    }

    #[test]
    fn only_names_of_a_servers_files_are_taken() {
        let id = "7d0a3f0e-0f6a-4b5e-9a55-3a4c7d5a1c11";
        for ours in ["session.json", "12.snapshot", "checkpoints/a.share", "bases/0af3"] {
            assert!(is_ours(&format!("sessions/{id}/{ours}")), "{ours}");
        }
        assert!(is_ours("sessions.db"));
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
            assert!(!is_ours(other), "{other:?}");
        }
    }
}
