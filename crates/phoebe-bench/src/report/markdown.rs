//! Results as Markdown tables.

mod durability;

use std::fmt::Write;

use super::promises::{Figure, Line, Verdict};
use crate::measure::Results;
use crate::samples::Summary;

/// The whole document.
pub(super) fn document(results: &Results, lines: &[Line]) -> String {
    [
        "# Benchmark results\n\nMade by `cargo run --release -p phoebe-bench`; `BENCHMARKS.md` \
         says how to read it.\n"
            .to_owned(),
        machine(results),
        promises(lines),
        comparisons(results),
        durability::durability(results),
        durability::sleep(results),
        crowd(results),
        cores(results),
        PICTURES.to_owned(),
    ]
    .join("\n")
}

const PICTURES: &str = "\
## Pictures

![Latency of each command](latency.svg)

![Latency against the number of sessions](sessions-latency.svg)

![Memory against the number of sessions](sessions-memory.svg)

![Compute time against the number of cores](compute-cores.svg)
";

fn machine(results: &Results) -> String {
    let machine = &results.machine;
    let version = |name: &str| machine.versions[name].as_str().unwrap_or("?").to_owned();
    format!(
        "{} × {}, {:.0} GiB, Linux {}. phoebe-server {}, PHOEBE {}, Python {}, NumPy {}. \
         Load average {:.1} before, {:.1} after the run of {:.0} s.{}\n",
        machine.cores,
        machine.processor,
        machine.memory_gib,
        machine.kernel,
        version("server_version"),
        version("phoebe_version"),
        version("python_version"),
        version("numpy_version"),
        machine.load_before,
        machine.load_after,
        machine.seconds,
        if results.plan.quick { " **Quick run: few samples, rough figures.**" } else { "" },
    )
}

fn promises(lines: &[Line]) -> String {
    let mut text = String::from(
        "## Promises\n\n\
         | what | promise | now | p99 | n | today | it costs | n | ratio | |\n\
         |---|---|--:|--:|--:|---|--:|--:|--:|---|\n",
    );
    for line in lines {
        let now = line.now.map_or_else(blank_figure, figure);
        let today = line.today.as_ref();
        let [cost, _, n] = today.map_or_else(blank_figure, |today| figure(today.figure));
        let ratio = today.zip(line.now).map(|(today, now)| today.figure.value / now.value);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {cost} | {n} | {} | {} |",
            line.what,
            line.promise,
            now.join(" | "),
            today.map_or("", |today| today.how),
            ratio.map_or_else(String::new, |ratio| format!("{} ×", significant(ratio))),
            verdict(line.verdict),
        );
    }
    text
}

