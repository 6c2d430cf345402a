//! What a worker makes a session's script from, as it goes to the worker: the journal of the state
//! that counts, and the Bundle that it begins with. Where none makes the Bundle it says why.

use bytes::Bytes;
use serde::Serialize;

use super::SessionError;
use super::awake::nothing_is_kept;
use super::keeper::Keeper;
use crate::store::snapshots::{LineageError, Origin, ScriptSource, Versions};

/// What the worker makes a script from: the journal, and the Bundle that it begins with.
pub(super) async fn source(
    keeper: Option<&Keeper>,
    versions: &Versions,
) -> Result<(Bytes, Vec<Bytes>), SessionError> {
    let keeper = keeper.ok_or_else(nothing_is_kept)?;
    let begun = br#"{"entries":"#.to_vec();
    let source = keeper.run(|folder| folder.script_source(begun)).await.map_err(LineageError::Io);
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
    // An object's fields without its bracket.
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
