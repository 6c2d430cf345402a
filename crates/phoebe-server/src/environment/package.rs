//! The Python package of the workers: embedded in the program, unpacked once into the cache, and
//! compared with what is embedded at each start.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use include_dir::{Dir, DirEntry, include_dir};
use sha2::{Digest as _, Sha256};

use super::cache::{self, cache_directory};
use super::error::EnvironmentError;

static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../worker/phoebe_worker");

const PACKAGE: &str = "phoebe_worker";

type Files<'a> = BTreeMap<PathBuf, &'a [u8]>;

/// A folder to put on Python's path: it holds the package `phoebe_worker` and nothing else.
///
/// # Errors
/// Where the cache directory cannot be written.
pub fn package_directory() -> Result<PathBuf, EnvironmentError> {
    unpack(&embedded(), &cache_directory()?)
}

/// The package's own files, without tests and what Python leaves behind.
fn embedded() -> Files<'static> {
    let mut files = Files::new();
    collect(&EMBEDDED, &mut files);
    files
}

fn collect(folder: &'static Dir<'static>, files: &mut Files<'static>) {
    for entry in folder.entries() {
        match entry {
            DirEntry::Dir(folder) if is_wanted(folder.path()) => collect(folder, files),
            DirEntry::File(file) if is_wanted(file.path()) => {
                files.insert(file.path().to_owned(), file.contents());
            }
            _ => {}
        }
    }
}

fn is_wanted(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let passing = name.starts_with('.') || name.ends_with(".pyc");
    !passing && !["__pycache__", "tests"].contains(&name.as_ref())
}

/// Unpacks `files` into a folder of `cache` that is named by their content, unless it is there.
fn unpack(files: &Files<'_>, cache: &Path) -> Result<PathBuf, EnvironmentError> {
    let folder = cache.join(format!("worker-{}", &content_hash(files)[..16]));
    if is_as_embedded(&folder, files) {
        return Ok(folder);
    }
    cache::make_private(cache)?;
    // Another start may do the same now, so each writes into a folder of its own.
    let number: u64 = rand::random();
    let fresh = cache.join(format!(".worker-{number:016x}"));
    let written = write(&fresh, files).and_then(|()| exchange(&fresh, &folder, files));
    cache::remove(&fresh)?;
    written.map(|()| folder)
}

fn content_hash(files: &Files<'_>) -> String {
    let mut hash = Sha256::new();
    for (path, content) in files {
        let path = path.to_string_lossy();
        hash.update((path.len() as u64).to_be_bytes());
        hash.update(path.as_bytes());
        hash.update((content.len() as u64).to_be_bytes());
        hash.update(content);
    }
    hex::encode(hash.finalize())
}

/// Whether `folder` holds `files`, unchanged, and nothing more than what Python compiled from them.
fn is_as_embedded(folder: &Path, files: &Files<'_>) -> bool {
    let package = folder.join(PACKAGE);
    let unchanged = |(path, content): (&PathBuf, &&[u8])| {
        let path = package.join(path);
        cache::is_private(&path) && fs::read(path).is_ok_and(|found| found == **content)
    };
    let only_package = names(folder).is_some_and(|names| names == [PACKAGE]);
    cache::is_private(folder)
        && only_package
        && files.iter().all(unchanged)
        && nothing_else(&package, Path::new(""), files)
}

fn nothing_else(package: &Path, inside: &Path, files: &Files<'_>) -> bool {
    let folder = package.join(inside);
    cache::is_private(&folder)
        && names(&folder).is_some_and(|names| {
            names.iter().all(|name| {
                let path = inside.join(name);
                let is_folder = files.keys().any(|file| file.starts_with(&path) && *file != path);
                match name.as_str() {
                    "__pycache__" => cache::is_private(&package.join(&path)),
                    _ if is_folder => nothing_else(package, &path, files),
                    _ => files.contains_key(&path),
                }
            })
        })
}

/// Names of what is in `folder`.
fn names(folder: &Path) -> Option<Vec<String>> {
    let entries = fs::read_dir(folder).ok()?;
    entries.map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

fn write(folder: &Path, files: &Files<'_>) -> Result<(), EnvironmentError> {
    let package = folder.join(PACKAGE);
    cache::make_private(&package)?;
    for (path, content) in files {
        debug_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
        let path = package.join(path);
        if let Some(folder) = path.parent() {
            cache::make_private(folder)?;
        }
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content))
            .map_err(EnvironmentError::file("written", &path))?;
    }
    Ok(())
}

