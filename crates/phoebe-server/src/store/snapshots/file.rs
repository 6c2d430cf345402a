//! The file of one snapshot, with a checksum.
//!
//! ```text
//! phoebe-snapshot 1 <SHA-256 of all that follows, 64 hexadecimal digits>\n
//! <header, one line of JSON>\n
//! <payload>
//! ```
//!
//! Payloads are never interpreted: they may be code, and only a worker of the session may read
//! them.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

const MAGIC: &str = "phoebe-snapshot 1 ";
const LONGEST_HEADER: u64 = 1 << 20;

/// The encoding of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A Python pickle of the Bundle: exact and fast, but tied to the versions that wrote it.
    Pickle,
    /// PHOEBE's JSON, which any version can read.
    Portable,
}

/// The versions that wrote a payload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Version of PHOEBE.
    pub phoebe: String,
    /// Version of Python.
    pub python: String,
}

impl Versions {
    /// Returns whether a pickle written by these versions loads in `others`.
    pub(super) fn work_in(&self, others: &Self) -> bool {
        let minor = |version: &str| -> Vec<String> {
            version.split('.').take(2).map(str::to_owned).collect()
        };
        self.phoebe == others.phoebe && minor(&self.python) == minor(&others.python)
    }
}

/// The header of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The encoding of the payload.
    pub format: Format,
    /// The number of changes of the session before the snapshot; 0 for the initial Bundle.
    pub step: u64,
    /// Unix seconds.
    pub taken_at: f64,
    /// The versions that wrote it.
    #[serde(flatten)]
    pub versions: Versions,
    /// A checkpoint's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A checkpoint's note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Header {
    /// Returns whether `versions` change the Bundle when they read it, as another version of PHOEBE
    /// does.
    #[must_use]
    pub fn is_migrated_by(&self, versions: &Versions) -> bool {
        self.format == Format::Portable && self.versions.phoebe != versions.phoebe
    }
}

/// A valid snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The header.
    pub header: Header,
    /// The Bundle.
    pub payload: Bytes,
}

/// Why a snapshot cannot be read.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// An error of the file system.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is torn, damaged, or not a snapshot.
    #[error("{0}")]
    Damaged(&'static str),
    /// All snapshots of the session are damaged.
    #[error("no snapshot of the session is valid: {0}")]
    NoneWhole(String),
}

/// Writes a snapshot atomically.
///
/// # Errors
/// Then `path` keeps its content.
pub(super) fn write(path: &Path, snapshot: &Snapshot, durable: bool) -> io::Result<()> {
    let mut header = serde_json::to_vec(&snapshot.header)?;
    header.push(b'\n');
    let checksum = checksum(&[&header, &snapshot.payload]);
    let first = format!("{MAGIC}{checksum}\n");
    write_atomically(path, &[first.as_bytes(), &header, &snapshot.payload], durable)
}

/// Reads a snapshot and verifies its checksum.
///
/// # Errors
/// [`SnapshotError`] has the reason.
pub(super) fn read(path: &Path) -> Result<Snapshot, SnapshotError> {
    parse(Bytes::from(fs::read(path)?))
}

/// A valid snapshot whose payload is still in the file.
#[derive(Debug)]
pub struct SnapshotFile {
    /// The header.
    pub header: Header,
    /// The file, positioned at the payload.
    pub file: File,
    /// The payload's length in bytes.
    pub length: u64,
}

/// Verifies a snapshot's checksum without holding the payload in memory.
///
/// # Errors
/// [`SnapshotError`] has the reason.
pub(super) fn open(path: &Path) -> Result<SnapshotFile, SnapshotError> {
    let mut file = File::open(path)?;
    let mut reader = BufReader::new(&file);
    let first = line(&mut reader)?.ok_or(SnapshotError::Damaged("it is truncated"))?;
    let expected = std::str::from_utf8(&first).ok().and_then(|line| line.strip_prefix(MAGIC));
    let expected = expected.ok_or(SnapshotError::Damaged("it is not a snapshot"))?;
    let header = line(&mut reader)?.ok_or(SnapshotError::Damaged("it has no header"))?;
    let mut hash = Sha256::new();
    hash.update(&header);
    let mut length = 0;
    loop {
        let piece = reader.fill_buf()?;
        if piece.is_empty() {
            break;
        }
        hash.update(piece);
        let read = piece.len();
        length += read as u64;
        reader.consume(read);
    }
    if hex::encode(hash.finalize()) != expected.trim_end() {
        return Err(SnapshotError::Damaged("its checksum is wrong: it is torn or damaged"));
    }
    let start = first.len() + header.len();
    let header = serde_json::from_slice(&header)
        .map_err(|_| SnapshotError::Damaged("its header is of another version"))?;
    file.seek(SeekFrom::Start(start as u64))?;
    Ok(SnapshotFile { header, file, length })
}

