//! Bases: imported Bundles with which scripts begin. Each is stored once in the session's folder
//! under its SHA-256. The journal names it, and a damaged file is detected.
//!
//! A base is kept as long as a reachable state descends from it: by undo, redo or a checkpoint.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tracing::warn;

use super::{ChangeKind, Imported, SessionFolder};
use crate::store::data_directory::{create_private_folder_in_place, names_in};
use crate::store::snapshots::journal::{
    Action, Base, COMMAND_BYTES, LineageError, ReplayableCommand, Step,
};
use crate::store::snapshots::names::BASES;

/// The most bytes of a base. A script with a larger one would be of no use.
pub(super) const MAXIMUM_BYTES: usize = 64 << 20;

/// The sources of a script.
#[derive(Debug)]
pub struct ScriptSource {
    /// The base that the script begins with, and its bytes; `None` for the default Bundle.
    pub base: Option<(Base, Bytes)>,
    /// A JSON list, appended to the given bytes: the commands since then, in order, and whether
    /// each succeeded.
    pub commands: Vec<u8>,
}

impl SessionFolder {
    /// Returns the sources of a script for the head's state. Appends the commands to `commands`.
    ///
    /// # Errors
    /// [`LineageError::Unrepeatable`] has the reason why there is no script.
    pub fn script_source(&mut self, mut commands: Vec<u8>) -> Result<ScriptSource, LineageError> {
        let head = self.steps()?.head;
        let lineages = self.journal.lineages()?;
        let lineage = lineages.to(head)?;
        lineage.write_commands(&mut commands)?;
        let base =
            lineage.base.map(|base| Ok::<_, LineageError>((base.clone(), self.read_base(&base)?)));
        Ok(ScriptSource { base: base.transpose()?, commands })
    }

    /// Returns the commands in the head's lineage.
    #[cfg(test)]
    pub(in crate::store) fn commands(&mut self) -> Vec<String> {
        let source = self.script_source(Vec::new()).unwrap();
        let entries: Vec<serde_json::Value> = serde_json::from_slice(&source.commands).unwrap();
        entries.into_iter().map(|entry| entry["command"].to_string()).collect()
    }

    /// Starts a new lineage at the head, whose Bundle was migrated from another version of PHOEBE.
    ///
    /// # Errors
    /// If the write fails; it is repeated later.
    pub fn write_base_step(&mut self, imported: Imported, at: f64) -> io::Result<()> {
        let step = self.steps()?.head;
        let action = self.action(ChangeKind::Replaced(imported));
        let written =
            self.journal.step(Step { step, parent: step, at, success: true, action, job: None });
        let written = self.counted(written);
        self.remove_unused_bases();
        written
    }

    /// Converts a change to its journal form. Stores the base of an imported Bundle first.
    pub(super) fn action(&self, changed: ChangeKind) -> Action {
        match changed {
            ChangeKind::Command { command, parameter } => {
                let parameter =
                    parameter.and_then(|tags| serde_json::value::to_raw_value(&tags).ok());
                match compact(&command) {
                    Some(command) => Action::Command(ReplayableCommand { command, parameter }),
                    None => Action::Unrepeatable(format!(
                        "a command is too long to be stored: it has more than {} MiB",
                        COMMAND_BYTES >> 20
                    )),
                }
            }
            ChangeKind::Returned => Action::Return,
            ChangeKind::Replaced(Imported { origin, phoebe, bytes }) => {
                let kept = bytes
                    .and_then(|bytes| self.write_base(&bytes).map_err(|error| error.to_string()));
                match kept {
                    Ok(sha256) => Action::Begin(Base { sha256, origin, phoebe }),
                    Err(problem) => Action::Unrepeatable(format!(
                        "the Bundle was replaced by another, and no copy of that could be kept for \
                         scripts ({problem})"
                    )),
                }
            }
        }
    }

