//! The folder of passband files that an operator adds to PHOEBE's own: where it is, and how a file
//! gets into it whole.
//!
//! It knows files, not what is in them: that PHOEBE can use a file is found out by
//! [`crate::worker::inspect_passbands`].

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tempfile::NamedTempFile;
use thiserror::Error;

use crate::config::Settings;

/// The folder's name in the data directory.
const FOLDER: &str = "passbands";
/// The largest file in MiB, uncompressed. PHOEBE's own are at most some tens.
const LARGEST_MB: u64 = 1024;
/// What a FITS file begins with.
const FITS: &[u8] = b"SIMPLE  =";
const GZIP: &[u8] = &[0x1f, 0x8b];

/// Why a file did not get into the folder.
#[derive(Debug, Error)]
pub enum PassbandFileError {
    /// It is no FITS file.
    #[error("it is no FITS file: {0}")]
    NotFits(String),
    /// It is too large.
    #[error("it is larger than {LARGEST_MB} MiB")]
    TooLarge,
    /// The file system.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> PassbandFileError {
    move |error| PassbandFileError::Io { path: path.to_owned(), error }
}

/// The folder that the settings name, else the one in the data directory. `None` where workers
/// change to another account, which cannot pass through the data directory.
///
/// # Errors
/// When the working directory is gone.
pub fn folder(settings: &Settings) -> io::Result<Option<PathBuf>> {
    let folder = match &settings.worker.passband_dir {
        Some(folder) => folder.clone(),
        None if !settings.worker.user.is_empty() => return Ok(None),
        None => settings.database.path.with_file_name(FOLDER),
    };
    std::path::absolute(folder).map(Some)
}

/// Makes the folder if it is missing. It must be there before the first worker starts: what a
/// worker may read is settled then.
///
/// # Errors
/// What the file system says, with the folder's name.
pub fn create(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(|error| {
        let text = format!(
            "{}: {error}. It is the folder of passband files: [worker] passband_dir, or \
             $PHOEBE_PBDIR",
            folder.display()
        );
        io::Error::new(error.kind(), text)
    })
}

/// A file that is in the folder, and that PHOEBE does not see yet. Dropped, it is gone.
#[derive(Debug)]
pub struct Incoming {
    file: NamedTempFile,
}

impl Incoming {
    /// Copies `source` into `folder`, uncompressed.
    ///
    /// # Errors
    /// When it cannot be read, or is no FITS file.
    pub fn copy(source: &Path, folder: &Path) -> Result<Self, PassbandFileError> {
        let opened = File::open(source).map_err(at(source))?;
        if !opened.metadata().map_err(at(source))?.is_file() {
            return Err(PassbandFileError::NotFits("it is no plain file".to_owned()));
        }
        let mut start = Vec::new();
        (&opened).take(GZIP.len() as u64).read_to_end(&mut start).map_err(at(source))?;
        let rest = BufReader::new(opened);
        let whole = io::Cursor::new(start.clone()).chain(rest);
        let content: Box<dyn Read> =
            if start == GZIP { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) };

        // PHOEBE looks at names that end in `.fits`.
        let file = tempfile::Builder::new()
            .prefix(".incoming-")
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(folder)
            .map_err(at(folder))?;
        let mut incoming = Self { file };
        incoming.fill(content, source)?;
        Ok(incoming)
    }

    fn fill(&mut self, mut content: impl Read, source: &Path) -> Result<(), PassbandFileError> {
        let target = self.file.path().to_owned();
        let mut head = Vec::new();
        content.by_ref().take(FITS.len() as u64).read_to_end(&mut head).map_err(at(source))?;
        if head != FITS {
            return Err(PassbandFileError::NotFits(looks_like(&head)));
        }
        let bound = LARGEST_MB * 1024 * 1024;
        let mut whole = io::Cursor::new(head).chain(content).take(bound + 1);
        let length = io::copy(&mut whole, self.file.as_file_mut()).map_err(at(source))?;
        if length > bound {
            return Err(PassbandFileError::TooLarge);
        }
        self.file.flush().and_then(|()| self.file.as_file().sync_all()).map_err(at(&target))?;
        // The permissions of a new file are cut by the caller's mask.
        fs::set_permissions(&target, Permissions::from_mode(0o644)).map_err(at(&target))
    }

    /// Where it is now.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Gives it its name, all at once; a file of that name is replaced.
    ///
    /// # Errors
    /// What the file system says.
    pub fn install(self, target: &Path) -> Result<(), PassbandFileError> {
        self.file.persist(target).map_err(|failed| at(target)(failed.error))?;
        let folder = target.parent().unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
    }
}

