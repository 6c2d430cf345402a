//! The writer thread: commits batches, retries failures, and drops records after a while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::batch::{self, Batch};
use super::bounds::Bounds;
use super::database::Database;
use super::health::Health;
use super::queue::{Barrier, Call, Queue, Work};
use super::reader::Reader;
use super::{LogRecord, StoreError};

/// The first pause after a failed attempt. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The writing connection and what it needs.
pub(super) struct Writer {
    path: std::path::PathBuf,
    /// `None` while a deleted database could not be recreated.
    database: Option<Database>,
    queue: Arc<Queue>,
    health: Arc<Health>,
    reader: Arc<Reader>,
    bounds: Bounds,
}

/// Closes the queue when the writer ends, also by a panic, so that waiting callers notice.
struct CloseQueueOnDrop(Arc<Queue>);

impl Drop for CloseQueueOnDrop {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Writer {
    pub(super) fn new(
        database: Database,
        queue: Arc<Queue>,
        health: Arc<Health>,
        reader: Arc<Reader>,
        bounds: Bounds,
    ) -> Self {
        let path = database.path().to_owned();
        Self { path, database: Some(database), queue, health, reader, bounds }
    }

    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let _close = CloseQueueOnDrop(Arc::clone(&self.queue));
        loop {
            match self.queue.take() {
                Work::Calls(calls) => self.answer(calls),
                Work::Batch { records, barrier } => {
                    let barrier = self.keep(records, barrier);
                    self.pass(barrier);
                }
                Work::End => {
                    // The last connection to close folds the write-ahead log into the database. It
                    // must be the writer's.
                    drop(self.reader.shut());
                    return;
                }
            }
        }
    }

    /// Commits `records`, retrying for a limited time. Then drops them, and if a caller waits, all
    /// records before the caller's barrier. Returns the barrier to answer.
    fn keep(&mut self, records: Vec<LogRecord>, barrier: Option<Barrier>) -> Option<Barrier> {
        if records.is_empty() {
            return barrier;
        }
        let batch = Batch::new(records);
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.attempt(|connection| batch.write(connection)) {
                Ok(left_out) => {
                    self.wrote(left_out);
                    return barrier;
                }
                Err(error) => error,
            };
            self.health.report_failure(&error.to_string());
            let is_awaited = barrier.is_some() || self.queue.is_awaited();
            let patience =
                if is_awaited { self.bounds.patience_when_awaited } else { self.bounds.patience };
            if start.elapsed() >= patience {
                self.health.count_lost(batch.records());
                return if is_awaited && barrier.is_none() { self.give_up() } else { barrier };
            }
            let calls = self.queue.pause(pause);
            self.answer(calls);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn wrote(&self, left_out: usize) {
        if left_out > 0 {
            self.health.count_lost(left_out);
            tracing::warn!(
                path = %self.path.display(),
                left_out,
                "log records that violate a constraint of the database were dropped"
            );
        }
        if self.queue.has_room() {
            self.health.report_recovery();
        }
    }

    fn give_up(&self) -> Option<Barrier> {
        let (dropped, barrier) = self.queue.drop_records();
        self.health.count_lost(dropped);
        barrier
    }

    // The caller may have gone.
    fn pass(&mut self, barrier: Option<Barrier>) {
        match barrier {
            Some(Barrier::Flush { reply }) => drop(reply.send(())),
            Some(Barrier::CloseStale { reason, reply }) => {
                let closed =
                    self.attempt(|connection| batch::close_stale_sessions(connection, reason));
                let _ = reply.send(closed);
            }
            None => {}
        }
    }

    fn answer(&mut self, calls: Vec<Call>) {
        for call in calls {
            call(self.connection());
        }
    }

    fn attempt<T>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let outcome = work(self.connection()?);
        outcome.map_err(|error| StoreError::from_sqlite(&self.path, &error))
    }

    /// Returns the connection to the file that is now at the path.
    fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        let database = match self.database.take() {
            Some(database) if database.is_in_place() => database,
            Some(database) => {
                tracing::error!(
                    path = %self.path.display(),
                    "the database was deleted or replaced under the running server; its data is \
                     not in the new one"
                );
                self.renew(Some(database))?
            }
            None => self.renew(None)?,
        };
        Ok(&mut self.database.insert(database).connection)
    }

    /// Opens or creates the file at the path. Connections to the old file must be closed first,
    /// because the new file's `-wal` and `-shm` have the same names.
    fn renew(&self, old: Option<Database>) -> Result<Database, StoreError> {
        let mut open = self.reader.shut();
        if let Some(old) = old {
            old.abandon();
        }
        let database = Database::open(&self.path, self.bounds)?;
        open.file = database.identity();
        Ok(database)
    }
}
