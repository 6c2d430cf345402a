//! Results as pictures, one SVG each.

mod lines;
mod spreads;

use std::path::Path;

use anyhow::Result;
use plotters::style::RGBColor;

use super::promises::{IDLE_MIB, RUN_COMPUTE_MS};
use crate::measure::Results;
use crate::measure::commands::Times;
use crate::samples::Summary;
use lines::{Axis, Curve, LineChart};
use spreads::{Row, SpreadChart};

const SESSION: RGBColor = RGBColor(0x1b, 0x6c, 0xa8);
const UNACCELERATED: RGBColor = RGBColor(0x7b, 0x9e, 0xb8);
const STOCK: RGBColor = RGBColor(0xd9, 0x6b, 0x27);
const PROMISE: RGBColor = RGBColor(0x3a, 0x92, 0x4b);
const SECOND: RGBColor = RGBColor(0x8a, 0x4f, 0xa0);
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const FAINT: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const FONT: &str = "sans-serif";

/// Draws all pictures into `folder`.
pub(super) fn draw(results: &Results, folder: &Path) -> Result<()> {
    latency(results).draw(&folder.join("latency.svg"))?;
    sessions_latency(results).draw(&folder.join("sessions-latency.svg"))?;
    sessions_memory(results).draw(&folder.join("sessions-memory.svg"))?;
    compute_cores(results).draw(&folder.join("compute-cores.svg"))
}

fn latency(results: &Results) -> SpreadChart {
    let commands = &results.commands;
    let mut rows = vec![
        row("start a session", SESSION, &results.starts.warm),
        row("… spawned", UNACCELERATED, &results.starts.spawned),
        row("… cold interpreter", STOCK, &results.starts.cold),
        row("end a session", SESSION, &results.starts.end),
        row("wake a session", SESSION, &results.sleep.fresh),
        row("ping", SESSION, &results.pings.latency),
    ];
    rows.extend(compared("get_value", &commands.get_value));
    rows.extend(compared("set_value", &commands.set_value));
    rows.extend(compared("set_value, constraining", &commands.set_constraining_value));
    rows.extend(compared("add_dataset", &commands.add_dataset));
    rows.extend(compared("get_bundle", &commands.get_bundle));
    rows.extend(compared("run_compute", &commands.run_compute));
    SpreadChart {
        title: "Latency: 5–95 % thin, 25–75 % thick, median marked, 99 % dot",
        axis: "milliseconds (logarithmic)",
        rows,
    }
}

fn compared(name: &'static str, times: &Times) -> [Row; 3] {
    [
        row(name, SESSION, &times.session),
        row("… accelerate = false", UNACCELERATED, &times.unaccelerated),
        row("… stock PHOEBE in-process", STOCK, &times.stock),
    ]
}

fn row(name: &'static str, color: RGBColor, summary: &Summary) -> Row {
    Row { name, color, summary: *summary }
}

fn sessions_latency(results: &Results) -> LineChart {
    let curve = |name, color, value: fn(&crate::measure::crowd::CrowdPoint) -> f64| Curve {
        name,
        color,
        dashed: false,
        points: results.crowd.iter().map(|point| (point.sessions as f64, value(point))).collect(),
    };
    LineChart {
        title: "Latency against the number of sessions awake",
        horizontal: Axis { name: "sessions awake", logarithmic: true },
        vertical: Axis { name: "milliseconds", logarithmic: true },
        curves: vec![
            curve("start, p50", STOCK, |point| point.start.p50),
            curve("get_value, p50", SESSION, |point| point.get_value.p50),
            curve("get_value, p99", UNACCELERATED, |point| point.get_value.p99),
            curve("ping, p50", PROMISE, |point| point.ping.p50),
            curve("ping, p99", SECOND, |point| point.ping.p99),
        ],
    }
}

fn sessions_memory(results: &Results) -> LineChart {
    let points = |value: fn(&crate::measure::crowd::CrowdPoint) -> f64| -> Vec<(f64, f64)> {
        results.crowd.iter().map(|point| (point.sessions as f64, value(point))).collect()
    };
    let level = |height: f64| -> Vec<(f64, f64)> {
        results.crowd.iter().map(|point| (point.sessions as f64, height)).collect()
    };
    let solid = |name, color, points| Curve { name, color, dashed: false, points };
    let dashed = |name, color, points| Curve { name, color, dashed: true, points };
    LineChart {
        title: "Memory of one idle session against the number of sessions awake",
        horizontal: Axis { name: "sessions awake", logarithmic: true },
        vertical: Axis { name: "MiB per session", logarithmic: true },
        curves: vec![
            solid("proportional set size", SESSION, points(|point| point.memory.pss.mean)),
            solid("unique set size", SECOND, points(|point| point.memory.uss.mean)),
            solid(
                "all processes ÷ sessions",
                UNACCELERATED,
                points(|point| point.total_mib / point.sessions as f64),
            ),
            dashed("stock PHOEBE", STOCK, level(results.memory.stock_idle.pss.mean)),
            dashed("promise", PROMISE, level(IDLE_MIB)),
        ],
    }
}

fn compute_cores(results: &Results) -> LineChart {
    let points = |value: fn(&Summary) -> f64| -> Vec<(f64, f64)> {
        results
            .cores
            .iter()
            .map(|point| (point.cores as f64, value(&point.run_compute) / 1e3))
            .collect()
    };
    let level = |milliseconds: f64| -> Vec<(f64, f64)> {
        results.cores.iter().map(|point| (point.cores as f64, milliseconds / 1e3)).collect()
    };
    let solid = |name, color, points| Curve { name, color, dashed: false, points };
    let dashed = |name, color, points| Curve { name, color, dashed: true, points };
    LineChart {
        title: "run_compute, 201-point light curve, against cores",
        horizontal: Axis { name: "cores", logarithmic: false },
        vertical: Axis { name: "seconds", logarithmic: false },
        curves: vec![
            solid("session, p50", SESSION, points(|summary| summary.p50)),
            solid("session, p99", UNACCELERATED, points(|summary| summary.p99)),
            dashed("stock PHOEBE, p50", STOCK, level(results.commands.run_compute.stock.p50)),
            dashed("promise", PROMISE, level(RUN_COMPUTE_MS)),
        ],
    }
}
