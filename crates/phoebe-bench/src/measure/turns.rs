//! What is compared takes turns, so that all meet the same disturbances, and each begins as often
//! as the others.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::arguments::SampleBudget;
use crate::samples::{Samples, Summary};

/// The same step again and again, by each of the subjects once in each turn; it tells how long what
/// is measured of it took. Turn 0 is there to warm up, and not counted.
pub(super) async fn in_turns<S, const N: usize>(
    subjects: &mut [S; N],
    budget: SampleBudget,
    step: impl AsyncFn(usize, &mut S) -> Result<Duration>,
) -> Result<[Summary; N]> {
    let mut samples = [(); N].map(|()| Samples::of_time());
    for turn in turns(budget) {
        for subject in order(turn, N) {
            let elapsed = step(turn, &mut subjects[subject]).await?;
            if turn > 0 {
                samples[subject].push_time(elapsed);
            }
        }
    }
    summaries(&samples)
}

fn turns(budget: SampleBudget) -> impl Iterator<Item = usize> {
    std::iter::once(0).chain((1..).take_while(move |turn| budget.needs_more(turn - 1)))
}

/// The order of `count` subjects in a turn: the next one begins.
fn order(turn: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |place| (turn + place) % count)
}

fn summaries<const N: usize>(samples: &[Samples; N]) -> Result<[Summary; N]> {
    let all: Option<Vec<Summary>> = samples.iter().map(Samples::summary).collect();
    all.and_then(|all| all.try_into().ok()).context("nothing was measured")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subject_is_once_in_a_turn_and_begins_in_its_turn() {
        let orders: Vec<Vec<usize>> = (0..4).map(|turn| order(turn, 3).collect()).collect();
        assert_eq!(orders, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
    }

    #[test]
    fn without_samples_there_is_no_summary() {
        let mut samples = [(); 2].map(|()| Samples::of_time());
        samples[0].push(1.0);
        assert!(summaries(&samples).is_err());
        samples[1].push(2.0);
        assert_eq!(summaries(&samples).unwrap().map(|summary| summary.p50), [1.0, 2.0]);
    }
}
