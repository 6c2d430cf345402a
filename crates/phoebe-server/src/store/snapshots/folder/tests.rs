use proptest::prelude::*;

use super::super::SnapshotStore;
use super::*;

const ID: &str = "4f7c";

fn payload(content: &str) -> Payload {
    payload_of(Format::Pickle, "2.5.4", content)
}

fn payload_of(format: Format, phoebe: &str, content: &str) -> Payload {
    let versions = Versions { phoebe: phoebe.to_owned(), python: "3.11.7".to_owned() };
    Payload { format, versions, bytes: Bytes::copy_from_slice(content.as_bytes()) }
}

fn folder(root: &tempfile::TempDir, history: usize) -> SessionFolder {
    let rules = Rules { fsync: false, history };
    let folder = SnapshotStore::open(root.path(), rules).unwrap().session(ID);
    let record = SessionRecord { session_id: ID.to_owned(), ..SessionRecord::default() };
    folder.write_record(&record).unwrap();
    folder
}

fn change(content: &str) -> Change {
    let command = format!("{{\"command\":\n\"{content}\"}}");
    Change::command(1.0, true, Bytes::from(command))
}

fn push(folder: &mut SessionFolder, content: &str) -> u64 {
    folder.commit(change(content), Some(&payload(content))).unwrap()
}

fn text(snapshot: &Snapshot) -> String {
    String::from_utf8(snapshot.payload.to_vec()).unwrap()
}

fn forms(folder: &mut SessionFolder) -> Vec<String> {
    let versions = payload("").versions;
    folder.recover(&versions).unwrap().forms.iter().map(text).collect()
}

fn commands(folder: &mut SessionFolder) -> Vec<String> {
    folder.commands()
}

#[test]
fn a_damaged_snapshot_is_skipped_and_reported() {
    let root = tempfile::tempdir().unwrap();
    let mut folder = folder(&root, 5);
    push(&mut folder, "one");
    let last = push(&mut folder, "two");
    let path = folder.snapshot_path(last);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let recovered = folder.recover(&Versions::default()).unwrap();
    assert_eq!(text(&recovered.forms[0]), "one");
    assert!(recovered.notice.unwrap().contains("snapshot 2"));
    assert_eq!(commands(&mut folder).len(), 1);
    assert_eq!(push(&mut folder, "three"), 3, "a number is given once");
    fs::write(folder.snapshot_path(1), b"").unwrap();
    fs::write(folder.snapshot_path(3), b"").unwrap();
    assert!(folder.recover(&Versions::default()).is_err());
}

#[test]
fn the_portable_copy_is_used_after_an_upgrade_for_its_own_state_only() {
    let root = tempfile::tempdir().unwrap();
    let mut folder = folder(&root, 5);
    push(&mut folder, "one");
    folder.save_portable(&payload_of(Format::Portable, "2.5.4", "portable one"), 1.0).unwrap();
    assert_eq!(forms(&mut folder), ["one", "portable one"]);
    let newer = Versions { phoebe: "2.6.0".to_owned(), python: "3.11.7".to_owned() };
    let recovered = folder.recover(&newer).unwrap();
    let upgraded: Vec<String> = recovered.forms.iter().map(text).collect();
    assert_eq!(upgraded, ["portable one", "one"]);
    push(&mut folder, "two");
    assert_eq!(forms(&mut folder), ["two"]);
    // If the exact form is damaged, the portable copy of the same state replaces it.
    folder.save_portable(&payload_of(Format::Portable, "2.5.4", "portable two"), 1.0).unwrap();
    fs::write(folder.snapshot_path(2), b"torn").unwrap();
    assert_eq!(forms(&mut folder), ["portable two"]);
}

