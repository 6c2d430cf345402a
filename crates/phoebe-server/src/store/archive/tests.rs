use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use super::*;
use crate::store::DataDirectory;
use crate::store::snapshots::{
    Change, Format, Payload, Rules, SessionFolder, SessionRecord, SnapshotStore, Versions,
};

const RULES: Rules = Rules { fsync: false, history: 3 };
const ID: &str = "7d0a3f0e-0f6a-4b5e-9a55-3a4c7d5a1c11";

/// A data directory with a database.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let place = Self { folder };
        crate::store::create(&place.database()).unwrap();
        place
    }

    fn empty() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn database(&self) -> PathBuf {
        self.root().join("sessions.db")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    fn session(&self, id: &str) -> SessionFolder {
        SnapshotStore::open(&self.root(), RULES).unwrap().session(id)
    }

    /// Returns a stored session's folder.
    fn new_session(&self, id: &str) -> SessionFolder {
        let folder = self.session(id);
        let record = SessionRecord { session_id: id.to_owned(), ..SessionRecord::default() };
        folder.write_record(&record).unwrap();
        folder
    }

    fn back_up(&self) -> Report {
        back_up(&self.root(), &self.database(), &self.file(), true).unwrap()
    }

    fn restore(&self, archive: &Path) -> Result<Restored, ArchiveError> {
        let data = DataDirectory::open(&self.database()).unwrap();
        restore(archive, &data, &self.database(), false, |_| panic!("nothing is there"))
    }

    fn import(&self, archive: &Path) -> Result<SessionRecord, ArchiveError> {
        let data = DataDirectory::open(&self.database()).unwrap();
        import_session(archive, &data, RULES, None, None)
    }
}

fn payload(content: &str) -> Payload {
    let versions = Versions { phoebe: "2.5.4".to_owned(), python: "3.11.7".to_owned() };
    Payload { format: Format::Pickle, versions, bytes: Bytes::copy_from_slice(content.as_bytes()) }
}

fn push(folder: &mut SessionFolder, content: &str) -> u64 {
    let command = Bytes::from(format!("{{\"command\":\"{content}\"}}"));
    folder.commit(Change::command(1.0, true, command), Some(&payload(content))).unwrap()
}

/// Returns the current state as text.
fn state(folder: &mut SessionFolder) -> String {
    let forms = folder.recover(&payload("").versions).unwrap().forms;
    String::from_utf8(forms[0].payload.to_vec()).unwrap()
}

#[test]
fn a_backup_restores_everything() {
    let (here, there) = (Place::new(), Place::empty());
    let mut folder = here.new_session(ID);
    for content in ["a", "b", "c"] {
        push(&mut folder, content);
    }
    let before = folder.before().unwrap().unwrap().header.step;
    folder.set_head(before).unwrap();
    let checkpoint = folder.write_checkpoint(1.0, "one".to_owned(), None).unwrap();
    folder.share(&checkpoint.id, "hash").unwrap();
    let report = here.back_up();
    assert_eq!((report.sessions, report.damaged.len()), (1, 0));

    assert_eq!(there.restore(&here.file()).unwrap().sessions, 1);
    let mut restored = there.session(ID);
    assert_eq!(restored.record().unwrap(), folder.record().unwrap());
    assert_eq!(state(&mut restored), "b");
    assert_eq!(restored.history().unwrap(), folder.history().unwrap());
    assert_eq!(restored.commands().len(), 2);
    assert_eq!(restored.checkpoints().unwrap(), std::slice::from_ref(&checkpoint));
    assert!(restored.shared(&checkpoint.id, "hash").unwrap().is_some());
    crate::store::create(&there.database()).unwrap();
    let left: Vec<_> = fs::read_dir(there.root()).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(!left.iter().any(|path| path.to_string_lossy().contains("restore-")), "{left:?}");
}

fn decompressed(archive: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    flate2::read::GzDecoder::new(archive).read_to_end(&mut content).ok().map(|_| content)
}

#[test]
fn an_archive_that_was_cut_or_changed_changes_nothing() {
    let here = Place::new();
    push(&mut here.new_session(ID), "a");
    here.back_up();
    let whole = fs::read(here.file()).unwrap();
    let inside = decompressed(&whole).unwrap();
    let damaged = here.folder.path().join("damaged");
    for position in (0..whole.len()).step_by(whole.len() / 25) {
        let mut flipped = whole.clone();
        flipped[position] ^= 4;
        for content in [&whole[..position], &flipped[..]] {
            fs::write(&damaged, content).unwrap();
            let there = Place::empty();
            // Some bits do not matter to the decompressor.
            let is_whole = decompressed(content).is_some_and(|content| content == inside);
            assert_eq!(there.restore(&damaged).is_ok(), is_whole, "{position}");
            assert_eq!(there.database().exists(), is_whole, "{position}");
            assert_eq!(there.root().join(SESSIONS).exists(), is_whole, "{position}");
        }
    }
}

