//! Bundles from outside with which scripts begin. Each is kept once in the session's folder, as the
//! worker gave it, under its SHA-256: the journal names it, and a file that is not what its name
//! says is noticed.
//!
//! A base is kept as long as a state that can still be reached came from it: those of undo and
//! redo, and the checkpoints.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tracing::warn;

use super::{Changed, Imported, SessionFolder};
use crate::store::data_directory::{create_private_folder_in_place, names_in};
use crate::store::snapshots::journal::{Act, Base, COMMAND_BYTES, Repeatable, Step, WayError};
use crate::store::snapshots::names::BASES;

/// A larger one is not kept: a script that holds it would be of no use.
pub(super) const MAXIMUM_BYTES: usize = 64 << 20;

/// What a script is made from.
#[derive(Debug)]
pub struct ScriptSource {
    /// The Bundle that it begins with and its bytes; `None` for the one that fresh sessions have.
    pub base: Option<(Base, Bytes)>,
    /// The commands that changed it since, in order, and whether each succeeded: a JSON list, behind
    /// what was there before.
    pub commands: Vec<u8>,
}

impl SessionFolder {
    /// What repeats the state that counts. The commands are written behind what `commands` holds.
    ///
    /// # Errors
    /// [`WayError::Unrepeatable`] says why nothing does.
    pub fn script_source(&mut self, mut commands: Vec<u8>) -> Result<ScriptSource, WayError> {
        let head = self.steps()?.head;
        let ways = self.journal.ways()?;
        let way = ways.to(head)?;
        way.write_commands(&mut commands)?;
        let base = way.base.map(|base| Ok::<_, WayError>((base.clone(), self.read_base(&base)?)));
        Ok(ScriptSource { base: base.transpose()?, commands })
    }

    /// The commands on the way to the state that counts.
    #[cfg(test)]
    pub(in crate::store) fn commands(&mut self) -> Vec<String> {
        let source = self.script_source(Vec::new()).unwrap();
        let entries: Vec<serde_json::Value> = serde_json::from_slice(&source.commands).unwrap();
        entries.into_iter().map(|entry| entry["command"].to_string()).collect()
    }

    /// Notes that the state that counts, brought back by another version of PHOEBE than wrote it,
    /// begins anew.
    ///
    /// # Errors
    /// When it cannot be noted now; it is noted later.
    pub fn begin_anew(&mut self, imported: Imported, at: f64) -> io::Result<()> {
        let step = self.steps()?.head;
        let act = self.act(Changed::Replaced(imported));
        let noted = self.journal.step(Step { step, parent: step, at, success: true, act });
        let noted = self.counted(noted);
        self.remove_unused_bases();
        noted
    }

    /// How a change is noted in the journal. A Bundle from outside is kept first.
    pub(super) fn act(&self, changed: Changed) -> Act {
        match changed {
            Changed::Command { command, parameter } => {
                let parameter =
                    parameter.and_then(|tags| serde_json::value::to_raw_value(&tags).ok());
                match compact(&command) {
                    Some(command) => Act::Command(Repeatable { command, parameter }),
                    None => Act::Unrepeatable(format!(
                        "a command was too long to be kept: it has more than {} MiB",
                        COMMAND_BYTES >> 20
                    )),
                }
            }
            Changed::Returned => Act::Return,
            Changed::Replaced(Imported { origin, phoebe, bytes }) => {
                let kept = bytes
                    .and_then(|bytes| self.write_base(&bytes).map_err(|error| error.to_string()));
                match kept {
                    Ok(sha256) => Act::Begin(Base { sha256, origin, phoebe }),
                    Err(problem) => Act::Unrepeatable(format!(
                        "the Bundle was replaced by another, and no copy of that could be kept for \
                         scripts ({problem})"
                    )),
                }
            }
        }
    }

    /// Copies the way to the state of `step` into another session's journal, with the base that it
    /// begins with.
    pub(super) fn copy_way(&self, step: u64, other: &mut Self) -> io::Result<()> {
        let ways = self.journal.ways()?;
        let way = ways.to(step);
        if let Some(base) = way.as_ref().ok().and_then(|way| way.base.as_ref()) {
            match self.read_base(base) {
                Ok(bytes) => drop(other.write_base(&bytes)?),
                // The copy's script says so, as the original's does.
                Err(problem) => warn!(session = self.id, %problem, "a copy has no base"),
            }
        }
        let noted = match way {
            Ok(way) => other.journal.begin_as(step, Ok(&way)),
            Err(why) => other.journal.begin_as(step, Err(why)),
        };
        other.counted(noted)
    }

    /// Removes the bases that no state begins with that can still be reached.
    pub(super) fn remove_unused_bases(&mut self) {
        if let Err(error) = self.try_to_remove_unused_bases() {
            warn!(session = self.id, %error, "bases that nothing needs stay");
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
        let ways = self.journal.ways()?;
        let bases = steps.into_iter().filter_map(|step| ways.to(step).ok()?.base);
        let used: HashSet<String> = bases.map(|base| base.sha256).collect();
        drop(ways);
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

    fn read_base(&self, base: &Base) -> Result<Bytes, WayError> {
        let lost = |why: &str| {
            WayError::Unrepeatable(format!(
                "the copy that was kept of a Bundle that came from outside {why}"
            ))
        };
        match fs::read(self.base_path(&base.sha256)) {
            Ok(bytes) if hex::encode(Sha256::digest(&bytes)) == base.sha256 => Ok(bytes.into()),
            Ok(_) => Err(lost("is damaged")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(lost("is missing")),
            Err(error) => Err(lost(&format!("cannot be read: {error}"))),
        }
    }

    fn base_path(&self, sha256: &str) -> PathBuf {
        // A journal may be edited: nothing but hexadecimal digits becomes a name.
        let name: String = sha256.chars().filter(char::is_ascii_hexdigit).collect();
        self.path.join(BASES).join(name)
    }
}

/// A command without the blanks between its words. `None` if it is no JSON, or too long to be kept.
fn compact(command: &Bytes) -> Option<Box<RawValue>> {
    if compact_length(command) > COMMAND_BYTES {
        return None;
    }
    let text: Vec<u8> = without_blanks(command).collect();
    RawValue::from_string(String::from_utf8(text).ok()?).ok()
}

/// Bytes of a command without the blanks between its words, as it is kept.
#[must_use]
pub fn compact_length(command: &[u8]) -> usize {
    without_blanks(command).count()
}

/// The bytes of JSON without the blanks outside its texts.
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
