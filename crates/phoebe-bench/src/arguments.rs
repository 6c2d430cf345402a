//! The command line, and how many samples a run takes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use serde::Serialize;

/// Measure phoebe-server beside what users do without it.
#[derive(Debug, Parser)]
#[command(name = "phoebe-bench", version, max_term_width = 100)]
#[command(after_help = "Examples:
  cargo run --release -p phoebe-bench                      all figures, in less than 15 minutes
  cargo run --release -p phoebe-bench -- --quick           few samples, in less than 2 minutes
  cargo run --release -p phoebe-bench -- --python ~/phoebe/bin/python --output /tmp/bench")]
pub(crate) struct Arguments {
    /// Take few samples: shows that all works; the figures are rough
    #[arg(long)]
    pub(crate) quick: bool,
    /// Interpreter that has PHOEBE [default: the server's private environment]
    #[arg(long, value_name = "FILE")]
    pub(crate) python: Option<PathBuf>,
    /// Measure this server instead of the one built from this source
    #[arg(long, value_name = "FILE")]
    pub(crate) server: Option<PathBuf>,
    /// Numbers of sessions at which latency and memory are measured [default: 1,10,30,100,300;
    /// quick: 1,10,30]
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        value_parser = clap::value_parser!(u16).range(1..=4000)
    )]
    pub(crate) sessions: Vec<u16>,
    /// Folder for results.md, results.json and the pictures
    #[arg(long, value_name = "FOLDER", default_value = "docs/benchmarks")]
    pub(crate) output: PathBuf,
}

/// How many samples are taken of what.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Plan {
    /// Few samples only.
    pub(crate) quick: bool,
    /// Where one measurement has taken so long, it takes no more samples than it has: a busy
    /// machine must not make a run endless.
    pub(crate) budget: Duration,
    /// Sessions started and ended one after the other.
    pub(crate) starts: usize,
    /// Cold interpreters, and sessions with a fresh interpreter each.
    pub(crate) cold_starts: usize,
    /// Sessions started at once.
    pub(crate) rush: usize,
    /// Pings of one client.
    pub(crate) pings: usize,
    /// How long eight clients ping.
    pub(crate) ping_flood: Duration,
    /// `get_value` and `set_value` of each subject, where nothing depends on the value.
    pub(crate) values: usize,
    /// `add_dataset`, `get_bundle`, and `set_value` where constraints depend on the value, of each
    /// subject.
    pub(crate) bundles: usize,
    /// `run_compute` of each subject, and at each number of cores.
    pub(crate) computes: usize,
    /// Sessions whose memory is measured before and after a compute.
    pub(crate) memory_sessions: usize,
    /// Computes beside which another session is measured.
    pub(crate) neighbour_computes: usize,
    /// `run_compute` in a contained worker and in one that is not.
    pub(crate) sandbox_computes: usize,
    /// Wakes of one session, for each of its Bundles.
    pub(crate) wakes: usize,
    /// Sessions of which nearly all are asleep.
    pub(crate) sleepers: usize,
    /// How many of them can be awake.
    pub(crate) sleepers_awake: usize,
    /// Wakes of such sessions by many clients.
    pub(crate) crowd_wakes: usize,
    /// Numbers of sessions, ascending.
    pub(crate) crowd: Vec<usize>,
    /// Commands measured at each number of sessions.
    pub(crate) crowd_samples: usize,
}

impl Plan {
    /// The plan that the arguments ask for.
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let mut plan = if arguments.quick { Self::quick() } else { Self::full() };
        if !arguments.sessions.is_empty() {
            plan.crowd = arguments.sessions.iter().copied().map(usize::from).collect();
            plan.crowd.sort_unstable();
            plan.crowd.dedup();
        }
        plan
    }

    fn full() -> Self {
        Self {
            quick: false,
            budget: Duration::from_secs(90),
            starts: 200,
            cold_starts: 5,
            rush: 300,
            pings: 5000,
            ping_flood: Duration::from_secs(5),
            values: 300,
            bundles: 30,
            computes: 12,
            memory_sessions: 30,
            neighbour_computes: 5,
            sandbox_computes: 24,
            wakes: 100,
            sleepers: 500,
            sleepers_awake: 60,
            crowd_wakes: 2000,
            crowd: vec![1, 10, 30, 100, 300],
            crowd_samples: 300,
        }
    }

    fn quick() -> Self {
        Self {
            quick: true,
            budget: Duration::from_secs(8),
            starts: 20,
            cold_starts: 1,
            rush: 50,
            pings: 500,
            ping_flood: Duration::from_secs(1),
            values: 20,
            bundles: 3,
            computes: 2,
            memory_sessions: 4,
            neighbour_computes: 1,
            sandbox_computes: 2,
            wakes: 5,
            sleepers: 80,
            sleepers_awake: 30,
            crowd_wakes: 100,
            crowd: vec![1, 10, 30],
            crowd_samples: 60,
        }
    }

    /// A measurement of `wanted` samples begins.
    pub(crate) fn budget(&self, wanted: usize) -> SampleBudget {
        SampleBudget { wanted, end: Instant::now() + self.budget }
    }

    /// The most sessions that are alive at once.
    pub(crate) fn most_sessions(&self) -> usize {
        let crowd = self.crowd.last().copied().unwrap_or(0);
        crowd.max(self.rush).max(self.memory_sessions)
    }
}

/// One measurement's samples, bounded in number and in time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SampleBudget {
    wanted: usize,
    end: Instant,
}

impl SampleBudget {
    /// Fewer say nothing, however long they take.
    const LEAST: usize = 2;

    /// Whether one more is to be taken after `taken`.
    pub(crate) fn needs_more(&self, taken: usize) -> bool {
        taken < self.wanted && (taken < Self::LEAST || Instant::now() < self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_ends_by_samples_or_time_but_not_below_the_minimum() {
        let with_time = SampleBudget { wanted: 3, end: Instant::now() + Duration::from_secs(3600) };
        assert!(with_time.needs_more(2) && !with_time.needs_more(3));
        let over = SampleBudget { wanted: 30, end: Instant::now() };
        assert!(over.needs_more(1) && !over.needs_more(2));
        assert!(!SampleBudget { wanted: 1, ..over }.needs_more(1));
    }
}
