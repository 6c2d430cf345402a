//! The lineage of a state: the base and the commands that led to it. Keeps the position of each
//! step's line; commands stay in the file until they are read, one at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Action, BLOCK, Base, Journal, LONGEST_LINE, LineageError, Mark, Step, whole_length};

/// The most characters of a reason.
const REASON: usize = 1000;

/// The steps of a journal, and the journal with their commands.
#[derive(Debug)]
pub(in crate::store::snapshots) struct LineageIndex<'a> {
    journal: Lines<'a>,
    steps: HashMap<u64, StepEntry>,
    /// The position of the last unreadable line.
    unknown: Option<u64>,
}

/// The lineage of a state.
#[derive(Debug)]
pub(in crate::store::snapshots) struct Lineage<'a> {
    journal: &'a Lines<'a>,
    /// The base that it begins with; `None` for the default Bundle.
    pub(in crate::store::snapshots) base: Option<Base>,
    /// Its steps in order, with the base's step.
    pub(in crate::store::snapshots) steps: Vec<Line>,
}

/// The line of a step.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::snapshots) struct Line {
    /// The step's number.
    #[cfg(test)]
    pub(super) step: u64,
    /// Whether the step is a command.
    is_command: bool,
    place: Place,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    length: usize,
}

/// A step without its command.
#[derive(Debug)]
struct StepEntry {
    place: Place,
    parent: u64,
    action: StepAction,
}

#[derive(Debug)]
enum StepAction {
    Command,
    Begin(Box<Base>),
    Return,
    Unrepeatable(Box<str>),
}

/// The line of a step. A line without any kind comes from a server that did not store imported
/// Bundles.
#[derive(Deserialize)]
struct StepLine {
    step: u64,
    parent: u64,
    #[serde(rename = "at")]
    _at: f64,
    #[serde(rename = "success")]
    _success: bool,
    command: Option<IgnoredAny>,
    base: Option<Base>,
    #[serde(default)]
    returned: bool,
    unrepeatable: Option<String>,
}

/// A command as stored in a line and as sent to a worker.
#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    command: &'a RawValue,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    parameter: Option<&'a RawValue>,
    success: bool,
}

/// The complete lines of a journal, in the file and pending.
#[derive(Debug)]
struct Lines<'a> {
    file: Option<File>,
    whole: u64,
    pending: &'a [u8],
}

impl Journal {
    /// Returns the number of the last step.
    pub(in crate::store::snapshots) fn last_step(&self) -> io::Result<u64> {
        #[derive(Deserialize)]
        struct Numbered {
            step: u64,
        }
        let mut last = 0;
        self.lines()?.each(|_, line| {
            let numbered = line.and_then(|line| serde_json::from_slice::<Numbered>(line).ok());
            last = last.max(numbered.map_or(0, |numbered| numbered.step));
        })?;
        Ok(last)
    }

    /// Reads the steps of all states.
    pub(in crate::store::snapshots) fn lineages(&self) -> io::Result<LineageIndex<'_>> {
        let journal = self.lines()?;
        let (mut steps, mut unknown) = (HashMap::new(), None);
        journal.each(|place, line| {
            let read = line.map(serde_json::from_slice::<StepLine>);
            match (read, line) {
                // The later line wins: a number is reused if its first snapshot was never complete,
                // and if a state was migrated.
                (Some(Ok(read)), _) => drop(steps.insert(read.step, StepEntry::of(read, place))),
                (_, Some(line)) if serde_json::from_slice::<Mark>(line).is_ok() => {}
                _ => unknown = Some(place.offset),
            }
        })?;
        Ok(LineageIndex { journal, steps, unknown })
    }

    /// Copies the lineage of the state `step` from another session's journal.
    pub(in crate::store::snapshots) fn copy_from(
        &mut self,
        step: u64,
        lineage: Result<&Lineage<'_>, LineageError>,
    ) -> io::Result<()> {
        match lineage {
            Ok(lineage) => lineage.each_line(|line| {
                self.pending.extend(line);
                self.pending.push(b'\n');
                self.flush()
            }),
            Err(LineageError::Io(error)) => Err(error),
            Err(LineageError::Unrepeatable(why)) => {
                let action = Action::Unrepeatable(why);
                self.step(Step { step, parent: step, at: 0.0, success: true, action, job: None })
            }
        }
    }

    /// Returns all complete lines. Ignores a torn line at the end.
    fn lines(&self) -> io::Result<Lines<'_>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            file => Some(file?),
        };
        let whole = file.as_ref().map_or(Ok(0), whole_length)?;
        Ok(Lines { file, whole, pending: &self.pending })
    }
}

