//! What a worker makes a session's script from, as it goes to the worker: the journal of the state
//! that counts, and the Bundle that it begins with. Where none makes the Bundle it says why.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::SessionError;
use super::awake::nothing_is_kept;
use super::keeper::Keeper;
use crate::store::snapshots::{
    Origin, Repeatable, ScriptSource, SessionFolder, Versions, WayError,
};

/// What the worker makes a script from: the journal, and the Bundle that it begins with.
pub(super) async fn source(
    keeper: Option<&Keeper>,
    versions: &Versions,
) -> Result<(Bytes, Vec<Bytes>), SessionError> {
    let keeper = keeper.ok_or_else(nothing_is_kept)?;
    let source = keeper.run(SessionFolder::script_source).await.map_err(WayError::Io);
    let ScriptSource { base, commands } = source.and_then(|source| source).map_err(no_script)?;
    if let Some((base, _)) = &base
        && base.phoebe != versions.phoebe
    {
        let why = format!("its state is of PHOEBE {}, this is {}", base.phoebe, versions.phoebe);
        return Err(no_script(WayError::Unrepeatable(why)));
    }
    let entries = commands.into_iter().map(|(Repeatable { command, parameter }, success)| Entry {
        command,
        parameter,
        success,
    });
    let (base, bytes) = base.unzip();
    let journal = Journal {
        base: base.map(|base| base.origin),
        entries: entries.collect(),
        phoebe: versions.phoebe.clone(),
    };
    let journal =
        serde_json::to_vec(&journal).map_err(|error| no_script(WayError::Io(error.into())))?;
    Ok((journal.into(), bytes.into_iter().collect()))
}

/// A session's journal as the worker takes it.
#[derive(Serialize)]
struct Journal {
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<Origin>,
    entries: Vec<Entry>,
    phoebe: String,
}

/// One command that changed the Bundle.
#[derive(Serialize)]
struct Entry {
    command: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<Box<RawValue>>,
    success: bool,
}

fn no_script(why: WayError) -> SessionError {
    SessionError::Conflict(format!(
        "No script makes this Bundle: {why}. Download the Bundle (GET …/bundle) and upload it \
         again (PUT …/bundle): scripts begin with it from then on"
    ))
}
