//! The session's changes in order, one JSON line each: what a script is made from, and how a
//! command that was interrupted is known after a crash. Lines are only ever appended; undoing a
//! change takes none of them back.
//!
//! A line never holds a Bundle. Where one came from outside, its step names the
//! [base](super::bases) that is kept of it, and the way to every later state begins there.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

/// One line.
#[derive(Debug)]
enum Line {
    Step(Step),
    Mark(Mark),
    /// Of a later version of the server, or damaged.
    Unknown,
}

/// A command that began, or that ended without a change.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    mark: MarkKind,
    command: String,
    at: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum MarkKind {
    Begin,
    End,
}

/// A change of the Bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "WrittenStep", into = "WrittenStep")]
pub struct Step {
    /// Counts the session's changes from 1; 0 is the Bundle that the session began with.
    pub step: u64,
    /// The step whose Bundle it changed.
    pub parent: u64,
    /// Unix seconds.
    pub at: f64,
    /// Whether the command succeeded. A failed one may have changed something all the same.
    pub success: bool,
    /// What changed the Bundle.
    pub act: Act,
}

/// What changed the Bundle, as far as it can be repeated.
#[derive(Debug, Clone)]
pub enum Act {
    /// A command.
    Command(Repeatable),
    /// The Bundle came from outside, and begins anew from what is kept of it.
    Begin(Base),
    /// The Bundle became that of the parent again.
    Return,
    /// Something that a script cannot repeat; the text says what, for the user.
    Unrepeatable(String),
}

/// A command, with what repeats it in another Bundle.
#[derive(Debug, Clone)]
pub struct Repeatable {
    /// As its user sent it.
    pub command: Box<RawValue>,
    /// The tags of the parameter that it names by its unique id, which is another in each Bundle.
    pub parameter: Option<Box<RawValue>>,
}

/// A kept Bundle with which a script can begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// What is kept of it, by its SHA-256 in hexadecimal.
    pub sha256: String,
    /// Where the Bundle came from.
    pub origin: Origin,
    /// The version of PHOEBE that wrote it.
    pub phoebe: String,
}

/// Where a Bundle from outside came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A file that was uploaded.
    Uploaded,
    /// A command that carried it, `load_bundle`.
    Loaded,
    /// A state of the session that another version of PHOEBE had made, and this one migrated.
    Migrated,
}

/// A step as a line. A step that names nothing is of a server that did not note where a Bundle came
/// from.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct WrittenStep {
    step: u64,
    parent: u64,
    at: f64,
    success: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameter: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<Base>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    returned: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unrepeatable: Option<String>,
}

impl From<WrittenStep> for Step {
    fn from(written: WrittenStep) -> Self {
        let WrittenStep { step, parent, at, success, command, parameter, .. } = written;
        let act = match (command, written.base, written.unrepeatable) {
            (_, _, Some(why)) => Act::Unrepeatable(why),
            (_, Some(base), None) => Act::Begin(base),
            (Some(command), None, None) => Act::Command(Repeatable { command, parameter }),
            (None, None, None) if written.returned => Act::Return,
            (None, None, None) => Act::Unrepeatable(
                "an earlier version of this server replaced the Bundle (by a file or a \
                 checkpoint) and did not note by which"
                    .to_owned(),
            ),
        };
        Self { step, parent, at, success, act }
    }
}

impl From<Step> for WrittenStep {
    fn from(Step { step, parent, at, success, act }: Step) -> Self {
        let mut written = Self { step, parent, at, success, ..Self::default() };
        match act {
            Act::Command(Repeatable { command, parameter }) => {
                (written.command, written.parameter) = (Some(command), parameter);
            }
            Act::Begin(base) => written.base = Some(base),
            Act::Return => written.returned = true,
            Act::Unrepeatable(why) => written.unrepeatable = Some(why),
        }
        written
    }
}

/// How a state came to be.
#[derive(Debug, Clone, Default)]
pub struct Way {
    /// The Bundle that it begins with; `None` for the one that fresh sessions have.
    pub base: Option<Base>,
    /// The commands that changed it since, in order, and whether each succeeded.
    pub commands: Vec<(Repeatable, bool)>,
    /// The steps that it goes through, that of the base included, in order.
    pub steps: Vec<Step>,
}

/// All steps of a journal.
pub(super) struct Ways {
    /// With the places of their lines.
    steps: HashMap<u64, (usize, Step)>,
    /// The place of the last line that says nothing.
    unknown: Option<usize>,
}

/// Why it is not known how a state came to be.
#[derive(Debug, Error)]
pub enum WayError {
    /// The journal cannot be read.
    #[error("the journal of the session cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It says nothing, or something that cannot be repeated.
    #[error("{0}")]
    Unrepeatable(String),
}

