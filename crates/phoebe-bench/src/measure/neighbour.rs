//! One session computes on all cores; another reads values meanwhile.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::requests;
use crate::arguments::Plan;
use crate::samples::{Samples, Summary};
use crate::subject::{Server, Session};

/// Between two reads: a user who moves a slider, not a flood.
const PACE: Duration = Duration::from_millis(10);

/// `get_value` of a session.
#[derive(Debug, Serialize)]
pub(crate) struct Neighbour {
    /// While nobody computes.
    pub(crate) alone: Summary,
    /// While another session computes.
    pub(crate) beside_compute: Summary,
}

/// Measures it.
pub(crate) async fn measure(server: &Server, plan: &Plan) -> Result<Neighbour> {
    let mut computing = server.session().await?;
    computing.send(&requests::add_dataset()).await?;
    let mut reading = server.session().await?;
    reading.send(&requests::get_value()).await?;

    let mut alone = Samples::of_time();
    for _ in 0..plan.values {
        alone.push_time(reading.send(&requests::get_value()).await?.elapsed);
        tokio::time::sleep(PACE).await;
    }
    let is_computing = Cell::new(true);
    let compute = async {
        for _ in 0..plan.neighbour_computes {
            computing.send(&requests::run_compute()).await?;
        }
        is_computing.set(false);
        anyhow::Ok(())
    };
    let ((), beside) = tokio::try_join!(compute, read_while(&mut reading, &is_computing))?;
    computing.end().await?;
    reading.end().await?;
    Ok(Neighbour {
        alone: alone.summary().context("nothing was read")?,
        beside_compute: beside.summary().context("nothing was read beside a compute")?,
    })
}

async fn read_while(session: &mut Session, go_on: &Cell<bool>) -> Result<Samples> {
    let mut samples = Samples::of_time();
    while go_on.get() {
        samples.push_time(session.send(&requests::get_value()).await?.elapsed);
        tokio::time::sleep(PACE).await;
    }
    Ok(samples)
}