#[test]
fn changes_without_a_snapshot_are_stored_by_the_next_save() {
    let root = tempfile::tempdir().unwrap();
    let mut kept = folder(&root, 5);
    push(&mut kept, "one");
    kept.commit(change("two"), None).unwrap();
    kept.commit(change("three"), None).unwrap();
    assert_eq!(forms(&mut folder(&root, 5)), ["one"]);
    kept.save(&payload("three"), 2.0).unwrap();
    let mut again = folder(&root, 5);
    assert_eq!(forms(&mut again), ["three"]);
    assert_eq!(commands(&mut again).len(), 3);
    assert_eq!(text(&again.before().unwrap().unwrap()), "one");
}

#[test]
fn checkpoints_outlive_changes_and_ids_are_not_paths() {
    let root = tempfile::tempdir().unwrap();
    let mut folder = folder(&root, 1);
    push(&mut folder, "one");
    let versions = payload("").versions;
    let note = Some("good fit".to_owned());
    let made = folder.write_checkpoint(3.0, "before".to_owned(), note).unwrap();
    for content in ["two", "three", "four"] {
        push(&mut folder, content);
    }
    assert_eq!(folder.checkpoints().unwrap(), vec![made.clone()]);
    assert_eq!(text(&folder.checkpoint(&made.id, &versions).unwrap().unwrap()), "one");
    for id in ["../4.snapshot", "..", "", "0000000000000000000000000000000g"] {
        assert!(folder.checkpoint(id, &versions).unwrap().is_none());
        assert!(!folder.remove_checkpoint(id).unwrap());
    }
    assert!(folder.remove_checkpoint(&made.id).unwrap());
    assert!(!folder.remove_checkpoint(&made.id).unwrap());
}

#[test]
fn a_checkpoint_survives_an_upgrade_and_a_damaged_file() {
    let root = tempfile::tempdir().unwrap();
    let mut folder = folder(&root, 5);
    let write = |folder: &mut SessionFolder, name: &str| {
        folder.write_checkpoint(3.0, name.to_owned(), None).unwrap().id
    };
    push(&mut folder, "one");
    let exact_only = write(&mut folder, "exact only");
    folder.save_portable(&payload_of(Format::Portable, "2.5.4", "portable one"), 1.0).unwrap();
    let both = write(&mut folder, "both");
    push(&mut folder, "two");
    let later = write(&mut folder, "of a state that the portable copy is not of");

    let same = payload("").versions;
    let newer = Versions { phoebe: "2.6.0".to_owned(), python: "3.11.7".to_owned() };
    let best = |folder: &SessionFolder, id: &str, versions: &Versions| {
        text(&folder.checkpoint(id, versions).unwrap().unwrap())
    };
    assert_eq!(best(&folder, &both, &same), "one");
    assert_eq!(best(&folder, &both, &newer), "portable one");
    assert_eq!(best(&folder, &exact_only, &newer), "one");
    assert_eq!(best(&folder, &later, &newer), "two");

    let mut copy = SnapshotStore::open(root.path(), folder.rules).unwrap().session("copy");
    assert!(folder.copy_to(&mut copy, Some(&both)).unwrap());
    let recovered = copy.recover(&newer).unwrap();
    assert_eq!(recovered.forms.iter().map(text).collect::<Vec<_>>(), ["portable one", "one"]);

    let checkpoints = folder.path().join("checkpoints");
    fs::write(checkpoints.join(format!("{both}.snapshot")), b"torn").unwrap();
    assert_eq!(best(&folder, &both, &same), "portable one");
    assert_eq!(folder.checkpoints().unwrap().len(), 3);
    for id in [both, exact_only, later] {
        assert!(folder.remove_checkpoint(&id).unwrap());
    }
    assert_eq!(fs::read_dir(checkpoints).unwrap().count(), 0, "nothing of them stays");
}

