//! Decides when a session's memory is measured: after commands and during long ones, at most a few
//! times a second, and without delaying them. It does not know how memory is measured.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Measuring delays the worker by milliseconds, so two measurements are at least this far apart.
const INTERVAL: Duration = Duration::from_millis(250);
/// A long command is measured for the first time after this time.
const FIRST_OF_LONG: Duration = Duration::from_secs(1);
/// The time between further measurements of a long command.
const NEXT_OF_LONG: Duration = Duration::from_secs(5);

/// When to measure, and who waits for a measurement.
pub(super) struct MemoryWatch {
    running: Option<JoinHandle<Option<f64>>>,
    due: Option<Instant>,
    /// The end of the last measurement; before the first, the start of the worker.
    last: Instant,
    waiting: Vec<oneshot::Sender<f64>>,
}

impl MemoryWatch {
    /// A watch over a worker that has just started.
    pub(super) fn new() -> Self {
        Self { running: None, due: None, last: Instant::now(), waiting: Vec::new() }
    }

    /// Requests a measurement soon.
    pub(super) fn ask(&mut self) {
        let earliest = (self.last + INTERVAL).max(Instant::now());
        self.due = Some(self.due.map_or(earliest, |due| due.min(earliest)));
    }

    /// Requests a measurement some seconds from now. Call it repeatedly during a long command.
    pub(super) fn ask_while_computing(&mut self) {
        if self.running.is_some() {
            return;
        }
        let due = (self.last + NEXT_OF_LONG).max(Instant::now() + FIRST_OF_LONG);
        self.due.get_or_insert(due);
    }

    /// When the next measurement is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Registers a receiver of the current or next measurement.
    pub(super) fn tell(&mut self, waiting: oneshot::Sender<f64>) {
        self.waiting.push(waiting);
    }

    /// Starts a measurement, unless one runs.
    pub(super) fn start(
        &mut self,
        measurement: impl Future<Output = Option<f64>> + Send + 'static,
    ) {
        self.due = None;
        if self.running.is_none() {
            self.running = Some(tokio::spawn(measurement));
        }
    }

    /// Waits for the running measurement; for ever if there is none.
    pub(super) async fn measured(&mut self) -> Option<f64> {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let measured = running.await;
        self.running = None;
        measured.ok().flatten()
    }

    /// Sends the measurement, in MiB, to all receivers. Without one their channels are closed.
    pub(super) fn finish(&mut self, measured: Option<f64>) {
        self.last = Instant::now();
        for waiting in self.waiting.drain(..) {
            if let Some(mib) = measured {
                // The client may have gone.
                let _ = waiting.send(mib);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_long_command_is_measured_repeatedly_and_a_short_one_soon() {
        let mut watch = MemoryWatch::new();
        tokio::time::sleep(Duration::from_secs(9)).await;
        let began = Instant::now();
        let mut measured_after = Vec::new();
        while measured_after.len() < 4 {
            watch.ask_while_computing();
            // A second call changes nothing.
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
