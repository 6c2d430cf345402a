//! Decides whether a session may still write what its next work needs. It uses the counted bytes
//! and decides before the work begins, so that refused work changes nothing.

use std::path::PathBuf;
use std::sync::Arc;

use phoebe_protocol::kinds::CommandKind;

use super::error::SessionError;
use super::request::{Command, Source, Work};
use crate::store::snapshots::{
    COMMAND_BYTES, DiskLimits, DiskUsage, FILE_BYTES, SessionFolder, compact_length,
};

/// The journal refers to the Bundle in this command and does not keep the command itself.
const CARRIES_A_BUNDLE: &str = "load_bundle";
/// Upper bound of what a journal line has beside its command, in bytes.
const LINE: u64 = 4096;

/// The disk bounds of one session.
pub(super) struct Admission {
    disk: Arc<DiskUsage>,
    bounds: DiskLimits,
    journal: PathBuf,
}

impl Admission {
    /// Bounds of the session in `folder`.
    pub(super) fn new(folder: &SessionFolder, disk: Arc<DiskUsage>, bounds: DiskLimits) -> Self {
        Self { disk, bounds, journal: folder.journal_path().to_owned() }
    }

    /// Checks whether the work may begin.
    ///
    /// # Errors
    /// The bound that it exceeds, and the remedy.
    pub(super) fn check(&self, work: &Work, kind: CommandKind) -> Result<(), SessionError> {
        let (line, body) = match work {
            Work::Command(Command { name, body, .. }) => {
                return self.check_command(name, body, kind);
            }
            Work::Load { source: Source::File(file), .. } => (0, file.len()),
            Work::Load { source: Source::Checkpoint(_), .. } => (0, 0),
            // These write a few bytes at most.
            Work::Load { source: Source::Undo | Source::Redo, .. } | Work::Export { .. } => {
                return Ok(());
            }
        };
        self.admit(line, body)
    }

    /// Checks whether the command called `name` may begin.
    ///
    /// # Errors
    /// The bound that it exceeds, and the remedy.
    pub(super) fn check_command(
        &self,
        name: &str,
        body: &[u8],
        kind: CommandKind,
    ) -> Result<(), SessionError> {
        if kind == CommandKind::Read {
            return Ok(());
        }
        let line = if name == CARRIES_A_BUNDLE { 0 } else { compact_length(body) };
        self.admit(line, body.len())
    }

    fn admit(&self, line: usize, body: usize) -> Result<(), SessionError> {
        if line > COMMAND_BYTES {
            return Err(SessionError::CommandTooLarge { most_mb: COMMAND_BYTES >> 20 });
        }
        if self.disk.file(&self.journal) + line as u64 + LINE > FILE_BYTES {
            return Err(SessionError::JournalFull { most_mb: FILE_BYTES >> 20 });
        }
        let need = self.disk.snapshot() + body as u64;
        self.disk.admit(need, self.bounds).map_err(SessionError::DiskFull)
    }
}
