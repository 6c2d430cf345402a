//! Writes an archive. The file gets its name when it is complete.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::format::{
    ArchiveError, FORMAT, FileEntry, Kind, MANIFEST, Manifest, at, folder_of, now,
};
use crate::store::snapshots;

/// Snapshots hardly compress better at higher levels.
const COMPRESSION: Compression = Compression::new(3);

type Compressed = GzEncoder<BufWriter<NamedTempFile>>;

/// Writes an archive. Dropped before [`Writer::finish`], it leaves no file.
pub(super) struct Writer {
    path: PathBuf,
    force: bool,
    folder: PathBuf,
    archive: tar::Builder<Compressed>,
    files: BTreeMap<String, FileEntry>,
    damaged: Vec<String>,
    modified: u64,
}

impl Writer {
    /// Starts the archive for `path`, readable by this user only.
    pub(super) fn create(path: &Path, force: bool) -> Result<Self, ArchiveError> {
        if path.exists() && !force {
            return Err(ArchiveError::Exists(path.display().to_string()));
        }
        let folder = folder_of(path);
        let file = tempfile::Builder::new().prefix(".phoebe-server-archive-").tempfile_in(&folder);
        let compressed = GzEncoder::new(BufWriter::new(file.map_err(at(&folder))?), COMPRESSION);
        Ok(Self {
            path: path.to_owned(),
            force,
            folder,
            archive: tar::Builder::new(compressed),
            files: BTreeMap::new(),
            damaged: Vec::new(),
            // Whole seconds.
            modified: now() as u64,
        })
    }

    /// Returns the folder of the archive.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds a file. Notes a damaged snapshot.
    pub(super) fn add(&mut self, name: &str, content: Vec<u8>) -> Result<(), ArchiveError> {
        let content = Bytes::from(content);
        if name.ends_with(".snapshot")
            && let Err(problem) = snapshots::verify(content.clone())
        {
            self.damaged.push(format!("{name}: {problem}"));
        }
        let listed =
            FileEntry { size: content.len() as u64, sha256: hex::encode(Sha256::digest(&content)) };
        self.append(name, listed.size, &content[..])?;
        self.files.insert(name.to_owned(), listed);
        Ok(())
    }

    /// Adds the file at `path`, which may be large and must not change meanwhile.
    pub(super) fn add_file(&mut self, name: &str, path: &Path) -> Result<(), ArchiveError> {
        let file = File::open(path).map_err(at(path))?;
        let size = file.metadata().map_err(at(path))?.len();
        let mut hashing = HashingReader { inner: file, hash: Sha256::new() };
        self.append(name, size, &mut hashing)?;
        let sha256 = hex::encode(hashing.hash.finalize());
        self.files.insert(name.to_owned(), FileEntry { size, sha256 });
        Ok(())
    }

    /// Returns the damaged snapshots.
    pub(super) fn take_damaged(&mut self) -> Vec<String> {
        std::mem::take(&mut self.damaged)
    }

    /// Adds the manifest and gives the archive its name. Returns its size in bytes.
    pub(super) fn finish(mut self, kind: Kind) -> Result<u64, ArchiveError> {
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            kind,
            server: env!("CARGO_PKG_VERSION").to_owned(),
            created_at: now(),
            files: std::mem::take(&mut self.files),
        };
        let here = at(&self.path);
        let text = serde_json::to_vec(&manifest).map_err(|error| here(error.into()))?;
        self.append(MANIFEST, text.len() as u64, &text[..])?;
        let compressed = self.archive.into_inner().map_err(&here)?;
        let written = compressed.finish().and_then(|mut file| {
            file.flush()?;
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.as_file().sync_all()?;
            let size = file.as_file().metadata()?.len();
            Ok((file, size))
        });
        let (file, size) = written.map_err(&here)?;
        let named =
            if self.force { file.persist(&self.path) } else { file.persist_noclobber(&self.path) };
        match named {
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(ArchiveError::Exists(self.path.display().to_string()));
            }
            named => named.map_err(|error| here(error.error))?,
        };
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(&here)?;
        Ok(size)
    }

    fn append(
        &mut self,
        name: &str,
        size: u64,
        content: impl io::Read,
    ) -> Result<(), ArchiveError> {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(self.modified);
        header.set_cksum();
        self.archive.append_data(&mut header, name, content).map_err(at(&self.path))
    }
}

/// A reader that computes the checksum of what it reads.
pub(super) struct HashingReader<R> {
    pub(super) inner: R,
    pub(super) hash: Sha256,
}

impl<R: io::Read> io::Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}
