//! What a session costs in memory, idle and after a compute, among many; and an interpreter with
//! PHOEBE of its own.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::requests;
use crate::arguments::Plan;
use crate::samples::{Samples, Summary, Unit};
use crate::subject::memory::{Memory, holders, of_process, of_tree};
use crate::subject::{Server, Session, Stock};

/// Memory of many sessions.
#[derive(Debug, Serialize)]
pub(crate) struct MemoryUse {
    /// Sessions that have answered one ping.
    pub(crate) idle: Shares,
    /// The same sessions, each after a compute of its light curve.
    pub(crate) computed: Shares,
    /// One interpreter with stock PHOEBE: the default Bundle.
    pub(crate) stock_idle: Shares,
    /// The same after the compute.
    pub(crate) stock_computed: Shares,
}

/// Both ways to count shared pages.
#[derive(Debug, Serialize)]
pub(crate) struct Shares {
    /// Proportional set size: a page shared by n processes counts 1/n.
    pub(crate) pss: Summary,
    /// Unique set size: pages of the process alone.
    pub(crate) uss: Summary,
}

/// Measures it.
pub(crate) async fn measure(server: &Server, python: &Path, plan: &Plan) -> Result<MemoryUse> {
    let mut sessions = Vec::new();
    for _ in 0..plan.memory_sessions {
        let mut session = server.session().await?;
        session.ping().await?;
        sessions.push(session);
    }
    let idle = of_sessions(server, &sessions)?;
    for session in &mut sessions {
        session.send(&requests::add_dataset()).await?;
        session.send(&requests::run_compute()).await?;
    }
    let computed = of_sessions(server, &sessions)?;
    for session in sessions {
        session.end().await?;
    }

    let (mut stock, _) = Stock::start(python).await?;
    let stock_idle = shares([of_process(stock.pid()?)?])?;
    stock.send(&requests::add_dataset()).await?;
    stock.send(&requests::run_compute()).await?;
    let stock_computed = shares([of_process(stock.pid()?)?])?;
    stock.end().await?;
    Ok(MemoryUse { idle, computed, stock_idle, stock_computed })
}

/// Memory of these sessions of `server` now.
pub(crate) fn of_sessions(server: &Server, sessions: &[Session]) -> Result<Shares> {
    let workers = holders(server.pid()?)?;
    let mut measured = Vec::with_capacity(sessions.len());
    for session in sessions {
        let worker = workers.get(&session.port());
        let worker = worker.with_context(|| format!("no process on port {}", session.port()))?;
        measured.push(of_tree(*worker)?);
    }
    shares(measured)
}

fn shares(measured: impl IntoIterator<Item = Memory>) -> Result<Shares> {
    let (mut pss, mut uss) = (Samples::new(Unit::Mebibytes), Samples::new(Unit::Mebibytes));
    for memory in measured {
        pss.push(memory.pss);
        uss.push(memory.uss);
    }
    Ok(Shares {
        pss: pss.summary().context("no process was measured")?,
        uss: uss.summary().context("no process was measured")?,
    })
}
