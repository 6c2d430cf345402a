//! Collects what a worker makes a session's script from: the journal of the current state and the
//! Bundle that the journal begins with.

use bytes::Bytes;
use serde::Serialize;

use super::error::SessionError;
use super::file_queue::FileQueue;
use crate::store::snapshots::{LineageError, Origin, ScriptSource, Versions};

/// Reads the journal, and the Bundle that it begins with, if it begins with one.
///
/// # Errors
/// Why no script makes the Bundle.
pub(super) async fn source(
    files: Option<&FileQueue>,
    versions: &Versions,
) -> Result<(Bytes, Vec<Bytes>), SessionError> {
    let files = files.ok_or_else(SessionError::nothing_is_kept)?;
    let begun = br#"{"entries":"#.to_vec();
    let source = files.run(|folder| folder.script_source(begun)).await.map_err(LineageError::Io);
    let ScriptSource { base, commands: mut journal } =
        source.and_then(|source| source).map_err(no_script)?;
    if let Some((base, _)) = &base
        && base.phoebe != versions.phoebe
    {
        let why = format!("its state is of PHOEBE {}, this is {}", base.phoebe, versions.phoebe);
        return Err(no_script(LineageError::Unrepeatable(why)));
    }
    let (base, bytes) = base.unzip();
    let rest = Rest { base: base.map(|base| base.origin), phoebe: &versions.phoebe };
    // The rest of the object that was opened above.
    let rest =
        serde_json::to_string(&rest).map_err(|error| no_script(LineageError::Io(error.into())))?;
    journal.push(b',');
    journal.extend(rest.trim_start_matches('{').bytes());
    Ok((journal.into(), bytes.into_iter().collect()))
}

/// What the worker is told beside the journal's entries.
#[derive(Serialize)]
struct Rest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<Origin>,
    phoebe: &'a str,
}

fn no_script(why: LineageError) -> SessionError {
    SessionError::Conflict(format!(
        "No script makes this Bundle: {why}. Download the Bundle (GET …/bundle) and upload it \
         again (PUT …/bundle): scripts begin with it from then on"
    ))
}
