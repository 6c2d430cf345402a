//! The promises of the specification, each beside what was measured: the one place that knows the
//! promised figures.

use serde::Serialize;

use crate::measure::Results;
use crate::measure::durability::Cost;
use crate::measure::sandbox::Sandbox;
use crate::measure::sleep::crowd::Crowd;
use crate::samples::{Summary, Unit};

/// The sessions started at once that a promise speaks of.
const CLASS: usize = 300;
/// The sessions awake that a promise speaks of.
const AWAKE: usize = 1000;
/// The sessions, nearly all asleep, that a promise speaks of.
const SLEEPERS: usize = 500;
/// The cycles of sleep and wake that it speaks of.
const CYCLES: usize = 2000;
/// By how much memory may grow over them, in MiB.
const MEMORY_GROWTH_MIB: f64 = 10.0;
/// By what factor a contained compute may take longer.
const CONTAINMENT_FACTOR: f64 = 1.02;
/// How far a flux may be from stock PHOEBE's.
pub(super) const FLUX_TOLERANCE: f64 = 1e-12;
/// Longest median of a compute, in milliseconds.
pub(super) const RUN_COMPUTE_MS: f64 = 1200.0;
/// Most memory of an idle session, in MiB.
pub(super) const IDLE_MIB: f64 = 6.0;

/// One promise and what became of it.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    /// What is promised.
    pub(super) what: String,
    /// The bound in words.
    pub(super) promise: String,
    /// What the server does now; `None` where nothing was measured.
    pub(super) now: Option<Figure>,
    /// The same without the server, in the same run; `None` where there is no such thing.
    pub(super) today: Option<Today>,
    /// Whether it is kept.
    pub(super) verdict: Verdict,
}

/// A measured figure.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Figure {
    /// Its unit.
    pub(super) unit: Unit,
    /// The figure that the promise speaks of: a median, a mean of memory, or the only sample.
    pub(super) value: f64,
    /// Its 99th percentile, where there is one.
    pub(super) p99: Option<f64>,
    /// Samples behind it.
    pub(super) n: usize,
}

/// How the same is done today.
#[derive(Debug, Serialize)]
pub(super) struct Today {
    /// In a few words.
    pub(super) how: &'static str,
    /// What it costs.
    pub(super) figure: Figure,
}

/// Whether a promise is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// It is.
    Met,
    /// It is not.
    NotMet,
    /// This run did not measure what it speaks of.
    NotMeasured,
}

impl Figure {
    fn median(summary: &Summary) -> Self {
        Self { unit: summary.unit, value: summary.p50, p99: Some(summary.p99), n: summary.n }
    }

    fn mean(summary: &Summary) -> Self {
        Self { value: summary.mean, ..Self::median(summary) }
    }
}

impl Verdict {
    fn of(is_met: bool) -> Self {
        if is_met { Self::Met } else { Self::NotMet }
    }
}

const COLD: &str = "cold interpreter";
const STOCK: &str = "stock PHOEBE in-process";
const OBSERVED: &str = "100,000 data points and a model";