fn comparisons(results: &Results) -> String {
    let mut text = String::from(
        "## Side by side\n\nMedian and 99th percentile in ms, taken in turns.\n\n\
         | command | n | session | p99 | `accelerate = false` | p99 | stock PHOEBE in-process | \
         p99 |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    let commands = &results.commands;
    for (name, times) in [
        ("`get_value`", &commands.get_value),
        ("`set_value`", &commands.set_value),
        ("`set_value`, constraints depend on it", &commands.set_constraining_value),
        ("`add_dataset`", &commands.add_dataset),
        ("`get_bundle`", &commands.get_bundle),
        ("`run_compute`", &commands.run_compute),
    ] {
        let pairs = [&times.session, &times.unaccelerated, &times.stock].map(median_and_p99);
        let _ = writeln!(text, "| {name} | {} | {} |", times.session.n, pairs.join(" | "));
    }
    let _ = writeln!(
        text,
        "\nGreatest difference of a flux from stock PHOEBE's: {:.1e}; with `accelerate = \
         false`: {:.1e}.\n",
        commands.flux_difference, commands.unaccelerated_flux_difference
    );

    text += "| start | n | p50 | p99 |\n|---|--:|--:|--:|\n";
    let starts = &results.starts;
    for (name, summary) in [
        ("warm: forked from the prepared process", &starts.warm),
        ("cold: `worker.start = \"spawn\"`", &starts.spawned),
        ("cold interpreter without the server", &starts.cold),
    ] {
        let _ = writeln!(text, "| {name} | {} | {} |", summary.n, median_and_p99(summary));
    }

    text += "\n| `get_value` | n | p50 | p99 |\n|---|--:|--:|--:|\n";
    let neighbour = &results.neighbour;
    for (name, summary) in [
        ("while nobody computes", &neighbour.alone),
        ("while another session computes on all cores", &neighbour.beside_compute),
    ] {
        let _ = writeln!(text, "| {name} | {} | {} |", summary.n, median_and_p99(summary));
    }

    text += "\n| `run_compute` | n | p50 | p99 |\n|---|--:|--:|--:|\n";
    let sandbox = &results.sandbox;
    for (name, summary) in
        [("`sandbox = \"off\"`", &sandbox.off), ("`sandbox = \"enforce\"`", &sandbox.enforce)]
    {
        let _ = writeln!(text, "| {name} | {} | {} |", summary.n, median_and_p99(summary));
    }
    let _ = writeln!(
        text,
        "\nRatio of the medians: {:.3}; greatest difference of a flux: {:.1e}, of {} compared.",
        sandbox.factor(),
        sandbox.flux_difference,
        sandbox.fluxes_compared
    );

    text += "\n| memory in MiB | n | mean PSS | greatest PSS | mean USS |\n|---|--:|--:|--:|--:|\n";
    let memory = &results.memory;
    for (name, shares) in [
        ("idle session", &memory.idle),
        ("session after a compute", &memory.computed),
        ("stock PHOEBE, default Bundle", &memory.stock_idle),
        ("stock PHOEBE after a compute", &memory.stock_computed),
    ] {
        let (pss, uss) = (&shares.pss, &shares.uss);
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} |",
            pss.n,
            significant(pss.mean),
            significant(pss.max),
            significant(uss.mean)
        );
    }
    text
}

fn crowd(results: &Results) -> String {
    let mut text = String::from(
        "## Against the number of sessions\n\n\
         | sessions | start p50, ms | p99 | `ping` p50, ms | p99 | `get_value` p50, ms | p99 | \
         PSS each, MiB | USS each, MiB | server, MiB | all together, MiB |\n\
         |--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for point in &results.crowd {
        let times = [&point.start, &point.ping, &point.get_value].map(median_and_p99);
        let sizes =
            [point.memory.pss.mean, point.memory.uss.mean, point.server_mib, point.total_mib];
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            point.sessions,
            times.join(" | "),
            sizes.map(significant).join(" | ")
        );
    }
    text
}

fn cores(results: &Results) -> String {
    let mut text = String::from(
        "## `run_compute` against cores\n\n\
         | cores | n | p50, ms | p99 | speed |\n|--:|--:|--:|--:|--:|\n",
    );
    let one = results.cores.first().map(|point| point.run_compute.p50);
    for point in &results.cores {
        let summary = &point.run_compute;
        let speed = one.map_or(1.0, |one| one / summary.p50);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} × |",
            point.cores,
            summary.n,
            median_and_p99(summary),
            significant(speed)
        );
    }
    text
}

fn figure(figure: Figure) -> [String; 3] {
    [
        format!("{} {}", significant(figure.value), figure.unit.sign()),
        figure.p99.map_or_else(String::new, significant),
        figure.n.to_string(),
    ]
}

fn blank_figure() -> [String; 3] {
    Default::default()
}

fn median_and_p99(summary: &Summary) -> String {
    format!("{} | {}", significant(summary.p50), significant(summary.p99))
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Met => "met",
        Verdict::NotMet => "**not met**",
        Verdict::NotMeasured => "not measured",
    }
}

/// Three significant digits, and no fraction from 100 on.
pub(super) fn significant(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::significant;

    #[test]
    fn figures_have_three_digits() {
        let text = [3510.4, 99.96, 99.94, 9.999, 1.234, 0.5678].map(significant);
        assert_eq!(text, ["3510", "100", "99.9", "10.0", "1.23", "0.568"]);
    }
}
