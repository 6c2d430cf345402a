//! The journal of a session: its changes in order, one JSON line each. Scripts are made from it,
//! and it shows which command ran when the server crashed. Lines are only appended; undo removes
//! none.
//!
//! A line never holds a Bundle. The step of an imported Bundle names its [base](super::bases), at
//! which the lineage of all later states begins.
//!
//! Lines and file have a maximum size, and the file is never read into memory as a whole: the last
//! line is read from the end, and [`lineage`] keeps the positions of lines.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

/// The most bytes of a stored command, without whitespace.
pub const COMMAND_BYTES: usize = 16 << 20;
/// The most bytes of a journal before its last accepted change.
pub const FILE_BYTES: u64 = 64 << 20;
/// The most bytes of a line: the command, numbers and the tags of a parameter.
const LONGEST_LINE: usize = COMMAND_BYTES + (256 << 10);
/// The most bytes of a mark: it holds the name of a known command.
const LONGEST_MARK: u64 = 4096;
/// The most bytes that wait to be written before the last line.
const LONGEST_PENDING: usize = 1 << 20;
const BLOCK: usize = 64 << 10;

/// The start of a command, or its end without a change.
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
    /// The number of the change, from 1; 0 is the initial Bundle.
    pub step: u64,
    /// The step whose Bundle it changed.
    pub parent: u64,
    /// Unix seconds.
    pub at: f64,
    /// Whether the command succeeded. A failed command may have changed the Bundle, too.
    pub success: bool,
    /// What changed the Bundle.
    pub action: Action,
    /// The job that did.
    pub job: Option<String>,
}

/// What changed the Bundle, as far as a script can repeat it.
#[derive(Debug, Clone)]
pub enum Action {
    /// A command.
    Command(ReplayableCommand),
    /// An imported Bundle; scripts begin with its base.
    Begin(Base),
    /// The state of the parent was restored.
    Return,
    /// A change that a script cannot repeat, and the reason for the user.
    Unrepeatable(String),
}

/// A command in a form that another Bundle can repeat.
#[derive(Debug, Clone)]
pub struct ReplayableCommand {
    /// The command as the user sent it.
    pub command: Box<RawValue>,
    /// The tags of the parameter that the command names by its unique id. The id differs in each
    /// Bundle.
    pub parameter: Option<Box<RawValue>>,
}

/// A stored Bundle with which a script can begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The SHA-256 of the stored file, in hexadecimal.
    pub sha256: String,
    /// The Bundle's origin.
    pub origin: Origin,
    /// The version of PHOEBE that wrote it.
    pub phoebe: String,
}

/// The origin of an imported Bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// An uploaded file.
    Uploaded,
    /// The command `load_bundle`.
    Loaded,
    /// A state of the session that was migrated from another version of PHOEBE.
    Migrated,
}

/// The line of a step; [`lineage`] reads it.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
}

impl From<Step> for WrittenStep {
    fn from(Step { step, parent, at, success, action, job }: Step) -> Self {
        let mut written = Self { step, parent, at, success, job, ..Self::default() };
        match action {
            Action::Command(ReplayableCommand { command, parameter }) => {
                (written.command, written.parameter) = (Some(command), parameter);
            }
            Action::Begin(base) => written.base = Some(base),
            Action::Return => written.returned = true,
            Action::Unrepeatable(why) => written.unrepeatable = Some(why),
        }
        written
    }
}

/// Why a state has no lineage.
#[derive(Debug, Error)]
pub enum LineageError {
    /// The journal cannot be read.
    #[error("the journal of the session cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The journal lacks a step, or has one that cannot be repeated.
    #[error("{0}")]
    Unrepeatable(String),
}

/// The command that ran when the server ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Interrupted {
    /// The command's name.
    pub command: String,
    /// When it began, in Unix seconds.
    pub at: f64,
}

/// The journal of one session. Lines that cannot be written now are written with the next line,
/// within a limit.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    pending: Vec<u8>,
    /// The length of all complete lines. The next write removes a torn line after them.
    length: Option<u64>,
}

impl Journal {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, pending: Vec::new(), length: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends the start of a command.
    pub(super) fn begin(&mut self, command: &str, at: f64) -> io::Result<()> {
        self.append(&Mark { mark: MarkKind::Begin, command: command.to_owned(), at })
    }

    /// Appends the end of a command without a change.
    pub(super) fn end(&mut self, command: &str, at: f64) -> io::Result<()> {
        self.append(&Mark { mark: MarkKind::End, command: command.to_owned(), at })
    }

    /// Appends a change.
    pub(super) fn step(&mut self, step: Step) -> io::Result<()> {
        self.append(&step)
    }

    /// Writes the pending lines.
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

    /// Returns the command that has begun and not ended. Reads only the last line.
    pub(super) fn interrupted(&self) -> io::Result<Option<Interrupted>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let whole = whole_length(&file)?;
        // A longer line is not a mark.
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

    /// Returns the step that a job made, if it has made one. Reads the file line by line.
    pub(super) fn step_of_job(&self, job: &str) -> io::Result<Option<u64>> {
        #[derive(Deserialize)]
        struct JobStep {
            step: u64,
            job: String,
        }
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let longest = LONGEST_LINE as u64 + LONGEST_MARK;
            if lines.by_ref().take(longest).read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            if let Ok(step) = serde_json::from_slice::<JobStep>(&line)
                && step.job == job
            {
                return Ok(Some(step.step));
            }
        }
    }

    fn append(&mut self, line: &impl Serialize) -> io::Result<()> {
        if self.pending.len() > LONGEST_PENDING {
            // If this fails, the line is lost, and scripts report the gap. Pending lines must not
            // fill the memory.
            self.flush()?;
        }
        serde_json::to_writer(&mut self.pending, line)?;
        self.pending.push(b'\n');
        self.flush()
    }
}

/// Returns the end of the last complete line.
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

mod lineage;

#[cfg(test)]
mod tests;
