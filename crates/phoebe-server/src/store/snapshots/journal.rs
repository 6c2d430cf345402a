//! The session's changing commands in order, one JSON line each: what a script is made from, and how a command that was
//! interrupted is known after a crash. Lines are only ever appended; undoing a change takes none of them back.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// One line.
#[derive(Debug)]
enum Line {
    Step(Step),
    Mark(Mark),
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
pub struct Step {
    /// Counts the session's changes from 1.
    pub step: u64,
    /// The step whose Bundle it changed; 0 for the one that the session began with.
    pub parent: u64,
    /// Unix seconds.
    pub at: f64,
    /// Whether the command succeeded. A failed one may have changed something all the same.
    pub success: bool,
    /// The command as its user sent it; `None` where an earlier state was brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Box<RawValue>>,
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
            Line::Mark(_) => None,
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

    /// The changes that led from the Bundle at the session's beginning to that of `step`, in order.
    pub(super) fn way_to(&self, step: u64) -> io::Result<Vec<Step>> {
        let mut steps: HashMap<u64, Step> = HashMap::new();
        for line in self.lines()? {
            if let Line::Step(step) = line {
                // A number is given again where the first one's snapshot was never whole.
                steps.insert(step.step, step);
            }
        }
        let mut way = Vec::new();
        let mut at = step;
        while let Some(step) = steps.remove(&at) {
            at = step.parent;
            way.push(step);
        }
        way.reverse();
        Ok(way)
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
        let lines = text.split(|byte| *byte == b'\n');
        Ok(lines.filter_map(parse).collect())
    }
}

/// A line that is neither is of a later version, or damaged.
fn parse(line: &[u8]) -> Option<Line> {
    let step = serde_json::from_slice(line).map(Line::Step);
    step.or_else(|_| serde_json::from_slice(line).map(Line::Mark)).ok()
}

fn whole_length(text: &[u8]) -> u64 {
    text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64, parent: u64) -> Step {
        let command = RawValue::from_string(format!(r#"{{"command":"set_value","n":{step}}}"#));
        Step { step, parent, at: 1.0, success: true, command: Some(command.unwrap()) }
    }

    fn numbers(journal: &Journal, to: u64) -> Vec<u64> {
        journal.way_to(to).unwrap().into_iter().map(|step| step.step).collect()
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
