//! Raw samples and what is told of them: nearest-rank percentiles, so that every figure is one that
//! was measured.

use std::time::Duration;

use serde::Serialize;

/// What a figure is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Unit {
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
    /// 2²⁰ bytes.
    #[serde(rename = "MiB")]
    Mebibytes,
    /// A number each second.
    #[serde(rename = "1/s")]
    PerSecond,
}

impl Unit {
    /// The unit's sign.
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Mebibytes => "MiB",
            Self::PerSecond => "/s",
        }
    }
}

/// Samples of one quantity, in the order in which they were taken.
#[derive(Debug, Clone)]
pub(crate) struct Samples {
    unit: Unit,
    values: Vec<f64>,
}

impl Samples {
    /// No samples yet.
    pub(crate) fn new(unit: Unit) -> Self {
        Self { unit, values: Vec::new() }
    }

    /// Durations to come, in milliseconds.
    pub(crate) fn of_time() -> Self {
        Self::new(Unit::Milliseconds)
    }

    /// One sample more.
    pub(crate) fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    /// All of others of the same unit more.
    pub(crate) fn extend(&mut self, others: Self) {
        self.values.extend(others.values);
    }

    /// One duration more.
    pub(crate) fn push_time(&mut self, elapsed: Duration) {
        self.push(elapsed.as_secs_f64() * 1e3);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// What is told of them; `None` where there are none.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            sorted.get(rank.saturating_sub(1)).copied()
        };
        Some(Summary {
            unit: self.unit,
            n: sorted.len(),
            min: *sorted.first()?,
            p05: rank(0.05)?,
            p25: rank(0.25)?,
            p50: rank(0.5)?,
            p75: rank(0.75)?,
            p95: rank(0.95)?,
            p99: rank(0.99)?,
            max: *sorted.last()?,
            mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
        })
    }
}

/// Percentiles of some samples.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Summary {
    /// What the figures are measured in.
    pub(crate) unit: Unit,
    /// Number of samples.
    pub(crate) n: usize,
    /// The least.
    pub(crate) min: f64,
    /// 5 % are not greater.
    pub(crate) p05: f64,
    /// 25 % are not greater.
    pub(crate) p25: f64,
    /// The median.
    pub(crate) p50: f64,
    /// 75 % are not greater.
    pub(crate) p75: f64,
    /// 95 % are not greater.
    pub(crate) p95: f64,
    /// 99 % are not greater.
    pub(crate) p99: f64,
    /// The greatest.
    pub(crate) max: f64,
    /// The arithmetic mean.
    pub(crate) mean: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_that_were_taken() {
        let mut samples = Samples::of_time();
        assert!(samples.summary().is_none());
        (1..=200).rev().for_each(|value| samples.push(f64::from(value)));
        let summary = samples.summary().unwrap();
        assert_eq!((summary.n, summary.min, summary.max), (200, 1.0, 200.0));
        assert_eq!((summary.p05, summary.p50, summary.p99), (10.0, 100.0, 198.0));
        assert_eq!(summary.mean, 100.5);
    }

    #[test]
    fn of_a_few_samples_the_99th_percentile_is_the_greatest() {
        let mut samples = Samples::of_time();
        [3.0, 1.0, 2.0].into_iter().for_each(|value| samples.push(value));
        let summary = samples.summary().unwrap();
        assert_eq!((summary.p50, summary.p99), (2.0, 3.0));
    }
}
