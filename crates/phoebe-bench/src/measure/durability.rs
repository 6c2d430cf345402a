//! What it costs a command that its change is on disk before it is answered: `set_value` where
//! nothing is kept, where changes are kept, and where the disk itself must have them, in turns.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::requests;
use super::turns::in_turns;
use crate::arguments::Plan;
use crate::samples::Summary;
use crate::subject::{Server, Session, Settings};

/// `set_value` on a small and on a large Bundle.
#[derive(Debug, Serialize)]
pub(crate) struct Durability {
    /// The Bundle that sessions begin with.
    pub(crate) fresh: Cost,
    /// With an observed light curve and its computed model.
    pub(crate) observed: Cost,
}

/// `set_value` by twig on one Bundle; nothing depends on the value.
#[derive(Debug, Serialize)]
pub(crate) struct Cost {
    /// With `session.durability = "off"`.
    pub(crate) off: Summary,
    /// With `session.durability = "command"`.
    pub(crate) command: Summary,
    /// With `session.fsync = true` besides.
    pub(crate) fsync: Summary,
    /// What one snapshot of the Bundle takes on disk, in MiB.
    pub(crate) snapshot_mib: f64,
}

/// Measures it.
pub(crate) async fn measure(settings: &Settings, plan: &Plan) -> Result<Durability> {
    let durable = settings.with("session.durability", "command");
    let servers = [
        Server::start(&settings.with("session.durability", "off")).await?,
        Server::start(&durable.with("session.fsync", false)).await?,
        Server::start(&durable.with("session.fsync", true)).await?,
    ];
    let [off, command, fsync] = &servers;
    let mut sessions = [off.session().await?, command.session().await?, fsync.session().await?];
    let fresh = cost(&mut sessions, command, plan).await?;
    for session in &mut sessions {
        observe(session).await?;
    }
    let observed = cost(&mut sessions, command, plan).await?;
    Ok(Durability { fresh, observed })
}

/// Gives a session an observed light curve of [`requests::OBSERVATIONS`] points, and a computed
/// model of few.
pub(super) async fn observe(session: &mut Session) -> Result<()> {
    session.send(&requests::add_observations()).await?;
    session.send(&requests::run_compute()).await?;
    Ok(())
}

async fn cost(sessions: &mut [Session; 3], durable: &Server, plan: &Plan) -> Result<Cost> {
    let step = async |turn, session: &mut Session| {
        Ok(session.send(&requests::set_value(turn)).await?.elapsed)
    };
    let [off, command, fsync] = in_turns(sessions, plan.budget(plan.values), step).await?;
    let snapshot = latest_snapshot(&durable.folder_of(&sessions[1]))?;
    Ok(Cost { off, command, fsync, snapshot_mib: snapshot as f64 / f64::from(1 << 20) })
}

/// Bytes of the snapshot after the last change of the session in `folder`.
fn latest_snapshot(folder: &Path) -> Result<u64> {
    let mut latest = None;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let step = name.to_str().and_then(|name| name.strip_suffix(".snapshot"));
        if let Some(step) = step.and_then(|step| step.parse::<u64>().ok()) {
            latest = latest.max(Some((step, entry.metadata()?.len())));
        }
    }
    let (_, bytes) = latest.with_context(|| format!("{} has no snapshot", folder.display()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_snapshot_is_that_of_the_greatest_step() {
        let folder = tempfile::tempdir().unwrap();
        assert!(latest_snapshot(folder.path()).is_err());
        for (name, bytes) in [("9", 90), ("10", 5), ("portable", 1000)] {
            fs::write(folder.path().join(format!("{name}.snapshot")), vec![0; bytes]).unwrap();
        }
        assert_eq!(latest_snapshot(folder.path()).unwrap(), 5);
    }
}
