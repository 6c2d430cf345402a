//! What a monitoring system is told of sessions and of what they share. It only reads.

use super::shared::Shared;
use super::view::Status;
use crate::metrics::{Metrics, Reading};
use crate::worker::Exit;

/// The cause of a loss where the worker's connection failed and its process lived on.
pub(super) const CONNECTION: &str = "connection";

const STATES: [(Status, &str); 4] = [
    (Status::Starting, "starting"),
    (Status::Awake, "awake"),
    (Status::Asleep, "asleep"),
    (Status::Ended, "ending"),
];

/// Metrics without records.
pub(super) fn new() -> Metrics {
    let causes: Vec<_> = Exit::CLASSES.into_iter().chain([CONNECTION]).collect();
    Metrics::new(&causes)
}

impl Shared {
    /// Everything that is recorded, and the state now, in Prometheus' text format.
    pub(super) async fn metrics_text(&self) -> String {
        let mut reading = Reading::default();
        let mut worker_memory = 0.0;
        let mut statuses = Vec::new();
        for session in self.sessions() {
            let view = session.view.borrow();
            worker_memory += view.mem_used;
            statuses.push(view.status);
        }
        let count = |state| statuses.iter().filter(|status| **status == state).count();
        reading.sessions = STATES.map(|(state, name)| (name, count(state))).into();
        reading.worker_memory = bytes(worker_memory);
        (reading.computing, reading.waiting_for_cores) = self.cores.demand();
        let ports = self.ports.status();
        let (used, foreign) = (ports.reserved.len(), ports.foreign.len());
        let free = self.ports.total().saturating_sub(used + foreign);
        reading.ports = vec![("used", used), ("free", free), ("foreign", foreign)];
        reading.log_backlog = self.store.queued_records();
        reading.log_lost = self.store.lost_records();
        let generations = self.launcher.generations();
        reading.zygote_restarts =
            generations.as_ref().map_or(0, |generations| generations.restarts());
        let store = self.store.clone();
        let files = tokio::task::spawn_blocking(move || {
            (generations.and_then(|generations| generations.memory()), store.size())
        });
        // Without an answer both are left out.
        let (zygote_memory, database_size) = files.await.unwrap_or_default();
        reading.zygote_memory = zygote_memory.map(bytes);
        reading.database_size = database_size;
        self.metrics.text(&reading)
    }
}

fn bytes(mebibytes: f64) -> f64 {
    mebibytes * f64::from(1 << 20)
}
