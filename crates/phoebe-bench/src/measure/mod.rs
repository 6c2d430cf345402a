//! All measurements, in a fixed order, one file a family. What is compared is measured in turns, so
//! that both meet the same noise.

pub(crate) mod commands;
pub(crate) mod cores;
pub(crate) mod crowd;
pub(crate) mod durability;
mod fluxes;
pub(crate) mod memory;
pub(crate) mod neighbour;
pub(crate) mod pings;
pub(crate) mod requests;
pub(crate) mod rush;
pub(crate) mod sandbox;
pub(crate) mod sleep;
pub(crate) mod starts;
mod turns;

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::arguments::{Arguments, Plan};
use crate::machine::{self, Machine};
use crate::subject::{Server, Settings, binary};

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    /// Where.
    pub(crate) machine: Machine,
    /// How many samples were wanted.
    pub(crate) plan: Plan,
    /// Starting and ending sessions one by one.
    pub(crate) starts: starts::Starts,
    /// Many starts at once.
    pub(crate) rush: rush::Rush,
    /// The least that a command costs.
    pub(crate) pings: pings::Pings,
    /// Commands, beside the same without acceleration and in stock PHOEBE.
    pub(crate) commands: commands::Commands,
    /// What it costs that changes are kept.
    pub(crate) durability: durability::Durability,
    /// First answers of sessions that were asleep.
    pub(crate) sleep: sleep::Sleep,
    /// What the containment of workers costs.
    pub(crate) sandbox: sandbox::Sandbox,
    /// Memory of a session.
    pub(crate) memory: memory::MemoryUse,
    /// A session beside one that computes.
    pub(crate) neighbour: neighbour::Neighbour,
    /// Latency and memory against the number of sessions.
    pub(crate) crowd: Vec<crowd::CrowdPoint>,
    /// Compute time against the number of cores.
    pub(crate) cores: Vec<cores::CorePoint>,
}

/// Takes all measurements.
pub(crate) async fn all(arguments: &Arguments) -> Result<Results> {
    let plan = Plan::new(arguments);
    let python = arguments.python.as_ref().map(std::path::absolute).transpose()?;
    let settings = Settings {
        binary: binary::locate(arguments.server.as_deref())?,
        python,
        // Some may be somebody else's.
        ports: plan.most_sessions() * 5 / 4 + 100,
        cores: None,
        changed: BTreeMap::new(),
    };
    let began = Instant::now();
    let load_before = machine::load()?;
    let taken_at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();

    tell("server");
    let server = Server::start(&settings).await?;
    let python = server.python()?;
    tell("starts");
    let starts = starts::measure(&settings, &server, &python, &plan).await.context("starts")?;
    tell("rush");
    let rush = rush::measure(&server, plan.rush).await.context("rush")?;
    tell("pings");
    let pings = pings::measure(&server, &plan).await.context("pings")?;
    tell("commands");
    let commands =
        commands::measure(&settings, &server, &python, &plan).await.context("commands")?;
    tell("memory");
    let memory = memory::measure(&server, &python, &plan).await.context("memory")?;
    tell("a session beside one that computes");
    let neighbour = neighbour::measure(&server, &plan).await.context("neighbour")?;
    tell("many sessions");
    let crowd = crowd::measure(&server, &plan).await.context("crowd")?;
    let versions = server.info().await?;
    drop(server);
    tell("durability");
    let durability = durability::measure(&settings, &plan).await.context("durability")?;
    tell("sleep");
    let sleep = sleep::measure(&settings, &plan).await.context("sleep")?;
    tell("sandbox");
    let sandbox = sandbox::measure(&settings, &plan).await.context("sandbox")?;
    tell("cores");
    let cores = cores::measure(&settings, &plan).await.context("cores")?;

    let machine = Machine {
        processor: machine::processor()?,
        cores: machine::cores(),
        memory_gib: machine::memory_gib()?,
        kernel: machine::kernel()?,
        versions,
        load_before,
        load_after: machine::load()?,
        taken_at,
        seconds: began.elapsed().as_secs_f64(),
    };
    Ok(Results {
        machine,
        plan,
        starts,
        rush,
        pings,
        commands,
        durability,
        sleep,
        sandbox,
        memory,
        neighbour,
        crowd,
        cores,
    })
}

fn tell(family: &str) {
    eprintln!("measuring: {family}");
}
