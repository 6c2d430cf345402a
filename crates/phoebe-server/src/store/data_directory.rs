//! The data directory: the folder of the database. Holds all state, admits one server at a time,
//! and has the instance id that identifies the server's processes.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use uuid::Uuid;

const LOCK: &str = "server.lock";
const INSTANCE: &str = "instance";
const RUN: &str = "run";

/// How long a starting server waits for the lock, because [`DataDirectory::peek`] holds it for a
/// moment.
const WAIT_FOR_LOCK: Duration = Duration::from_millis(300);

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirectoryError {
    /// Another server uses it.
    #[error(
        "the data directory {root} is in use by {}. Stop it first, or let [database] path name a \
         file in another folder",
        holder(.pid)
    )]
    InUse {
        /// The folder.
        root: String,
        /// The process that holds the lock, if known.
        pid: Option<u32>,
    },
    /// The instance file was edited.
    #[error(
        "{path} holds no instance id. Delete it when no worker of an earlier server runs; the \
         server makes a new one"
    )]
    BadInstance {
        /// The file.
        path: String,
    },
    /// An error of the file system.
    #[error(
        "{path}: {error}. The data directory must be writable for this user, on a file system that \
         can lock files"
    )]
    Io {
        /// The file or folder.
        path: String,
        /// The system's error.
        error: io::Error,
    },
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
}

/// A data directory that this process holds. Dropping it releases the lock.
#[derive(Debug)]
pub struct DataDirectory {
    paths: Paths,
    instance_id: String,
    lock: File,
}

/// Checks whether the data directory is still at its path. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DataDirectoryProbe {
    root: PathBuf,
    /// Kept open, so that its inode number is not reused.
    folder: Arc<File>,
}

impl DataDirectoryProbe {
    /// Opens the folder that is now at `root`.
    ///
    /// # Errors
    /// If the folder cannot be opened.
    pub fn of(root: &Path) -> io::Result<Self> {
        Ok(Self { root: root.to_owned(), folder: Arc::new(File::open(root)?) })
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Checks whether the path still leads to the same folder.
    ///
    /// # Errors
    /// A message for users: what has happened, and the remedy.
    pub fn check(&self) -> Result<(), &'static str> {
        let opened = self.folder.metadata();
        match (fs::metadata(&self.root), opened) {
            (Ok(now), Ok(opened)) if (now.dev(), now.ino()) == (opened.dev(), opened.ino()) => {
                Ok(())
            }
            (Ok(_), Ok(_)) => {
                Err("the data directory was moved, and another is in its place: move \
                 it back, or restart the server")
            }
            (Err(error), Ok(_)) if error.kind() == io::ErrorKind::NotFound => {
                Err("the data directory was moved or deleted: move it back, or restart the server")
            }
            _ => Err("the data directory cannot be reached"),
        }
    }
}

/// A data directory as seen without holding it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDirectoryView {
    paths: Paths,
    /// The instance id; `None` if no server has used the directory.
    pub instance_id: Option<String>,
    /// Whether a server holds the lock.
    pub is_in_use: bool,
    /// The process that holds the lock, if known.
    pub holder_pid: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Paths {
    root: PathBuf,
    run: PathBuf,
}

impl Paths {
    fn beside(database_path: &Path) -> Self {
        let root = match database_path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        Self { run: root.join(RUN), root }
    }
}

impl DataDirectory {
    /// Locks the folder of `database_path` for this process. Creates what is missing, for this user
    /// only.
    ///
    /// # Errors
    /// [`DataDirectoryError::InUse`] if another process has it.
    pub fn open(database_path: &Path) -> Result<Self, DataDirectoryError> {
        let paths = Paths::beside(database_path);
        create_private_folder(&paths.root).map_err(at(&paths.root))?;
        let lock = take_lock(&paths.root)?;
        create_private_folder(&paths.run).map_err(at(&paths.run))?;
        let instance_id = match read_instance(&paths.root)? {
            Some(id) => id,
            None => create_instance(&paths.root)?,
        };
        Ok(Self { paths, instance_id, lock })
    }

    /// Reads the state of the folder without holding the lock. Changes nothing.
    ///
    /// # Errors
    /// If the files cannot be read.
    pub fn peek(database_path: &Path) -> Result<DataDirectoryView, DataDirectoryError> {
        let paths = Paths::beside(database_path);
        let instance_id = read_instance(&paths.root)?;
        let lock_path = paths.root.join(LOCK);
        let mut view = DataDirectoryView { paths, instance_id, is_in_use: false, holder_pid: None };
        match File::open(&lock_path) {
            Ok(mut lock) => match lock.try_lock_shared() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    view.is_in_use = true;
                    view.holder_pid = read_pid(&mut lock);
                }
                Err(TryLockError::Error(error)) => return Err(at(&lock_path)(error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at(&lock_path)(error)),
        }
        Ok(view)
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.paths.root
    }

    /// The folder for records of running processes.
    #[must_use]
    pub fn run(&self) -> &Path {
        &self.paths.run
    }

    /// A random id that lasts as long as the folder.
    #[must_use]
    pub fn instance_id(&self) -> &str {
        &self.instance_id
    }
}

impl Drop for DataDirectory {
    fn drop(&mut self) {
        // Removes the process id, which may be reused. Closing the file releases the lock.
        let _ = self.lock.set_len(0);
    }
}

impl DataDirectoryView {
    /// The folder itself; it may not exist.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.paths.root
    }

    /// The folder for records of running processes; it may not exist.
    #[must_use]
    pub fn run(&self) -> &Path {
        &self.paths.run
    }
}

/// Returns the names in a folder; none if the folder does not exist.
pub(super) fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => {
            entries?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        }
    }
}

/// Creates a folder and its parents for this user only. Existing ones are not changed.
pub(super) fn create_private_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Creates a folder for this user only, in an existing parent. Therefore it does not recreate a
/// data directory that was moved away.
pub(super) fn create_private_folder_in_place(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }
}

fn take_lock(root: &Path) -> Result<File, DataDirectoryError> {
    let path = root.join(LOCK);
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(at(&path))?;
    let end = Instant::now() + WAIT_FOR_LOCK;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                let pid = read_pid(&mut lock);
                return Err(DataDirectoryError::InUse { root: root.display().to_string(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
        }
    }
    lock.set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .map_err(at(&path))?;
    Ok(lock)
}

fn read_pid(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn read_instance(root: &Path) -> Result<Option<String>, DataDirectoryError> {
    let path = root.join(INSTANCE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(&path)(error)),
    };
    match Uuid::parse_str(text.trim()) {
        Ok(id) => Ok(Some(id.to_string())),
        Err(_) => Err(DataDirectoryError::BadInstance { path: path.display().to_string() }),
    }
}

/// Writes the instance id atomically.
fn create_instance(root: &Path) -> Result<String, DataDirectoryError> {
    let (path, draft) = (root.join(INSTANCE), root.join("instance.new"));
    let id = Uuid::new_v4().to_string();
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        writeln!(file, "{id}")?;
        file.sync_all()?;
        fs::rename(&draft, &path)
    };
    write().map_err(at(&path))?;
    Ok(id)
}

fn at(path: &Path) -> impl Fn(io::Error) -> DataDirectoryError + use<> {
    let path = path.display().to_string();
    move |error| DataDirectoryError::Io { path: path.clone(), error }
}
