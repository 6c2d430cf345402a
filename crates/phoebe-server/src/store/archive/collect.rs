//! Collects a consistent set of a session's files while its server may change them.
//!
//! A snapshot's file never changes. The files that determine the state are read first, and again if
//! one was replaced meanwhile: the record, the current step, its snapshot. Then the journal, which
//! may be longer, as after a crash, and the portable copy, whose header has its step. The other
//! files are history; they may vanish meanwhile, and new ones are left out.

use std::fs;
use std::io;
use std::path::Path;

use crate::store::data_directory::names_in;
use crate::store::snapshots::names::{
    BASES, CHECKPOINTS, HEAD, JOURNAL, PORTABLE, RECORD, head_step, snapshot_step,
};

/// How often a consistent read is tried. An attempt takes less than a millisecond, unless Bundles
/// are huge.
const ATTEMPTS: usize = 1000;

/// A session's files.
pub(super) struct Collected {
    /// The files of the current state: names in the session's folder, and contents.
    pub(super) state: Vec<(String, Vec<u8>)>,
    /// Names of the other files, which may vanish.
    pub(super) history: Vec<String>,
}

/// Collects the files of the session in `folder`. `None` if the session has ended.
pub(super) fn collect(folder: &Path) -> io::Result<Option<Collected>> {
    for _ in 0..ATTEMPTS {
        // The record is written first when a session starts, and removed first when it ends.
        let Some(record) = read_if_there(&folder.join(RECORD))? else { return Ok(None) };
        if let Some(mut collected) = try_collect(folder)? {
            collected.state.push((RECORD.to_owned(), record));
            return Ok(Some(collected));
        }
    }
    Err(io::Error::other("the session changes too fast to be copied; try again"))
}

/// `None` if a file was replaced meanwhile.
fn try_collect(folder: &Path) -> io::Result<Option<Collected>> {
    let head = read_if_there(&folder.join(HEAD))?;
    let names = names_in(folder)?;
    let steps: Vec<u64> = names.iter().filter_map(|name| snapshot_step(name)).collect();
    let step = head_step(head.as_deref(), &steps);

    let mut state = Vec::new();
    if let Some(step) = step {
        let name = format!("{step}.snapshot");
        let Some(content) = read_if_there(&folder.join(&name))? else { return Ok(None) };
        state.push((name, content));
    }
    if read_if_there(&folder.join(HEAD))? != head {
        return Ok(None);
    }
    state.extend(head.map(|content| (HEAD.to_owned(), content)));
    for name in [JOURNAL, PORTABLE] {
        let content = read_if_there(&folder.join(name))?;
        state.extend(content.map(|content| (name.to_owned(), content)));
    }
    let others =
        names.into_iter().filter(|name| snapshot_step(name).is_some_and(|of| Some(of) != step));
    let checkpoints = names_in(&folder.join(CHECKPOINTS))?.into_iter();
    // Other files are incomplete.
    let checkpoints =
        checkpoints.filter(|name| name.ends_with(".snapshot") || name.ends_with(".share"));
    let checkpoints = checkpoints.map(|name| format!("{CHECKPOINTS}/{name}"));
    let bases = names_in(&folder.join(BASES))?.into_iter().filter(|name| !name.contains('.'));
    let bases = bases.map(|name| format!("{BASES}/{name}"));
    Ok(Some(Collected { state, history: others.chain(checkpoints).chain(bases).collect() }))
}

/// Returns a file's content. `None` if the file does not exist.
pub(super) fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        content => content.map(Some),
    }
}
