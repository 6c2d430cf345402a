//! Latency and memory against the number of sessions that are awake.

use anyhow::{Context, Result};
use serde::Serialize;

use super::memory::{Shares, of_sessions};
use super::requests;
use crate::arguments::Plan;
use crate::samples::{Samples, Summary};
use crate::subject::memory::{Memory, of_process, of_tree};
use crate::subject::{Server, Session};

/// Figures at one number of sessions.
#[derive(Debug, Serialize)]
pub(crate) struct CrowdPoint {
    /// Sessions awake.
    pub(crate) sessions: usize,
    /// Starts of the sessions since the point before.
    pub(crate) start: Summary,
    /// `ping`, sessions in turns.
    pub(crate) ping: Summary,
    /// `get_value`, sessions in turns.
    pub(crate) get_value: Summary,
    /// Memory of each session.
    pub(crate) memory: Shares,
    /// Proportional set size of the server's own process in MiB.
    pub(crate) server_mib: f64,
    /// Proportional set size of the server and all its Python processes in MiB.
    pub(crate) total_mib: f64,
}

/// Measures them, with ever more sessions.
pub(crate) async fn measure(server: &Server, plan: &Plan) -> Result<Vec<CrowdPoint>> {
    let mut sessions = Vec::new();
    let mut points = Vec::new();
    for &wanted in &plan.crowd {
        let start = start_until(server, &mut sessions, wanted).await?;
        points.push(point(server, &mut sessions, start, plan.crowd_samples).await?);
    }
    for session in sessions {
        session.end().await?;
    }
    Ok(points)
}

async fn start_until(
    server: &Server,
    sessions: &mut Vec<Session>,
    wanted: usize,
) -> Result<Summary> {
    let mut starts = Samples::of_time();
    while sessions.len() < wanted {
        let (session, elapsed) = Session::start(server.connect().await?)
            .await
            .with_context(|| format!("session {} of {wanted}", sessions.len() + 1))?;
        starts.push_time(elapsed);
        sessions.push(session);
    }
    starts.summary().context("no session was started")
}

async fn point(
    server: &Server,
    sessions: &mut [Session],
    start: Summary,
    samples: usize,
) -> Result<CrowdPoint> {
    // Each session's first read touches pages that it has not touched yet; that is not what is
    // measured here.
    for session in sessions.iter_mut() {
        session.send(&requests::get_value()).await?;
    }
    let (mut ping, mut get_value) = (Samples::of_time(), Samples::of_time());
    let count = sessions.len();
    for turn in 0..samples.max(count) {
        let session = &mut sessions[turn % count];
        ping.push_time(session.ping().await?);
        get_value.push_time(session.send(&requests::get_value()).await?.elapsed);
    }
    let Memory { pss: server_mib, .. } = of_process(server.pid()?)?;
    let Memory { pss: total_mib, .. } = of_tree(server.pid()?)?;
    Ok(CrowdPoint {
        sessions: count,
        start,
        ping: ping.summary().context("no pings")?,
        get_value: get_value.summary().context("no reads")?,
        memory: of_sessions(server, sessions)?,
        server_mib,
        total_mib,
    })
}
