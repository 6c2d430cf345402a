use std::fs;

use super::*;

fn step(step: u64, parent: u64) -> Step {
    let command = RawValue::from_string(format!(r#"{{"command":"set_value","n":{step}}}"#));
    let command = ReplayableCommand { command: command.unwrap(), parameter: None };
    Step { step, parent, at: 1.0, success: true, action: Action::Command(command), job: None }
}

fn begin(step: u64, parent: u64, sha256: &str) -> Step {
    let (sha256, origin) = (sha256.to_owned(), Origin::Uploaded);
    let base = Base { sha256, origin, phoebe: "2.5.4".to_owned() };
    Step { step, parent, at: 1.0, success: true, action: Action::Begin(base), job: None }
}

fn numbers(journal: &Journal, to: u64) -> Vec<u64> {
    journal.lineages().unwrap().to(to).unwrap().steps.into_iter().map(|step| step.step).collect()
}

fn copy_lineage(journal: &Journal, to: u64, copy: &mut Journal) {
    match journal.lineages().unwrap().to(to) {
        Ok(lineage) => copy.copy_from(to, Ok(&lineage)),
        Err(why) => copy.copy_from(to, Err(why)),
    }
    .unwrap();
}

#[test]
fn lines_that_are_too_long_are_skipped_without_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut journal = Journal::new(path.clone());
    journal.step(step(1, 0)).unwrap();
    let mut text = fs::read(&path).unwrap();
    text.extend(vec![b' '; LONGEST_LINE + 1]);
    text.extend(b"\n");
    fs::write(&path, &text).unwrap();
    let mut journal = Journal::new(path.clone());
    journal.step(begin(2, 1, "aa")).unwrap();
    journal.step(step(3, 2)).unwrap();
    journal.begin("run_compute", 2.0).unwrap();
    assert_eq!((numbers(&journal, 3), journal.last_step().unwrap()), (vec![2, 3], 3));
    assert!(replay_problem(&journal, 1).contains("16 MiB"));
    assert!(journal.interrupted().unwrap().is_some());
    let mut commands = Vec::new();
    journal.lineages().unwrap().to(3).unwrap().write_commands(&mut commands).unwrap();
    let commands: serde_json::Value = serde_json::from_slice(&commands).unwrap();
    let expected =
        serde_json::json!([{"command": {"command": "set_value", "n": 3}, "success": true}]);
    assert_eq!(commands, expected);
}

fn replay_problem(journal: &Journal, to: u64) -> String {
    journal.lineages().unwrap().to(to).unwrap_err().to_string()
}

#[test]
fn the_lineage_omits_undone_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut journal = Journal::new(path.clone());
    for (number, parent) in [(1, 0), (2, 1), (3, 1), (4, 3)] {
        journal.begin("set_value", 1.0).unwrap();
        journal.step(step(number, parent)).unwrap();
    }
    assert_eq!(numbers(&journal, 4), [1, 3, 4]);
    assert_eq!(numbers(&journal, 2), [1, 2]);
    assert_eq!(numbers(&Journal::new(path), 0), [0u64; 0]);
    assert_eq!(journal.last_step().unwrap(), 4);
}

#[test]
fn the_lineage_begins_with_the_last_imported_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::new(folder.path().join("journal"));
    for step in [step(1, 0), begin(2, 1, "aa"), step(3, 2), begin(4, 3, "bb"), step(5, 4)] {
        journal.step(step).unwrap();
    }
    let returned = Step { action: Action::Return, ..step(6, 3) };
    journal.step(returned).unwrap();
    assert_eq!(numbers(&journal, 5), [4, 5]);
    assert_eq!(numbers(&journal, 6), [2, 3, 6]);
    let lineages = journal.lineages().unwrap();
    let lineage = lineages.to(6).unwrap();
    assert_eq!((lineage.base.unwrap().sha256.as_str(), lineage.steps.len()), ("aa", 3));
    assert_eq!(numbers(&journal, 1), [1]);
    // A migrated state gets a new line with its own number.
    journal.step(begin(3, 3, "cc")).unwrap();
    assert_eq!(numbers(&journal, 6), [3, 6]);

    let mut copy = Journal::new(folder.path().join("copy"));
    copy_lineage(&journal, 6, &mut copy);
    assert_eq!(numbers(&copy, 6), [3, 6]);
    assert_eq!(fs::read_to_string(copy.path()).unwrap().lines().count(), 2, "only what led there");
}

#[test]
fn gaps_in_the_journal_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut journal = Journal::new(path.clone());
    // A line of a server that did not store imported Bundles.
    let old = br#"{"step":1,"parent":0,"at":1.0,"success":true,"command":{"command":"a"}}
{"step":2,"parent":1,"at":1.0,"success":true}
"#;
    fs::write(&path, old).unwrap();
    for next in [step(3, 2), step(5, 4), begin(6, 5, "aa"), step(7, 6)] {
        journal.step(next).unwrap();
    }
    assert_eq!(numbers(&journal, 1), [1]);
    assert!(
        replay_problem(&journal, 3).contains("did not record"),
        "{}",
        replay_problem(&journal, 3)
    );
    assert!(replay_problem(&journal, 5).contains("lacks change 4"));
    assert_eq!(numbers(&journal, 7), [6, 7]);

    let mut copy = Journal::new(folder.path().join("copy"));
    copy_lineage(&journal, 3, &mut copy);
    assert_eq!(replay_problem(&copy, 3), replay_problem(&journal, 3));

    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&whole[..], b"{\"step\":8,\"par\0\n"].concat()).unwrap();
    let damaged = Journal::new(path);
    assert!(
        replay_problem(&damaged, 1).contains("damaged")
            && replay_problem(&damaged, 7).contains("damaged")
    );
}

#[test]
fn a_torn_line_is_ignored_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut journal = Journal::new(path.clone());
    journal.step(step(1, 0)).unwrap();
    journal.begin("run_compute", 2.0).unwrap();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&whole[..], br#"{"step":2,"par"#].concat()).unwrap();
    let mut journal = Journal::new(path.clone());
    let expected = Interrupted { command: "run_compute".to_owned(), at: 2.0 };
    assert_eq!(journal.interrupted().unwrap(), Some(expected));
    journal.step(step(2, 1)).unwrap();
    assert_eq!(journal.interrupted().unwrap(), None);
    assert_eq!(numbers(&journal, 2), [1, 2]);
    assert!(fs::read(&path).unwrap().starts_with(&whole));
}

#[test]
fn pending_lines_are_written_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    fs::create_dir(&path).unwrap();
    let mut journal = Journal::new(path.clone());
    assert!(journal.step(step(1, 0)).is_err());
    fs::remove_dir(&path).unwrap();
    journal.step(step(2, 1)).unwrap();
    assert_eq!(numbers(&Journal::new(path), 2), [1, 2]);
}
