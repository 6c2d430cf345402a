//! Many sessions on few ports, nearly all asleep, woken at random by many clients at once; and
//! whether anything grows meanwhile.

use std::cell::Cell;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use crate::arguments::{Plan, SampleBudget};
use crate::measure::requests;
use crate::samples::{Samples, Summary};
use crate::subject::http::Connection;
use crate::subject::memory::{descriptors, of_process, of_tree};
use crate::subject::{Server, Session, Settings, session};

/// Clients at once; each has sessions of its own, so that no two wake the same one.
const CLIENTS: usize = 20;

/// What became of the wakes.
#[derive(Debug, Serialize)]
pub(crate) struct Crowd {
    /// Sessions.
    pub(crate) sessions: usize,
    /// Clients that woke them.
    pub(crate) clients: usize,
    /// Wakes, each the end of a cycle: another session slept for it.
    pub(crate) cycles: usize,
    /// How many of them failed.
    pub(crate) failures: usize,
    /// A failure.
    pub(crate) failure: Option<String>,
    /// Wakes a second, all clients together.
    pub(crate) per_second: f64,
    /// First answers of those that did not.
    pub(crate) first_answer: Option<Summary>,
    /// Before the cycles.
    pub(crate) before: Footprint,
    /// After them.
    pub(crate) after: Footprint,
}

/// By how much a footprint grew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Growth {
    /// Ports in use.
    pub(crate) ports: i64,
    /// Open file descriptors of the server's own process.
    pub(crate) descriptors: i64,
    /// Proportional set size of the server and all its Python processes in MiB.
    pub(crate) total_mib: f64,
}

impl Crowd {
    /// What the cycles left behind.
    pub(crate) fn growth(&self) -> Growth {
        let (before, after) = (&self.before, &self.after);
        Growth {
            ports: difference(before.ports, after.ports),
            descriptors: difference(before.descriptors, after.descriptors),
            total_mib: after.total_mib - before.total_mib,
        }
    }
}

fn difference(before: usize, after: usize) -> i64 {
    after as i64 - before as i64
}

/// What the server takes of the machine while nobody asks it anything.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Footprint {
    /// Sessions awake.
    pub(crate) awake: usize,
    /// Ports in use.
    pub(crate) ports: usize,
    /// Open file descriptors of the server's own process.
    pub(crate) descriptors: usize,
    /// Proportional set size of the server's own process in MiB.
    pub(crate) server_mib: f64,
    /// Resident set size of the process that workers are forked from, in MiB.
    pub(crate) zygote_mib: f64,
    /// Proportional set size of the server and all its Python processes in MiB.
    pub(crate) total_mib: f64,
}

/// Measures them.
///
/// A sample is the time from asking a session for one value, seen asleep just before, to the whole
/// answer, while the other clients do the same: it includes the wait for the cores that all share
/// and, as all ports are taken, another session's falling asleep.
pub(super) async fn measure(settings: &Settings, plan: &Plan) -> Result<Crowd> {
    ensure!(plan.sleepers_awake >= CLIENTS, "each client needs a port");
    let settings = Settings { ports: plan.sleepers_awake, ..settings.clone() };
    let server = Server::start(&settings).await?;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let share = (number..plan.sleepers).step_by(CLIENTS).count();
        clients.push(Client::start(&server, number, share).await?);
    }
    // Afterwards all that are awake have been woken, as after the cycles, and the server has grown
    // as large as it needs to be.
    let warm_up = wakes(&mut clients, plan.budget(plan.sleepers)).await?;
    let before = footprint(&server, &mut clients[0].connection).await?;
    let began = Instant::now();
    let outcome = wakes(&mut clients, plan.budget(plan.crowd_wakes)).await?;
    let seconds = began.elapsed().as_secs_f64();
    let after = footprint(&server, &mut clients[0].connection).await?;
    let cycles = outcome.first_answers.len() + outcome.failures.len();
    Ok(Crowd {
        sessions: plan.sleepers,
        clients: CLIENTS,
        cycles,
        per_second: cycles as f64 / seconds,
        failures: warm_up.failures.len() + outcome.failures.len(),
        failure: warm_up.failures.into_iter().chain(outcome.failures).next(),
        first_answer: outcome.first_answers.summary(),
        before,
        after,
    })
}

/// A client with sessions of its own, over one connection.
struct Client {
    connection: Connection,
    sessions: Vec<String>,
    random: StdRng,
}

struct Outcome {
    first_answers: Samples,
    failures: Vec<String>,
}

impl Client {
    async fn start(server: &Server, number: usize, count: usize) -> Result<Self> {
        let mut connection = server.connect().await?;
        let mut sessions = Vec::with_capacity(count);
        for _ in 0..count {
            let (session, _) = Session::start(connection).await?;
            let (kept, id) = session.leave();
            sessions.push(id);
            connection = kept;
        }
        Ok(Self { connection, sessions, random: StdRng::seed_from_u64(number as u64) })
    }

    /// Wakes one session after the other, until all clients together have woken enough.
    async fn wake(&mut self, budget: SampleBudget, taken: &Cell<usize>) -> Result<Outcome> {
        let mut outcome = Outcome { first_answers: Samples::of_time(), failures: Vec::new() };
        while budget.needs_more(taken.get()) {
            let id = &self.sessions[self.random.random_range(..self.sessions.len())];
            if !session::is_asleep(&mut self.connection, id).await? {
                continue;
            }
            taken.set(taken.get() + 1);
            match session::send(&mut self.connection, id, &requests::get_value()).await {
                Ok(answer) => outcome.first_answers.push_time(answer.elapsed),
                Err(error) => outcome.failures.push(format!("{error:#}")),
            }
        }
        Ok(outcome)
    }
}

async fn wakes(clients: &mut [Client], budget: SampleBudget) -> Result<Outcome> {
    let taken = Cell::new(0);
    let outcomes =
        try_join_all(clients.iter_mut().map(|client| client.wake(budget, &taken))).await?;
    let mut all = Outcome { first_answers: Samples::of_time(), failures: Vec::new() };
    for outcome in outcomes {
        all.first_answers.extend(outcome.first_answers);
        all.failures.extend(outcome.failures);
    }
    Ok(all)
}

async fn footprint(server: &Server, connection: &mut Connection) -> Result<Footprint> {
    let sessions = connection.get("/dash/sessions").await?.json()?;
    let sessions = sessions.as_object().context("no sessions")?;
    let ports = connection.get("/dash/port-status").await?.json()?;
    let ports = ports["reserved_ports"].as_u64().context("no number of ports")?;
    let pid = server.pid()?;
    Ok(Footprint {
        awake: sessions.values().filter(|session| session["status"] == "awake").count(),
        ports: usize::try_from(ports)?,
        descriptors: descriptors(pid)?,
        server_mib: of_process(pid)?.pss,
        zygote_mib: of_process(server.zygote()?)?.rss,
        total_mib: of_tree(pid)?.pss,
    })
}