/// All promises, in the order of the specification.
pub(super) fn lines(results: &Results) -> Vec<Line> {
    let (starts, commands, memory) = (&results.starts, &results.commands, &results.memory);
    let stock = |summary| today(STOCK, Figure::median(summary));
    vec![
        at_most("start a session", 10.0, Figure::median(&starts.warm))
            .beside(today(COLD, Figure::median(&starts.cold))),
        rush(results),
        at_most("`ping` over HTTP", 0.6, Figure::median(&results.pings.latency)),
        pings_per_second(results),
        at_most("`get_value` by twig", 1.5, Figure::median(&commands.get_value.session))
            .beside(stock(&commands.get_value.stock)),
        at_most("`set_value` by twig, durable", 6.0, Figure::median(&commands.set_value.session))
            .beside(stock(&commands.set_value.stock)),
        at_most(
            "`set_value` by twig, constraints depend on it",
            6.0,
            Figure::median(&commands.set_constraining_value.session),
        )
        .beside(stock(&commands.set_constraining_value.stock)),
        at_most(
            "`add_dataset` lc, 201 phases",
            120.0,
            Figure::median(&commands.add_dataset.session),
        )
        .beside(stock(&commands.add_dataset.stock)),
        at_most("`get_bundle`", 40.0, Figure::median(&commands.get_bundle.session))
            .beside(stock(&commands.get_bundle.stock)),
        at_most(
            "`run_compute`, 201-point light curve, detached binary",
            RUN_COMPUTE_MS,
            Figure::median(&commands.run_compute.session),
        )
        .beside(stock(&commands.run_compute.stock)),
        fluxes(results),
        at_most("memory of an idle session (mean PSS)", IDLE_MIB, Figure::mean(&memory.idle.pss))
            .beside(today(COLD, Figure::mean(&memory.stock_idle.pss))),
        at_most("memory after a compute (mean PSS)", 20.0, Figure::mean(&memory.computed.pss))
            .beside(today(STOCK, Figure::mean(&memory.stock_computed.pss))),
        at_most("end a session", 15.0, Figure::median(&starts.end))
            .beside(today(COLD, Figure::median(&starts.cold_end))),
        neighbour(results),
        durable("fresh Bundle", &results.durability.fresh),
        durable(OBSERVED, &results.durability.observed),
        woken("fresh Bundle", &results.sleep.fresh),
        woken(OBSERVED, &results.sleep.observed),
        sleepers(&results.sleep.crowd),
        growth(&results.sleep.crowd),
        contained(&results.sandbox),
        awake(results),
    ]
}

impl Line {
    fn beside(self, today: Today) -> Self {
        Self { today: Some(today), ..self }
    }
}

fn today(how: &'static str, figure: Figure) -> Today {
    Today { how, figure }
}

fn at_most(what: &str, bound: f64, now: Figure) -> Line {
    Line {
        what: what.to_owned(),
        promise: format!("≤ {bound} {}", now.unit.sign()),
        verdict: Verdict::of(now.value <= bound),
        now: Some(now),
        today: None,
    }
}

/// A class that starts together: today its members start interpreters on the same cores.
fn rush(results: &Results) -> Line {
    let rush = &results.rush;
    let now = Figure {
        unit: Unit::Milliseconds,
        value: rush.last_ms,
        p99: rush.starts.map(|starts| starts.p99),
        n: rush.sessions,
    };
    let what = format!(
        "{} sessions started at once, last one ready; {} failed",
        rush.sessions, rush.failures
    );
    let mut line = at_most(&what, 5000.0, now);
    if rush.failures > 0 {
        line.verdict = Verdict::NotMet;
    } else if rush.sessions != CLASS {
        line.promise = format!("{CLASS}: ≤ 5000 ms");
        line.verdict = Verdict::NotMeasured;
    }
    line
}

fn pings_per_second(results: &Results) -> Line {
    let per_second = &results.pings.per_second;
    let now = Figure { p99: None, ..Figure::median(per_second) };
    Line {
        what: "pings per second, 8 clients, 3 sessions".to_owned(),
        promise: "≥ 5000 /s".to_owned(),
        now: Some(Figure { n: results.pings.flood, ..now }),
        today: None,
        verdict: Verdict::of(now.value >= 5000.0),
    }
}

fn fluxes(results: &Results) -> Line {
    let commands = &results.commands;
    let greatest = commands.flux_difference.max(commands.unaccelerated_flux_difference);
    Line {
        what: format!(
            "greatest difference of a flux from stock PHOEBE's: {greatest:.1e}, of {} compared",
            commands.fluxes_compared
        ),
        promise: format!("≤ {FLUX_TOLERANCE:e}"),
        now: None,
        today: None,
        verdict: Verdict::of(greatest <= FLUX_TOLERANCE),
    }
}

fn neighbour(results: &Results) -> Line {
    let summary = &results.neighbour.beside_compute;
    let what = "`get_value` while another session computes on all cores, p99";
    let mut line = at_most(what, 20.0, Figure::median(summary));
    line.verdict = Verdict::of(summary.p99 <= 20.0);
    line
}

