//! Limits on the store's memory and waiting times.

use std::time::Duration;

/// Limits of the store. A server uses [`Default`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Memory of queued log records in bytes. Further records are dropped.
    pub(crate) queue_bytes: usize,
    /// Records per transaction.
    pub(crate) batch_records: usize,
    /// How long a record waits for others to share its transaction.
    pub(crate) gather: Duration,
    /// SQLite's busy timeout.
    pub(crate) busy_timeout: Duration,
    /// How long a batch is retried before it is dropped.
    pub(crate) patience: Duration,
    /// The same while a caller waits for the batch, as at shutdown.
    pub(crate) patience_when_awaited: Duration,
    /// The most pages of the database; simulates a small disk.
    pub(crate) max_pages: Option<u32>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            queue_bytes: 16 << 20,
            batch_records: 2000,
            gather: Duration::from_millis(50),
            busy_timeout: Duration::from_millis(500),
            patience: Duration::from_secs(30),
            patience_when_awaited: Duration::from_millis(1500),
            max_pages: None,
        }
    }
}