impl StepEntry {
    fn of(read: StepLine, place: Place) -> Self {
        let action = match (read.command, read.base, read.unrepeatable) {
            (_, _, Some(why)) => {
                StepAction::Unrepeatable(why.chars().take(REASON).collect::<String>().into())
            }
            (_, Some(base), None) => StepAction::Begin(Box::new(base)),
            (Some(_), None, None) => StepAction::Command,
            (None, None, None) if read.returned => StepAction::Return,
            (None, None, None) => StepAction::Unrepeatable(
                "an earlier version of this server replaced the Bundle (by a file or a \
                 checkpoint) and did not record which"
                    .into(),
            ),
        };
        Self { place, parent: read.parent, action }
    }
}

impl LineageIndex<'_> {
    /// Returns the lineage of `step`.
    ///
    /// # Errors
    /// [`LineageError::Unrepeatable`] if the journal does not have all of it.
    pub(in crate::store::snapshots) fn to(&self, step: u64) -> Result<Lineage<'_>, LineageError> {
        let unrepeatable = |why: &str| Err(LineageError::Unrepeatable(why.to_owned()));
        let mut lineage = Lineage { journal: &self.journal, base: None, steps: Vec::new() };
        let mut begins = None;
        let mut at = step;
        while begins.is_none() {
            let Some(StepEntry { place, parent, action }) = self.steps.get(&at) else { break };
            match action {
                StepAction::Command | StepAction::Return => {}
                StepAction::Begin(base) => {
                    (lineage.base, begins) = (Some(Base::clone(base)), Some(place.offset));
                }
                StepAction::Unrepeatable(why) => return unrepeatable(why),
            }
            if begins.is_none() && *parent >= at {
                return unrepeatable(DAMAGED);
            }
            let is_command = matches!(action, StepAction::Command);
            lineage.steps.push(Line {
                #[cfg(test)]
                step: at,
                is_command,
                place: *place,
            });
            at = *parent;
        }
        if begins.is_none() && at != 0 {
            return unrepeatable(&format!("the journal of the session lacks change {at}"));
        }
        // The unreadable line may have been the base.
        if self.unknown.is_some_and(|unknown| begins.is_none_or(|begins| begins < unknown)) {
            return unrepeatable(DAMAGED);
        }
        lineage.steps.reverse();
        Ok(lineage)
    }
}

const DAMAGED: &str = "the journal of the session is damaged, holds a command of more than 16 MiB, \
                       or is of a later version of this server";

impl Lineage<'_> {
    /// Writes the commands as a JSON list, in order, with their success.
    pub(in crate::store::snapshots) fn write_commands(
        &self,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let mut before = &b"["[..];
        for line in self.steps.iter().filter(|line| line.is_command) {
            let line = self.journal.read(line.place)?;
            let entry: Entry<'_> = serde_json::from_slice(&line)?;
            out.write_all(before)?;
            serde_json::to_writer(&mut *out, &entry)?;
            before = b",";
        }
        out.write_all(if before == b"[" { b"[]" } else { b"]" })
    }

    /// Passes each line to `job`.
    pub(in crate::store::snapshots) fn each_line(
        &self,
        mut job: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.steps.iter().try_for_each(|line| job(&self.journal.read(line.place)?))
    }
}

impl Lines<'_> {
    /// Passes each line and its position to `job`. A line that is too long is `None`.
    fn each(&self, mut job: impl FnMut(Place, Option<&[u8]>)) -> io::Result<()> {
        let on_disk: Box<dyn Read> = match &self.file {
            Some(file) => Box::new(file.take(self.whole)),
            None => Box::new(io::empty()),
        };
        let mut reader = BufReader::with_capacity(BLOCK, on_disk.chain(self.pending));
        let (mut line, mut offset, mut length) = (Vec::new(), 0, 0);
        loop {
            let block = reader.fill_buf()?;
            if block.is_empty() {
                return Ok(());
            }
            let end = block.iter().position(|byte| *byte == b'\n');
            let piece = &block[..end.unwrap_or(block.len())];
            length += piece.len();
            if length <= LONGEST_LINE {
                line.extend(piece);
            } else {
                line = Vec::new();
            }
            let read = piece.len() + usize::from(end.is_some());
            reader.consume(read);
            if end.is_some() {
                let place = Place { offset, length };
                if length > 0 {
                    job(place, (length <= LONGEST_LINE).then_some(&line[..]));
                }
                offset += length as u64 + 1;
                line.clear();
                length = 0;
            }
        }
    }

    fn read(&self, Place { offset, length }: Place) -> io::Result<Vec<u8>> {
        let mut line = vec![0; length];
        match &self.file {
            Some(file) if offset < self.whole => file.read_exact_at(&mut line, offset)?,
            _ => {
                let start = usize::try_from(offset - self.whole).unwrap_or(usize::MAX);
                let there = self.pending.get(start..).and_then(|rest| rest.get(..length));
                line.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
            }
        }
        Ok(line)
    }
}
