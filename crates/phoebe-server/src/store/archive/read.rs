//! An archive as it is read: into an empty folder, and checked to the last byte before anybody uses it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::write::Hashed;
use super::{ArchiveError, DATABASE, FORMAT, Listed, MANIFEST, Manifest, SESSIONS, at};
use crate::store::data_directory::create_private_folder;
use crate::store::snapshots::files::{BASES, CHECKPOINTS};

/// A list of files longer than this is none of ours.
const MANIFEST_BYTES: u64 = 256 << 20;

/// Unpacks `archive` into the folder `into`, and returns its list of files, with which what was unpacked agrees.
pub(super) fn unpack(archive: &Path, into: &Path) -> Result<Manifest, ArchiveError> {
    let unusable =
        |why: &str| ArchiveError::Unusable(archive.display().to_string(), why.to_owned());
    let broken = |error: io::Error| unusable(&format!("it is no archive, or is cut: {error}"));
    let file = File::open(archive).map_err(at(archive))?;
    let mut tar = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
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
    use super::*;

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
