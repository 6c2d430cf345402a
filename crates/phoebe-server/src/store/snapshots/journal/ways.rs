//! How states came to be, as far as a journal says it: where the line of each step is, and what has
//! to be known of it to find the way to a state. Commands stay in the file until they are asked for,
//! one at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Act, BLOCK, Base, Journal, LONGEST_LINE, Mark, Step, WayError, whole_length};

/// Characters of a reason that are kept.
const REASON: usize = 1000;

/// All steps of a journal, and the journal to read their commands from.
#[derive(Debug)]
pub(in crate::store::snapshots) struct Ways<'a> {
    journal: Lines<'a>,
    steps: HashMap<u64, Known>,
    /// The place of the last line that says nothing.
    unknown: Option<u64>,
}

/// How a state came to be.
#[derive(Debug)]
pub(in crate::store::snapshots) struct Way<'a> {
    journal: &'a Lines<'a>,
    /// The Bundle that it begins with; `None` for the one that fresh sessions have.
    pub(in crate::store::snapshots) base: Option<Base>,
    /// The steps that it goes through, that of the base included, in order.
    pub(in crate::store::snapshots) steps: Vec<Line>,
}

/// A step's line.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::snapshots) struct Line {
    /// The step's number.
    #[cfg(test)]
    pub(super) step: u64,
    /// Whether it is of a command.
    is_command: bool,
    place: Place,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    length: usize,
}

/// What is known of a step without its command.
#[derive(Debug)]
struct Known {
    place: Place,
    parent: u64,
    act: KnownAct,
}

#[derive(Debug)]
enum KnownAct {
    Command,
    Begin(Box<Base>),
    Return,
    Unrepeatable(Box<str>),
}

/// A step as a line has it. One that names nothing is of a server that did not note where a Bundle
/// came from.
#[derive(Deserialize)]
struct ReadStep {
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

/// A command as a line has it, and as a worker takes it.
#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    command: &'a RawValue,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    parameter: Option<&'a RawValue>,
    success: bool,
}

/// The whole lines of a journal, on disk and not yet there.
#[derive(Debug)]
struct Lines<'a> {
    file: Option<File>,
    whole: u64,
    pending: &'a [u8],
}

impl Journal {
    /// The last number that a change got.
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

    /// How each state came to be, as far as the journal says it.
    pub(in crate::store::snapshots) fn ways(&self) -> io::Result<Ways<'_>> {
        let journal = self.lines()?;
        let (mut steps, mut unknown) = (HashMap::new(), None);
        journal.each(|place, line| {
            let read = line.map(serde_json::from_slice::<ReadStep>);
            match (read, line) {
                // The later line counts: a number is given again where the first one's snapshot was
                // never whole, and a state that was migrated begins anew.
                (Some(Ok(read)), _) => drop(steps.insert(read.step, Known::of(read, place))),
                (_, Some(line)) if serde_json::from_slice::<Mark>(line).is_ok() => {}
                _ => unknown = Some(place.offset),
            }
        })?;
        Ok(Ways { journal, steps, unknown })
    }

    /// Begins with the way to the state of `step` in another session's journal.
    pub(in crate::store::snapshots) fn begin_as(
        &mut self,
        step: u64,
        way: Result<&Way<'_>, WayError>,
    ) -> io::Result<()> {
        match way {
            Ok(way) => way.each_line(|line| {
                self.pending.extend(line);
                self.pending.push(b'\n');
                self.flush()
            }),
            Err(WayError::Io(error)) => Err(error),
            Err(WayError::Unrepeatable(why)) => {
                let act = Act::Unrepeatable(why);
                self.step(Step { step, parent: step, at: 0.0, success: true, act })
            }
        }
    }

    /// All whole lines; a torn one at the end is passed over.
    fn lines(&self) -> io::Result<Lines<'_>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            file => Some(file?),
        };
        let whole = file.as_ref().map_or(Ok(0), whole_length)?;
        Ok(Lines { file, whole, pending: &self.pending })
    }
}

impl Known {
    fn of(read: ReadStep, place: Place) -> Self {
        let act = match (read.command, read.base, read.unrepeatable) {
            (_, _, Some(why)) => {
                KnownAct::Unrepeatable(why.chars().take(REASON).collect::<String>().into())
            }
            (_, Some(base), None) => KnownAct::Begin(Box::new(base)),
            (Some(_), None, None) => KnownAct::Command,
            (None, None, None) if read.returned => KnownAct::Return,
            (None, None, None) => KnownAct::Unrepeatable(
                "an earlier version of this server replaced the Bundle (by a file or a \
                 checkpoint) and did not note by which"
                    .into(),
            ),
        };
        Self { place, parent: read.parent, act }
    }
}

impl Ways<'_> {
    /// How the Bundle of `step` came to be.
    ///
    /// # Errors
    /// [`WayError::Unrepeatable`] where the journal does not say it from the beginning to the end.
    pub(in crate::store::snapshots) fn to(&self, step: u64) -> Result<Way<'_>, WayError> {
        let unrepeatable = |why: &str| Err(WayError::Unrepeatable(why.to_owned()));
        let mut way = Way { journal: &self.journal, base: None, steps: Vec::new() };
        let mut begins = None;
        let mut at = step;
        while begins.is_none() {
            let Some(Known { place, parent, act }) = self.steps.get(&at) else { break };
            match act {
                KnownAct::Command | KnownAct::Return => {}
                KnownAct::Begin(base) => {
                    (way.base, begins) = (Some(Base::clone(base)), Some(place.offset));
                }
                KnownAct::Unrepeatable(why) => return unrepeatable(why),
            }
            if begins.is_none() && *parent >= at {
                return unrepeatable(DAMAGED);
            }
            let is_command = matches!(act, KnownAct::Command);
            way.steps.push(Line {
                #[cfg(test)]
                step: at,
                is_command,
                place: *place,
            });
            at = *parent;
        }
        if begins.is_none() && at != 0 {
            return unrepeatable(&format!("the journal of the session lacks its change {at}"));
        }
        // What such a line said may be what the way begins with.
        if self.unknown.is_some_and(|unknown| begins.is_none_or(|begins| begins < unknown)) {
            return unrepeatable(DAMAGED);
        }
        way.steps.reverse();
        Ok(way)
    }
}

const DAMAGED: &str = "the journal of the session is damaged, holds a command of more than 16 MiB, \
                       or is of a later version of this server";

impl Way<'_> {
    /// Writes the commands on the way as a JSON list, in order, and whether each succeeded.
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

    /// Gives each line to `job`, one after the other.
    pub(in crate::store::snapshots) fn each_line(
        &self,
        mut job: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.steps.iter().try_for_each(|line| job(&self.journal.read(line.place)?))
    }
}

impl Lines<'_> {
    /// Gives each line and its place to `job`; of one that is too long the place alone.
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