fn awake(results: &Results) -> Line {
    let most = results.crowd.last().map_or(0, |point| point.sessions);
    Line {
        what: format!("sessions awake on 24 GB; this run had {most}"),
        promise: format!("{AWAKE}"),
        now: None,
        today: None,
        verdict: if most >= AWAKE { Verdict::Met } else { Verdict::NotMeasured },
    }
}

fn durable(bundle: &str, cost: &Cost) -> Line {
    let what = format!("`set_value` by twig, durable: {bundle}");
    at_most(&what, 6.0, Figure::median(&cost.command))
        .beside(today("`durability = \"off\"`", Figure::median(&cost.off)))
}

fn woken(bundle: &str, first_answer: &Summary) -> Line {
    let what = format!("wake a sleeping session, first answer: {bundle}");
    at_most(&what, 40.0, Figure::median(first_answer))
}

/// Sessions that outnumber the ports.
fn sleepers(crowd: &Crowd) -> Line {
    Line {
        what: format!(
            "{} sessions on {} ports, woken at random by {} clients at once; {} of {} wakes failed",
            crowd.sessions, crowd.before.ports, crowd.clients, crowd.failures, crowd.cycles
        ),
        promise: "0 failed".to_owned(),
        now: crowd.first_answer.as_ref().map(Figure::median),
        today: None,
        verdict: verdict_on_crowd(crowd, crowd.failures == 0),
    }
}

fn growth(crowd: &Crowd) -> Line {
    let growth = crowd.growth();
    Line {
        what: format!(
            "grown over {} wakes: ports by {}, descriptors by {}, memory of all \
             processes by {:.1} MiB",
            crowd.cycles, growth.ports, growth.descriptors, growth.total_mib
        ),
        promise: format!("0, 0, ≤ {MEMORY_GROWTH_MIB} MiB"),
        now: None,
        today: None,
        verdict: verdict_on_crowd(
            crowd,
            growth.ports <= 0 && growth.descriptors <= 0 && growth.total_mib <= MEMORY_GROWTH_MIB,
        ),
    }
}

/// What fails in a small crowd fails; what holds in one does not show that it holds in the crowd of
/// the promise.
fn verdict_on_crowd(crowd: &Crowd, holds: bool) -> Verdict {
    if holds && (crowd.sessions < SLEEPERS || crowd.cycles < CYCLES) {
        return Verdict::NotMeasured;
    }
    Verdict::of(holds)
}

fn contained(sandbox: &Sandbox) -> Line {
    let factor = sandbox.factor();
    Line {
        what: format!(
            "`run_compute` in a contained worker: {factor:.3} × the time; greatest \
             difference of a flux {:.1e}",
            sandbox.flux_difference
        ),
        promise: format!("≤ {CONTAINMENT_FACTOR} ×, 0"),
        now: Some(Figure::median(&sandbox.enforce)),
        today: Some(today("`sandbox = \"off\"`", Figure::median(&sandbox.off))),
        verdict: Verdict::of(factor <= CONTAINMENT_FACTOR && sandbox.flux_difference == 0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::sleep::crowd::Footprint;

    #[test]
    fn a_small_crowd_shows_what_fails_and_not_what_holds() {
        let taken = Footprint {
            awake: 60,
            ports: 60,
            descriptors: 280,
            server_mib: 40.0,
            zygote_mib: 200.0,
            total_mib: 700.0,
        };
        let mut crowd = Crowd {
            sessions: SLEEPERS,
            clients: 20,
            cycles: CYCLES,
            per_second: 30.0,
            failures: 0,
            failure: None,
            first_answer: None,
            before: taken,
            after: taken,
        };
        assert_eq!(sleepers(&crowd).verdict, Verdict::Met);
        assert_eq!(growth(&crowd).verdict, Verdict::Met);
        crowd.cycles -= 1;
        assert_eq!(sleepers(&crowd).verdict, Verdict::NotMeasured);
        assert_eq!(growth(&crowd).verdict, Verdict::NotMeasured);
        (crowd.failures, crowd.after.descriptors) = (1, 281);
        assert_eq!(sleepers(&crowd).verdict, Verdict::NotMet);
        assert_eq!(growth(&crowd).verdict, Verdict::NotMet);
    }
}
