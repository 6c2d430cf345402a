//! The least that a command costs: `ping` over kept-alive HTTP, to the worker and back.

use std::time::Instant;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use serde::Serialize;

use crate::arguments::Plan;
use crate::samples::{Samples, Summary, Unit};
use crate::subject::{Server, Session};

const CLIENTS: usize = 8;
const SESSIONS: usize = 3;
const ROUNDS: usize = 3;
const WARM_UP: usize = 50;

/// Latency and throughput of pings.
#[derive(Debug, Serialize)]
pub(crate) struct Pings {
    /// One client, one session.
    pub(crate) latency: Summary,
    /// Pings a second, eight clients on three sessions, each sending its next when the last is
    /// answered.
    pub(crate) per_second: Summary,
    /// Pings behind `per_second`.
    pub(crate) flood: usize,
}

/// Measures them.
pub(crate) async fn measure(server: &Server, plan: &Plan) -> Result<Pings> {
    let mut latency = Samples::of_time();
    let mut session = server.session().await?;
    for _ in 0..WARM_UP {
        session.ping().await?;
    }
    for _ in 0..plan.pings {
        latency.push_time(session.ping().await?);
    }
    session.end().await?;

    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(server.session().await?);
    }
    let mut per_second = Samples::new(Unit::PerSecond);
    let mut flood = 0;
    for _ in 0..ROUNDS {
        let mut clients = Vec::new();
        for client in 0..CLIENTS {
            clients.push(sessions[client % SESSIONS].also_over(server.connect().await?));
        }
        let began = Instant::now();
        let end = began + plan.ping_flood;
        let counts =
            try_join_all(clients.into_iter().map(|client| ping_until(client, end))).await?;
        let count: usize = counts.iter().sum();
        per_second.push(count as f64 / began.elapsed().as_secs_f64());
        flood += count;
    }
    for session in sessions {
        session.end().await?;
    }
    Ok(Pings {
        latency: latency.summary().context("no pings")?,
        per_second: per_second.summary().context("no pings")?,
        flood,
    })
}

async fn ping_until(mut client: Session, end: Instant) -> Result<usize> {
    let mut count = 0;
    while Instant::now() < end {
        client.ping().await?;
        count += 1;
    }
    Ok(count)
}
