//! When a session's memory is measured: after commands, off their path, and not too often. It knows neither
//! how memory is measured nor who is told.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Measuring holds the worker up for milliseconds: so seldom at most.
const INTERVAL: Duration = Duration::from_millis(250);

/// When to measure, and who waits for a measurement.
#[derive(Default)]
pub(super) struct MemoryWatch {
    running: Option<JoinHandle<Option<f64>>>,
    due: Option<Instant>,
    last: Option<Instant>,
    waiting: Vec<oneshot::Sender<f64>>,
}

impl MemoryWatch {
    /// Wants a measurement soon.
    pub(super) fn ask(&mut self) {
        let now = Instant::now();
        let earliest = self.last.map_or(now, |last| last + INTERVAL);
        self.due.get_or_insert(earliest.max(now));
    }

    /// When the next measurement shall start.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Somebody who is told the measurement under way, or the next.
    pub(super) fn tell(&mut self, waiting: oneshot::Sender<f64>) {
        self.waiting.push(waiting);
    }

    /// Starts a measurement, unless one is under way.
    pub(super) fn start(
        &mut self,
        measurement: impl Future<Output = Option<f64>> + Send + 'static,
    ) {
        self.due = None;
        if self.running.is_none() {
            self.running = Some(tokio::spawn(measurement));
        }
    }

    /// Waits for the measurement under way; for ever if there is none.
    pub(super) async fn measured(&mut self) -> Option<f64> {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let measured = running.await;
        self.running = None;
        measured.ok().flatten()
    }

    /// Tells everybody who waits, in MiB. Without a measurement they see their channel closed.
    pub(super) fn finish(&mut self, measured: Option<f64>) {
        self.last = Some(Instant::now());
        for waiting in self.waiting.drain(..) {
            if let Some(mib) = measured {
                let _gone = waiting.send(mib);
            }
        }
    }
}