/// A command that had begun when the server ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Interrupted {
    /// Its name.
    pub command: String,
    /// When it began, in Unix seconds.
    pub at: f64,
}

/// The journal of one session. What cannot be written now is written with the next line.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    pending: Vec<u8>,
    /// Up to here the file is whole; a torn line behind it is cut off first.
    length: Option<u64>,
}

impl Journal {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, pending: Vec::new(), length: None }
    }

    /// Notes that a command goes to the worker.
    pub(super) fn begin(&mut self, command: &str, at: f64) -> io::Result<()> {
        self.append(&Mark { mark: MarkKind::Begin, command: command.to_owned(), at })
    }

    /// Notes that a command is over and changed nothing.
    pub(super) fn end(&mut self, command: &str, at: f64) -> io::Result<()> {
        self.append(&Mark { mark: MarkKind::End, command: command.to_owned(), at })
    }

    /// Notes a change.
    pub(super) fn step(&mut self, step: Step) -> io::Result<()> {
        self.append(&step)
    }

    /// Writes what could not be written before.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        let length = match self.length {
            Some(length) => length,
            None => whole_length(&fs::read(&self.path)?),
        };
        file.set_len(length)?;
        self.length = Some(length);
        file.write_all(&self.pending)?;
        self.length = Some(length + self.pending.len() as u64);
        self.pending.clear();
        Ok(())
    }

    /// The last number that a change got.
    pub(super) fn last_step(&self) -> io::Result<u64> {
        let steps = self.lines()?.into_iter().filter_map(|line| match line {
            Line::Step(step) => Some(step.step),
            Line::Mark(_) | Line::Unknown => None,
        });
        Ok(steps.max().unwrap_or(0))
    }

    /// The command that had begun and is not over, if the last line says so.
    pub(super) fn interrupted(&self) -> io::Result<Option<Interrupted>> {
        Ok(match self.lines()?.pop() {
            Some(Line::Mark(Mark { mark: MarkKind::Begin, command, at })) => {
                Some(Interrupted { command, at })
            }
            _ => None,
        })
    }

    /// How each state came to be, as far as the journal says it.
    pub(super) fn ways(&self) -> io::Result<Ways> {
        let lines = self.lines()?;
        let unknown = lines.iter().rposition(|line| matches!(line, Line::Unknown));
        let mut steps = HashMap::new();
        for (place, line) in lines.into_iter().enumerate() {
            if let Line::Step(step) = line {
                // The later line counts: a number is given again where the first one's snapshot was
                // never whole, and a state that was migrated begins anew.
                steps.insert(step.step, (place, step));
            }
        }
        Ok(Ways { steps, unknown })
    }

    /// Begins with the way to the state of `step` in another session's journal.
    pub(super) fn begin_as(&mut self, step: u64, way: Result<Way, WayError>) -> io::Result<()> {
        let steps = match way {
            Ok(way) => way.steps,
            Err(WayError::Io(error)) => return Err(error),
            Err(WayError::Unrepeatable(why)) => {
                let act = Act::Unrepeatable(why);
                vec![Step { step, parent: step, at: 0.0, success: true, act }]
            }
        };
        steps.into_iter().try_for_each(|step| self.step(step))
    }

    fn append(&mut self, line: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.pending, line)?;
        self.pending.push(b'\n');
        self.flush()
    }

    /// All whole lines; a torn one at the end is passed over.
    fn lines(&self) -> io::Result<Vec<Line>> {
        let mut text = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => text?,
        };
        text.truncate(usize::try_from(whole_length(&text)).unwrap_or(usize::MAX));
        text.extend(&self.pending);
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(lines.map(parse).collect())
    }
}

impl Ways {
    /// How the Bundle of `step` came to be.
    ///
    /// # Errors
    /// [`WayError::Unrepeatable`] where the journal does not say it from the beginning to the end.
    pub(super) fn to(&self, step: u64) -> Result<Way, WayError> {
        let unrepeatable = |why: &str| Err(WayError::Unrepeatable(why.to_owned()));
        let mut way = Way::default();
        let mut begins = None;
        let mut at = step;
        while begins.is_none() {
            let Some((place, step)) = self.steps.get(&at) else { break };
            match &step.act {
                Act::Command(command) => way.commands.push((command.clone(), step.success)),
                Act::Begin(base) => (way.base, begins) = (Some(base.clone()), Some(*place)),
                Act::Return => {}
                Act::Unrepeatable(why) => return unrepeatable(why),
            }
            if begins.is_none() && step.parent >= step.step {
                return unrepeatable(DAMAGED);
            }
            at = step.parent;
            way.steps.push(step.clone());
        }
        if begins.is_none() && at != 0 {
            return unrepeatable(&format!("the journal of the session lacks its change {at}"));
        }
        // What such a line said may be what the way begins with.
        if self.unknown.is_some_and(|unknown| begins.is_none_or(|begins| begins < unknown)) {
            return unrepeatable(DAMAGED);
        }
        way.commands.reverse();
        way.steps.reverse();
        Ok(way)
    }
}