#[test]
fn a_copy_has_the_state_of_the_original() {
    let root = tempfile::tempdir().unwrap();
    let mut original = folder(&root, 5);
    push(&mut original, "one");
    push(&mut original, "two");
    original.set_head(1).unwrap();
    let rules = Rules { fsync: false, history: 5 };
    let mut copy = SnapshotStore::open(root.path(), rules).unwrap().session("copy");
    assert!(original.copy_to(&mut copy, None).unwrap());
    assert_eq!(forms(&mut copy), ["one"]);
    push(&mut copy, "other");
    assert_eq!(commands(&mut copy).len(), 2);
    assert_eq!(text(&original.after().unwrap().unwrap()), "two");
}

#[test]
fn sessions_are_listed_and_removed_and_templates_shared() {
    let root = tempfile::tempdir().unwrap();
    let rules = Rules { fsync: true, history: 1 };
    let store = SnapshotStore::open(root.path(), rules).unwrap();
    let begin = |id: &str| {
        let form = |form| store.template("ab12", form);
        store.session(id).link_templates(&form(Format::Pickle), &form(Format::Portable))
    };
    store.write_template("cd34", payload("nobody's"), 1.0).unwrap();
    store.write_template("ab12", payload("begin"), 1.0).unwrap();
    let missing = begin("b").unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound, "both forms are wanted");
    let portable = payload_of(Format::Portable, "2.5.4", "portable begin");
    store.write_template("ab12", portable, 1.0).unwrap();
    for (id, created_at) in [("b", 2.0), ("a", 1.0)] {
        let record =
            SessionRecord { session_id: id.to_owned(), created_at, ..SessionRecord::default() };
        store.session(id).write_record(&record).unwrap();
        begin(id).unwrap();
        assert_eq!(forms(&mut store.session(id)), ["begin", "portable begin"]);
    }
    fs::create_dir(root.path().join("sessions/empty")).unwrap();
    let listed = |store: &SnapshotStore| -> Vec<String> {
        store.sessions().unwrap().into_iter().map(|record| record.session_id).collect()
    };
    assert_eq!(listed(&store), ["a", "b"]);
    store.session("a").remove().unwrap();
    store.session("a").remove().unwrap();
    assert_eq!(listed(&store), ["b"]);
    let store = SnapshotStore::open(root.path(), rules).unwrap();
    for form in [Format::Pickle, Format::Portable] {
        assert!(store.template("ab12", form).exists());
        assert!(store.template("../../etc", form).starts_with(root.path().join("templates")));
    }
    assert!(!store.template("cd34", Format::Pickle).exists());
}

#[test]
fn a_damaged_state_is_not_copied() {
    let root = tempfile::tempdir().unwrap();
    let mut folder = folder(&root, 5);
    push(&mut folder, "one");
    push(&mut folder, "two");
    fs::write(folder.snapshot_path(2), b"torn").unwrap();
    let mut copy = SnapshotStore::open(root.path(), folder.rules).unwrap().session("copy");
    assert!(folder.copy_to(&mut copy, None).unwrap());
    assert_eq!(forms(&mut copy), ["one"]);
    assert_eq!(commands(&mut copy).len(), 1);
    let made = folder.write_checkpoint(3.0, "before".to_owned(), None).unwrap();
    assert_eq!(made.header.step, 1);
}

fn replacement(content: &str) -> Change {
    let bytes = Ok(Bytes::copy_from_slice(content.as_bytes()));
    let imported = Imported { origin: Origin::Uploaded, phoebe: "2.5.4".to_owned(), bytes };
    Change {
        at: 1.0,
        success: true,
        changed: ChangeKind::Replaced(imported),
        parent: None,
        job: None,
    }
}

fn bases(folder: &SessionFolder) -> usize {
    names_in(&folder.path.join("bases")).unwrap().len()
}

