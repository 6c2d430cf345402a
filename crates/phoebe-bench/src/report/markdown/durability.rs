//! Tables of what it costs to keep changes, and to wake.

use std::fmt::Write;

use super::{median_and_p99, significant};
use crate::measure::Results;
use crate::measure::durability::Cost;
use crate::measure::sleep::crowd::{Crowd, Footprint};
use crate::samples::Summary;

/// What a change costs that is kept, and how large its snapshot is.
pub(super) fn durability(results: &Results) -> String {
    let mut text = String::from(
        "## Durability\n\n`set_value` by twig, median and 99th percentile in ms, taken in \
         turns; ratios of medians.\n\n\
         | Bundle | snapshot, MiB | n | `durability = \"off\"` | p99 | `\"command\"` | p99 | \
         ratio | `fsync = true` | p99 | ratio |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for (name, Cost { off, command, fsync, snapshot_mib }) in [
        ("fresh", &results.durability.fresh),
        ("100,000 data points and a model", &results.durability.observed),
    ] {
        let kept = [command, fsync].map(|kept| {
            format!("{} | {} ×", median_and_p99(kept), significant(kept.p50 / off.p50))
        });
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} |",
            significant(*snapshot_mib),
            off.n,
            median_and_p99(off),
            kept.join(" | "),
        );
    }
    text
}

/// First answers of sessions asleep, and what grew over many.
pub(super) fn sleep(results: &Results) -> String {
    let sleep = &results.sleep;
    let crowd = &sleep.crowd;
    let mut text = String::from(
        "## Sleep and wake\n\nFirst answer to `get_value` in ms.\n\n| asleep | n | p50 | p99 | \
         greatest |\n|---|--:|--:|--:|--:|\n",
    );
    let _ = writeln!(text, "| one session, fresh Bundle | {} |", first_answers(&sleep.fresh));
    let _ = writeln!(
        text,
        "| one session, 100,000 data points and a model | {} |",
        first_answers(&sleep.observed)
    );
    if let Some(summary) = &crowd.first_answer {
        let name = crowd_in_words(crowd);
        let _ = writeln!(text, "| {name} | {} |", first_answers(summary));
    }
    let _ = writeln!(
        text,
        "\n{} cycles of sleep and wake by {} clients, {} a second; {} failed{}.\n",
        crowd.cycles,
        crowd.clients,
        significant(crowd.per_second),
        crowd.failures,
        crowd.failure.as_ref().map_or_else(String::new, |failure| format!(": {failure}")),
    );

    text += "| | sessions awake | ports | server's descriptors | server, PSS, MiB | zygote, \
    RSS, MiB | all together, PSS, MiB |\n\
             |---|--:|--:|--:|--:|--:|--:|\n";
    for (name, footprint) in [("before", &crowd.before), ("after", &crowd.after)] {
        let _ = writeln!(text, "| {name} | {} |", takes(footprint));
    }
    text
}

fn crowd_in_words(crowd: &Crowd) -> String {
    format!("{} sessions, at most {} awake", crowd.sessions, crowd.before.ports)
}

fn first_answers(summary: &Summary) -> String {
    format!("{} | {} | {}", summary.n, median_and_p99(summary), significant(summary.max))
}

fn takes(footprint: &Footprint) -> String {
    let Footprint { awake, ports, descriptors, server_mib, zygote_mib, total_mib } = footprint;
    let sizes = [server_mib, zygote_mib, total_mib].map(|size| format!("{size:.1}"));
    format!("{awake} | {ports} | {descriptors} | {}", sizes.join(" | "))
}