const DAMAGED: &str = "the journal of the session is damaged, or of a later version of this server";

fn parse(line: &[u8]) -> Line {
    let step = serde_json::from_slice(line).map(Line::Step);
    step.or_else(|_| serde_json::from_slice(line).map(Line::Mark)).unwrap_or(Line::Unknown)
}

fn whole_length(text: &[u8]) -> u64 {
    text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64, parent: u64) -> Step {
        let command = RawValue::from_string(format!(r#"{{"command":"set_value","n":{step}}}"#));
        let command = Repeatable { command: command.unwrap(), parameter: None };
        Step { step, parent, at: 1.0, success: true, act: Act::Command(command) }
    }

    fn begin(step: u64, parent: u64, sha256: &str) -> Step {
        let (sha256, origin) = (sha256.to_owned(), Origin::Uploaded);
        let base = Base { sha256, origin, phoebe: "2.5.4".to_owned() };
        Step { step, parent, at: 1.0, success: true, act: Act::Begin(base) }
    }

    fn numbers(journal: &Journal, to: u64) -> Vec<u64> {
        journal.ways().unwrap().to(to).unwrap().steps.into_iter().map(|step| step.step).collect()
    }

    fn why_not(journal: &Journal, to: u64) -> String {
        journal.ways().unwrap().to(to).unwrap_err().to_string()
    }

    #[test]
    fn the_way_leaves_out_what_was_undone() {
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
    fn the_way_begins_with_the_last_bundle_from_outside() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(folder.path().join("journal"));
        for step in [step(1, 0), begin(2, 1, "aa"), step(3, 2), begin(4, 3, "bb"), step(5, 4)] {
            journal.step(step).unwrap();
        }
        let returned = Step { act: Act::Return, ..step(6, 3) };
        journal.step(returned).unwrap();
        assert_eq!(numbers(&journal, 5), [4, 5]);
        assert_eq!(numbers(&journal, 6), [2, 3, 6]);
        let way = journal.ways().unwrap().to(6).unwrap();
        assert_eq!((way.base.unwrap().sha256.as_str(), way.commands.len()), ("aa", 1));
        assert_eq!(numbers(&journal, 1), [1]);
        // A state that was migrated begins anew under its own number.
        journal.step(begin(3, 3, "cc")).unwrap();
        assert_eq!(numbers(&journal, 6), [3, 6]);

        let mut copy = Journal::new(folder.path().join("copy"));
        copy.begin_as(6, journal.ways().unwrap().to(6)).unwrap();
        assert_eq!(numbers(&copy, 6), [3, 6]);
        assert_eq!(copy.lines().unwrap().len(), 2, "only what led there");
    }

    #[test]
    fn what_the_journal_does_not_say_is_not_made_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::new(path.clone());
        // As servers wrote it that did not note which Bundle took the place of another.
        let old = br#"{"step":1,"parent":0,"at":1.0,"success":true,"command":{"command":"a"}}
{"step":2,"parent":1,"at":1.0,"success":true}
"#;
        fs::write(&path, old).unwrap();
        for next in [step(3, 2), step(5, 4), begin(6, 5, "aa"), step(7, 6)] {
            journal.step(next).unwrap();
        }
        assert_eq!(numbers(&journal, 1), [1]);
        assert!(why_not(&journal, 3).contains("did not note"), "{}", why_not(&journal, 3));
        assert!(why_not(&journal, 5).contains("lacks its change 4"));
        assert_eq!(numbers(&journal, 7), [6, 7]);

        let mut copy = Journal::new(folder.path().join("copy"));
        copy.begin_as(3, journal.ways().unwrap().to(3)).unwrap();
        assert_eq!(why_not(&copy, 3), why_not(&journal, 3));

        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], b"{\"step\":8,\"par\0\n"].concat()).unwrap();
        let damaged = Journal::new(path);
        assert!(
            why_not(&damaged, 1).contains("damaged") && why_not(&damaged, 7).contains("damaged")
        );
    }

    #[test]
    fn a_torn_line_is_passed_over_and_cut_off() {
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
    fn what_could_not_be_written_is_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        fs::create_dir(&path).unwrap();
        let mut journal = Journal::new(path.clone());
        assert!(journal.step(step(1, 0)).is_err());
        fs::remove_dir(&path).unwrap();
        journal.step(step(2, 1)).unwrap();
        assert_eq!(numbers(&Journal::new(path), 2), [1, 2]);
    }
}