/// Reads a line with its end; `None` if there is none within the limit.
fn line(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    reader.take(LONGEST_HEADER).read_until(b'\n', &mut line)?;
    Ok(line.ends_with(b"\n").then_some(line))
}

/// Verifies the bytes of a snapshot.
///
/// # Errors
/// [`SnapshotError::Damaged`] has the reason.
pub fn verify(bytes: Bytes) -> Result<(), SnapshotError> {
    parse(bytes).map(drop)
}

/// Parses and verifies the bytes of a snapshot.
///
/// # Errors
/// [`SnapshotError::Damaged`].
pub(super) fn parse(bytes: Bytes) -> Result<Snapshot, SnapshotError> {
    let (first, rest) = split_line(&bytes).ok_or(SnapshotError::Damaged("it is truncated"))?;
    let expected = std::str::from_utf8(&first).ok().and_then(|line| line.strip_prefix(MAGIC));
    let expected = expected.ok_or(SnapshotError::Damaged("it is not a snapshot"))?;
    if checksum(&[&rest]) != expected {
        return Err(SnapshotError::Damaged("its checksum is wrong: it is torn or damaged"));
    }
    let (header, payload) = split_line(&rest).ok_or(SnapshotError::Damaged("it has no header"))?;
    let header = serde_json::from_slice(&header)
        .map_err(|_| SnapshotError::Damaged("its header is of another version"))?;
    Ok(Snapshot { header, payload })
}

/// Replaces the file at `path` atomically.
pub(super) fn write_atomically(path: &Path, parts: &[&[u8]], durable: bool) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let written = write_all(&temporary, parts, durable).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Best effort: the first error is the one to report.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    match path.parent() {
        Some(folder) if durable => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

fn write_all(path: &Path, parts: &[&[u8]], durable: bool) -> io::Result<()> {
    let mut file = File::create(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    if durable { file.sync_all() } else { Ok(()) }
}

fn checksum(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

fn split_line(bytes: &Bytes) -> Option<(Bytes, Bytes)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((bytes.slice(..end), bytes.slice(end + 1..)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snapshot(payload: Vec<u8>) -> Snapshot {
        let header = Header {
            format: Format::Pickle,
            step: 7,
            taken_at: 1.5,
            versions: Versions { phoebe: "2.5.4".to_owned(), python: "3.11.7".to_owned() },
            name: None,
            note: Some("before the fit".to_owned()),
        };
        Snapshot { header, payload: Bytes::from(payload) }
    }

    proptest! {
        /// What is written is read again; every cut and every flipped bit is detected.
        #[test]
        fn damage_is_always_detected(
            payload in prop::collection::vec(any::<u8>(), 0..2000),
            cut in any::<prop::sample::Index>(),
            flip in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("7.snapshot");
            let written = snapshot(payload);
            write(&path, &written, false).unwrap();
            prop_assert_eq!(&read(&path).unwrap(), &written);
            let mut on_disk = open(&path).unwrap();
            let mut payload = Vec::new();
            on_disk.file.read_to_end(&mut payload).unwrap();
            prop_assert_eq!(&on_disk.header, &written.header);
            prop_assert_eq!(on_disk.length, payload.len() as u64);
            prop_assert_eq!(&payload, &written.payload);
            prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

            let whole = fs::read(&path).unwrap();
            fs::write(&path, &whole[..cut.index(whole.len())]).unwrap();
            prop_assert!(read(&path).is_err() && open(&path).is_err());
            let mut damaged = whole.clone();
            damaged[flip.index(whole.len())] ^= 1 << bit;
            fs::write(&path, &damaged).unwrap();
            prop_assert!(read(&path).is_err() && open(&path).is_err());
        }
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.snapshot");
        write(&path, &snapshot(b"old".to_vec()), true).unwrap();
        // A folder has the temporary file's name, so the write fails.
        fs::create_dir(path.with_extension("new")).unwrap();
        assert!(write(&path, &snapshot(b"new".to_vec()), true).is_err());
        assert_eq!(read(&path).unwrap().payload, "old");
    }
}
