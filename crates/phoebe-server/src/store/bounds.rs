//! How much the store holds in memory, and how long it waits.

use std::time::Duration;

/// The bounds of the store. [`Default`] is what a server uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Memory that waiting log records may take; those beyond it are dropped.
    pub(crate) queue_bytes: usize,
    /// Records in one transaction.
    pub(crate) batch_records: usize,
    /// How long a record waits for others to share its transaction.
    pub(crate) gather: Duration,
    /// How long SQLite itself waits for a lock.
    pub(crate) busy_timeout: Duration,
    /// How long a batch that cannot be written is kept.
    pub(crate) patience: Duration,
    /// The same while somebody waits for the batch, as at shutdown.
    pub(crate) patience_when_awaited: Duration,
    /// Pages that the database may have, as on a small disk.
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
