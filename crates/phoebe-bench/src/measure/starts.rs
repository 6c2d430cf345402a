//! Starting and ending sessions one after the other: forked from the prepared process, with a fresh
//! interpreter each, and a cold interpreter without the server.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::arguments::Plan;
use crate::samples::{Samples, Summary};
use crate::subject::{Server, Session, Settings, Stock};

/// Between two starts: sessions are started by people, who are not that quick. Starts without a
/// pause are those of the rush.
const PAUSE: Duration = Duration::from_millis(50);

/// Times of starts and ends.
#[derive(Debug, Serialize)]
pub(crate) struct Starts {
    /// Start of a session.
    pub(crate) warm: Summary,
    /// End of a session.
    pub(crate) end: Summary,
    /// Start of a session with `worker.start = "spawn"`.
    pub(crate) spawned: Summary,
    /// An interpreter that imports PHOEBE and builds the default Bundle.
    pub(crate) cold: Summary,
    /// The end of such an interpreter.
    pub(crate) cold_end: Summary,
}

/// Measures them, cold ones spread evenly among warm ones.
pub(crate) async fn measure(
    settings: &Settings,
    server: &Server,
    python: &Path,
    plan: &Plan,
) -> Result<Starts> {
    let spawning = Server::start(&settings.with("worker.start", "spawn")).await?;
    let [mut warm, mut end, mut spawned, mut cold, mut cold_end] =
        [(); 5].map(|()| Samples::of_time());
    for turn in 0..plan.cold_starts {
        let (stock, started) = Stock::start(python).await?;
        cold.push_time(started);
        cold_end.push_time(stock.end().await?);

        let (session, started) = Session::start(spawning.connect().await?).await?;
        spawned.push_time(started);
        session.end().await?;

        let mut connection = server.connect().await?;
        while warm.len() * plan.cold_starts < (turn + 1) * plan.starts {
            tokio::time::sleep(PAUSE).await;
            let (session, started) = Session::start(connection).await?;
            warm.push_time(started);
            let (kept, ended) = session.end().await?;
            end.push_time(ended);
            connection = kept;
        }
    }
    let summary = |samples: Samples| samples.summary().context("nothing was measured");
    Ok(Starts {
        warm: summary(warm)?,
        end: summary(end)?,
        spawned: summary(spawned)?,
        cold: summary(cold)?,
        cold_end: summary(cold_end)?,
    })
}