fn looks_like(head: &[u8]) -> String {
    let text = String::from_utf8_lossy(head).into_owned();
    match head.first() {
        None => "it is empty".to_owned(),
        Some(b'<') => "it looks like a web page: was the download refused?".to_owned(),
        Some(b'{' | b'[') => "it looks like JSON: was the download refused?".to_owned(),
        Some(_) => format!("it begins with {text:?}"),
    }
}

/// The name of the file of a passband, as PHOEBE itself names it: `Johnson:V` is in
/// `johnson_v.fits`. Characters that mean something in the name of a passband file become `-`.
#[must_use]
pub fn file_name(passband: &str) -> String {
    let plain = |each: char| match each.to_ascii_lowercase() {
        ':' => '_',
        kept if kept.is_ascii_alphanumeric() || "_-".contains(kept) => kept,
        _ => '-',
    };
    format!("{}.fits", passband.chars().map(plain).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming(content: &[u8]) -> Result<Vec<u8>, PassbandFileError> {
        let place = tempfile::tempdir().unwrap();
        let source = place.path().join("source");
        fs::write(&source, content).unwrap();
        let folder = place.path().join("folder");
        create(&folder).unwrap();
        let result = Incoming::copy(&source, &folder).map(|file| fs::read(file.path()).unwrap());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing stays");
        result
    }

    fn compressed(content: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(content).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn a_file_is_copied_whole_and_uncompressed() {
        let content = b"SIMPLE  =                    T".repeat(1000);
        assert_eq!(incoming(&content).unwrap(), content);
        assert_eq!(incoming(&compressed(&content)).unwrap(), content);
    }

    #[test]
    fn what_is_no_fits_file_is_refused_with_what_it_looks_like() {
        for (content, words) in [
            (&b""[..], "it is empty"),
            (b"<html>", "a web page"),
            (b"{\"error\": 1}", "JSON"),
            (b"\x80\x04pickle", "begins with"),
            (&compressed(b"<!DOCTYPE html>"), "a web page"),
        ] {
            let text = incoming(content).unwrap_err().to_string();
            assert!(text.contains("no FITS file") && text.contains(words), "{text}");
        }
        let broken = &compressed(&b"SIMPLE  =".repeat(100))[..20];
        assert!(incoming(broken).is_err(), "a file that was cut");
    }

    #[test]
    fn a_file_that_unpacks_to_more_than_the_bound_is_refused() {
        struct Zeros;
        impl Read for Zeros {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                // Nothing but holes would be written: keep the disk out of it.
                buffer.fill(0);
                Ok(buffer.len())
            }
        }
        // The bound is held by `take`: one byte more than it is enough to see.
        let place = tempfile::tempdir().unwrap();
        let source = place.path().join("source");
        let head = io::Cursor::new(FITS.to_vec());
        let mut file = Incoming { file: NamedTempFile::new_in(place.path()).unwrap() };
        let error = file.fill(head.chain(Zeros), &source).unwrap_err();
        assert!(matches!(error, PassbandFileError::TooLarge), "{error}");
    }

    #[test]
    fn files_are_named_as_phoebe_names_them() {
        assert_eq!(file_name("Johnson:V"), "johnson_v.fits");
        assert_eq!(file_name("Bolometric:900-40000"), "bolometric_900-40000.fits");
        assert_eq!(file_name("../a.b:c d"), "---a-b_c-d.fits");
    }

    #[test]
    fn the_folder_is_the_settings_else_the_data_directorys() {
        let mut settings = Settings::default();
        settings.database.path = "/var/lib/p/sessions.db".into();
        assert_eq!(folder(&settings).unwrap(), Some("/var/lib/p/passbands".into()));
        settings.worker.user = "nobody".to_owned();
        assert_eq!(folder(&settings).unwrap(), None);
        settings.worker.passband_dir = Some("/srv/passbands".into());
        assert_eq!(folder(&settings).unwrap(), Some("/srv/passbands".into()));
    }
}
