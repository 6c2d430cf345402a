//! The session's changes in order, one JSON line each: what a script is made from, and how a
//! command that was interrupted is known after a crash. Lines are only ever appended; undoing a
//! change takes none of them back.
//!
//! A line never holds a Bundle. Where one came from outside, its step names the
//! [base](super::bases) that is kept of it, and the way to every later state begins there.
//!
//! Lines and file are bounded, and neither is ever in memory as a whole: the last line is found from
//! the end, and [`ways`] keeps the places of lines.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

/// Bytes of the longest command that is kept, without the blanks between its words.
pub const COMMAND_BYTES: usize = 16 << 20;
/// Bytes that a journal may have before the last change that is accepted.
pub const FILE_BYTES: u64 = 64 << 20;
/// What a line has beside its command: numbers, and the tags of a parameter.
const LONGEST_LINE: usize = COMMAND_BYTES + (256 << 10);
/// Marks name commands that exist.
const LONGEST_MARK: u64 = 4096;
/// What waits to be written has at most so many bytes before the last line.
const LONGEST_PENDING: usize = 1 << 20;
const BLOCK: usize = 64 << 10;

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
#[derive(Debug, Clone, Serialize)]
#[serde(into = "WrittenStep")]
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

/// A step as a line; [`ways`] reads it.
#[derive(Debug, Default, Clone, Serialize)]
struct WrittenStep {
    step: u64,
    parent: u64,
    at: f64,
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<Base>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    returned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    unrepeatable: Option<String>,
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

/// The journal of one session. What cannot be written now is written with the next line, if there
/// is not too much of it.
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

    pub(super) fn path(&self) -> &Path {
        &self.path
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
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let mut file = options.open(&self.path)?;
        let length = match self.length {
            Some(length) => length,
            None => whole_length(&file)?,
        };
        file.set_len(length)?;
        self.length = Some(length);
        file.seek(SeekFrom::Start(length))?;
        file.write_all(&self.pending)?;
        self.length = Some(length + self.pending.len() as u64);
        self.pending = Vec::new();
        Ok(())
    }

    /// The command that had begun and is not over, if the last line says so. No other line is read.
    pub(super) fn interrupted(&self) -> io::Result<Option<Interrupted>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let whole = whole_length(&file)?;
        // A longer line is no mark.
        let start = whole.saturating_sub(LONGEST_MARK);
        let mut tail = vec![0; usize::try_from(whole - start).unwrap_or_default()];
        file.read_exact_at(&mut tail, start)?;
        let last = tail.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
        Ok(match last.map(serde_json::from_slice) {
            Some(Ok(Mark { mark: MarkKind::Begin, command, at })) => {
                Some(Interrupted { command, at })
            }
            _ => None,
        })
    }

    fn append(&mut self, line: &impl Serialize) -> io::Result<()> {
        if self.pending.len() > LONGEST_PENDING {
            // Else the line is lost, which scripts say: what cannot be written must not fill the memory.
            self.flush()?;
        }
        serde_json::to_writer(&mut self.pending, line)?;
        self.pending.push(b'\n');
        self.flush()
    }
}

/// Where the last whole line of a file ends.
fn whole_length(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = vec![0; BLOCK];
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let block = &mut block[..usize::try_from(end - start).unwrap_or(BLOCK)];
        file.read_exact_at(block, start)?;
        if let Some(last) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

mod ways;

#[cfg(test)]
mod tests;