/// Puts `fresh` in the place of `folder`. If another start was faster, its folder is as good.
fn exchange(fresh: &Path, folder: &Path, files: &Files<'_>) -> Result<(), EnvironmentError> {
    for _ in 0..10 {
        match fs::rename(fresh, folder) {
            Ok(()) => return Ok(()),
            Err(_) if is_as_embedded(folder, files) => return Ok(()),
            // What is there was changed by somebody.
            Err(_) if folder.exists() => cache::remove(folder)?,
            Err(error) => return Err(EnvironmentError::file("written", folder)(error)),
        }
    }
    let error = std::io::Error::other("something keeps changing it");
    Err(EnvironmentError::file("written", folder)(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn files() -> Files<'static> {
        let files: [(&str, &[u8]); 3] =
            [("__init__.py", b""), ("worker.py", b"x = 1\n"), ("commands/ping.py", b"y = 2\n")];
        files.into_iter().map(|(path, content)| (PathBuf::from(path), content)).collect()
    }

    #[test]
    fn the_package_is_unpacked_once_with_private_permissions() {
        let cache = tempfile::tempdir().expect("a folder");
        let folder = unpack(&files(), cache.path()).expect("unpacked");
        let file = folder.join("phoebe_worker/commands/ping.py");
        assert_eq!(fs::read(&file).expect("there"), b"y = 2\n");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
        fs::create_dir(folder.join("phoebe_worker/__pycache__")).expect("made");
        let before = fs::metadata(&file).expect("there").modified().expect("known");
        assert_eq!(unpack(&files(), cache.path()).expect("reused"), folder);
        assert_eq!(fs::metadata(&file).expect("there").modified().expect("known"), before);
        assert_eq!(names(cache.path()).expect("read").len(), 1);
    }

    #[test]
    fn a_changed_package_is_replaced() {
        let cache = tempfile::tempdir().expect("a folder");
        let folder = unpack(&files(), cache.path()).expect("unpacked");
        let package = folder.join("phoebe_worker");
        let changes: [&dyn Fn(); 5] = [
            &|| fs::write(package.join("worker.py"), "evil = 1\n").expect("written"),
            &|| fs::remove_file(package.join("__init__.py")).expect("removed"),
            &|| fs::write(package.join("commands/json.py"), "evil = 1\n").expect("written"),
            &|| fs::write(folder.join("json.py"), "evil = 1\n").expect("written"),
            &|| {
                let open = fs::Permissions::from_mode(0o777);
                fs::set_permissions(package.join("commands"), open).expect("changed");
            },
        ];
        for change in changes {
            change();
            assert!(!is_as_embedded(&folder, &files()));
            assert_eq!(unpack(&files(), cache.path()).expect("replaced"), folder);
            assert!(is_as_embedded(&folder, &files()));
        }
    }

    #[test]
    fn other_content_has_another_folder() {
        let cache = tempfile::tempdir().expect("a folder");
        let mut other = files();
        other.insert(PathBuf::from("worker.py"), b"x = 2\n");
        let first = unpack(&files(), cache.path()).expect("unpacked");
        assert_ne!(unpack(&other, cache.path()).expect("unpacked"), first);
    }

    #[test]
    fn starts_at_the_same_time_do_not_disturb_each_other() {
        let cache = tempfile::tempdir().expect("a folder");
        std::thread::scope(|scope| {
            let starts: Vec<_> =
                (0..8).map(|_| scope.spawn(|| unpack(&files(), cache.path()))).collect();
            for start in starts {
                let folder = start.join().expect("no panic").expect("unpacked");
                assert!(is_as_embedded(&folder, &files()));
            }
        });
        assert_eq!(names(cache.path()).expect("read").len(), 1);
    }

    /// Fails if a new file is not embedded yet: touch this file then, so that it is compiled again.
    #[test]
    fn the_embedded_package_is_current() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../worker/phoebe_worker");
        let mut found = BTreeMap::new();
        let mut folders = vec![source.clone()];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).expect("read").map(|e| e.expect("read").path()) {
                if !is_wanted(&path) {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&source).expect("inside").to_owned();
                    found.insert(name, fs::read(path).expect("read"));
                }
            }
        }
        let embedded: BTreeMap<_, _> =
            embedded().into_iter().map(|(path, content)| (path, content.to_vec())).collect();
        assert_eq!(embedded, found);
    }
}