#[test]
fn nothing_is_written_outside_the_data_directory() {
    let entry = |name: &str, kind: tar::EntryType| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(if kind.is_file() { 1 } else { 0 });
        // The library refuses to write such a name.
        let bytes = &mut header.as_old_mut().name;
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        if kind.is_symlink() {
            header.set_link_name("/etc").unwrap();
        }
        header.set_cksum();
        header
    };
    let inside = format!("sessions/{ID}/head");
    for (name, kind) in [
        ("../evil", tar::EntryType::Regular),
        ("/tmp/evil", tar::EntryType::Regular),
        ("sessions/../../evil", tar::EntryType::Regular),
        ("server.lock", tar::EntryType::Regular),
        (&inside, tar::EntryType::Symlink),
        (&inside, tar::EntryType::Link),
        (&inside, tar::EntryType::Directory),
        (&inside, tar::EntryType::Fifo),
    ] {
        let there = Place::empty();
        let gz = GzEncoder::new(fs::File::create(there.file()).unwrap(), Compression::fast());
        let mut archive = tar::Builder::new(gz);
        let header = entry(name, kind);
        archive.append(&header, if kind.is_file() { &b"x"[..] } else { b"" }).unwrap();
        archive.into_inner().unwrap().finish().unwrap();
        let refused = there.restore(&there.file()).unwrap_err();
        assert!(matches!(refused, ArchiveError::Unusable(..)), "{name}: {refused}");
        assert!(!there.folder.path().join("evil").exists() && !there.root().join("evil").exists());
    }
}

#[test]
fn an_imported_session_gets_a_new_id_if_its_own_is_taken() {
    let (here, there) = (Place::new(), Place::new());
    let mut folder = here.new_session(ID);
    push(&mut folder, "a");
    export_session(&here.root(), ID, &here.file(), false).unwrap();
    let again = export_session(&here.root(), ID, &here.file(), false);
    assert!(matches!(again, Err(ArchiveError::Exists(_))));

    assert_eq!(there.import(&here.file()).unwrap().session_id, ID);
    let second = there.import(&here.file()).unwrap().session_id;
    assert_ne!(second, ID);
    push(&mut there.session(ID), "b");
    assert_eq!(state(&mut there.session(ID)), "b");
    let mut second = there.session(&second);
    assert_eq!(state(&mut second), "a");
    assert!(second.record().is_ok());

    assert!(matches!(there.restore(&here.file()), Err(ArchiveError::NotEmpty(..))));
    let other = Place::empty().restore(&here.file());
    assert!(matches!(other, Err(ArchiveError::OtherKind(..))));
    here.back_up();
    assert!(matches!(there.import(&here.file()), Err(ArchiveError::OtherKind(..))));
    let unknown = export_session(&here.root(), "../..", &here.file(), true);
    assert!(matches!(unknown, Err(ArchiveError::NoSession(..))));
    let missing = back_up(&here.root(), &here.root().join("none.db"), &here.file(), true);
    assert!(matches!(missing, Err(ArchiveError::Nothing(_))));
}

#[test]
fn a_damaged_snapshot_is_reported_and_archived_unchanged() {
    let here = Place::new();
    let mut folder = here.new_session(ID);
    push(&mut folder, "a");
    push(&mut folder, "b");
    fs::write(folder.path().join("2.snapshot"), "torn").unwrap();
    let report = here.back_up();
    assert_eq!(report.damaged.len(), 1);
    assert!(report.damaged[0].contains(&format!("{ID}/2.snapshot")), "{:?}", report.damaged);
    let there = Place::empty();
    there.restore(&here.file()).unwrap();
    assert_eq!(state(&mut there.session(ID)), "a");
}

/// Each copy of a constantly changing session is a state that it had during the copy.
#[test]
fn a_copy_during_changes_is_a_consistent_state() {
    let here = Place::new();
    let mut folder = here.new_session(ID);
    push(&mut folder, "1");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0_u64;
            while !done.load(Ordering::Relaxed) {
                turn += 1;
                let content = folder.commands().len() + 1;
                push(&mut folder, &content.to_string());
                if turn.is_multiple_of(3) {
                    let before = folder.before().unwrap().unwrap().header.step;
                    folder.set_head(before).unwrap();
                }
            }
        });
        for _ in 0..60 {
            let there = Place::empty();
            here.back_up();
            there.restore(&here.file()).unwrap();
            let mut copied = there.session(ID);
            let recovered = copied.recover(&payload("").versions).unwrap();
            assert_eq!(recovered.notice, None);
            // Each state is the number of its changes, and the journal has the same number.
            assert_eq!(state(&mut copied), copied.commands().len().to_string());
        }
        done.store(true, Ordering::Relaxed);
    });
}
