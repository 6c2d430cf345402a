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
use sha2::{Digest, Sha256};
use tracing::warn;

use super::{Changed, Imported, SessionFolder, one_line};
use crate::store::data_directory::{create_private_folder_in_place, names_in};
use crate::store::snapshots::file::write_atomically;
use crate::store::snapshots::journal::{Act, Base, Repeatable, Step, Way, WayError};

pub(in crate::store) const FOLDER: &str = "bases";

/// A larger one is not kept: a script that holds it would be of no use.
pub(super) const MAXIMUM_BYTES: usize = 64 << 20;

/// What a script is made from.
#[derive(Debug)]
pub struct ScriptSource {
    /// The Bundle that it begins with and its bytes; `None` for the one that fresh sessions have.
    pub base: Option<(Base, Bytes)>,
    /// The commands that changed it since, in order, and whether each succeeded.
    pub commands: Vec<(Repeatable, bool)>,
}

impl SessionFolder {
    /// What repeats the state that counts.
    ///
    /// # Errors
    /// [`WayError::Unrepeatable`] says why nothing does.
    pub fn script_source(&mut self) -> Result<ScriptSource, WayError> {
        let head = self.steps()?.head;
        let Way { base, commands, .. } = self.journal.ways()?.to(head)?;
        let base = base.map(|base| Ok::<_, WayError>((base.clone(), self.read_base(&base)?)));
        Ok(ScriptSource { base: base.transpose()?, commands })
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
        self.remove_unused_bases();
        noted
    }

    /// How a change is noted in the journal. A Bundle from outside is kept first.
    pub(super) fn act(&self, changed: Changed) -> Act {
        match changed {
            Changed::Command { command, parameter } => {
                let parameter =
                    parameter.and_then(|tags| serde_json::value::to_raw_value(&tags).ok());
                match one_line(&command) {
                    Some(command) => Act::Command(Repeatable { command, parameter }),
                    None => Act::Unrepeatable("a command was not text that can be kept".to_owned()),
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
        let way = self.journal.ways()?.to(step);
        if let Ok(Way { base: Some(base), .. }) = &way {
            match self.read_base(base) {
                Ok(bytes) => drop(other.write_base(&bytes)?),
                // The copy's script says so, as the original's does.
                Err(problem) => warn!(session = self.id, %problem, "a copy has no base"),
            }
        }
        other.journal.begin_as(step, way)
    }

    /// Removes the bases that no state begins with that can still be reached.
    pub(super) fn remove_unused_bases(&mut self) {
        if let Err(error) = self.try_to_remove_unused_bases() {
            warn!(session = self.id, %error, "bases that nothing needs stay");
        }
    }

    fn try_to_remove_unused_bases(&mut self) -> io::Result<()> {
        let names = names_in(&self.path.join(FOLDER))?;
        if names.is_empty() {
            return Ok(());
        }
        let mut steps: HashSet<u64> = self.numbers()?.into_iter().collect();
        steps.insert(self.steps()?.head);
        steps.extend(self.checkpoints()?.iter().map(|checkpoint| checkpoint.header.step));
        let ways = self.journal.ways()?;
        let bases = steps.into_iter().filter_map(|step| ways.to(step).ok()?.base);
        let used: HashSet<String> = bases.map(|base| base.sha256).collect();
        for name in names.iter().filter(|name| !used.contains(*name)) {
            fs::remove_file(self.base_path(name))?;
        }
        Ok(())
    }

    fn write_base(&self, bytes: &Bytes) -> io::Result<String> {
        if bytes.len() > MAXIMUM_BYTES {
            let text = format!("it has more than {} MiB", MAXIMUM_BYTES >> 20);
            return Err(io::Error::other(text));
        }
        let sha256 = hex::encode(Sha256::digest(bytes));
        create_private_folder_in_place(&self.path.join(FOLDER))?;
        write_atomically(&self.base_path(&sha256), &[bytes], self.rules.fsync)?;
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
        self.path.join(FOLDER).join(name)
    }
}