    /// Copies the lineage of `step` into another session's journal, with its base.
    pub(super) fn copy_lineage(&self, step: u64, other: &mut Self) -> io::Result<()> {
        let lineages = self.journal.lineages()?;
        let lineage = lineages.to(step);
        if let Some(base) = lineage.as_ref().ok().and_then(|lineage| lineage.base.as_ref()) {
            match self.read_base(base) {
                Ok(bytes) => drop(other.write_base(&bytes)?),
                // The copy's script reports the missing base, as the original's does.
                Err(problem) => warn!(session = self.id, %problem, "a copy has no base"),
            }
        }
        let written = match lineage {
            Ok(lineage) => other.journal.copy_from(step, Ok(&lineage)),
            Err(why) => other.journal.copy_from(step, Err(why)),
        };
        other.counted(written)
    }

    /// Removes the bases from which no reachable state descends.
    pub(super) fn remove_unused_bases(&mut self) {
        if let Err(error) = self.try_to_remove_unused_bases() {
            warn!(session = self.id, %error, "unused bases could not be removed");
        }
    }

    fn try_to_remove_unused_bases(&mut self) -> io::Result<()> {
        let names = names_in(&self.path.join(BASES))?;
        if names.is_empty() {
            return Ok(());
        }
        let mut steps: HashSet<u64> = self.numbers()?.into_iter().collect();
        steps.insert(self.steps()?.head);
        steps.extend(self.checkpoints()?.iter().map(|checkpoint| checkpoint.header.step));
        let lineages = self.journal.lineages()?;
        let bases = steps.into_iter().filter_map(|step| lineages.to(step).ok()?.base);
        let used: HashSet<String> = bases.map(|base| base.sha256).collect();
        drop(lineages);
        for name in names.iter().filter(|name| !used.contains(*name)) {
            self.remove_file(&self.base_path(name))?;
        }
        Ok(())
    }

    fn write_base(&self, bytes: &Bytes) -> io::Result<String> {
        if bytes.len() > MAXIMUM_BYTES {
            let text = format!("it has more than {} MiB", MAXIMUM_BYTES >> 20);
            return Err(io::Error::other(text));
        }
        let sha256 = hex::encode(Sha256::digest(bytes));
        create_private_folder_in_place(&self.path.join(BASES))?;
        self.write_text(&self.base_path(&sha256), bytes)?;
        Ok(sha256)
    }

    fn read_base(&self, base: &Base) -> Result<Bytes, LineageError> {
        let lost = |why: &str| {
            LineageError::Unrepeatable(format!("the stored copy of an imported Bundle {why}"))
        };
        match fs::read(self.base_path(&base.sha256)) {
            Ok(bytes) if hex::encode(Sha256::digest(&bytes)) == base.sha256 => Ok(bytes.into()),
            Ok(_) => Err(lost("is damaged")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(lost("is missing")),
            Err(error) => Err(lost(&format!("cannot be read: {error}"))),
        }
    }

    fn base_path(&self, sha256: &str) -> PathBuf {
        // A journal may be edited: only hexadecimal digits go into the path.
        let name: String = sha256.chars().filter(char::is_ascii_hexdigit).collect();
        self.path.join(BASES).join(name)
    }
}

/// Removes whitespace from a command. `None` if it is not JSON, or too long to be stored.
fn compact(command: &Bytes) -> Option<Box<RawValue>> {
    if compact_length(command) > COMMAND_BYTES {
        return None;
    }
    let text: Vec<u8> = without_blanks(command).collect();
    RawValue::from_string(String::from_utf8(text).ok()?).ok()
}

/// Returns the bytes of a command without whitespace, as stored.
#[must_use]
pub fn compact_length(command: &[u8]) -> usize {
    without_blanks(command).count()
}

/// Returns JSON without whitespace outside strings.
fn without_blanks(json: &[u8]) -> impl Iterator<Item = u8> {
    let (mut in_text, mut is_escaped) = (false, false);
    json.iter().copied().filter(move |byte| {
        if in_text {
            in_text = is_escaped || *byte != b'"';
            is_escaped = !is_escaped && *byte == b'\\';
            return true;
        }
        in_text = *byte == b'"';
        !byte.is_ascii_whitespace()
    })
}
