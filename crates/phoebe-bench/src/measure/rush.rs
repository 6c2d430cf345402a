//! Many sessions started at the same moment, as a class does.

use std::time::Instant;

use anyhow::Result;
use futures::future::join_all;
use serde::Serialize;

use crate::samples::{Samples, Summary};
use crate::subject::{Server, Session};

/// What became of the starts.
#[derive(Debug, Serialize)]
pub(crate) struct Rush {
    /// Starts asked for at once.
    pub(crate) sessions: usize,
    /// How many of them failed.
    pub(crate) failures: usize,
    /// The first failure.
    pub(crate) failure: Option<String>,
    /// Milliseconds until the last was answered.
    pub(crate) last_ms: f64,
    /// Each start that succeeded.
    pub(crate) starts: Option<Summary>,
}

/// Measures one rush of `sessions` starts; the connections are open before.
pub(crate) async fn measure(server: &Server, sessions: usize) -> Result<Rush> {
    let mut connections = Vec::with_capacity(sessions);
    for _ in 0..sessions {
        connections.push(server.connect().await?);
    }
    let began = Instant::now();
    let outcomes = join_all(connections.into_iter().map(Session::start)).await;
    let last_ms = began.elapsed().as_secs_f64() * 1e3;

    let mut starts = Samples::of_time();
    let mut failures = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok((session, elapsed)) => {
                starts.push_time(elapsed);
                session.end().await?;
            }
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    Ok(Rush {
        sessions,
        failures: failures.len(),
        failure: failures.into_iter().next(),
        last_ms,
        starts: starts.summary(),
    })
}