#[test]
fn an_imported_bundle_is_stored_once_and_while_a_state_descends_from_it() {
    let root = tempfile::tempdir().unwrap();
    let mut folder = folder(&root, 2);
    push(&mut folder, "one");
    for content in ["a", "b", "b"] {
        folder.commit(replacement(content), Some(&payload(content))).unwrap();
    }
    assert_eq!(bases(&folder), 2, "the same Bundle twice is one file");
    let checkpoint = folder.write_checkpoint(3.0, "b".to_owned(), None).unwrap();
    for content in ["c", "d", "e", "f"] {
        folder.commit(replacement(content), Some(&payload(content))).unwrap();
    }
    push(&mut folder, "two");
    assert_eq!(bases(&folder), 1 + 3);
    let source = folder.script_source(Vec::new()).unwrap();
    let kept: Vec<serde_json::Value> = serde_json::from_slice(&source.commands).unwrap();
    let (base, bytes) = source.base.unwrap();
    assert_eq!((bytes, base.origin, kept.len()), ("f".into(), Origin::Uploaded, 1));

    let mut copy = SnapshotStore::open(root.path(), folder.rules).unwrap().session("copy");
    assert!(folder.copy_to(&mut copy, Some(&checkpoint.id)).unwrap());
    assert_eq!(bases(&copy), 1);
    assert_eq!(copy.script_source(Vec::new()).unwrap().base.unwrap().1, "b");
    push(&mut copy, "three");
    assert_eq!(commands(&mut copy), ["{\"command\":\"three\"}"]);

    let too_large = Change {
        changed: ChangeKind::Replaced(Imported {
            origin: Origin::Loaded,
            phoebe: "2.5.4".to_owned(),
            bytes: Ok(Bytes::from(vec![0; bases::MAXIMUM_BYTES + 1])),
        }),
        ..replacement("")
    };
    folder.commit(too_large, Some(&payload("g"))).unwrap();
    assert!(folder.script_source(Vec::new()).unwrap_err().to_string().contains("64 MiB"));
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Push,
    Undo,
    Redo,
    Reopen,
}

proptest! {
    /// Compares with a model of two stacks: the head is always the model's, also after a restart,
    /// and the journal has its lineage.
    #[test]
    fn undo_and_redo_are_stacks(
        acts in prop::collection::vec(
            prop_oneof![
                Just(Action::Push),
                Just(Action::Undo),
                Just(Action::Redo),
                Just(Action::Reopen)
            ],
            0..60,
        ),
        history in 1usize..5,
    ) {
        let root = tempfile::tempdir().unwrap();
        let mut kept = folder(&root, history);
        let (mut done, mut undone): (Vec<String>, Vec<String>) = Default::default();
        for (index, action) in acts.into_iter().enumerate() {
            match action {
                Action::Push => {
                    push(&mut kept, &index.to_string());
                    done.push(index.to_string());
                    undone.clear();
                    let excess = done.len().saturating_sub(history + 1);
                    done.drain(..excess);
                }
                Action::Undo => {
                    let expected = (done.len() > 1).then(|| {
                        undone.extend(done.pop());
                        done.last().cloned().unwrap_or_default()
                    });
                    let before = kept.before().unwrap();
                    prop_assert_eq!(before.as_ref().map(text), expected);
                    before.iter().for_each(|snapshot| kept.set_head(snapshot.header.step).unwrap());
                }
                Action::Redo => {
                    let expected = undone.pop();
                    done.extend(expected.clone());
                    let after = kept.after().unwrap();
                    prop_assert_eq!(after.as_ref().map(text), expected);
                    after.iter().for_each(|snapshot| kept.set_head(snapshot.header.step).unwrap());
                }
                Action::Reopen => kept = folder(&root, history),
            }
            let counts = forms(&mut kept);
            prop_assert_eq!(counts.first(), done.last());
            let last = commands(&mut kept).pop();
            let expected = done.last().map(|content| format!("{{\"command\":\"{content}\"}}"));
            prop_assert_eq!(last, expected);
            prop_assert_eq!(kept.history().unwrap(), (done.len().saturating_sub(1), undone.len()));
            prop_assert!(kept.numbers().unwrap().len() <= history + 1 + undone.len());
        }
    }
}
