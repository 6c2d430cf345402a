//! When a session's memory is measured: after commands and while long ones work, off their path,
//! and not too often. It knows neither how memory is measured nor who is told.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Measuring holds the worker up for milliseconds: so seldom at most.
const INTERVAL: Duration = Duration::from_millis(250);
/// While a long command works, its memory is measured this long after its beginning.
const FIRST_OF_LONG: Duration = Duration::from_secs(1);
/// And so long after the measurement before.
const NEXT_OF_LONG: Duration = Duration::from_secs(5);

/// When to measure, and who waits for a measurement.
pub(super) struct MemoryWatch {
    running: Option<JoinHandle<Option<f64>>>,
    due: Option<Instant>,
    /// The end of the last measurement; at first, the worker's beginning.
    last: Instant,
    waiting: Vec<oneshot::Sender<f64>>,
}

impl MemoryWatch {
    /// For a worker that begins now.
    pub(super) fn new() -> Self {
        Self { running: None, due: None, last: Instant::now(), waiting: Vec::new() }
    }

    /// Wants a measurement soon.
    pub(super) fn ask(&mut self) {
        let earliest = (self.last + INTERVAL).max(Instant::now());
        self.due = Some(self.due.map_or(earliest, |due| due.min(earliest)));
    }

    /// Wants a measurement after some seconds. To be called again and again while a long command
    /// works.
    pub(super) fn ask_while_computing(&mut self) {
        if self.running.is_some() {
            return;
        }
        let due = (self.last + NEXT_OF_LONG).max(Instant::now() + FIRST_OF_LONG);
        self.due.get_or_insert(due);
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
        self.last = Instant::now();
        for waiting in self.waiting.drain(..) {
            if let Some(mib) = measured {
                let _gone = waiting.send(mib);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_long_command_is_measured_again_and_again_and_a_short_one_soon() {
        let mut watch = MemoryWatch::new();
        tokio::time::sleep(Duration::from_secs(9)).await;
        let began = Instant::now();
        let mut measured_after = Vec::new();
        while measured_after.len() < 4 {
            watch.ask_while_computing();
            // As often as the driver likes.
            watch.ask_while_computing();
            tokio::time::sleep_until(watch.due().unwrap()).await;
            watch.start(ready(Some(7.0)));
            watch.ask_while_computing();
            assert_eq!(watch.due(), None, "one at a time");
            let measured = watch.measured().await;
            watch.finish(measured);
            measured_after.push(began.elapsed().as_secs());
        }
        assert_eq!(measured_after, [1, 6, 11, 16]);
        watch.ask_while_computing();
        watch.ask();
        assert_eq!(watch.due().unwrap() - Instant::now(), INTERVAL);
    }
}
